"""Lets 3D viewports show footage: textures without lights, seen through the camera, in every workspace.

Importing a scene that the Blender scene is set up for changes all viewports of the file, also in workspaces that are
not shown. Viewports that appear later, with a workspace that is added or an area that is changed, follow while the
Blender scene asks for it (``Scene.ex4d_viewports``); one that is a copy of another, after a split or in a new window,
stays as its original is.
"""

from __future__ import annotations

from collections.abc import Iterator

import bpy

from ..jobs.records import own_scenes
from ..scheduler import scheduler

# Comparing the addresses of all areas of a large file takes less than a tenth of this.
_FOLLOW_SECONDS = 0.0005


class Viewports:
    """The viewports of the open file, to notice new ones.

    Attributes:
        known: identifies those that were there when all were looked at last; None before the first tick in a file,
            whose own viewports stay as they were saved.
        screens: how many screens the file had then.
    """

    def __init__(self) -> None:
        """Start with a file that was just opened."""
        self.known: set[tuple[int, int]] | None = None
        self.screens = 0

    def follow(self) -> None:
        """Set up the viewports that are new since the last tick and no copies.

        Screens that no window shows get none, except with a new workspace, so those that are shown are enough to look
        at in most ticks.
        """
        screens = len(bpy.data.screens)
        if self.known is None or screens != self.screens or not self.known.issuperset(_shown_viewports()):
            self._set_up_new_ones()
            self.screens = screens

    def _set_up_new_ones(self) -> None:
        found = {(screen.session_uid, space.as_pointer()): space for screen, _, space in all_viewports()}
        new = found.keys() - self.known if self.known is not None else ()
        if new and any(follows_footage(scene) for scene in own_scenes()):
            originals = {_look(space) for identity, space in found.items() if identity not in new}
            for identity in new:
                if _look(found[identity]) not in originals:
                    show_footage(found[identity])
                    look_through_camera(found[identity])
        self.known = set(found)


viewports = Viewports()


def _shown_viewports() -> Iterator[tuple[int, int]]:
    """Identifies the viewports that windows show, as `Viewports.known` does."""
    for window in bpy.context.window_manager.windows:
        screen = window.screen
        for area in screen.areas:
            if area.type == "VIEW_3D":
                yield screen.session_uid, area.spaces[0].as_pointer()  # the first space is the active one


def follows_footage(blender_scene: bpy.types.Scene) -> bool:
    """Whether new viewports show the footage of a Blender scene."""
    return blender_scene.ex4d_viewports  # pyright: ignore[reportAttributeAccessIssue]


def show_footage_everywhere(through_camera: bool) -> None:
    """Set up every viewport of the file.

    Args:
        through_camera: whether they also look through the active camera, where they look through none yet.
    """
    for _, _, space in all_viewports():
        show_footage(space)
        if through_camera:
            look_through_camera(space)


def show_footage(space: bpy.types.SpaceView3D) -> None:
    """Let a viewport's Solid view show textures without lights; one in wireframe becomes solid."""
    shading = space.shading
    if shading.type == "WIREFRAME":
        shading.type = "SOLID"
    shading.light, shading.color_type = "FLAT", "TEXTURE"


def look_through_camera(space: bpy.types.SpaceView3D) -> None:
    """Let a viewport look through its camera."""
    view = space.region_3d
    if view is not None and view.view_perspective != "CAMERA":
        view.view_perspective = "CAMERA"


def shows_footage(space: bpy.types.SpaceView3D) -> bool:
    """Whether a viewport's Solid view shows textures without lights."""
    return (space.shading.light, space.shading.color_type) == ("FLAT", "TEXTURE")


def all_viewports() -> Iterator[tuple[bpy.types.Screen, int, bpy.types.SpaceView3D]]:
    """Screen, number of the area, and space of each 3D viewport of the file, shown or not."""
    for screen in bpy.data.screens:
        for number, area in enumerate(screen.areas):
            if area.type == "VIEW_3D" and isinstance(area.spaces.active, bpy.types.SpaceView3D):
                yield screen, number, area.spaces.active


def _look(space: bpy.types.SpaceView3D) -> tuple[object, ...]:
    """What a copy of a viewport has in common with it."""
    view, shading = space.region_3d, space.shading
    where = (
        () if view is None else (*view.view_location, *view.view_rotation, view.view_distance, view.view_perspective)
    )
    return *where, shading.type, shading.light, shading.color_type, space.lens, space.clip_end


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    viewports.known = None


HANDLERS = (("load_post", _after_load),)
PROPERTIES = (
    (
        bpy.types.Scene,
        "ex4d_viewports",
        bpy.props.BoolProperty(
            name="New Viewports Too",
            description="Workspaces and 3D viewports that are opened later show the footage through the camera",
            default=False,
        ),
    ),
)


def register() -> None:
    """Look for new viewports in every tick."""
    viewports.known = None
    scheduler.every_tick(viewports.follow, _FOLLOW_SECONDS)

"""Matches a Blender scene to an imported scene's footage: frame rate, size, range, camera, view transform, viewports.

A new file is set up with the import. In any other the Scene panel lists what differs, and the artist chooses; Undo
brings everything back, the look of viewports included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_

from ..blender_types import BlenderScene, Context, Operator, ops
from ..errors import reports_errors
from ..scheduler import scheduler
from .link import EX4D_SceneLink, NeedsScene, chosen_scene_object, link_of
from .viewports import all_viewports, show_footage_everywhere, shows_footage

Setting = Literal["frame_rate", "resolution", "frame_range", "camera", "view_transform", "viewports"]
SETTINGS: dict[Setting, str] = {
    "frame_rate": mark_("Frame Rate"),
    "resolution": mark_("Resolution"),
    "frame_range": mark_("Frame Range"),
    "camera": mark_("Active Camera"),
    "view_transform": mark_("View Transform"),
    "viewports": mark_("Viewports"),
}
# The view transform under which footage looks as filmed.
_STANDARD = "Standard"


@dataclass(frozen=True)
class Difference:
    """What is different from the footage, in words."""

    setting: Setting
    here: str
    footage: str

    def __str__(self) -> str:
        """For people."""
        return f"{iface_(SETTINGS[self.setting])}: {self.here} → {self.footage}"


def differences(blender_scene: BlenderScene, scene_object: bpy.types.Object) -> list[Difference]:
    """What would change if a Blender scene were matched to the footage of an imported scene."""
    link, render = link_of(scene_object), blender_scene.render
    last = link.frame_start + link.frames - 1
    camera, source = blender_scene.camera, link.source_camera
    width, height = link.size
    pairs: dict[Setting, tuple[str, str]] = {
        "frame_rate": (_rate(render.fps, render.fps_base), _rate(link.fps, link.fps_base)),
        "resolution": (
            _size(render.resolution_x, render.resolution_y, render.resolution_percentage, _aspects(render)),
            _size(width, height, 100, tuple(link.pixel_aspect)),
        ),
        "frame_range": (f"{blender_scene.frame_start}–{blender_scene.frame_end}", f"{link.frame_start}–{last}"),
        "camera": (camera.name if camera else iface_("none"), source.name if source else iface_("none")),
        "view_transform": (blender_scene.view_settings.view_transform, _STANDARD),
        "viewports": (iface_("own"), iface_("textured, through the camera"))
        if not all(shows_footage(space) for _, _, space in all_viewports())
        else ("", ""),
    }
    return [Difference(name, here, there) for name, (here, there) in pairs.items() if here != there]


def match_footage(
    blender_scene: BlenderScene, scene_object: bpy.types.Object, settings: Iterable[Setting] = tuple(SETTINGS)
) -> None:
    """Take some settings of a Blender scene from an imported scene's footage."""
    link, render, wanted = link_of(scene_object), blender_scene.render, set(settings)
    if "frame_rate" in wanted:
        render.fps, render.fps_base = link.fps, link.fps_base
    if "resolution" in wanted:
        render.resolution_x, render.resolution_y, render.resolution_percentage = *link.size, 100
        render.pixel_aspect_x, render.pixel_aspect_y = link.pixel_aspect
    if "frame_range" in wanted:
        blender_scene.frame_start = link.frame_start
        blender_scene.frame_end = link.frame_start + link.frames - 1
        if not blender_scene.frame_start <= blender_scene.frame_current <= blender_scene.frame_end:
            blender_scene.frame_set(blender_scene.frame_start)
    if "camera" in wanted and link.source_camera is not None:
        blender_scene.camera = link.source_camera
    if "view_transform" in wanted:
        blender_scene.view_settings.view_transform = _STANDARD
    if "viewports" in wanted:
        _before[scene_object.name] = [_Look.of(*one) for one in all_viewports()]
        blender_scene.ex4d_viewports = True
        show_footage_everywhere(through_camera=True)
    link.match = "DONE"


class EX4D_OT_match_footage(NeedsScene, Operator):
    """Take the chosen settings of this Blender scene from the footage; Undo brings them back."""

    bl_idname = "ex4d.match_footage"
    bl_label = "Match Footage"
    bl_options = {"REGISTER", "UNDO"}

    frame_rate: bpy.props.BoolProperty(name=SETTINGS["frame_rate"], default=True)
    resolution: bpy.props.BoolProperty(name=SETTINGS["resolution"], default=True)
    frame_range: bpy.props.BoolProperty(name=SETTINGS["frame_range"], default=True)
    camera: bpy.props.BoolProperty(name=SETTINGS["camera"], default=True)
    view_transform: bpy.props.BoolProperty(
        name=SETTINGS["view_transform"],
        description="Standard, under which footage looks as filmed in Solid view",
        default=True,
    )
    viewports: bpy.props.BoolProperty(
        name=SETTINGS["viewports"],
        description="Let every 3D viewport look through the camera, and Solid view show textures without lights",
        default=False,
    )

    def invoke(self, context: Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self, confirm_text=self.bl_label)

    def draw(self, context: Context) -> None:
        for one in differences(context.scene, chosen_scene_object(context)):
            self.layout.prop(self, one.setting, text=str(one), translate=False)

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        match_footage(context.scene, chosen_scene_object(context), [name for name in SETTINGS if getattr(self, name)])
        if self.view_transform:
            ops.ex4d.match_view()
        return {"FINISHED"}


class EX4D_OT_keep_settings(NeedsScene, Operator):
    """Leave this Blender scene as it is, and do not list the differences again."""

    bl_idname = "ex4d.keep_settings"
    bl_label = "Keep"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> set[str]:
        link_of(chosen_scene_object(context)).match = "KEPT"
        return {"FINISHED"}


def is_asked(link: EX4D_SceneLink) -> bool:
    """Whether the artist has not decided yet what of the footage the Blender scene takes."""
    return link.match == "ASK"


@dataclass(frozen=True)
class _Look:
    """How a 3D viewport looked before; screens are no part of undo, so this is kept here."""

    screen: str
    area: int
    type: str
    light: str
    color_type: str
    perspective: str

    @classmethod
    def of(cls, screen: bpy.types.Screen, area: int, space: bpy.types.SpaceView3D) -> _Look:
        """The look of a viewport."""
        shading, view = space.shading, space.region_3d
        perspective = view.view_perspective if view is not None else ""
        return cls(screen.name, area, shading.type, shading.light, shading.color_type, perspective)

    def restore(self, space: bpy.types.SpaceView3D) -> None:
        """Give it back to the viewport."""
        shading, view = space.shading, space.region_3d
        shading.type, shading.light, shading.color_type = self.type, self.light, self.color_type
        if view is not None and self.perspective:
            view.view_perspective = self.perspective


# By the name of the imported scene that the viewports were set up for.
_before: dict[str, list[_Look]] = {}


def _restore_viewports() -> None:
    """After an undo: give viewports their look back that were set up for a scene which is matched no longer."""
    for name, looks in list(_before.items()):
        matched = bpy.data.objects.get(name)
        if matched is not None and link_of(matched).match == "DONE":
            continue
        del _before[name]
        known = {(one.screen, one.area): one for one in looks}
        for screen, area, space in all_viewports():
            look = known.get((screen.name, area))
            if look is not None and shows_footage(space):
                look.restore(space)


def _rate(fps: int, base: float) -> str:
    return f"{fps / base:.6g}"


def _size(width: int, height: int, percentage: int, aspect: tuple[float, ...]) -> str:
    size = f"{width}x{height}"
    if percentage != 100:
        size += f" ({percentage}%)"
    return size if aspect[0] == aspect[1] else f"{size} ({aspect[0]:.4g}:{aspect[1]:.4g})"


def _aspects(render: Any) -> tuple[float, float]:
    return render.pixel_aspect_x, render.pixel_aspect_y


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _before.clear()


CLASSES = (EX4D_OT_match_footage, EX4D_OT_keep_settings)
HANDLERS = (("load_post", _after_load),)


def register() -> None:
    """Bring the look of viewports back after an undo."""
    scheduler.after_undo(_restore_viewports)

"""The workspace "EX-4D": camera view, sequencer preview, timeline and keys.

Before Blender 5.0 a sequencer shows the scene of its window, which has no takes: an Image Editor and a Graph Editor
take the places of preview and sequencer there.

It is made from the sequencer workspace that comes with every Blender, so that it fits the version, and arranged by
script. Blender changes the editors of a screen only while a window shows it, so that follows when it does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.errors import RequestError

from ..blender_types import Context, Operator, current_context, ops
from ..connection.sidebar import open_tab_in
from ..errors import contained, reports_errors
from ..scenes.camera_frame import fit_camera_frame
from ..scenes.viewports import look_through_camera, show_footage
from ..sequencer.edit_scenes import workspaces_choose_scenes
from .properties import newest_take
from .results import show_result
from .thumbnails import has_frames

WORKSPACE = "EX-4D"
_TEMPLATE = "startup/bl_app_templates_system/Video_Editing"
_TEMPLATE_WORKSPACE = "Video Editing"
# Share of the width for the camera view, which also has the sidebar; the preview has the rest.
_CAMERA_VIEW = 0.65
# Blender shows the workspace in one of its next redraws.
_INTERVAL_SECONDS, _TRIES = 0.1, 100


class EX4D_OT_open_workspace(Operator):
    """Open the workspace EX-4D, and add it if it is not there: camera view, sequencer preview, timeline and keys."""

    bl_idname = "ex4d.open_workspace"
    bl_label = "Open EX-4D Workspace"

    @classmethod
    def poll(cls, context: Context) -> bool:
        if context.window is None:
            cls.poll_message_set(iface_("Use this in a window of Blender"))
            return False
        return True

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        window = context.window
        assert window is not None  # polled
        workspace = bpy.data.workspaces.get(WORKSPACE)
        if workspace is None:
            workspace = add_workspace(window)
            arrange_when_shown(window, workspace)
        window.workspace = workspace
        return {"FINISHED"}


def add_workspace(window: bpy.types.Window) -> bpy.types.WorkSpace:
    """Append the workspace with all of its areas; `arrange` gives them their editors.

    Raises:
        RequestError: this Blender comes without the workspace that it is made from.
    """
    folder = bpy.utils.system_resource("SCRIPTS", path=_TEMPLATE)
    template = Path(folder) / "startup.blend"
    if not folder or not template.is_file():
        raise RequestError("this Blender has no Video Editing template; add a workspace with Add Workspace instead")
    with bpy.data.libraries.load(str(template)) as (_, wanted):
        wanted.workspaces = [_TEMPLATE_WORKSPACE]
    workspace: Any = wanted.workspaces[0]
    if workspace is None:
        raise RequestError(
            "the Video Editing template of this Blender has no such workspace; add one with Add Workspace"
        )
    workspace.name = WORKSPACE
    screen = workspace.screens[0]
    for kind, direction, factor in (("PREVIEW", "VERTICAL", _CAMERA_VIEW), ("SEQUENCER", "HORIZONTAL", 0.5)):
        area = next(one for one in screen.areas if _sequencer_view(one) == kind)
        with current_context().temp_override(window=window, screen=screen, area=area):
            ops.screen.area_split(direction=direction, factor=factor)
    return workspace


def editors_of(screen: bpy.types.Screen) -> dict[bpy.types.Area, str]:
    """The areas of the new workspace that get another editor, with the ``ui_type`` of each.

    The left half of the preview becomes the camera view, the upper half of the sequencer the keys.
    """
    own = {} if workspaces_choose_scenes() else {"PREVIEW": "IMAGE_EDITOR", "SEQUENCER": "FCURVES"}
    previews = sorted((one for one in screen.areas if _sequencer_view(one) == "PREVIEW"), key=lambda one: one.x)
    timelines = sorted((one for one in screen.areas if _sequencer_view(one) == "SEQUENCER"), key=lambda one: one.y)
    files = [one for one in screen.areas if one.type == "FILE_BROWSER"]
    return {
        **{one: own[_sequencer_view(one)] for one in (previews[-1], timelines[0]) if own},
        **{previews[0]: "VIEW_3D", timelines[-1]: "DOPESHEET"},
        **dict.fromkeys(files, "OUTLINER"),
    }


def arrange(screen: bpy.types.Screen) -> bpy.types.Area:
    """Give the areas of the new workspace, which a window shows, their editors; returns the camera view."""
    views = []
    for area, editor in editors_of(screen).items():
        area.ui_type = editor
        space = area.spaces.active
        if isinstance(space, bpy.types.SpaceView3D):
            show_footage(space)
            look_through_camera(space)
            open_tab_in(area)
            views.append(area)
    for area in screen.areas:
        space = area.spaces.active
        if isinstance(space, bpy.types.SpaceSequenceEditor):
            space.show_region_ui = False  # versions are flipped in the header, too
            space.show_region_toolbar = space.view_type != "PREVIEW"
    return views[0]


def arrange_when_shown(window: bpy.types.Window, workspace: bpy.types.WorkSpace) -> None:
    """`arrange` the workspace as soon as the window shows it, and show the newest take as soon as that is drawn."""
    left, views = iter(range(_TRIES)), list[bpy.types.Area]()

    def step() -> float | None:
        context = current_context()
        with contained():
            if window not in context.window_manager.windows[:] or next(left, None) is None:
                return None
            if window.workspace != workspace:
                return _INTERVAL_SECONDS
            if not views:
                views.append(arrange(window.screen))
                return _INTERVAL_SECONDS
            if views[0] in window.screen.areas[:] and not fit_camera_frame(views[0], context.scene):
                return _INTERVAL_SECONDS
            take = newest_take(context.scene)
            if take is not None and has_frames(take):
                show_result(context, take)
                _fit_previews(window)
        return None

    bpy.app.timers.register(step, first_interval=_INTERVAL_SECONDS)


def _fit_previews(window: bpy.types.Window) -> None:
    """Show the whole image in the sequencer's preview, whose room has changed."""
    for area in window.screen.areas:
        region = next((one for one in area.regions if one.type == "PREVIEW"), None)
        if _sequencer_view(area) == "PREVIEW" and region is not None:
            with current_context().temp_override(window=window, area=area, region=region):
                if ops.sequencer.view_all_preview.poll():
                    ops.sequencer.view_all_preview()


def _sequencer_view(area: bpy.types.Area) -> str:
    space = area.spaces.active
    return space.view_type if isinstance(space, bpy.types.SpaceSequenceEditor) else ""


CLASSES = (EX4D_OT_open_workspace,)

"""Sidebar: passes of the active shot, below the Take panel; only where the scene has more than 8 bits."""

from __future__ import annotations

from functools import lru_cache

import bpy

from ex4d_core.plain_text import plain_line
from ex4d_core.remote_job import JobState
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError

from ..blender_types import Context, Panel, SidebarPanel
from ..connection.panel import BOX_MARGIN, draw_problem, draw_text
from ..jobs.progress import paused_text, progress_text, state_icon, state_text
from ..jobs.tracker import can_cancel, can_resume, can_retry
from ..paths import from_blend
from ..projects.deletion import EX4D_OT_delete_passes_files
from ..scenes.link import link_of
from ..shots.objects import shot_objects
from ..shots.properties import active_shot
from ..takes.panel import EX4D_PT_take
from .operators import (
    EX4D_OT_cancel_passes,
    EX4D_OT_forget_passes,
    EX4D_OT_place_passes,
    EX4D_OT_resume_passes,
    EX4D_OT_retry_passes,
    EX4D_OT_send_passes,
)
from .properties import EX4D_Passes, passes_name


class EX4D_PT_passes(SidebarPanel, Panel):
    """Passes of the active shot."""

    bl_label = "Passes"
    bl_parent_id = EX4D_PT_take.__name__
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 2

    @classmethod
    def poll(cls, context: Context) -> bool:
        return bool(deep_space(shot_objects(context)[0])) or len(context.scene.ex4d_passes) > 0

    def draw(self, context: Context) -> None:
        layout, shot = self.layout, active_shot(context.scene)
        space = deep_space(shot_objects(context)[0])
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(shot, "output_space", placeholder=plain_line(space))
        layout.prop(shot, "use_motion")
        layout.prop(shot, "use_exr")
        layout.operator(EX4D_OT_send_passes.bl_idname, icon="NODE_COMPOSITING")
        for record in reversed(context.scene.ex4d_passes):
            _draw_passes(layout.box().column(), record, context)


def deep_space(scene_object: bpy.types.Object | None) -> str:
    """Colour space of the half floats of an imported scene; "" where it has none, or its folder is missing."""
    if scene_object is None:
        return ""
    try:
        return _space_of(link_of(scene_object).folder and str(from_blend(link_of(scene_object).folder)))
    except SceneError:
        return ""


@lru_cache(maxsize=64)
def _space_of(folder: str) -> str:
    """Read once for all redraws."""
    manifest = Scene.open(folder).manifest
    return manifest.color_space if manifest.is_deep else ""


def _draw_passes(layout: bpy.types.UILayout, record: EX4D_Passes, context: Context) -> None:
    """Two rows in every state, so that no button moves when passes are done."""
    row = layout.row(align=True)
    row.label(text=passes_name(record), translate=False, icon=state_icon(record))
    under_way = can_cancel(record)
    for operator, icon, enabled in (
        (EX4D_OT_place_passes, "NODETREE", record.state == JobState.DONE),
        (EX4D_OT_resume_passes, "PLAY", can_resume(record)),
        (EX4D_OT_retry_passes, "FILE_REFRESH", can_retry(record)),
        (EX4D_OT_cancel_passes, "CANCEL", under_way),
        (EX4D_OT_forget_passes, "X", not under_way),
        (EX4D_OT_delete_passes_files, "TRASH", not under_way),
    ):
        place = row.row(align=True)
        place.enabled = enabled
        place.operator(operator.bl_idname, text="", icon=icon).key = record.key
    text = progress_text(record) if under_way else state_text(record)
    layout.progress(factor=record.progress if under_way else 1.0, type="BAR", text=text)
    if record.state in (JobState.FAILED, JobState.STOPPED) and record.reason:
        draw_problem(layout, record.reason, context, margin=BOX_MARGIN)
    elif text := paused_text(record) or record.reason:
        draw_text(layout, text, context, "INFO", margin=BOX_MARGIN)


CLASSES = (EX4D_PT_passes,)

"""Side bar: the shot to make, and the takes made of it."""

from __future__ import annotations

import bpy

from ..connection.panel import CATEGORY, draw_text
from .operators import (
    EX4D_OT_cancel_take,
    EX4D_OT_forget_take,
    EX4D_OT_resume_take,
    EX4D_OT_send_take,
    can_cancel,
    can_resume,
)
from .properties import EX4D_Take

_ICONS = {"done": "CHECKMARK", "failed": "ERROR", "stopped": "ERROR", "cancelled": "X", "running": "PLAY"}


class EX4D_PT_take(bpy.types.Panel):
    bl_label = "Take"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY
    bl_order = 3

    def draw(self, context: bpy.types.Context) -> None:
        layout, shot = self.layout, context.scene.ex4d_shot
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(shot, "label")
        layout.prop(shot, "use_range")
        if shot.use_range:
            column = layout.column(align=True)
            column.prop(shot, "frame_start")
            column.prop(shot, "frame_end", text="Last")
        layout.prop(shot, "holes")
        if shot.holes == "mark":
            layout.prop(shot, "hole_color")
        layout.operator(EX4D_OT_send_take.bl_idname, icon="RENDER_ANIMATION")
        if not context.blend_data.filepath:
            draw_text(layout, "This file is not saved: takes go to the add-on's folder", context, "INFO")
        for entry in reversed(context.scene.ex4d_takes):
            _draw_take(layout.box(), entry, context)


def _draw_take(layout: bpy.types.UILayout, entry: EX4D_Take, context: bpy.types.Context) -> None:
    row = layout.row(align=True)
    row.label(text=f"{entry.label}: {entry.state}", icon=_ICONS.get(entry.state, "SORTTIME"))
    if can_resume(entry):
        row.operator(EX4D_OT_resume_take.bl_idname, text="", icon="FILE_REFRESH").key = entry.key
    if can_cancel(entry):
        row.operator(EX4D_OT_cancel_take.bl_idname, text="", icon="CANCEL").key = entry.key
        text = f"{entry.stage or 'sending'} {entry.progress:.0%}"
        layout.progress(factor=entry.progress, type="BAR", text=text)
    else:
        row.operator(EX4D_OT_forget_take.bl_idname, text="", icon="TRASH").key = entry.key
    if entry.reason:
        draw_text(layout, entry.reason, context)


CLASSES = (EX4D_PT_take,)

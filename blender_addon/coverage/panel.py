"""Sidebar: coverage of the shot in numbers, and warnings."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..cameras.panel import BelowCamera
from ..connection.panel import draw_text
from ..errors import reports_errors
from ..live.query import note_switch
from ..shots.objects import NeedsShot
from .live_coverage import live_coverage


class EX4D_Coverage(bpy.types.PropertyGroup):
    """How coverage is shown (``Scene.ex4d_coverage``)."""

    live: bpy.props.BoolProperty(
        name="Coverage",
        description="Show the visible fraction of each frame along the timeline, updated with every edit of the "
        "camera; sends the scene to the backend",
        default=False,
        update=note_switch,
    )
    seal: bpy.props.StringProperty(options={"HIDDEN"})


class EX4D_OT_refresh_coverage(NeedsShot, bpy.types.Operator):
    """Read the camera on every frame, whatever animates it, and update the coverage."""

    bl_idname = "ex4d.refresh_coverage"
    bl_label = "Refresh"

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        live_coverage.of(context.scene).refresh(context)
        context.scene.ex4d_coverage.live = True
        return {"FINISHED"}


class EX4D_PT_coverage(BelowCamera, bpy.types.Panel):
    """The shot's coverage in numbers."""

    bl_label = "Coverage"
    bl_order = 0
    settings = "ex4d_coverage"

    def draw(self, context: bpy.types.Context) -> None:
        layout, coverage = self.layout, live_coverage.of(context.scene)
        shown = coverage.shown
        layout.active = context.scene.ex4d_coverage.live
        layout.operator(EX4D_OT_refresh_coverage.bl_idname, icon="FILE_REFRESH")
        warning = ""
        if shown is not None and len(shown.seen):
            column = layout.column(align=True)
            now = context.scene.frame_current - shown.frame_start
            row = column.row()
            text = ""
            if 0 <= now < len(shown.seen):
                row.active = bool(shown.fresh[now])
                text = iface_("This frame: {fraction} visible, view angle {angle}°")
                text = text.format(fraction=f"{shown.seen[now]:.0%}", angle=f"{shown.view_angle[now]:.0f}")
            draw_text(row, text, context, lines=2)
            if shown.remembered.any():
                text = iface_("{remembered} in other frames, {never} never seen")
                known = shown.seen + shown.remembered
                here = now if 0 <= now < len(shown.seen) else int(known.argmin())
                text = text.format(remembered=f"{shown.remembered[here]:.0%}", never=f"{1 - known[here]:.0%}")
                draw_text(column, text, context)
            least = int(shown.seen.argmin())
            text = iface_("Least: {fraction} at frame {frame}")
            text = text.format(fraction=f"{shown.seen[least]:.0%}", frame=shown.frame_start + least)
            draw_text(column, text, context)
            warning = shown.warning
        # Room for both, since the panels below stay where they are while the camera is edited.
        draw_text(layout, warning or coverage.problem, context, "ERROR" if warning else "INFO", lines=2)


CLASSES = (EX4D_Coverage, EX4D_OT_refresh_coverage, EX4D_PT_coverage)
PROPERTIES = ((bpy.types.Scene, "ex4d_coverage", bpy.props.PointerProperty(type=EX4D_Coverage)),)

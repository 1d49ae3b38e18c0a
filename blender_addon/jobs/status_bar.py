"""Blender's status bar: jobs under way, and a notice with a button when one has ended."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.remote_job import JobState

from ..blender_types import Context, Operator
from ..connection.session import session
from ..errors import reports_errors
from .notices import dismiss, notices
from .operators import show_reason
from .progress import progress_text
from .records import find_record, records_of
from .tracker import can_cancel, tracker


class EX4D_OT_open_notice(Operator):
    """Show the result, or why there is none."""

    bl_idname = "ex4d.open_notice"
    bl_label = "Show"

    key: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        notice = next((one for one in notices() if one.key == self.key), None)
        dismiss(self.key)
        session().redraw()
        found = find_record(notice.collection, notice.key, context.scene) if notice is not None else None
        if notice is None or found is None:
            self.report({"WARNING"}, "This job is no longer in the file")
            return {"CANCELLED"}
        kind = next(kind for kind in tracker.kinds if kind.collection == notice.collection)
        kind.open_result(context, found[1])
        if notice.failed:
            show_reason(found[1].reason)
        return {"FINISHED"}


class EX4D_OT_dismiss_notice(Operator):
    """Remove this notice; the result stays where it is."""

    bl_idname = "ex4d.dismiss_notice"
    bl_label = "Dismiss"

    key: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: Context) -> set[str]:
        dismiss(self.key)
        session().redraw()
        return {"FINISHED"}


def status_text() -> tuple[str, float]:
    """What is under way in all scenes of the file, and how far that is from 0 to 1; ("", 0) if nothing is."""
    under_way = [(kind, one) for kind in tracker.kinds for _, one in records_of(kind.collection) if can_cancel(one)]
    if not under_way:
        return "", 0.0
    kind, first = next((one for one in under_way if one[1].state == JobState.RUNNING), under_way[0])
    more = f" (+{len(under_way) - 1})" if len(under_way) > 1 else ""
    text = progress_text(first, getattr(first, "engine", ""))
    return f"EX-4D {kind.title(first)}: {text}{more}", first.progress


def _draw(header: Any, context: Context) -> None:
    row = header.layout.row(align=True)
    text, progress = status_text()
    if text:
        row.progress(factor=progress, type="RING", text="")
        row.label(text=text, translate=False)
    for notice in notices()[-1:]:
        row.label(text=notice.text, translate=False, icon="ERROR" if notice.failed else "CHECKMARK")
        label = iface_("Show Why") if notice.failed else iface_("Show Result")
        row.operator(EX4D_OT_open_notice.bl_idname, text=label, translate=False).key = notice.key
        row.operator(EX4D_OT_dismiss_notice.bl_idname, text="", icon="X").key = notice.key


CLASSES = (EX4D_OT_open_notice, EX4D_OT_dismiss_notice)
MENUS = (("STATUSBAR_HT_header", _draw),)

"""Exports the cut of a sequencer."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_rpt as report_

from ..blender_types import Context, ExportHelper, Menu, Operator, classes
from ..errors import reports_errors
from .edit_scenes import cut_scene
from .otio import export_cut
from .strip_api import strips_in


class EX4D_OT_export_cut(ExportHelper, Operator):
    """Export the sequencer's movies, images, sounds, metas and markers, with all versions, for an editing program."""

    bl_idname = "ex4d.export_cut"
    bl_label = "Export Cut as OpenTimelineIO"

    filename_ext = ".otio"
    filter_glob: bpy.props.StringProperty(default="*.otio", options={"HIDDEN"})

    @classmethod
    def poll(cls, context: Context) -> bool:
        editor = cut_scene(context).sequence_editor
        if editor is None or not len(strips_in(editor)):
            cls.poll_message_set(iface_("The sequencer is empty; make a take, or add strips"))
            return False
        return True

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        cut = export_cut(cut_scene(context), Path(self.filepath))
        text = report_("Exported {count} strips to {path}").format(count=cut.clips, path=self.filepath)
        if cut.left_out:
            self.report({"WARNING"}, text + ". " + report_("Left out: {what}").format(what=cut.left_out_text()))
        else:
            self.report({"INFO"}, text)
        return {"FINISHED"}


def _menu_entry(menu: Menu, context: Context) -> None:
    menu.layout.operator(EX4D_OT_export_cut.bl_idname, text="Cut as OpenTimelineIO (.otio)")


CLASSES = (EX4D_OT_export_cut,)


def register() -> None:
    """Add the File > Export entry."""
    classes.TOPBAR_MT_file_export.append(_menu_entry)


def unregister() -> None:
    """Remove the File > Export entry."""
    classes.TOPBAR_MT_file_export.remove(_menu_entry)

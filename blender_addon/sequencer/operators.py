"""Operators on the cut."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_rpt as report_
from bpy_extras.io_utils import ExportHelper

from ..errors import reports_errors
from .otio import export_cut
from .versions import strips_in


def _cut_scene(context: bpy.types.Context) -> bpy.types.Scene:
    """The scene whose sequencer is open: from Blender 5.0 on a workspace may show another scene's than its own."""
    return getattr(context, "sequencer_scene", None) or context.scene


class EX4D_OT_export_cut(bpy.types.Operator, ExportHelper):
    bl_idname = "ex4d.export_cut"
    bl_label = "Export Cut as OpenTimelineIO"
    bl_description = "Write the sequencer's movies and pictures, with their places and versions, for an editing program"

    filename_ext = ".otio"
    filter_glob: bpy.props.StringProperty(default="*.otio", options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        editor = _cut_scene(context).sequence_editor
        if editor is None or not len(strips_in(editor)):
            cls.poll_message_set(iface_("There is no cut yet: make a take, or add strips in the Video Sequencer"))
            return False
        return True

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        count = export_cut(_cut_scene(context), Path(self.filepath))
        self.report({"INFO"}, report_("{count} strips written to {path}").format(count=count, path=self.filepath))
        return {"FINISHED"}


def _menu_entry(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    menu.layout.operator(EX4D_OT_export_cut.bl_idname, text="Cut as OpenTimelineIO (.otio)")


CLASSES = (EX4D_OT_export_cut,)


def register() -> None:
    bpy.types.TOPBAR_MT_file_export.append(_menu_entry)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_export.remove(_menu_entry)

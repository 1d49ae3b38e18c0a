"""Sidebar: offers to move files that lie elsewhere into the project."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import SidebarPanel
from ..connection.panel import draw_text
from ..translations import CONTEXT
from .contents import folders_to_move
from .operators import EX4D_OT_move_into_project, EX4D_OT_rescue_files, former_work


class EX4D_PT_project(SidebarPanel, bpy.types.Panel):
    """Files that are not where they should be."""

    bl_label = "Project"
    bl_translation_context = CONTEXT
    bl_order = 8

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return bool(former_work() or folders_to_move())

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        if found := former_work():
            text = iface_(
                "{count} scenes and takes of an earlier version lie in the add-on's folder, which Blender deletes with "
                "the extension"
            )
            draw_text(layout, text.format(count=len(found)), context, "ERROR")
            layout.operator(EX4D_OT_rescue_files.bl_idname, icon="FILE_FOLDER")
        if found := folders_to_move():
            text = iface_("{count} scenes and takes of this file lie in {place}, since it was not saved at that time")
            text = text.format(count=len(found), place=found[0].folder.parent.parent)
            draw_text(layout, text, context, "INFO")
            layout.operator(EX4D_OT_move_into_project.bl_idname, icon="FILE_FOLDER")


CLASSES = (EX4D_PT_project,)

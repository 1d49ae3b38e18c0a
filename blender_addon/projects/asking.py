"""Asks for the project folder when an operator is about to put the first files of an unsaved .blend there."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import Context, OperatorMixin
from ..connection.panel import DIALOG_WIDTH, draw_lines
from .folders import choose_project_folder, chosen_project_folder, project_folder


class AsksForProjectFolder(OperatorMixin):
    """An operator that puts files into the project folder, and asks for it while the file is unsaved, once.

    Its ``execute`` calls `use_project_folder` first. Called from a script it does not ask.
    """

    project_folder: bpy.props.StringProperty(
        name="Project Folder",
        description="Folder for scenes and takes of files that are not saved; saved files keep theirs beside them",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )

    def invoke(self, context: Context, event: bpy.types.Event) -> set[str]:
        if not must_ask():
            return self.execute(context)
        self.project_folder = str(project_folder())
        return context.window_manager.invoke_props_dialog(
            self, width=DIALOG_WIDTH, title=iface_("Project Folder"), confirm_text=self.bl_label
        )

    def draw(self, context: Context) -> None:
        draw_lines(self.layout, iface_("This file is not saved. Where should scenes and takes go?"), DIALOG_WIDTH)
        self.layout.prop(self, "project_folder", text="")
        draw_lines(self.layout, iface_("When you save the file, you can move them beside it."), DIALOG_WIDTH)

    def use_project_folder(self) -> None:
        """Remember what the artist answered.

        Raises:
            OSError: the folder cannot be created.
        """
        if self.project_folder:
            choose_project_folder(Path(bpy.path.abspath(self.project_folder)))


def must_ask() -> bool:
    """Whether the artist has to be asked for a project folder: the file has none, and none was chosen yet."""
    return not bpy.data.filepath and chosen_project_folder() is None

"""Moves files into the project: beside a .blend that was just saved, and out of the folder of the extension."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_rpt as report_

from ..blender_types import Context, Operator, current_context, ops
from ..connection.panel import DIALOG_WIDTH, draw_lines
from ..connection.session import session
from ..errors import reports_errors
from ..scheduler import scheduler
from ..undo_steps import add_undo_step
from .contents import UsedFolder, folders_to_move, used_folders
from .disk import files_of, work_in
from .folders import former_folders, project_folder
from .moving import move_all, move_folder

_former_work: list[UsedFolder] = []
_was_unsaved = False


class EX4D_OT_move_into_project(Operator):
    """Move scenes and takes that were made before this file was saved into folders beside it, and save the file."""

    bl_idname = "ex4d.move_into_project"
    bl_label = "Move into Project"

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not bpy.data.filepath:
            cls.poll_message_set(iface_("Save the file first, in the folder of the project"))
            return False
        return True

    def invoke(self, context: Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self, width=DIALOG_WIDTH, confirm_text=iface_("Move"))

    def draw(self, context: Context) -> None:
        folders = [one.folder for one in folders_to_move()]
        text = iface_("{count} scenes and takes ({files}) lie in {place}.")
        place = folders[0].parent.parent if folders else project_folder()
        draw_lines(self.layout, text.format(count=len(folders), files=files_of(folders), place=place), DIALOG_WIDTH)
        text = iface_("Move them beside {blend}? The file is saved again with their new places.")
        draw_lines(self.layout, text.format(blend=Path(bpy.data.filepath).name), DIALOG_WIDTH)

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        folders = folders_to_move()
        project = Path(bpy.data.filepath).parent
        try:
            count = move_all(folders, project)
        finally:  # those that have been moved are saved with their new places
            add_undo_step("Move into Project")
            ops.wm.save_mainfile()
        session().redraw()
        text = report_("{count} scenes and takes moved to {project}")
        self.report({"INFO"}, text.format(count=count, project=project))
        return {"FINISHED"}


class EX4D_OT_rescue_files(Operator):
    """Move scenes and takes that an earlier version put into the add-on's own folder to the project folder.

    Blender deletes the add-on's folder when the extension is uninstalled.
    """

    bl_idname = "ex4d.rescue_files"
    bl_label = "Move to Project Folder"

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        used = {one.folder: one for one in used_folders()}
        found = former_work()
        count = move_all((one for one in found if one.folder in used), project_folder())
        for one in found:
            if one.folder not in used:
                move_folder(one.folder, one.kind, project_folder())
                count += 1
        look_for_former_work()
        if used:
            add_undo_step("Move to Project Folder")
        text = report_("{count} scenes and takes moved to {project}")
        self.report({"INFO"}, text.format(count=count, project=project_folder()))
        return {"FINISHED"}


def former_work() -> list[UsedFolder]:
    """Scenes and takes that an earlier version left in folders of the add-on; looked for when the add-on starts."""
    return _former_work


def look_for_former_work() -> None:
    """Look again."""
    _former_work[:] = work_in(former_folders())


def _offer_to_move() -> None:
    """Ask whether files move beside the .blend that was just saved."""
    if folders_to_move():  # another file may be open by now
        with current_context().temp_override(window=current_context().window_manager.windows[0]):
            ops.ex4d.move_into_project("INVOKE_DEFAULT")


@bpy.app.handlers.persistent
def _before_save(*_: object) -> None:
    global _was_unsaved
    _was_unsaved = not bpy.data.filepath


@bpy.app.handlers.persistent
def _after_save(target: str, *_: object) -> None:
    first = _was_unsaved and target == bpy.data.filepath
    # Without a window a dialog asks nobody: its operator would run at once.
    if first and not bpy.app.background and current_context().window_manager.windows and folders_to_move():
        scheduler.run_when_idle(_offer_to_move)


CLASSES = (EX4D_OT_move_into_project, EX4D_OT_rescue_files)
HANDLERS = (("save_pre", _before_save), ("save_post", _after_save))


def register() -> None:
    """Find out whether an earlier version left something."""
    look_for_former_work()

"""Operators that delete files of takes and scenes; each says how many files and how many MB before it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_
from bpy.app.translations import pgettext_rpt as report_

from ex4d_core.errors import RequestError

from ..blender_types import Context, Operator, OperatorMixin
from ..connection.panel import DIALOG_WIDTH, draw_lines
from ..connection.session import session
from ..errors import reports_errors
from ..jobs.records import find_copies, own_scenes
from ..jobs.tracker import can_cancel, tracker
from ..passes.pass_jobs import FollowedPasses
from ..passes.properties import PASSES
from ..paths import from_blend, in_words
from ..scenes.link import NeedsScene, chosen_scene_object, link_of
from ..sequencer.strip_api import strips_in
from ..sequencer.strips import strips_of_take
from ..takes.properties import TAKES
from ..takes.take_jobs import FollowedTake, forget_take
from .disk import Files, delete, files_of, old_work, unsaved_work
from .folders import project_folder


class DeletesFiles(OperatorMixin):
    """An operator that says which files it deletes, and asks."""

    def files(self, context: Context) -> Files:
        """What it deletes.

        Raises:
            RequestError: there is nothing to delete.
        """
        raise NotImplementedError

    def consequence(self) -> str:
        """What else happens, for people."""
        raise NotImplementedError

    def work(self, context: Context) -> None:
        """Change the open file before the files are deleted."""

    def invoke(self, context: Context, event: bpy.types.Event) -> set[str]:
        return self._ask(context)

    @reports_errors
    def _ask(self, context: Context) -> set[str]:
        files = self.files(context)
        place = files.folders[0] if len(files.folders) == 1 else files.folders[0].parent
        text = iface_("Delete {files} in {place}?").format(files=files, place=place)
        self._lines = (text, iface_(self.consequence()), iface_("Deleted files cannot be restored by Undo."))
        return context.window_manager.invoke_props_dialog(
            self, width=DIALOG_WIDTH, confirm_text=self.bl_label, cancel_default=True
        )

    def draw(self, context: Context) -> None:
        for line in self._lines:
            draw_lines(self.layout, line, DIALOG_WIDTH)

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        files = self.files(context)
        self.work(context)
        delete(files)
        self.report({"INFO"}, report_("{files} deleted").format(files=files))
        session().redraw()
        return {"FINISHED"}


class EX4D_OT_delete_take_files(DeletesFiles, Operator):
    """Delete the files of this take, its strips, and its entry in the list; says how many files, and asks."""

    bl_idname = "ex4d.delete_take_files"
    bl_label = "Delete Files"
    bl_options = {"UNDO"}

    key: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def consequence(self) -> str:
        return mark_("The take leaves the list, and its strips the sequencer.")

    def files(self, context: Context) -> Files:
        record = self._records()[0][1]
        if can_cancel(record):
            raise RequestError(f"the take {record.label!r} is under way; cancel it first")
        return _require_files(files_of([from_blend(record.folder)]), from_blend(record.folder))

    def work(self, context: Context) -> None:
        for blender_scene, record in self._records():
            forget_take(blender_scene, record)
        for blender_scene in own_scenes():
            for strip in strips_of_take(blender_scene, self.key):
                strips_in(strip.parent_meta() or blender_scene.sequence_editor).remove(strip)

    def _records(self) -> list[tuple[bpy.types.Scene, Any]]:
        found = find_copies(TAKES, self.key)
        if not found:
            raise RequestError("this take is no longer in the file; nothing was deleted")
        return found


class EX4D_OT_delete_passes_files(DeletesFiles, Operator):
    """Delete the files of these passes, and their entry in the list; says how many files, and asks."""

    bl_idname = "ex4d.delete_passes_files"
    bl_label = "Delete Files"
    bl_options = {"UNDO"}

    key: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def consequence(self) -> str:
        return mark_("The passes leave the list; their node stays in the compositor.")

    def files(self, context: Context) -> Files:
        record = self._records()[0][1]
        if can_cancel(record):
            raise RequestError(f"the passes of {record.label!r} are under way; cancel them first")
        return _require_files(files_of([from_blend(record.folder)]), from_blend(record.folder))

    def work(self, context: Context) -> None:
        for blender_scene, record in self._records():
            tracker.forget(blender_scene, record)

    def _records(self) -> list[tuple[bpy.types.Scene, Any]]:
        found = find_copies(PASSES, self.key)
        if not found:
            raise RequestError("these passes are no longer in the file; nothing was deleted")
        return found


class EX4D_OT_delete_scene_files(DeletesFiles, NeedsScene, Operator):
    """Delete the files of this scene and its mesh; cameras and takes stay. Says how many files, and asks."""

    bl_idname = "ex4d.delete_scene_files"
    bl_label = "Delete Files"
    bl_options = {"UNDO"}

    def consequence(self) -> str:
        return mark_("The mesh leaves this file; cameras and takes stay. Other files that show the scene lose it.")

    def files(self, context: Context) -> Files:
        scene_object = chosen_scene_object(context)
        if scene_object.library is not None:
            raise RequestError(f"{scene_object.name!r} is linked from another file; open that to delete its files")
        digest = link_of(scene_object).digest
        for followed in tracker.followed.values():
            if not isinstance(followed, FollowedTake | FollowedPasses) or followed.over:
                continue
            if followed.job.request.scene == digest:
                raise RequestError("a take of this scene is under way, and may still have to send it; cancel it first")
        folder = from_blend(link_of(scene_object).folder)
        return _require_files(files_of([folder]), folder)

    def work(self, context: Context) -> None:
        folder = from_blend(link_of(chosen_scene_object(context)).folder)
        for candidate in list(bpy.data.objects):
            link = link_of(candidate)
            if candidate.library is None and link.digest and from_blend(link.folder) == folder:
                bpy.data.objects.remove(candidate)


class EX4D_OT_delete_old_files(DeletesFiles, Operator):
    """Delete scenes and takes of unsaved files, except those of the open file; says how many files, and asks."""

    bl_idname = "ex4d.delete_old_files"
    bl_label = "Delete Files"

    def consequence(self) -> str:
        return mark_("Files that were saved elsewhere, and still show scenes and takes from here, lose them.")

    def files(self, context: Context) -> Files:
        return _require_files(files_of(old_work()), project_folder())

    def work(self, context: Context) -> None:
        context.window_manager.ex4d_files_on_disk = ""


class EX4D_OT_measure_files(Operator):
    """Measure how much disk space scenes and takes of unsaved files use."""

    bl_idname = "ex4d.measure_files"
    bl_label = "Measure"

    @reports_errors
    def execute(self, context: Context) -> set[str]:
        everything, old = files_of(unsaved_work()), files_of(old_work())
        text = report_("{count} scenes and takes, {size}; {old} of them can be deleted")
        text = text.format(count=len(everything.folders), size=in_words(everything.bytes), old=len(old.folders))
        self.report({"INFO"}, text)
        context.window_manager.ex4d_files_on_disk = text
        return {"FINISHED"}


def _require_files(files: Files, place: Path) -> Files:
    if not files.folders:
        raise RequestError(f"{place} holds no scene and no take, so there is nothing to delete")
    return files


CLASSES = (
    EX4D_OT_delete_take_files,
    EX4D_OT_delete_passes_files,
    EX4D_OT_delete_scene_files,
    EX4D_OT_delete_old_files,
    EX4D_OT_measure_files,
)
PROPERTIES = ((bpy.types.WindowManager, "ex4d_files_on_disk", bpy.props.StringProperty(options={"SKIP_SAVE"})),)

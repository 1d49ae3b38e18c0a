"""Measures takes of unsaved files on disk, and deletes those that no open file needs."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_rpt as report_

from ..connection.preferences import output_folder
from ..jobs.tracker import tracker
from ..paths import from_blend
from .requests import REQUEST_FILE


def take_folders() -> list[Path]:
    """Folders of takes in the preferences' folder; nothing else in it is ever touched."""
    try:
        found = list(output_folder().iterdir())
    except OSError:  # there is none yet, or it may not be read
        return []
    return sorted(one for one in found if one.is_dir() and (one / REQUEST_FILE).is_file())


def old_take_folders() -> list[Path]:
    """Folders that neither the open file nor a job under way needs."""
    needed = {from_blend(take.folder, scene.library) for scene in bpy.data.scenes for take in scene.ex4d_takes}
    needed |= tracker.folders()
    return [one for one in take_folders() if one not in needed]


def size_of(folders: list[Path]) -> int:
    """Bytes of all files in some folders; takes under way write and rename theirs meanwhile."""
    total = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                with suppress(FileNotFoundError):
                    total += os.path.getsize(os.path.join(parent, name))
    return total


def remove_old_takes() -> tuple[int, int]:
    """Delete the takes that nothing here needs; returns how many there were, and their bytes.

    Raises:
        OSError: one cannot be deleted.
    """
    folders = old_take_folders()
    size = size_of(folders)
    for folder in folders:
        shutil.rmtree(folder)
    return len(folders), size


def in_words(size: int) -> str:
    """Bytes as people say it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


class EX4D_OT_clear_takes(bpy.types.Operator):
    """Delete takes of unsaved files from disk, except those of the open file.

    Files that were saved later lose takes that they still show.
    """

    bl_idname = "ex4d.clear_takes"
    bl_label = "Delete Old Takes"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not take_folders():
            cls.poll_message_set(iface_("There are no takes of unsaved files on this disk"))
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            count, size = remove_old_takes()
        except OSError as error:
            self.report(
                {"ERROR"},
                report_("{path} cannot be deleted: {reason}").format(path=error.filename, reason=error.strerror),
            )
            return {"CANCELLED"}
        self.report({"INFO"}, report_("{count} takes deleted, {size}").format(count=count, size=in_words(size)))
        return {"FINISHED"}


class EX4D_OT_measure_takes(bpy.types.Operator):
    """Measure how much disk space takes of unsaved files use."""

    bl_idname = "ex4d.measure_takes"
    bl_label = "Measure"

    def execute(self, context: bpy.types.Context) -> set[str]:
        folders, old = take_folders(), old_take_folders()
        text = report_("{count} takes, {size}; {old} of them can be deleted")
        text = text.format(count=len(folders), size=in_words(size_of(folders)), old=len(old))
        self.report({"INFO"}, text)
        context.window_manager.ex4d_takes_on_disk = text
        return {"FINISHED"}


CLASSES = (EX4D_OT_clear_takes, EX4D_OT_measure_takes)
PROPERTIES = ((bpy.types.WindowManager, "ex4d_takes_on_disk", bpy.props.StringProperty(options={"SKIP_SAVE"})),)

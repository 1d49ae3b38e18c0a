"""Keeps the add-on's own relative paths right when a file is saved in another folder; Blender does so for its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import bpy

from .jobs.records import own_scenes
from .paths import to_blend


def rebase_paths(old_file: str, new_file: str) -> None:
    """Let relative paths that were meant from ``old_file`` mean the same from ``new_file``."""
    old_folder = os.path.dirname(old_file)
    if not old_file or not new_file or old_folder == os.path.dirname(new_file):
        return
    for owner, name in _paths():
        path = getattr(owner, name)
        if path.startswith("//"):
            setattr(owner, name, to_blend(bpy.path.abspath(path, start=old_folder), new_file))


def _paths() -> Iterator[tuple[bpy.types.PropertyGroup, str]]:
    """All of the open file; what is linked means its own file's folder, and so does what overrides it."""
    for candidate in bpy.data.objects:
        if candidate.ex4d_scene.folder and candidate.library is None and candidate.override_library is None:
            yield candidate.ex4d_scene, "folder"
    for scene in own_scenes():
        for entry in (*scene.ex4d_takes, *scene.ex4d_reconstructions):
            yield entry, "folder"
        for name in ("footage", "depth", "camera"):
            yield scene.ex4d_footage, name


@bpy.app.handlers.persistent
def _before_save(target: str, *_: object) -> None:
    rebase_paths(bpy.data.filepath, target)


@bpy.app.handlers.persistent
def _after_save(target: str, *_: object) -> None:
    # After a copy was saved, the open file is still where it was.
    rebase_paths(target, bpy.data.filepath)


HANDLERS = (("save_pre", _before_save), ("save_post", _after_save))

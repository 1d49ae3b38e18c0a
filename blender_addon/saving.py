"""Rebases the add-on's relative paths when a file is saved in another folder, as Blender does its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import bpy

from .jobs.records import own_scenes
from .paths import to_blend
from .scenes.link import link_of


def rebase_paths(old_file: str, new_file: str) -> None:
    """Change relative paths of ``old_file`` so that they name the same files from ``new_file``."""
    old_folder = os.path.dirname(old_file)
    if not old_file or not new_file or old_folder == os.path.dirname(new_file):
        return
    for owner, name in _paths():
        path = getattr(owner, name)
        if path.startswith("//"):
            setattr(owner, name, to_blend(bpy.path.abspath(path, start=old_folder), new_file))


def _paths() -> Iterator[tuple[bpy.types.PropertyGroup, str]]:
    """All paths of the open file; those of linked data and its overrides are relative to the library."""
    for candidate in bpy.data.objects:
        if link_of(candidate).folder and candidate.library is None and candidate.override_library is None:
            yield link_of(candidate), "folder"
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
    # After a copy was saved, the open file still has its old path.
    rebase_paths(target, bpy.data.filepath)


HANDLERS = (("save_pre", _before_save), ("save_post", _after_save))

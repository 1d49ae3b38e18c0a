"""Rebases the add-on's relative paths when a file is saved in another folder, as Blender does its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import bpy

from .jobs.records import own_scenes
from .paths import to_blend
from .scenes.link import link_of


def rebase_paths(old_file: str, new_file: str) -> None:
    """Change paths of ``old_file`` so that they name the same files from ``new_file``.

    As Blender does with its own: relative paths stay relative, and the first save makes all of them so, if the
    preferences want relative paths.

    Args:
        old_file, new_file: paths of a .blend; "" for the open file before it is saved, where paths are absolute.
    """
    old_folder = os.path.dirname(old_file)
    if old_folder == os.path.dirname(new_file):
        return
    first = not old_file and bpy.context.preferences.filepaths.use_relative_paths
    for owner, name in own_paths():
        path = getattr(owner, name)
        if path.startswith("//") or (path and first):
            setattr(owner, name, to_blend(bpy.path.abspath(path, start=old_folder), new_file))


def own_paths() -> Iterator[tuple[bpy.types.PropertyGroup, str]]:
    """All paths of the open file; those of linked data and its overrides are relative to the library."""
    for candidate in bpy.data.objects:
        if link_of(candidate).folder and candidate.library is None and candidate.override_library is None:
            yield link_of(candidate), "folder"
    for scene in own_scenes():
        for entry in (*scene.ex4d_takes, *scene.ex4d_passes, *scene.ex4d_reconstructions):
            yield entry, "folder"
        for name in ("footage", "depth", "camera"):
            yield scene.ex4d_footage, name


@bpy.app.handlers.persistent
def _before_save(target: str, *_: object) -> None:
    rebase_paths(bpy.data.filepath, target)


@bpy.app.handlers.persistent
def _after_save(target: str, *_: object) -> None:
    # After a copy was saved, or nothing because the disk is full, the open file still has its old path.
    rebase_paths(target, bpy.data.filepath)


HANDLERS = (("save_pre", _before_save), ("save_post", _after_save), ("save_post_fail", _after_save))

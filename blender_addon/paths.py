"""File paths as a .blend keeps them: relative to it ("//...") once it is saved, absolute before."""

from __future__ import annotations

import os
from pathlib import Path

import bpy

# A property that holds such a path; Blender 4.5 and later ask for it.
PATH_OPTIONS = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()


def to_blend(path: Path | str, blend_file: str | None = None) -> str:
    """A path as text for a .blend: relative to ``blend_file`` (default: the open one) where that is possible."""
    blend_file = bpy.data.filepath if blend_file is None else blend_file
    absolute = os.path.abspath(path)
    if not blend_file:
        return absolute
    try:
        return bpy.path.relpath(absolute, start=os.path.dirname(blend_file))
    except ValueError:  # another drive
        return absolute


def from_blend(text: str, library: bpy.types.Library | None = None) -> Path:
    """The absolute path that a .blend's text means.

    Args:
        library: the .blend that it is linked from, whose folder "//" stands for then; None for the open one.
    """
    return Path(os.path.abspath(bpy.path.abspath(text, library=library)))

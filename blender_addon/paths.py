"""File paths in a .blend: relative to it ("//...") once it is saved, absolute before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bpy

# Options of a property that holds such a path; new in Blender 4.5.
PATH_OPTIONS: set[Any] = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()


def to_blend(path: Path | str, blend_file: str | None = None) -> str:
    """A path for a .blend: relative to ``blend_file`` (default: the open one) if possible."""
    blend_file = bpy.data.filepath if blend_file is None else blend_file
    absolute = os.path.abspath(path)
    if not blend_file:
        return absolute
    try:
        return bpy.path.relpath(absolute, start=os.path.dirname(blend_file))
    except ValueError:  # another drive
        return absolute


def from_blend(text: str, library: bpy.types.Library | None = None) -> Path:
    """The absolute path of a path in a .blend.

    Args:
        text: the path.
        library: the .blend that "//" refers to; None for the open one.
    """
    return Path(os.path.abspath(bpy.path.abspath(text, library=library)))


def in_words(size: int) -> str:
    """Bytes as people say it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"

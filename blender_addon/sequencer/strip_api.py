"""One set of names for Blender's strips: 4.4 renamed the lists of strips, 5.2 renamed their frames.

The older names will go in Blender 6.0. All other code reads and sets strips with these functions.
"""

from __future__ import annotations

from typing import Any

import bpy

# An image, movie or effect strip; before Blender 4.4 their classes have other names.
Strip = Any

_IS_CALLED_STRIP = bpy.app.version >= (4, 4, 0)
_HAS_HANDLES = bpy.app.version >= (5, 2, 0)
_START, _END = ("left_handle", "right_handle") if _HAS_HANDLES else ("frame_final_start", "frame_final_end")
_LENGTH = "duration" if _HAS_HANDLES else "frame_final_duration"
_OFFSET = "left_handle_offset" if _HAS_HANDLES else "frame_offset_start"
_CONTENT_LENGTH = "content_duration" if _HAS_HANDLES else "frame_duration"


def strips_in(editor: bpy.types.SequenceEditor) -> Any:
    """The strips of a sequencer, without those in meta strips."""
    return editor.strips if _IS_CALLED_STRIP else getattr(editor, "sequences")  # noqa: B009 - not in today's stubs


def all_strips_in(editor: bpy.types.SequenceEditor) -> Any:
    """Every strip of a sequencer, with those in meta strips."""
    return editor.strips_all if _IS_CALLED_STRIP else getattr(editor, "sequences_all")  # noqa: B009


def start_of(strip: Strip) -> int:
    """The first frame of the scene on which a strip shows."""
    return getattr(strip, _START)


def end_of(strip: Strip) -> int:
    """The frame of the scene after the last one on which a strip shows."""
    return getattr(strip, _END)


def set_end_of(strip: Strip, frame: int) -> None:
    """Let a strip show up to a frame: the rest is cut off, or its last image is held."""
    setattr(strip, _END, frame)


def length_of(strip: Strip) -> int:
    """Duration of a strip in frames of the scene."""
    return getattr(strip, _LENGTH)


def offset_of(strip: Strip) -> float:
    """Frames of a strip's content that are cut off at its start."""
    return getattr(strip, _OFFSET)


def content_length_of(strip: Strip) -> int:
    """Frames of a strip's movie, or its number of images."""
    return getattr(strip, _CONTENT_LENGTH)

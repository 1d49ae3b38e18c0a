"""Blender's sequencer under one set of names: 4.4 renamed where strips are found, 5.2 renamed where they lie.

The older names go in Blender 6.0. Whatever else here works with strips asks these functions.
"""

from __future__ import annotations

import bpy

_IS_CALLED_STRIP = bpy.app.version >= (4, 4, 0)
_HAS_HANDLES = bpy.app.version >= (5, 2, 0)
_BEGIN, _END = ("left_handle", "right_handle") if _HAS_HANDLES else ("frame_final_start", "frame_final_end")
_LENGTH = "duration" if _HAS_HANDLES else "frame_final_duration"
_CUT_OFF = "left_handle_offset" if _HAS_HANDLES else "frame_offset_start"
_CONTENT_LENGTH = "content_duration" if _HAS_HANDLES else "frame_duration"


def strips_in(editor: bpy.types.SequenceEditor):
    """The strips of a sequencer, those in meta strips left out."""
    return editor.strips if _IS_CALLED_STRIP else editor.sequences


def all_strips_in(editor: bpy.types.SequenceEditor):
    """Every strip of a sequencer, those in meta strips too."""
    return editor.strips_all if _IS_CALLED_STRIP else editor.sequences_all


def begin_of(strip: bpy.types.Strip) -> int:
    """The first frame of the scene on which a strip shows."""
    return getattr(strip, _BEGIN)


def end_of(strip: bpy.types.Strip) -> int:
    """The first frame of the scene on which a strip shows no more."""
    return getattr(strip, _END)


def set_end(strip: bpy.types.Strip, frame: int) -> None:
    """Let a strip show up to a frame: what lies behind is cut off, or its last picture stays."""
    setattr(strip, _END, frame)


def length_of(strip: bpy.types.Strip) -> int:
    """Frames of the scene that a strip lasts."""
    return getattr(strip, _LENGTH)


def cut_off_of(strip: bpy.types.Strip) -> float:
    """Frames of a strip's content that are cut off at its begin."""
    return getattr(strip, _CUT_OFF)


def content_length_of(strip: bpy.types.Strip) -> int:
    """Frames of a strip's movie, or its number of pictures."""
    return getattr(strip, _CONTENT_LENGTH)

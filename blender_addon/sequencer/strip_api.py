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
_CONTENT_START = "content_start" if _HAS_HANDLES else "frame_start"
_LENGTH = "duration" if _HAS_HANDLES else "frame_final_duration"
_OFFSET = "left_handle_offset" if _HAS_HANDLES else "frame_offset_start"
_END_OFFSET = "right_handle_offset" if _HAS_HANDLES else "frame_offset_end"
_CONTENT_LENGTH = "content_duration" if _HAS_HANDLES else "frame_duration"


# What strips lie in: a scene's sequence editor, or a meta strip.
Container = Any


def strips_in(container: Container) -> Any:
    """The strips that lie in a sequence editor or meta strip itself, without those in the meta strips among them."""
    return container.strips if _IS_CALLED_STRIP else getattr(container, "sequences")  # noqa: B009 - not in today's stubs


def all_strips_in(editor: bpy.types.SequenceEditor) -> Any:
    """Every strip of a sequencer, with those in meta strips."""
    return editor.strips_all if _IS_CALLED_STRIP else getattr(editor, "sequences_all")  # noqa: B009


def container_of(strip: Strip) -> Container:
    """The meta strip that a strip lies in, or else the sequence editor."""
    return strip.parent_meta() or strip.id_data.sequence_editor


def start_of(strip: Strip) -> int:
    """The first frame of the scene on which a strip shows."""
    return getattr(strip, _START)


def end_of(strip: Strip) -> int:
    """The frame of the scene after the last one on which a strip shows."""
    return getattr(strip, _END)


def set_start_of(strip: Strip, frame: int) -> None:
    """Let a strip show from a frame on: what is before it is cut off."""
    setattr(strip, _START, frame)


def set_end_of(strip: Strip, frame: int) -> None:
    """Let a strip show up to a frame: the rest is cut off, or its last image is held."""
    setattr(strip, _END, frame)


def content_start_of(strip: Strip) -> int:
    """The frame of the scene on which a strip's content starts, also where its start is cut off."""
    return round(getattr(strip, _CONTENT_START))


def set_content_start_of(strip: Strip, frame: int) -> None:
    """Move a strip so that its content starts at a frame."""
    setattr(strip, _CONTENT_START, frame)


def length_of(strip: Strip) -> int:
    """Duration of a strip in frames of the scene."""
    return getattr(strip, _LENGTH)


def offset_of(strip: Strip) -> float:
    """Frames of a strip's content that are cut off at its start."""
    return getattr(strip, _OFFSET)


def end_offset_of(strip: Strip) -> float:
    """Frames of a strip's content that are cut off at its end; below 0 where its last image is held."""
    return getattr(strip, _END_OFFSET)


def content_length_of(strip: Strip) -> int:
    """Frames of a strip's movie, or its number of images."""
    return getattr(strip, _CONTENT_LENGTH)


def inputs_of(effect: Strip) -> list[str]:
    """Names of the properties by which an effect strip refers to the strips that it changes."""
    return [name for name in ("input_1", "input_2") if getattr(effect, name, None) is not None]


def effects_over(strip: Strip) -> list[Strip]:
    """The effect strips that have a strip as an input."""
    return [
        other
        for other in strips_in(container_of(strip))
        if any(getattr(other, name) == strip for name in inputs_of(other))
    ]


def update_effects(strip: Strip) -> None:
    """Let the effects over a strip, and those over them, be as long as it is."""
    set_end_of(strip, end_of(strip))  # Blender does that whenever an end is set


def add_effect(strip: Strip, name: str, kind: str, channel: int, **settings: object) -> Strip:
    """Put an effect strip over a strip, as long as that; its arguments were renamed in Blender 4.4 to 5.0."""
    add = strips_in(container_of(strip)).new_effect
    known = strips_in(container_of(strip)).bl_rna.functions["new_effect"].parameters.keys()
    extent = {"length": length_of(strip)} if "length" in known else {"frame_end": end_of(strip)}
    source = {"input1": strip} if "input1" in known else {"seq1": strip}
    effect = add(name=name, type=kind, channel=channel, frame_start=start_of(strip), **extent, **source)
    effect.select = False
    for setting, value in settings.items():
        setattr(effect, setting, value)
    return effect

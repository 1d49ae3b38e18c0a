"""A take in the Video Sequencer: an image strip that grows while frames arrive, then the movie in its place.

Strips are found again by the take's key, which they carry as a custom property; artists may rename and move them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from ..paths import to_blend
from ..scenes.color_space import tag_as_finished

TAKE_KEY = "ex4d_take"
REQUEST = "ex4d_request"
MAX_CHANNELS = 128


class StripError(RuntimeError):
    """A strip that cannot be made: no free channel, or a file that is not there."""


@dataclass(frozen=True)
class TakeStrip:
    """Where a take belongs in the sequencer.

    Attributes:
        key: of the take.
        label: name of the strip.
        frame_start: Blender frame of the take's first frame.
        frames: of the whole take; room for all of them is kept free.
        request: what was asked for, kept on the strip as JSON.
    """

    key: str
    label: str
    frame_start: int
    frames: int
    request: Mapping[str, Any]


def strips_of(scene: bpy.types.Scene):
    """The strips of a scene's sequencer, which is made if there is none; named ``sequences`` before Blender 4.4."""
    editor = scene.sequence_editor or scene.sequence_editor_create()
    return editor.strips if bpy.app.version >= (4, 4, 0) else editor.sequences


def find_strip(scene: bpy.types.Scene, key: str) -> bpy.types.Strip | None:
    """The strip of a take, or None."""
    if scene.sequence_editor is None:
        return None
    return next((strip for strip in strips_of(scene) if strip.get(TAKE_KEY) == key), None)


def free_channel(scene: bpy.types.Scene, start: int, end: int, besides: bpy.types.Strip | None = None) -> int:
    """The lowest channel on which no strip, ``besides`` apart, touches the frames from ``start`` up to ``end``.

    Raises:
        StripError: all channels are taken.
    """
    taken = {
        strip.channel
        for strip in strips_of(scene)
        if strip != besides and strip.frame_final_start < end and strip.frame_final_end > start
    }
    for channel in range(1, MAX_CHANNELS + 1):
        if channel not in taken:
            return channel
    raise StripError(f"all {MAX_CHANNELS} sequencer channels are taken at frames {start} to {end}; clear one")


def grow_image_strip(scene: bpy.types.Scene, take: TakeStrip, pictures: Mapping[int, Path]) -> bpy.types.Strip | None:
    """Let the take's image strip show every frame from 0 up to the first one that has not arrived.

    Args:
        pictures: files of the frames that have arrived, by index.

    Returns:
        The strip; None while frame 0 is missing. A strip that has become the movie is left alone.

    Raises:
        StripError: there is no free channel for it.
    """
    ready = 0
    while ready in pictures:
        ready += 1
    strip = find_strip(scene, take.key)
    if ready == 0 or (strip is not None and strip.type != "IMAGE"):
        return strip
    if strip is None:
        channel = free_channel(scene, take.frame_start, take.frame_start + take.frames)
        # Blender decodes the picture to make a strip of it (14 ms for the first one), unless it is not there.
        not_there = to_blend(pictures[0].with_name("pending.png"))
        strip = strips_of(scene).new_image(take.label, not_there, channel, take.frame_start, fit_method="ORIGINAL")
        strip.elements[0].filename = pictures[0].name
        _mark(scene, strip, take)
    grown = ready - len(strip.elements)
    if grown > 0:
        end = strip.frame_final_end + grown
        strip.channel = _channel_kept_or_free(scene, strip, end)
        for index in range(len(strip.elements), ready):
            strip.elements.append(pictures[index].name)
        if strip.frame_final_end != end:  # not every version of Blender lets the strip grow along
            strip.frame_final_end = end
    return strip


def replace_with_movie(scene: bpy.types.Scene, take: TakeStrip, movie: Path) -> bpy.types.Strip:
    """Put the finished movie where the take's image strip is, or where it would be.

    Raises:
        StripError: the movie is not there, or no channel is free.
    """
    if not movie.is_file():
        raise StripError(f"{movie} is missing, so the take cannot be shown; fetch it again")
    strip = find_strip(scene, take.key)
    if strip is not None and strip.type == "MOVIE":
        return strip
    start = take.frame_start if strip is None else strip.frame_final_start
    movie_strip = strips_of(scene).new_movie(
        take.label, to_blend(movie), free_channel(scene, start, start + take.frames), start, fit_method="ORIGINAL"
    )
    readable = movie_strip.frame_duration
    if readable < take.frames:  # Blender makes a strip of one frame of what it cannot read
        strips_of(scene).remove(movie_strip)
        raise StripError(f"Blender reads {readable} of {take.frames} frames from {movie}; its frames stay as they are")
    if strip is not None:
        channel = _channel_kept_or_free(scene, strip, start + take.frames, besides=movie_strip)
        strips_of(scene).remove(strip)
        movie_strip.channel = channel
    _mark(scene, movie_strip, take)
    return movie_strip


def _mark(scene: bpy.types.Scene, strip: bpy.types.Strip, take: TakeStrip) -> None:
    tag_as_finished(scene, strip.colorspace_settings)
    strip.name = take.label
    strip[TAKE_KEY] = take.key
    strip[REQUEST] = json.dumps(take.request, sort_keys=True)


def _channel_kept_or_free(
    scene: bpy.types.Scene, strip: bpy.types.Strip, end: int, besides: bpy.types.Strip | None = None
) -> int:
    """The strip's own channel if it may reach to ``end`` there, or else a free one (``besides``'s, if there is one)."""
    for other in strips_of(scene):
        if other in (strip, besides) or other.channel != strip.channel:
            continue
        if other.frame_final_start < end and other.frame_final_end > strip.frame_final_start:
            return besides.channel if besides else free_channel(scene, strip.frame_final_start, end, besides=strip)
    return strip.channel

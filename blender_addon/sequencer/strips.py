"""A take in the Video Sequencer: an image strip that grows while frames arrive; `movies` puts the movie in its place.

Strips are found again by the take's key, which they carry as a custom property; artists may rename and move them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from ex4d_core.errors import Ex4dError

from ..paths import to_blend
from ..scenes.color_space import tag_as_finished
from .versions import begin_of, end_of, set_end, strips_in

TAKE_KEY = "ex4d_take"
REQUEST = "ex4d_request"
# On the speed effect that retimes a take's movie: the take's key.
SPEED_OF = "ex4d_speed_of"
MAX_CHANNELS = 128


class StripError(Ex4dError, RuntimeError):
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
        fps: frames a second at which the take plays right; 0 for one frame of the scene each.
    """

    key: str
    label: str
    frame_start: int
    frames: int
    request: Mapping[str, Any]
    fps: float = 0.0

    def length_in(self, scene: bpy.types.Scene) -> int:
        """Frames of a scene that the whole take lasts, at the scene's rate."""
        speed = self.speed_in(scene)
        return self.frames if speed == 1.0 else max(1, round(self.frames / speed))

    def speed_in(self, scene: bpy.types.Scene) -> float:
        """Frames of the take for each frame of a scene; 1 where the rates are the same."""
        rate = scene.render.fps / scene.render.fps_base
        # Blender keeps its rate as a 32-bit number.
        return 1.0 if not self.fps or abs(self.fps / rate - 1.0) < 1e-5 else self.fps / rate


def strips_of(scene: bpy.types.Scene):
    """The strips of a scene's sequencer, which is made if there is none."""
    return strips_in(scene.sequence_editor or scene.sequence_editor_create())


def find_strip(scene: bpy.types.Scene, key: str, mark: str = TAKE_KEY) -> bpy.types.Strip | None:
    """The strip that bears a take's key as ``mark``, or None."""
    if scene.sequence_editor is None:
        return None
    return next((strip for strip in strips_of(scene) if strip.get(mark) == key), None)


def strips_of_take(scene: bpy.types.Scene, key: str) -> list[bpy.types.Strip]:
    """All strips of a take: its picture, and the speed effect over it if it was retimed."""
    if scene.sequence_editor is None:
        return []
    return [strip for strip in strips_of(scene) if key in (strip.get(TAKE_KEY), strip.get(SPEED_OF))]


def free_channel(scene: bpy.types.Scene, start: int, end: int, besides: bpy.types.Strip | None = None) -> int:
    """The lowest channel on which no strip, ``besides`` apart, touches the frames from ``start`` up to ``end``.

    Raises:
        StripError: all channels are taken.
    """
    taken = {
        strip.channel
        for strip in strips_of(scene)
        if strip != besides and begin_of(strip) < end and end_of(strip) > start
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
        length = max(take.frames, take.length_in(scene))
        channel = free_channel(scene, take.frame_start, take.frame_start + length)
        # Blender decodes the picture to make a strip of it (14 ms for the first one), unless it is not there.
        not_there = to_blend(pictures[0].with_name("pending.png"))
        strip = strips_of(scene).new_image(take.label, not_there, channel, take.frame_start, fit_method="ORIGINAL")
        strip.elements[0].filename = pictures[0].name
        mark_strip(scene, strip, take)
    grown = ready - len(strip.elements)
    if grown > 0:
        end = end_of(strip) + grown
        strip.channel = channel_kept_or_free(scene, strip, end)
        for index in range(len(strip.elements), ready):
            strip.elements.append(pictures[index].name)
        if end_of(strip) != end:  # not every version of Blender lets the strip grow along
            set_end(strip, end)
    return strip


def mark_strip(scene: bpy.types.Scene, strip: bpy.types.Strip, take: TakeStrip) -> None:
    """Make a strip the take's: its name, its key, its request, and its colours as they were filmed."""
    tag_as_finished(scene, strip.colorspace_settings)
    strip.name = take.label
    strip[TAKE_KEY] = take.key
    strip[REQUEST] = json.dumps(take.request, sort_keys=True)


def channel_kept_or_free(
    scene: bpy.types.Scene, strip: bpy.types.Strip, end: int, besides: bpy.types.Strip | None = None
) -> int:
    """The strip's own channel if it may reach to ``end`` there, or else a free one (``besides``'s, if there is one)."""
    for other in strips_of(scene):
        if other in (strip, besides) or other.channel != strip.channel:
            continue
        if begin_of(other) < end and end_of(other) > begin_of(strip):
            return besides.channel if besides else free_channel(scene, begin_of(strip), end, besides=strip)
    return strip.channel

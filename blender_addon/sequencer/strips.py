"""Takes as image strips in the Video Sequencer, which grow while frames arrive; `movies` replaces them with the movie.

A strip has the take's key as a custom property and is found by it; artists may rename and move strips.
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
from ..scenes.color_space import tag_as_filmed
from .strip_api import Strip, end_of, set_end_of, start_of, strips_in

TAKE_KEY = "ex4d_take"
REQUEST = "ex4d_request"
# On the speed effect over a take's movie: the take's key.
SPEED_OF = "ex4d_speed_of"
MAX_CHANNELS = 128


class StripError(Ex4dError):
    """A strip that cannot be created or exported: no free channel, a missing file, or no strips."""


@dataclass(frozen=True)
class TakeStrip:
    """Where a take belongs in the sequencer.

    Attributes:
        key: of the take.
        label: name of the strip.
        frame_start: Blender frame of the take's first frame.
        frames: of the whole take, all of which get room.
        request: the take's request, kept on the strip as JSON.
        fps: frame rate of the take; 0 for that of the scene.
    """

    key: str
    label: str
    frame_start: int
    frames: int
    request: Mapping[str, Any]
    fps: float = 0.0

    def length_in(self, scene: bpy.types.Scene) -> int:
        """Duration of the whole take in frames of a scene."""
        speed = self.speed_in(scene)
        return self.frames if speed == 1.0 else max(1, round(self.frames / speed))

    def speed_in(self, scene: bpy.types.Scene) -> float:
        """Frames of the take for each frame of a scene; 1 if the rates are the same."""
        rate = scene.render.fps / scene.render.fps_base
        # Blender keeps its rate as a 32-bit number.
        return 1.0 if not self.fps or abs(self.fps / rate - 1.0) < 1e-5 else self.fps / rate


def strips_of(scene: bpy.types.Scene) -> Any:
    """The strips of a scene's sequencer, which is created if there is none."""
    return strips_in(scene.sequence_editor or scene.sequence_editor_create())


def find_strip(scene: bpy.types.Scene, key: str, mark: str = TAKE_KEY) -> Strip | None:
    """The strip with a take's key in the custom property ``mark``, or None."""
    if scene.sequence_editor is None:
        return None
    return next((strip for strip in strips_of(scene) if strip.get(mark) == key), None)


def strips_of_take(scene: bpy.types.Scene, key: str) -> list[Strip]:
    """All strips of a take: its images or movie, and the speed effect over it if it was retimed."""
    if scene.sequence_editor is None:
        return []
    return [strip for strip in strips_of(scene) if key in (strip.get(TAKE_KEY), strip.get(SPEED_OF))]


def free_channel(scene: bpy.types.Scene, start: int, end: int, besides: Strip | None = None) -> int:
    """The lowest channel on which no strip but ``besides`` overlaps the frames from ``start`` up to ``end``.

    Raises:
        StripError: all channels are occupied.
    """
    taken = {
        strip.channel
        for strip in strips_of(scene)
        if strip != besides and start_of(strip) < end and end_of(strip) > start
    }
    for channel in range(1, MAX_CHANNELS + 1):
        if channel not in taken:
            return channel
    raise StripError(f"all {MAX_CHANNELS} sequencer channels are occupied at frames {start} to {end}; clear one")


def grow_image_strip(scene: bpy.types.Scene, take: TakeStrip, images: Mapping[int, Path]) -> Strip | None:
    """Let the take's image strip show every frame from 0 up to the first one that has not arrived.

    Args:
        scene: the Blender scene of the sequencer.
        take: the take.
        images: files of the frames that have arrived, by index.

    Returns:
        The strip; None while frame 0 is missing. A movie strip is not changed.

    Raises:
        StripError: no channel is free.
    """
    ready = 0
    while ready in images:
        ready += 1
    strip = find_strip(scene, take.key)
    if ready == 0 or (strip is not None and strip.type != "IMAGE"):
        return strip
    if strip is None:
        length = max(take.frames, take.length_in(scene))
        channel = free_channel(scene, take.frame_start, take.frame_start + length)
        # Blender decodes an image for a new strip (14 ms for the first one), unless the file is missing.
        missing = to_blend(images[0].with_name("pending.png"))
        strip = strips_of(scene).new_image(take.label, missing, channel, take.frame_start, fit_method="ORIGINAL")
        strip.elements[0].filename = images[0].name
        mark_strip(scene, strip, take)
    grown = ready - len(strip.elements)
    if grown > 0:
        end = end_of(strip) + grown
        strip.channel = channel_kept_or_free(scene, strip, end)
        for index in range(len(strip.elements), ready):
            strip.elements.append(images[index].name)
        if end_of(strip) != end:  # not every version of Blender extends the strip
            set_end_of(strip, end)
    return strip


def mark_strip(scene: bpy.types.Scene, strip: Strip, take: TakeStrip) -> None:
    """Give a strip the take's name, key and request, and the colour space of footage."""
    tag_as_filmed(scene, strip)
    strip.name = take.label
    strip[TAKE_KEY] = take.key
    strip[REQUEST] = json.dumps(take.request, sort_keys=True)


def channel_kept_or_free(scene: bpy.types.Scene, strip: Strip, end: int, besides: Strip | None = None) -> int:
    """The strip's own channel if it has room up to ``end``, else a free one (that of ``besides`` if given)."""
    for other in strips_of(scene):
        if other in (strip, besides) or other.channel != strip.channel:
            continue
        if start_of(other) < end and end_of(other) > start_of(strip):
            return besides.channel if besides else free_channel(scene, start_of(strip), end, besides=strip)
    return strip.channel

"""Takes as image strips in the Video Sequencer, which grow while frames arrive; `movies` replaces them with the movie.

The takes of a shot lie in one meta strip, which is on one channel however many versions there are. A strip has the
take's key as a custom property and is found by it, wherever it is: artists may rename, move, cut and group strips.
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
from .strip_api import (
    Container,
    Strip,
    all_strips_in,
    container_of,
    content_start_of,
    effects_over,
    end_of,
    end_offset_of,
    set_end_of,
    set_start_of,
    start_of,
    strips_in,
    update_effects,
)

TAKE_KEY = "ex4d_take"
REQUEST = "ex4d_request"
# On the speed effect over a take's movie, and on its sound: the take's key.
SPEED_OF = "ex4d_speed_of"
SOUND_OF = "ex4d_sound_of"
# On the meta strip of a shot's takes: the shot's key.
SHOT_KEY = "ex4d_shot"
# On a take's strip: where it was to start. Artists move the meta strip, and the next version starts with the others.
_MEANT_START = "ex4d_start"
MAX_CHANNELS = 128
# Rates that differ by no more are the same but for rounding, as 24 and 24000/1001 are: 0.1 %, and a margin.
ROUNDED_RATE = 1.5e-3


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
        fps: rate at which the take's frames follow each other; 0 for that of the sequencer's scene.
        shot: key of the shot; its takes lie in one meta strip. "" for a take on its own.
        shot_label: name of that meta strip.
        sound: what is heard during the take, if there is such a file.
    """

    key: str
    label: str
    frame_start: int
    frames: int
    request: Mapping[str, Any]
    fps: float = 0.0
    shot: str = ""
    shot_label: str = ""
    sound: Path | None = None

    @property
    def has_both_eyes(self) -> bool:
        """Whether its frames have the left and the right eye's image side by side."""
        return "stereo" in self.request

    def length_in(self, scene: bpy.types.Scene) -> int:
        """Duration of the whole take in frames of a scene."""
        speed = self.speed_in(scene)
        return self.frames if speed == 1.0 else max(1, round(self.frames / speed))

    def speed_in(self, scene: bpy.types.Scene) -> float:
        """Frames of the take for each frame of a scene; 1 if the rates are the same but for rounding."""
        rate = rate_of(scene)
        return 1.0 if not self.fps or are_same_rates(self.fps, rate) else self.fps / rate


def rate_of(scene: bpy.types.Scene) -> float:
    """Frames per second of a scene."""
    return scene.render.fps / scene.render.fps_base


def are_same_rates(one: float, other: float) -> bool:
    """Whether two frame rates are equal but for rounding, so that each frame of one is shown for one of the other."""
    return abs(one / other - 1.0) < ROUNDED_RATE


def strips_of(scene: bpy.types.Scene) -> Any:
    """The strips of a scene's sequencer, without those in meta strips; a missing sequencer is created."""
    return strips_in(scene.sequence_editor or scene.sequence_editor_create())


def find_strips(scene: bpy.types.Scene, key: str, mark: str = TAKE_KEY) -> list[Strip]:
    """The strips with a key in the custom property ``mark``, also in meta strips; several where one was cut."""
    if scene.sequence_editor is None:
        return []
    return [strip for strip in all_strips_in(scene.sequence_editor) if strip.get(mark) == key]


def find_strip(scene: bpy.types.Scene, key: str, mark: str = TAKE_KEY) -> Strip | None:
    """The first strip with a key in the custom property ``mark``, or None."""
    return next(iter(find_strips(scene, key, mark)), None)


def strips_of_take(scene: bpy.types.Scene, key: str) -> list[Strip]:
    """All strips of a take: its images or movie, its sound, and the speed effect over it if it was retimed."""
    return [strip for mark in (TAKE_KEY, SPEED_OF, SOUND_OF) for strip in find_strips(scene, key, mark)]


def free_channel(container: Container, start: int, end: int, besides: Strip | None = None, lowest: int = 1) -> int:
    """The lowest channel from ``lowest`` on, neither locked nor muted, on which nothing lies from ``start`` to ``end``.

    Args:
        container: a sequence editor or meta strip.
        start, end: frames; the last one is not included.
        besides: a strip that does not count.
        lowest: channel to begin with.

    Raises:
        StripError: there is no such channel.
    """
    taken = {strip.channel for strip in _overlapping(container, start, end) if strip != besides}
    for channel in range(lowest, MAX_CHANNELS + 1):
        settings = container.channels[channel]
        if channel not in taken and not settings.lock and not settings.mute:
            return channel
    raise StripError(
        f"no sequencer channel from {lowest} to {MAX_CHANNELS} is free, unlocked and unmuted at frames {start} to "
        f"{end}; clear one"
    )


def channel_above(container: Container, start: int, end: int, besides: Strip | None = None) -> int:
    """The lowest free channel above all that is visible in these frames; see `free_channel`."""
    visible = [
        strip.channel
        for strip in _overlapping(container, start, end)
        if strip != besides and strip.type != "SOUND" and not strip.mute and not container.channels[strip.channel].mute
    ]
    return free_channel(container, start, end, besides, lowest=max(visible, default=0) + 1)


def _overlapping(container: Container, start: int, end: int) -> list[Strip]:
    return [strip for strip in strips_in(container) if start_of(strip) < end and end_of(strip) > start]


@dataclass(frozen=True)
class Place:
    """Where a new strip goes.

    Attributes:
        container: the shot's meta strip, or the sequence editor.
        start: frame of the strip's start.
    """

    container: Container
    start: int


def place_for(scene: bpy.types.Scene, take: TakeStrip) -> Place:
    """Where a take without a strip belongs; the shot's meta strip is created if it is missing.

    Raises:
        StripError: no channel is free.
    """
    editor = scene.sequence_editor or scene.sequence_editor_create()
    if not take.shot:
        return Place(editor, take.frame_start)
    meta = next((one for one in find_strips(scene, take.shot, SHOT_KEY) if one.type == "META"), None)
    if meta is not None:
        moved = (content_start_of(one) - one[_MEANT_START] for one in strips_in(meta) if _MEANT_START in one)
        return Place(meta, take.frame_start + next(moved, 0))
    end = take.frame_start + max(take.frames, take.length_in(scene))
    channel = channel_above(editor, take.frame_start, end)
    meta = strips_in(editor).new_meta(take.shot_label or take.label, channel, take.frame_start)
    meta.select = False
    meta[SHOT_KEY] = take.shot
    return Place(meta, take.frame_start)


def grow_image_strip(scene: bpy.types.Scene, take: TakeStrip, images: Mapping[int, Path]) -> Strip | None:
    """Let the take's image strip show every frame from 0 up to the first one that has not arrived.

    The parts of a strip that was cut get the frames too, but show no more than before, except the last part.

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
    strips = find_strips(scene, take.key)
    if ready == 0 or any(strip.type != "IMAGE" for strip in strips):
        return next(iter(strips), None)
    for strip in strips or [_new_image_strip(scene, take, images[0])]:
        _grow(strip, images, ready)
    return find_strip(scene, take.key)


def _new_image_strip(scene: bpy.types.Scene, take: TakeStrip, image: Path) -> Strip:
    place = place_for(scene, take)
    length = max(take.frames, take.length_in(scene))
    channel = channel_above(place.container, place.start, place.start + length)
    # Blender decodes an image for a new strip (14 ms for the first one), unless the file is missing.
    missing = to_blend(image.with_name("pending.png"))
    strip = strips_in(place.container).new_image(take.label, missing, channel, place.start, fit_method="ORIGINAL")
    strip.elements[0].filename = image.name
    strip.select = False
    show_both_eyes(scene, strip, take)
    mark_strip(scene, strip, take)
    cover(strip)
    return strip


def _grow(strip: Strip, images: Mapping[int, Path], ready: int) -> None:
    before, known = end_of(strip), len(strip.elements)
    if ready <= known:
        return
    # Where the artist has cut off or held the end, it stays as it is.
    end = before if end_offset_of(strip) else before + ready - known
    strip.channel = channel_kept_or_free(strip, end)
    for index in range(known, ready):
        strip.elements.append(images[index].name)
    set_end_of(strip, end)  # also where Blender has extended it, so that it updates what lies over it
    follow_end(strip, before)


def follow_end(strip: Strip, before: int) -> None:
    """Let what ended with a strip at frame ``before`` end with it again: its meta strips, also nested ones.

    A meta strip that the artist has trimmed ends elsewhere, and stays as it is. Effects follow, and need room, too.

    Raises:
        StripError: no channel is free.
    """
    update_effects(strip)
    for effect in effects_over(strip):
        effect.channel = channel_kept_or_free(effect, end_of(effect))
    meta, end = strip.parent_meta(), end_of(strip)
    if meta is not None and end_of(meta) == before and end != before:
        meta.channel = channel_kept_or_free(meta, end)
        set_end_of(meta, end)
        follow_end(meta, before)


def cover(strip: Strip) -> None:
    """Let the shot's meta strip show all of a strip that was just put into it, unless the artist has trimmed it."""
    meta = strip.parent_meta()
    if meta is None:
        return
    others = [other for other in strips_in(meta) if other != strip]
    if start_of(strip) < start_of(meta) and start_of(meta) == min(map(start_of, others), default=start_of(meta)):
        set_start_of(meta, start_of(strip))
    if end_of(strip) > end_of(meta) and end_of(meta) == max(map(end_of, others), default=end_of(meta)):
        meta.channel = channel_kept_or_free(meta, end_of(strip))
        set_end_of(meta, end_of(strip))


def show_both_eyes(scene: bpy.types.Scene, strip: Strip, take: TakeStrip) -> None:
    """Let a new strip of a stereo take show each eye its own half, which the scene's Stereoscopy has to be on for."""
    if not take.has_both_eyes:
        return
    scene.render.use_multiview, scene.render.views_format = True, "STEREO_3D"
    strip.use_multiview, strip.views_format = True, "STEREO_3D"
    strip.stereo_3d_format.display_mode = "SIDEBYSIDE"
    strip.stereo_3d_format.use_squeezed_frame = strip.stereo_3d_format.use_sidebyside_crosseyed = False


def mark_strip(scene: bpy.types.Scene, strip: Strip, take: TakeStrip) -> None:
    """Give a new strip the take's name, key and request, and the colour space of footage."""
    tag_as_filmed(scene, strip)
    strip.name = take.label
    strip[TAKE_KEY], strip[_MEANT_START] = take.key, take.frame_start
    strip[REQUEST] = json.dumps(take.request, sort_keys=True)


def channel_kept_or_free(strip: Strip, end: int, besides: Strip | None = None) -> int:
    """The strip's own channel if it has room up to ``end``, else one above (that of ``besides`` if given)."""
    container = container_of(strip)
    for other in _overlapping(container, start_of(strip), end):
        if other not in (strip, besides) and other.channel == strip.channel:
            return besides.channel if besides else channel_above(container, start_of(strip), end, besides=strip)
    return strip.channel

"""Replaces a finished take's image strip with its movie.

Opening a movie is the slowest thing that the add-on does while the artist works, so the replacement is split into
steps, one a tick. No state is kept between them except in the .blend: a step examines the sequencer as it finds it, so
an undo, another file or an edit in between does no harm. Where the artist has cut the image strip, each part of it is
replaced.
"""

from __future__ import annotations

from pathlib import Path

import bpy

from ..paths import to_blend
from .carry_over import is_retimed, replace_strip, slip_under
from .proxies import set_up_proxies
from .strip_api import (
    Strip,
    add_effect,
    container_of,
    content_length_of,
    content_start_of,
    end_of,
    end_offset_of,
    set_end_of,
    set_start_of,
    start_of,
    strips_in,
)
from .strips import (
    SOUND_OF,
    SPEED_OF,
    TAKE_KEY,
    Place,
    StripError,
    TakeStrip,
    channel_above,
    channel_kept_or_free,
    cover,
    find_strip,
    find_strips,
    follow_end,
    free_channel,
    mark_strip,
    place_for,
    show_both_eyes,
)

# On an opened movie strip that does not replace the images yet: the take's key.
OPENED_FOR = "ex4d_opened_for"


def replace_with_movie(scene: bpy.types.Scene, take: TakeStrip, movie: Path) -> Strip:
    """Put the finished movie where the take's image strip is, or where it would be, in one call.

    Raises:
        StripError: the movie is missing or cannot be read, no channel is free, or the artist has retimed the images.
    """
    while movie_step(scene, take, movie):
        pass
    strip = find_strip(scene, take.key)
    assert strip is not None
    return strip


def movie_step(scene: bpy.types.Scene, take: TakeStrip, movie: Path) -> bool:
    """Do the next step of `replace_with_movie`: open the movie, swap it for an image strip, or retime it.

    Returns:
        Whether there is another step.

    Raises:
        StripError: see `replace_with_movie`; the image strip is not changed then.
    """
    opened = find_opened(scene, take.key)
    images = [strip for strip in find_strips(scene, take.key) if strip.type == "IMAGE"]
    if opened is None:
        if not images and find_strip(scene, take.key) is not None:
            return False
        _open(scene, take, movie, images[0] if images else None)
        return True
    if opened.get(TAKE_KEY) != take.key:
        if images and container_of(opened) != container_of(images[0]):  # grouped meanwhile
            discard_opened(scene, take.key)
        else:
            _swap(scene, take, opened, images[0] if images else None)
        return True
    _retime(scene, opened, take)
    _add_sound(opened, take)
    set_up_proxies(opened)
    del opened[OPENED_FOR]
    return bool(images)


def find_opened(scene: bpy.types.Scene, key: str) -> Strip | None:
    """The movie strip that was opened for a take and is not retimed yet, or None."""
    return find_strip(scene, key, OPENED_FOR)


def discard_opened(scene: bpy.types.Scene, key: str) -> None:
    """Remove a movie that was opened for a take but does not replace its images yet."""
    opened = find_opened(scene, key)
    if opened is not None and opened.get(TAKE_KEY) != key:
        strips_in(container_of(opened)).remove(opened)


def _open(scene: bpy.types.Scene, take: TakeStrip, movie: Path, shown: Strip | None) -> None:
    """Open the movie, muted and on a channel of its own, beside the images."""
    if not movie.is_file():
        raise StripError(f"{movie} is missing, so the take cannot be shown; fetch the take again")
    if shown is not None and is_retimed(shown):
        raise StripError("the strip has retiming keys, which Python cannot copy to the movie; the image strip stays")
    place = place_for(scene, take) if shown is None else Place(container_of(shown), content_start_of(shown))
    end = place.start + max(take.frames, take.length_in(scene))
    strip = strips_in(place.container).new_movie(
        take.label,
        to_blend(movie),
        channel_above(place.container, place.start, end),
        place.start,
        fit_method="ORIGINAL",
    )
    strip.select = False
    readable = content_length_of(strip)
    if readable < take.frames:  # Blender creates a strip of one frame for a file that it cannot read
        strips_in(place.container).remove(strip)
        raise StripError(f"Blender reads {readable} of {take.frames} frames from {movie}; the image strip stays")
    show_both_eyes(scene, strip, take)
    strip.mute = True
    strip[OPENED_FOR] = take.key


def _swap(scene: bpy.types.Scene, take: TakeStrip, opened: Strip, shown: Strip | None) -> None:
    if shown is None:
        mark_strip(scene, opened, take)
        opened.mute = False
        cover(opened)
        return
    length, before = take.length_in(scene), end_of(shown)
    shown.channel = channel_kept_or_free(shown, content_start_of(shown) + length, besides=opened)
    replace_strip(shown, opened, length)
    follow_end(opened, before)


def _retime(scene: bpy.types.Scene, strip: Strip, take: TakeStrip) -> None:
    """Play a movie at its own frame rate with a speed effect over it, which repeats or drops whole frames.

    Blender's retiming keys cannot be set from Python in 4.2 to 5.2 (`retiming_keys.add` adds none, or crashes), and
    `new_movie` ignores frame rates.
    """
    speed = take.speed_in(scene)
    if speed == 1.0:
        return
    # The effect is as long as its strip, so the strip is extended (its held last frame is not reached).
    if end_offset_of(strip) <= 0 and end_of(strip) != content_start_of(strip) + take.length_in(scene):
        set_end_of(strip, content_start_of(strip) + take.length_in(scene))
    container, name = container_of(strip), f"{take.label} speed"
    channel = free_channel(container, start_of(strip), end_of(strip), lowest=strip.channel + 1)
    effect = add_effect(strip, name, "SPEED", channel, speed_control="MULTIPLY", speed_factor=speed, mute=strip.mute)
    effect[SPEED_OF] = take.key
    slip_under(strip, effect)
    cover(strip)


def _add_sound(strip: Strip, take: TakeStrip) -> None:
    """Put the take's sound beside its movie: it starts, ends and is muted with that."""
    if take.sound is None or not take.sound.is_file():
        return
    container = container_of(strip)
    channel = free_channel(container, start_of(strip), end_of(strip))
    sound = strips_in(container).new_sound(
        f"{take.label} sound", to_blend(take.sound), channel, content_start_of(strip)
    )
    set_start_of(sound, start_of(strip))
    set_end_of(sound, end_of(strip))
    sound.mute, sound.select = strip.mute, False
    sound[SOUND_OF] = take.key

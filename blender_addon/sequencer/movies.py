"""Replaces a finished take's image strip with its movie.

Opening a movie is the slowest thing that the add-on does while the artist works, so the replacement is split into
steps, one a tick. No state is kept between them except in the .blend: a step examines the sequencer as it finds it, so
an undo, another file or an edit in between does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import bpy

from ..paths import to_blend
from .proxies import set_up_proxies
from .strip_api import Strip, content_length_of, set_end_of, start_of
from .strips import (
    SPEED_OF,
    TAKE_KEY,
    StripError,
    TakeStrip,
    channel_kept_or_free,
    find_strip,
    free_channel,
    mark_strip,
    strips_of,
)

# On an opened movie strip that does not replace the images yet: the take's key.
OPENED_FOR = "ex4d_opened_for"


def replace_with_movie(scene: bpy.types.Scene, take: TakeStrip, movie: Path) -> Strip:
    """Put the finished movie where the take's image strip is, or where it would be, in one call.

    Raises:
        StripError: the movie is missing or cannot be read, or no channel is free.
    """
    while movie_step(scene, take, movie):
        pass
    strip = find_strip(scene, take.key)
    assert strip is not None
    return strip


def movie_step(scene: bpy.types.Scene, take: TakeStrip, movie: Path) -> bool:
    """Do the next step of `replace_with_movie`: open the movie, swap it for the image strip, or retime it.

    Returns:
        Whether there is another step.

    Raises:
        StripError: see `replace_with_movie`; the image strip is not changed then.
    """
    opened, shown = find_opened(scene, take.key), find_strip(scene, take.key)
    if opened is None:
        if shown is not None and shown.type == "MOVIE":
            return False
        _open(scene, take, movie, shown)
        return True
    if opened != shown:
        if start_of(opened) != _extent(scene, take, shown)[0]:  # the images were moved since
            discard_opened(scene, take.key)
        else:
            _swap(scene, take, opened, shown)
        return True
    _retime(scene, opened, take)
    set_up_proxies(opened)
    del opened[OPENED_FOR]
    return False


def strips_are_held(windows: Iterable[bpy.types.Window]) -> bool:
    """Whether the artist is dragging strips: the operator that moves them refers to them, so none may be replaced."""
    # Blender lists None for an operator whose add-on was disabled while it was running.
    running = (one.bl_idname for window in windows for one in window.modal_operators if one is not None)
    return any(name.startswith(("SEQUENCER_OT_", "TRANSFORM_OT_")) for name in running)


def find_opened(scene: bpy.types.Scene, key: str) -> Strip | None:
    """The movie strip that was opened for a take and is not retimed yet, or None."""
    return find_strip(scene, key, OPENED_FOR)


def discard_opened(scene: bpy.types.Scene, key: str) -> None:
    """Remove a movie that was opened for a take but does not replace its images yet."""
    opened = find_opened(scene, key)
    if opened is not None and opened.get(TAKE_KEY) != key:
        strips_of(scene).remove(opened)


def _open(scene: bpy.types.Scene, take: TakeStrip, movie: Path, shown: Strip | None) -> None:
    """Open the movie, muted and on a channel of its own, beside the images."""
    if not movie.is_file():
        raise StripError(f"{movie} is missing, so the take cannot be shown; fetch the take again")
    start, end = _extent(scene, take, shown)
    strip = strips_of(scene).new_movie(
        take.label, to_blend(movie), free_channel(scene, start, end), start, fit_method="ORIGINAL"
    )
    readable = content_length_of(strip)
    if readable < take.frames:  # Blender creates a strip of one frame for a file that it cannot read
        strips_of(scene).remove(strip)
        raise StripError(f"Blender reads {readable} of {take.frames} frames from {movie}; the image strip stays")
    strip.mute = True
    strip[OPENED_FOR] = take.key


def _swap(scene: bpy.types.Scene, take: TakeStrip, opened: Strip, shown: Strip | None) -> None:
    if shown is None:
        opened.mute = False
    else:
        channel = channel_kept_or_free(scene, shown, _extent(scene, take, shown)[1], besides=opened)
        opened.mute = shown.mute
        strips_of(scene).remove(shown)
        opened.channel = channel
    mark_strip(scene, opened, take)


def _extent(scene: bpy.types.Scene, take: TakeStrip, shown: Strip | None) -> tuple[int, int]:
    """First frame of a take in the sequencer, and the one after its last."""
    start = take.frame_start if shown is None else start_of(shown)
    return start, start + max(take.frames, take.length_in(scene))


def _retime(scene: bpy.types.Scene, strip: Strip, take: TakeStrip) -> None:
    """Play a movie at its own frame rate with a speed effect over it, which repeats or drops whole frames.

    Blender's retiming keys cannot be set from Python in 4.2 to 5.2 (`retiming_keys.add` adds none, or crashes), and
    `new_movie` ignores frame rates.
    """
    speed = take.speed_in(scene)
    if speed == 1.0:
        return
    start, length = start_of(strip), take.length_in(scene)
    # The effect is as long as its strip, so the strip is extended (its held last frame is not reached).
    set_end_of(strip, start + length)
    # The arguments for the strip and the length were renamed in Blender 4.4 to 5.0.
    known = strips_of(scene).bl_rna.functions["new_effect"].parameters.keys()
    extent = {"length": length} if "length" in known else {"frame_end": start + length}
    source = {"input1": strip} if "input1" in known else {"seq1": strip}
    effect = strips_of(scene).new_effect(
        name=f"{take.label} speed",
        type="SPEED",
        channel=free_channel(scene, start, start + length),
        frame_start=start,
        **extent,
        **source,
    )
    effect.speed_control = "MULTIPLY"
    effect.speed_factor = speed
    effect.mute = strip.mute
    effect[SPEED_OF] = take.key

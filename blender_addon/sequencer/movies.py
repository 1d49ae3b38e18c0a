"""A finished take's movie into the sequencer, in the place of its growing image strip.

Opening a movie is the dearest thing that the add-on asks of Blender while the artist works, so the way there is cut
into steps, each for a tick of its own. Between two of them nothing is remembered but what the file itself says: a step
looks at the sequencer as it finds it, so an undo, another file or an artist who tidies up in between does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import bpy

from ..paths import to_blend
from .proxies import offer_proxies
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
from .versions import begin_of, content_length_of, set_end

# On a movie strip that is not finished: the key of the take that it was opened for.
OPENED_FOR = "ex4d_opened_for"


def replace_with_movie(scene: bpy.types.Scene, take: TakeStrip, movie: Path) -> bpy.types.Strip:
    """Put the finished movie where the take's image strip is, or where it would be, in one go.

    Raises:
        StripError: the movie is not there or cannot be read, or no channel is free.
    """
    while movie_step(scene, take, movie):
        pass
    return find_strip(scene, take.key)


def movie_step(scene: bpy.types.Scene, take: TakeStrip, movie: Path) -> bool:
    """Do the next of what `replace_with_movie` does: open the movie, swap it for the image strip, or finish it.

    Returns:
        Whether there is another step.

    Raises:
        StripError: see `replace_with_movie`; the image strip stays as it is then.
    """
    opened, shown = find_opened(scene, take.key), find_strip(scene, take.key)
    if opened is None:
        if shown is not None and shown.type == "MOVIE":
            return False
        _open(scene, take, movie, shown)
        return True
    if opened != shown:
        if begin_of(opened) != _extent(scene, take, shown)[0]:  # moved since: its place is another one
            discard_opened(scene, take.key)
        else:
            _swap(scene, take, opened, shown)
        return True
    _retime(scene, opened, take)
    offer_proxies(opened)
    del opened[OPENED_FOR]
    return False


def strips_are_held(windows: Iterable[bpy.types.Window]) -> bool:
    """Whether the artist is dragging strips: what moves them has hold of them, and none may be replaced meanwhile."""
    # Where an add-on was disabled while its operator waited for input, Blender has None.
    running = (one.bl_idname for window in windows for one in window.modal_operators if one is not None)
    return any(name.startswith(("SEQUENCER_OT_", "TRANSFORM_OT_")) for name in running)


def find_opened(scene: bpy.types.Scene, key: str) -> bpy.types.Strip | None:
    """The movie strip that was opened for a take and is not finished, or None."""
    return find_strip(scene, key, OPENED_FOR)


def discard_opened(scene: bpy.types.Scene, key: str) -> None:
    """Remove a movie that was opened for a take, and will not be its strip after all."""
    opened = find_opened(scene, key)
    if opened is not None and opened.get(TAKE_KEY) != key:
        strips_of(scene).remove(opened)


def _open(scene: bpy.types.Scene, take: TakeStrip, movie: Path, shown: bpy.types.Strip | None) -> None:
    """Muted and on a channel of its own, beside what is shown still."""
    if not movie.is_file():
        raise StripError(f"{movie} is missing, so the take cannot be shown; fetch it again")
    start, end = _extent(scene, take, shown)
    strip = strips_of(scene).new_movie(
        take.label, to_blend(movie), free_channel(scene, start, end), start, fit_method="ORIGINAL"
    )
    readable = content_length_of(strip)
    if readable < take.frames:  # Blender makes a strip of one frame of what it cannot read
        strips_of(scene).remove(strip)
        raise StripError(f"Blender reads {readable} of {take.frames} frames from {movie}; its frames stay as they are")
    strip.mute = True
    strip[OPENED_FOR] = take.key


def _swap(scene: bpy.types.Scene, take: TakeStrip, opened: bpy.types.Strip, shown: bpy.types.Strip | None) -> None:
    if shown is None:
        opened.mute = False
    else:
        channel = channel_kept_or_free(scene, shown, _extent(scene, take, shown)[1], besides=opened)
        opened.mute = shown.mute
        strips_of(scene).remove(shown)
        opened.channel = channel
    mark_strip(scene, opened, take)


def _extent(scene: bpy.types.Scene, take: TakeStrip, shown: bpy.types.Strip | None) -> tuple[int, int]:
    """First frame of a take's place in the sequencer, and the one after its last."""
    start = take.frame_start if shown is None else begin_of(shown)
    return start, start + max(take.frames, take.length_in(scene))


def _retime(scene: bpy.types.Scene, strip: bpy.types.Strip, take: TakeStrip) -> None:
    """Let a movie last as long as it was filmed, by a speed effect over it.

    Blender's own retiming keys cannot be set from Python in 4.2 to 5.2 (`retiming_keys.add` adds none, or crashes), and
    `new_movie` does not look at rates; the effect exists in all of them, and repeats or drops whole frames.
    """
    speed = take.speed_in(scene)
    if speed == 1.0:
        return
    start, length = begin_of(strip), take.length_in(scene)
    # The effect is as long as what it is on, so that is made longer (a still at its end, which is not reached).
    set_end(strip, start + length)
    # The arguments for what it is on and for its length were renamed in Blender 4.4 to 5.0, one after the other.
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

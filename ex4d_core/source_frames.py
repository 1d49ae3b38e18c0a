"""Which frame of the footage each new frame shows: consecutive ones, or any others (freeze, slow motion, reverse).

Their text form is short, so that requests, request.json and the command line have the same: "0-24,24*25,24-0" plays 25
frames, holds the last one for 25 more, and plays backwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ex4d_core.errors import RequestError

# Bounds that keep one request from taking a backend down; raise them together with the memory tests.
MAX_FRAMES = 100_000
# "99999," for each frame, of a list without any runs.
MAX_TEXT = 7 * MAX_FRAMES

# Half a frame goes to the later one. The margin is for curves, whose values are rounded to 32 bits: without it every
# second frame of a slow motion would be a matter of luck.
_TIE = 0.5 + 1e-3
_RUN = re.compile(r"(\d{1,6})(?:([-*])(\d{1,6}))?")


def consecutive_from(first_frame: int, count: int) -> range:
    """What an ordinary shot shows: as many frames of the footage as it has itself, from one of them on."""
    return range(first_frame, first_frame + count)


def is_consecutive(frames: Sequence[int]) -> bool:
    """Whether each frame is the one after its predecessor."""
    return isinstance(frames, range) or tuple(frames) == tuple(consecutive_from(frames[0], len(frames)))


def shown_frames(count: int, first_frame: int = 0, source_frames: Sequence[int] | None = None) -> Sequence[int]:
    """The footage frame that each of ``count`` new frames shows.

    Args:
        first_frame: the first of consecutive ones.
        source_frames: one for each new frame, in place of consecutive ones.

    Raises:
        RequestError: there is not one for each, or both are given.
    """
    if source_frames is None:
        return consecutive_from(first_frame, count)
    if first_frame:
        raise RequestError(f"first_frame must be left out beside source_frames, not {first_frame}")
    if len(source_frames) != count:
        given = len(source_frames)
        raise RequestError(f"source_frames must name a frame for each of the camera's {count} frames, not {given}")
    return source_frames


def require_footage(shown: Sequence[int], frames: int) -> None:
    """Check that footage of ``frames`` frames has all that a shot shows.

    Args:
        shown: footage frames, as `shown_frames` returns them.

    Raises:
        RequestError: the shot starts before the footage, runs past its end, or names a frame that is not there.
    """
    if isinstance(shown, range):
        if shown.start < 0 or shown.stop > frames:
            raise RequestError(
                f"the camera has {len(shown)} frames from footage frame {shown.start}, "
                f"but the scene has {frames}; shorten the shot or start it earlier"
            )
        return
    missing = next((one for one in shown if not 0 <= one < frames), None)
    if missing is not None:
        raise RequestError(
            f"source_frames has footage frame {missing}, but the scene has {frames}; name frames 0 to {frames - 1}"
        )


def nearest_frames(times: Sequence[float] | np.ndarray, frames: int) -> tuple[int, ...]:
    """The footage frames that a curve shows: the nearest ones.

    Args:
        times: (T,) in frames of the footage, 0 for its first. Halves go to the later frame. What lies outside the
            footage, as where a smooth curve overshoots, shows its first or last frame.
        frames: of the footage.

    Returns:
        T frame numbers from 0.
    """
    nearest = np.floor(np.asarray(times, dtype=np.float64) + _TIE)
    return tuple(np.clip(nearest, 0, frames - 1).astype(int).tolist())


def to_text(frames: Iterable[int]) -> str:
    """The text form; see the module."""
    return ",".join(map(_run_text, _runs(list(frames))))


def key_positions(frames: Sequence[int]) -> list[int]:
    """Places in a list of frames that determine it: it runs evenly between two neighbouring ones."""
    places: list[int] = []
    start = 0
    for run in _runs(list(frames)):
        places += [start] if len(run) == 1 else [start, start + len(run) - 1]
        start += len(run)
    return places


def source_frames_from(values: object) -> tuple[int, ...] | None:
    """Check frame numbers, given as numbers or in their text form; None stays None.

    Raises:
        RequestError: neither of both, none at all, too many, or one that is negative or too large.
    """
    if values is None:
        return None
    if isinstance(values, str):
        return _from_text(values)
    if not isinstance(values, Iterable) or isinstance(values, (bytes, dict)):
        raise RequestError(f"source_frames must be frame numbers, or text such as '0-24,24*25', not {values!r:.80}")
    frames = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < MAX_FRAMES:
            raise RequestError(f"source_frames must be whole numbers from 0 to {MAX_FRAMES - 1}, not {value!r:.80}")
        frames.append(int(value))
        _require_count(len(frames))
    if not frames:
        raise RequestError("source_frames must have at least one frame; leave it out for consecutive frames")
    return tuple(frames)


def _from_text(text: str) -> tuple[int, ...]:
    if len(text) > MAX_TEXT:
        raise RequestError(f"source_frames must be text of at most {MAX_TEXT} characters, not {len(text)}")
    frames: list[int] = []
    for part in text.split(","):
        match = _RUN.fullmatch(part.strip())
        if match is None:
            raise RequestError(
                f"source_frames must be numbers, runs (0-24, 24-0) and repeats (24*25) between commas, not {part!r:.80}"
            )
        first, mark, other = int(match[1]), match[2], int(match[3] or 0)
        step = 1 if other >= first else -1
        run = [first] if not mark else [first] * other if mark == "*" else range(first, other + step, step)
        if max(first, other if mark == "-" else 0) >= MAX_FRAMES or not run:
            raise RequestError(f"source_frames must be from 0 to {MAX_FRAMES - 1}, repeated at least once, not {part}")
        _require_count(len(frames) + len(run))
        frames += run
    return tuple(frames)


def _require_count(count: int) -> None:
    if count > MAX_FRAMES:
        raise RequestError(f"a shot may have at most {MAX_FRAMES} frames; source_frames has more")


def _runs(frames: list[int]) -> Iterator[list[int]]:
    """Stretches that stand still or advance by one frame either way, each as long as possible."""
    start = 0
    while start < len(frames):
        stop = start + 1
        step = frames[stop] - frames[start] if stop < len(frames) else 0
        while abs(step) <= 1 and stop < len(frames) and frames[stop] - frames[stop - 1] == step:
            stop += 1
        yield frames[start:stop]
        start = stop


def _run_text(run: list[int]) -> str:
    if len(run) == 1:
        return str(run[0])
    return f"{run[0]}*{len(run)}" if run[0] == run[-1] else f"{run[0]}-{run[-1]}"

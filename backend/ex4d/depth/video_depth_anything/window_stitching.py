"""Stitches Video Depth Anything's windows to clips of any length: 32 frames each that share ten, aligned in scale.

Of the ten, two are key frames far back (the clip's first and one of the last window's middle), which tie the scale to
the past; eight are the last window's last, over which the windows are blended into each other. The published code takes
a window's factor and offset from the key frames alone, in least squares (`fitted_to_key_frames`); what a window sees
differently in those two frames then bends the rest of the clip. By default all ten count, and few pixels, however
wrong, do not (`fitted_to_shared_frames`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from ex4d.depth.temporal_alignment import robust_scale_and_shift

WINDOW = 32
KEY_FRAMES = (0, 12)  # of the last window; again as frames 0 and 1 of the next
BLENDED = 8  # frames 24 to 31 of the last window; again as frames 2 to 9
SHARED = len(KEY_FRAMES) + BLENDED

_FIRST_COUNTS = 3  # times; errors add up from window to window, and only the clip's first frame has none of them
_FIT_PIXELS = 4096  # of each frame; two numbers need no more

Predict = Callable[[torch.Tensor], torch.Tensor]
# The factor and offset that bring a window's shared frames (10, H, W) to what the clip has there already.
Fit = Callable[[torch.Tensor, torch.Tensor], tuple[float, float]]


def fitted_to_shared_frames(values: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
    """A `Fit` to all frames that two windows share, in robust least squares."""
    stride = max(1, round((values[0].numel() / _FIT_PIXELS) ** 0.5))
    frames = [0] * _FIRST_COUNTS + list(range(1, len(values)))
    x, y = (shared[frames, stride // 2 :: stride, stride // 2 :: stride].flatten() for shared in (values, target))
    return robust_scale_and_shift(x, y, True)


def fitted_to_key_frames(values: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
    """The published `Fit`: to the two key frames, in least squares."""
    return scale_and_shift(values[: len(KEY_FRAMES)], target[: len(KEY_FRAMES)])


def stitched_windows(
    frames: Iterable[torch.Tensor], predict: Predict, fit: Fit = fitted_to_shared_frames
) -> Iterator[torch.Tensor]:
    """Disparity of every frame, with at most a window of frames in memory.

    Args:
        frames: (3, H, W) each, ready for the network.
        predict: (32, 3, H, W) to (32, H, W), at least 0, up to a factor and an offset for each window.
        fit: how windows are aligned.

    Yields:
        (H, W), in the scale of the first window.
    """
    source = iter(frames)
    # The clip's last frame pads a last, shorter window.
    inputs, real = _filled([], source)
    if not real:
        return
    raw = predict(torch.stack(inputs))
    reference = raw[list(KEY_FRAMES)]
    ending, yielded = raw, 0
    while True:
        # The last frames of a full window wait for the next window to blend into.
        following, more = _filled([inputs[index] for index in (*KEY_FRAMES, *range(WINDOW - BLENDED, WINDOW))], source)
        if not more:
            yield from ending[yielded:real]
            return
        yield from ending[yielded : WINDOW - BLENDED]
        raw = predict(torch.stack(following))
        scale, shift = fit(raw[:SHARED], torch.cat([reference, ending[WINDOW - BLENDED :]]))
        aligned = (raw * scale + shift).clamp_min(0)
        weight = torch.linspace(0, 1, BLENDED, device=raw.device)[:, None, None]
        beginning = aligned[len(KEY_FRAMES) : SHARED]
        yield from ending[WINDOW - BLENDED :] * (1 - weight) + beginning * weight
        # The clip's first frame keeps its first disparity for good; only the other key frame moves on.
        reference = torch.stack([reference[0], aligned[KEY_FRAMES[1]]])
        inputs, ending, yielded, real = following, aligned, SHARED, SHARED + more


def scale_and_shift(values: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
    """The factor and offset that bring values closest to a target in least squares; (1, 0) for constant values."""
    x, y = values.flatten().double(), target.flatten().double()
    spread = (x - x.mean()).square().mean()
    if spread <= 1e-12 * x.square().mean():
        return 1.0, 0.0
    scale = ((x - x.mean()) * (y - y.mean())).mean() / spread
    return float(scale), float(y.mean() - scale * x.mean())


def _filled(start: list[torch.Tensor], source: Iterator[torch.Tensor]) -> tuple[list[torch.Tensor], int]:
    """A window that begins with `start` and continues with new frames; and how many of those there were."""
    window, new = list(start), 0
    for frame in source:
        window.append(frame)
        new += 1
        if len(window) == WINDOW:
            return window, new
    if new:
        window += [window[-1]] * (WINDOW - len(window))
    return window, new

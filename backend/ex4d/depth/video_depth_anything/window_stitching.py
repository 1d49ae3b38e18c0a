"""Stitches Video Depth Anything's windows to clips of any length: 32 frames each that share ten, aligned in scale.

Of the ten, two are key frames far back (the clip's first and one of the last window's middle), which tie the scale to
the past; eight are the last window's last, over which the windows are blended into each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

WINDOW = 32
KEY_FRAMES = (0, 12)  # of the last window; again as frames 0 and 1 of the next
BLENDED = 8  # frames 24 to 31 of the last window; again as frames 2 to 9
SHARED = len(KEY_FRAMES) + BLENDED

Predict = Callable[[torch.Tensor], torch.Tensor]


def stitched_windows(frames: Iterable[torch.Tensor], predict: Predict) -> Iterator[torch.Tensor]:
    """Disparity of every frame, with at most a window of frames in memory.

    Args:
        frames: (3, H, W) each, ready for the network.
        predict: (32, 3, H, W) to (32, H, W), at least 0, up to a factor and an offset for each window.

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
        scale, shift = scale_and_shift(raw[: len(KEY_FRAMES)], reference)
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

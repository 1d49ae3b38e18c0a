"""Lays the footage back over generated frames: what the render saw shows its own pixels (`WanSettings.keep_seen`).

A generator makes every pixel anew, and often at a smaller size. Here the seen pixels of a take come from its render,
through a soft matte that lies inside what was seen, over the generated picture. The picture's colours are scaled to the
footage's: by one factor for each channel and frame, measured where both show, along the seam.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from ex4d.raster import RenderedFrame

# How far the matte reaches into what was seen, as a share of a frame's shorter side, and at least, in pixels.
_REACH, _LEAST_REACH = 0.01, 2
# Cracks of up to twice as many pixels, which a moving camera tears everywhere, have no margin.
_HAIRLINE = 1
# Weight of a frame's own factors beside those of the frames before, so that the picture does not flicker.
_OWN_WEIGHT = 0.25
# A larger change of colour is no drift of the generator but another thing that it shows.
_MOST_CHANGE = 1.25
# Pixels of the seam, below which it does not say what its colours are.
_FEWEST = 64

# What a finished frame's file says of its gains, so that an interrupted take continues with them.
GAINS_KEY = "ex4d_gains"
# Of red, green and blue.
Gains = tuple[float, float, float]
_NO_GAINS: Gains = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class SeenFrame:
    """What a render saw in one frame.

    Attributes:
        color: (H, W, 3) uint8 sRGB.
        alpha: (H, W) uint8, the share of each pixel that was seen, of 255.
    """

    color: np.ndarray
    alpha: np.ndarray


class FootageKeeper:
    """Keeps what was rendered of a shot until its generated frames come, and lays it over these."""

    def __init__(self, start: int = 0, gains: Gains | None = None) -> None:
        """Begin, or continue after an interruption.

        Args:
            start: the first frame of the take that is not finished.
            gains: of the last generated frame that is.
        """
        self._start, self._gains = start, gains
        self._seen: dict[int, SeenFrame] = {}
        self._gains_of: dict[int, Gains] = {}

    def watch(self, frames: Iterable[RenderedFrame], hidden: int) -> Iterator[RenderedFrame]:
        """Pass rendered frames on and keep what they saw; ``hidden`` first ones are not of the take."""
        for frame in frames:
            if frame.index >= hidden + self._start:
                self._seen[frame.index - hidden] = SeenFrame(frame.color, frame.soft_mask)
            yield frame

    def over_generated(self, images: Iterable[np.ndarray], places: Iterable[int]) -> Iterator[np.ndarray]:
        """Yield generated (H, W, 3) uint8 images of these places in the take, with the footage over them."""
        for image, place in zip(images, places, strict=False):
            seen = self._seen[place]
            matte = seen_matte(seen.alpha)
            self._gains = steady_gains(seam_gains(image, seen.color, matte), self._gains)
            self._gains_of[place] = self._gains
            yield laid_over(image, seen.color, matte, self._gains)

    def finish(self, place: int, image: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
        """A frame of the take as it is delivered, and what its file has to say; later ones are asked for next.

        Args:
            image: from `over_generated`, or filled in between two of these, whose colours are the footage's already.
        """
        seen, gains = self._seen.pop(place), self._gains_of.pop(place, None)
        if gains is not None:
            return image, {GAINS_KEY: ",".join(map(repr, gains))}
        return laid_over(image, seen.color, seen_matte(seen.alpha), _NO_GAINS), {}


def seen_matte(alpha: np.ndarray) -> np.ndarray:
    """How much of each pixel is the footage's own: 0 where it was not seen, 1 further inside of what was.

    It rises from the rim of a hole inwards, and is at most the share of the pixel that was seen.

    Args:
        alpha: (H, W) uint8, the share of each pixel that was seen, of 255. Beyond the frame everything counts as seen.

    Returns:
        (H, W) float32 in [0, 1].
    """
    reach = max(_LEAST_REACH, round(_REACH * min(alpha.shape)))
    unseen = torch.from_numpy(alpha < 128)[None, None].float()
    # Without hairlines, at which the generated picture shows in their own pixels alone.
    holes = _widest(1 - _widest(1 - unseen, _HAIRLINE), _HAIRLINE)
    inside = 1 - _widest(holes, reach)
    # Twice, so that it is smooth at both ends, and nowhere beyond what was seen.
    within = _mean(_mean(inside, reach // 2), reach - reach // 2)[0, 0].numpy()
    return within * (alpha.astype(np.float32) / 255)


def seam_gains(image: np.ndarray, footage: np.ndarray, matte: np.ndarray) -> Gains | None:
    """What the colours of an image have to be multiplied by to be the footage's, along the seam.

    Args:
        image, footage: (H, W, 3) uint8 sRGB.
        matte: see `seen_matte`.

    Returns:
        None where there is no seam, or too little of one.
    """
    weights = matte * (1 - matte)  # most where both show alike
    rows = np.flatnonzero(weights.any(axis=1))
    if not len(rows) or np.count_nonzero(weights) < _FEWEST:
        return None
    part = slice(int(rows[0]), int(rows[-1]) + 1)
    means = [np.tensordot(weights[part], picture[part].astype(np.float32), 2) for picture in (footage, image)]
    total = float(weights.sum())
    # One step of 8 bits keeps black from dividing by nothing.
    gains = [(float(own) / total + 1) / (float(made) / total + 1) for own, made in zip(*means, strict=True)]
    red, green, blue = (min(max(gain, 1 / _MOST_CHANGE), _MOST_CHANGE) for gain in gains)
    return red, green, blue


def steady_gains(own: Gains | None, before: Gains | None) -> Gains:
    """A frame's gains after those of the frame ``before``: most of the way theirs, so that colours do not jump."""
    if own is None or before is None:
        return own or before or _NO_GAINS
    red, green, blue = (
        math.exp(_OWN_WEIGHT * math.log(new) + (1 - _OWN_WEIGHT) * math.log(old))
        for new, old in zip(own, before, strict=True)
    )
    return red, green, blue


def laid_over(image: np.ndarray, footage: np.ndarray, matte: np.ndarray, gains: Gains) -> np.ndarray:
    """(H, W, 3) uint8: footage over an image whose colours are multiplied by gains."""
    below = image.astype(np.float32) * np.asarray(gains, np.float32)
    return (laid_over_unrounded(below, footage.astype(np.float32), matte) + 0.5).clip(0, 255).astype(np.uint8)


def laid_over_unrounded(image: np.ndarray, footage: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: footage over an image, of colours as bright as they are."""
    return image + matte[..., None] * (footage - image)


def gains_of_frame(metadata: Mapping[str, str]) -> Gains | None:
    """The gains that a finished frame was made with, by its file's metadata; None where it does not say."""
    try:
        red, green, blue = map(float, metadata.get(GAINS_KEY, "").split(","))
    except ValueError:
        return None
    gains = (red, green, blue)
    return gains if all(1 / _MOST_CHANGE <= gain <= _MOST_CHANGE for gain in gains) else None


def _widest(values: torch.Tensor, reach: int) -> torch.Tensor:
    """The largest of (1, 1, H, W) values within a square."""
    side = 2 * reach + 1
    return max_pool2d(max_pool2d(values, (side, 1), 1, (reach, 0)), (1, side), 1, (0, reach))


def _mean(values: torch.Tensor, reach: int) -> torch.Tensor:
    """The mean of (1, 1, H, W) values within a square; beyond the frame they are those of its border."""
    for across, down in ((0, reach), (reach, 0)):
        padded = pad(values, (across, across, down, down), mode="replicate")
        values = avg_pool2d(padded, (2 * down + 1, 2 * across + 1), 1)
    return values

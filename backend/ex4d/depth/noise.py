"""Finds noise in the pixels of a depth frame, and smooths it without touching planes, edges or depth that has none.

Scanners' depth and some models' differ from pixel to pixel, and a mesh draws that as crumpled faces. All is measured
in disparity, in which planes are linear: on a plane, and on any smooth surface seen closely, second differences are
zero, so what they are away from edges is noise. Noise alternates from pixel to pixel; relief and blur do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

_LEAST = 0.001  # of disparity: what is less no mesh shows, and half precision alone makes a quarter of it
_ALTERNATING = 0.65  # share of second differences whose sign changes to the next: 0.73 for noise, a half for any relief
_CALM = 1.1  # ratio of the highest to the lowest within three pixels from which on there may be an edge
_SPREAD = 12.0  # sigma that noise spans within three pixels at most
_GROUPS = 4  # of pixels, by disparity: noise that grows with distance is stronger in the farthest
_SECOND_DIFFERENCE = 6**0.5  # sigma of a - 2 b + c, for a, b and c of sigma 1
_MEDIAN = 0.6745  # of the size of what is normally distributed, in sigma
_TOLERANCE = 2.5  # sigma by which a pixel and the middle of its neighbours may differ on one surface
_LEFT = (1.0, 0.6, 0.4, 0.3)  # sigma that each level finds, of the first's; each is twice as wide as the one before
_SAMPLES = 2**20  # pixels that groups are made from
# x and y of one of a pair, and its weight: those of a binomial kernel of 3 x 3.
_PAIRS = ((1, 0, 0.25), (0, 1, 0.25), (1, 1, 0.125), (1, -1, 0.125))
_OWN_WEIGHT = 0.25


@dataclass(frozen=True)
class Noise:
    """Of one frame.

    Attributes:
        share: sigma over disparity, in all.
        sigma: (H, W), in disparity, by how near a pixel is.
    """

    share: float
    sigma: torch.Tensor


def found_noise(disparity: torch.Tensor) -> Noise | None:
    """The noise in the pixels of a frame; None where there is hardly any.

    Args:
        disparity: (H, W), above 0.
    """
    if min(disparity.shape) < 8:
        return None
    second = [disparity.diff(n=2, dim=axis) / disparity.narrow(axis, 1, disparity.shape[axis] - 2) for axis in (0, 1)]
    second = [second[0][:, 1:-1], second[1][1:-1]]
    inner = disparity[1:-1, 1:-1]
    high = F.max_pool2d(disparity[None, None], 3, stride=1)[0, 0]
    ratio = high / -F.max_pool2d(-disparity[None, None], 3, stride=1)[0, 0]
    share, calm = 0.0, ratio < _CALM
    for _ in range(2):
        if calm.float().mean() < 0.1:
            return None
        share = max(share, min(_sigma(values[calm]) for values in second))
        calm = ratio < max(_CALM, 1 + _SPREAD * share)
    if share < _LEAST or min(_alternating(values, calm, axis) for axis, values in enumerate(second)) < _ALTERNATING:
        return None
    some = inner[calm][:: max(1, int(calm.sum()) // _SAMPLES)]
    limits = some.quantile(torch.linspace(0, 1, _GROUPS + 1, device=some.device)[1:-1])
    group, sigmas = torch.bucketize(inner.contiguous(), limits), []
    for number in range(_GROUPS):
        own = calm & (group == number)
        sigmas.append(min(_sigma(values[own]) for values in second) if own.any() else share)
    return Noise(share, disparity * disparity.new_tensor(sigmas)[torch.bucketize(disparity, limits)])


def without_noise(disparity: torch.Tensor) -> torch.Tensor:
    """Disparity (H, W), above 0, smoothed by as much as it is noisy; the same tensor where it is not.

    Each pixel moves towards the middles of pairs of pixels on opposite sides of it, near ones first, then farther ones
    (an edge-avoiding wavelet transform, Dammertz et al. 2010). On a plane these middles are right, whatever its slope;
    those that noise does not explain lie across an edge and count little.
    """
    noise = found_noise(disparity)
    if noise is None:
        return disparity
    height, width = disparity.shape
    value = disparity
    for level, left in enumerate(_LEFT):
        step = min(2**level, height - 1, width - 1)
        padded = F.pad(value[None, None], (step,) * 4, mode="reflect")[0, 0]
        total, weights = _OWN_WEIGHT * value, torch.full_like(value, _OWN_WEIGHT)
        tolerance = _TOLERANCE * left * noise.sigma
        for x, y, share in _PAIRS:
            one, other = (
                padded[step + sign * step * y :, step + sign * step * x :][:height, :width] for sign in (1, -1)
            )
            middle = (one + other) / 2
            weight = share * torch.exp(-(((middle - value) / tolerance) ** 2))
            total += weight * middle
            weights += weight
        value = total / weights
    return value


def depth_without_noise(depth: np.ndarray, device: torch.device | str = "cpu") -> np.ndarray:
    """`without_noise` for depth along z (H, W) float32, above 0: `depth` itself where it has none."""
    disparity = 1 / torch.from_numpy(depth).to(device)
    smooth = without_noise(disparity)
    return depth if smooth is disparity else (1 / smooth).cpu().numpy()


def _sigma(values: torch.Tensor) -> float:
    """Of noise, from its second differences (N,), few of which are anything else."""
    return float(values.abs().median()) / (_MEDIAN * _SECOND_DIFFERENCE)


def _alternating(values: torch.Tensor, calm: torch.Tensor, axis: int) -> float:
    """Share of second differences (H, W) along an axis whose sign is not the next one's, where both are calm."""
    count = values.shape[axis] - 1
    one, other = values.narrow(axis, 0, count), values.narrow(axis, 1, count)
    both = calm.narrow(axis, 0, count) & calm.narrow(axis, 1, count)
    return float((one * other < 0)[both].float().mean()) if both.any() else 0.0

"""Refines the fit of relative depth to poses by the pictures themselves: to a fraction of what a match is good for.

Matches are found to half a pixel of a small image. Here every point of a frame is moved to where the fit and the poses
put it in a second frame, and factor and shift change until the colours agree best (Gauss-Newton, with Cauchy's weights
against occlusions and subjects that move).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

_ROUNDS = 20
_LEAST_SEEN = 50  # points that must be inside of the second frame
_STEADY = 1e-4  # relative change of the disparity at which the rounds end


@dataclass(frozen=True)
class PointsOfPair:
    """Points of one frame, and how a second frame sees them.

    Attributes:
        relative: (N,) the estimate's relative disparity.
        places: (2, N) in the first image, pixels of `first`, pixel centres at +0.5.
        turned: (3, N) rays in the second camera's axes.
        moved: (3,) the first camera's position there.
        intrinsics: (3, 3) of the second camera, pixels of `second`.
        first, second: (3, h, w) in [0, 1], the two images.
    """

    relative: np.ndarray
    places: np.ndarray
    turned: np.ndarray
    moved: np.ndarray
    intrinsics: np.ndarray
    first: torch.Tensor
    second: torch.Tensor


def refined_fit(
    pairs: Sequence[PointsOfPair], factor: float, shift: float, offset: float | None
) -> tuple[float, float]:
    """Factor and shift of relative disparity under which colours agree best; those given where nothing gets better.

    Args:
        pairs: of frames.
        factor, shift: to start from, right to about a pixel.
        offset: keep shift = factor * offset, and refine the factor alone; None refines both.
    """
    colors = [_sampled(pair.first, pair.places) for pair in pairs]
    slopes = [_slopes(pair.second) for pair in pairs]
    best = factor, shift, np.inf
    for _ in range(_ROUNDS):
        parts = [_errors(*of_pair, factor, shift, offset) for of_pair in zip(pairs, colors, slopes, strict=True)]
        errors = np.concatenate([error for error, _ in parts])
        by_value = np.concatenate([derivative for _, derivative in parts])
        if len(errors) < _LEAST_SEEN:
            break
        cost = float(np.median(np.abs(errors)))
        if cost < best[2]:
            best = factor, shift, cost
        weight = 1 / (1 + (errors / (2 * cost + 1e-6)) ** 2)
        normal = (by_value * weight[:, None]).T @ by_value
        step = -np.linalg.lstsq(normal, (by_value * weight[:, None]).T @ errors, rcond=None)[0]
        change = step if offset is None else np.array([step[0], step[0] * offset])
        factor, shift = factor + float(change[0]), shift + float(change[1])
        if np.abs(change).max() < _STEADY * abs(factor):
            break
    return best[0], best[1]


def _errors(
    pair: PointsOfPair, colors: np.ndarray, slopes: torch.Tensor, factor: float, shift: float, offset: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Differences of colour (M,) of the points that are inside, and their derivatives by factor (and shift): (M, P)."""
    disparity = factor * pair.relative + shift
    there = pair.turned + pair.moved[:, None] * disparity
    height, width = pair.second.shape[1:]
    z = np.maximum(there[2], 1e-9)
    focal, middle = np.diag(pair.intrinsics)[:2, None], pair.intrinsics[:2, 2:]
    places = focal * there[:2] / z + middle
    inside = (there[2] > 1e-9) & (places > 1).all(axis=0) & (places < [[width - 1], [height - 1]]).all(axis=0)
    places, z, there = places[:, inside], z[inside], there[:, inside]
    # Of the place by disparity.
    along = focal * (pair.moved[:2, None] * z - there[:2] * pair.moved[2]) / z**2
    error = _sampled(pair.second, places) - colors[:, inside]
    gradient = _sampled(slopes, places).reshape(3, 2, -1)
    by_disparity = (gradient * along).sum(axis=1)
    of_factor = pair.relative[inside] + (0.0 if offset is None else offset)
    columns = [by_disparity * of_factor] if offset is not None else [by_disparity * of_factor, by_disparity]
    return error.ravel(), np.stack([column.ravel() for column in columns], axis=1)


def _slopes(image: torch.Tensor) -> torch.Tensor:
    """(6, h, w) derivatives of the colours by x and y, a pixel."""
    padded = F.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
    by_x = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    by_y = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return torch.stack([by_x, by_y], dim=1).flatten(0, 1)


def _sampled(image: torch.Tensor, places: np.ndarray) -> np.ndarray:
    """(C, N) float64 of an image (C, h, w) at places (2, N), bilinear."""
    height, width = image.shape[1:]
    size = np.array([[width], [height]])
    grid = torch.from_numpy(2 * places / size - 1).to(image).T[None, None]
    found = F.grid_sample(image[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[0, :, 0].double().cpu().numpy()

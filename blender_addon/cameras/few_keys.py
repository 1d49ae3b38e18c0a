"""Where Bezier keys have to stand, and how steep, for curves through them to pass close to every frame. Numpy only.

A piece of a Blender curve whose handles end at a third of the way is a cubic of time (Hermite's), so that fitting it
is least squares: the keys lie on the path, and the slopes at them are what brings the frames in between closest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Of the pieces between keys, those are halved that miss by this share of the largest miss.
_AMONG_THE_WORST = 0.7


@dataclass(frozen=True)
class Keys:
    """Common keys of several curves.

    Attributes:
        at: (K,) indices of the frames that have a key, rising; the first and the last frame have one.
        slopes: (K, C) change in value for each frame, at the keys.
    """

    at: np.ndarray
    slopes: np.ndarray


def few_keys(values: np.ndarray, bounds: np.ndarray) -> Keys | None:
    """The keys with which every curve stays within its bound on every frame.

    Keys are added in the middle between two, where the miss is largest.

    Args:
        values: (T, C) of C curves on T frames, at least two.
        bounds: (C,) by how much each may miss.

    Returns:
        None where more than half of the frames would have to have a key.
    """
    wanted = values / bounds
    at = np.array([0, len(values) - 1])
    while len(at) <= len(values) // 2:
        slopes, missed = _fitted(wanted, at)
        if missed.max() <= 1.0:
            return Keys(at, slopes * bounds)
        halved = missed > max(1.0, _AMONG_THE_WORST * missed.max())
        at = np.union1d(at, (at[:-1][halved] + at[1:][halved]) // 2)
    return None


def _fitted(values: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, C) slopes at keys on the path, and (K - 1,) the largest miss of any curve between each two keys."""
    frames = np.arange(len(values))
    piece = np.clip(np.searchsorted(at, frames, side="right") - 1, 0, len(at) - 2)
    length = np.diff(at)[piece]
    time = (frames - at[piece]) / length
    slope_shares = np.zeros((len(values), len(at)))
    slope_shares[frames, piece] = length * time * (1 - time) ** 2
    slope_shares[frames, piece + 1] = length * time**2 * (time - 1)
    begin, end = values[at[piece]], values[at[piece + 1]]
    # What is left to fit once the keys' slopes are those of the path; where two keys have no frame between them, the
    # fit says nothing about slopes, and the small term keeps the path's.
    rest = begin + (end - begin) * (time**2 * (3 - 2 * time))[:, None] - values
    slopes = np.gradient(values, axis=0)[at]
    rest = rest + slope_shares @ slopes
    squares = slope_shares.T @ slope_shares + 1e-9 * np.eye(len(at))
    correction = np.linalg.solve(squares, -slope_shares.T @ rest)
    missed = np.abs(rest + slope_shares @ correction).max(axis=1)
    return slopes + correction, np.maximum.reduceat(missed, at[:-1])

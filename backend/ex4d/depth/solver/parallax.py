"""Whether a clip has parallax: without it, no poses and no points can be solved for.

A homography explains all matches where the camera stood still, only turned or zoomed, or filmed one flat surface; where
it moved among things near and far, only epipolar geometry explains them.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from ex4d.depth.solver.matching import Matches
from ex4d.depth.solver.package import SEED, colmap

_WIDEST_PAIRS = 12  # of all that match; those whose features moved most
_FEWEST_MATCHES = 40  # of a pair that tells anything
_STILL_PIXELS = 0.7  # median motion of features, of the working size
# Pixels by which a match may miss a homography that explains it; about three times a feature's own error.
_HOMOGRAPHY_ERROR = 1.5
_HAS_PARALLAX = 0.12  # share of matches that no homography explains; moving subjects are among them, too


class Motion(Enum):
    """What the matches say of the camera."""

    UNRELATED = "frames have too little in common"
    STILL = "the camera stood still"
    WITHOUT_PARALLAX = "the camera turned or zoomed only, or filmed a flat surface"
    MOVING = "the camera moved among near and far things"


def motion_of(matches: Matches) -> Motion:
    """How the camera moved, from the pairs of frames whose features moved most."""
    package = colmap()
    moved = []
    for (one, other), count in matches.counts():
        if count < _FEWEST_MATCHES:
            continue
        pairs = matches.of(one, other)
        here, there = matches.positions(one)[pairs[:, 0]], matches.positions(other)[pairs[:, 1]]
        moved.append((float(np.median(np.linalg.norm(there - here, axis=1))), here, there))
    if not moved:
        return Motion.UNRELATED
    moved.sort(key=lambda one: -one[0])
    widest = moved[:_WIDEST_PAIRS]
    if widest[0][0] < _STILL_PIXELS:
        return Motion.STILL
    options = package.RANSACOptions()
    options.max_error, options.random_seed = _HOMOGRAPHY_ERROR, SEED
    unexplained = []
    for _, here, there in widest:
        found = package.estimate_homography_matrix(here, there, options)
        unexplained.append(1.0 if found is None else 1 - found["num_inliers"] / len(here))
    return Motion.MOVING if np.median(unexplained) > _HAS_PARALLAX else Motion.WITHOUT_PARALLAX

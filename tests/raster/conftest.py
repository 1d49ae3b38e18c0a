"""Fixtures of the raster tests: the true views of a known scene, and PSNR."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest


@pytest.fixture(scope="session")
def ground_truth(read_golden) -> Mapping[str, np.ndarray]:
    """The true views of a known scene."""
    return read_golden("ground_truth.npz")


@pytest.fixture(scope="session")
def psnr() -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    """Decibels between 8-bit colours, over the pixels of a mask."""

    def measure(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
        error = a[where].astype(np.float64) - b[where]
        return float(10 * np.log10(255.0**2 / np.mean(error**2)))

    return measure

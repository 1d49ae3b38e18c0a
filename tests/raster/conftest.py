"""What the raster tests share: the true views of a known scene, and the measure of likeness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def ground_truth() -> Mapping[str, np.ndarray]:
    """The whole data where it lies beside the checkout; else the two frames of it that are part of the checkout."""
    folders = (ROOT.parent / "shared" / "golden", ROOT / "tests" / "data" / "golden")
    path = next(folder / "ground_truth.npz" for folder in folders if (folder / "ground_truth.npz").exists())
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def psnr() -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    """Decibels between 8-bit colours, over the pixels of a mask."""

    def measure(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
        error = a[where].astype(np.float64) - b[where]
        return float(10 * np.log10(255.0**2 / np.mean(error**2)))

    return measure

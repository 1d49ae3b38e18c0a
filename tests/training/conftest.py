"""Small Wan networks for the tests of training, and caches of their own for each test."""

from __future__ import annotations

import pytest
import warp as wp

from ex4d.warp_start import start_warp
from tests.generation.conftest import own_cache, toy_models

__all__ = ["own_cache", "toy_models"]


@pytest.fixture(scope="session")
def kernel_cache() -> str:
    """Warp's usual cache of compiled kernels, before a test has other caches."""
    start_warp()
    return str(wp.config.kernel_cache_dir)


@pytest.fixture(autouse=True)
def usual_kernels(kernel_cache, monkeypatch) -> None:
    """Processes take compiled kernels from the usual cache: compiling them again would take most of the time."""
    monkeypatch.setenv("WARP_CACHE_PATH", kernel_cache)

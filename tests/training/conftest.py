"""Small Wan networks for the tests of training, and caches of their own for each test."""

from __future__ import annotations

from tests.generation.conftest import own_cache, toy_models

__all__ = ["own_cache", "toy_models"]

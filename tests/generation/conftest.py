"""Small Wan networks with random weights, in files with the published names and keys, for the whole engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ex4d.generation.wan.encode_cache import encodes

# Toy networks are too small for several threads: on busy cores these wait for each other longer than they compute.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory) -> Path:
    """A folder of models, shared: tests that change files copy it."""
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    from bench.random_weights import write_models

    return write_models(tmp_path_factory.mktemp("models") / "models")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    """Text embeddings and encodings are cached for each test alone, in processes that it starts too."""
    encodes.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *names, **more: str(tmp_path / "cache"))

"""Small Wan models with random weights, in files with the published names and keys, for the whole engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

# Toy models are too small to share out: on busy cores torch's threads wait for each other longer than they compute.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory) -> Path:
    """A folder of models, shared: tests that change files copy it."""
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    from ex4d.generate.wan.random_weights import write_models

    return write_models(tmp_path_factory.mktemp("models") / "models")

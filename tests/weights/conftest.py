"""Folders of toy weights in the published layouts, of the engine wan and of depth estimators."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

# Toy networks are faster on one thread than on several that wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_wan_models(tmp_path_factory) -> Path:
    """All parts of the engine wan."""
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    from bench.random_weights import write_models

    return write_models(tmp_path_factory.mktemp("wan") / "models")


@pytest.fixture(scope="session")
def toy_depth_models(tmp_path_factory) -> Path:
    """The three estimators that the libraries' own classes can write."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tests.depth.toy_checkpoints import write_depth_anything, write_depth_pro, write_depthcrafter

    folder = tmp_path_factory.mktemp("depth")
    for write in (write_depthcrafter, write_depth_anything, write_depth_pro):
        write(folder)
    return folder


@pytest.fixture
def wan_models(toy_wan_models, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(toy_wan_models, tmp_path / "models"))


@pytest.fixture
def depth_models(toy_depth_models, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(toy_depth_models, tmp_path / "models"))

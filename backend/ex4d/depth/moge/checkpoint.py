"""Loads a published file: the sizes that it names, and every tensor of a network of these sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ex4d.depth.dinov2 import BackboneSize
from ex4d.depth.moge.network import GeometryNetwork
from ex4d.weights.checkpoints import load_strictly, read_configured
from ex4d.weights.errors import CheckpointError


def load_network(file: Path, backbones: Mapping[str, BackboneSize] | None = None) -> GeometryNetwork:
    """The network with published weights, on the CPU, in float32.

    Args:
        backbones: sizes of the transformers by name; the published ones by default.

    Raises:
        CheckpointError: the file is missing, incomplete, or of another kind of network.
    """
    config, tensors = read_configured(file, "model_config", "model")
    try:
        with torch.device("meta"):
            network = GeometryNetwork(config, backbones)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} configures a network that is not known here ({type(error).__name__}: {error}). "
            "ex4d models list says which files belong here"
        ) from error
    return load_strictly(network, tensors, file, device="cpu", dtype=torch.float32)

"""Loads the published .pth file into the network: every tensor of the file is used, and the network needs no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ex4d.depth.video_depth_anything.network import NetworkSize, VideoDepthNetwork, backbone_names
from ex4d.weights.checkpoints import load_strictly, read_checkpoint, require_layout


def load_network(file: Path, size: NetworkSize, dtype: torch.dtype) -> VideoDepthNetwork:
    """The network with published weights, on the CPU.

    Raises:
        CheckpointError: the file is missing, incomplete, or of another model or size.
    """
    published = read_checkpoint(file)
    with torch.device("meta"):
        network = VideoDepthNetwork(size)
    own = network.state_dict()
    require_layout(published, published_layout(size, own), file, type(network).__name__)
    names = backbone_names(size, own)
    tensors = {}
    for name, value in own.items():
        there, third = names.get(name, (name, None))
        taken = published[there]
        tensors[name] = (taken if third is None else taken.chunk(3)[third]).reshape(value.shape)
    return load_strictly(network, tensors, file, device="cpu", dtype=dtype)


def published_layout(size: NetworkSize, own: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a published checkpoint of this size."""
    layout: dict[str, tuple[int, ...]] = {}
    names = backbone_names(size, own)
    for name, value in own.items():
        there, third = names.get(name, (name, None))
        shape = tuple(value.shape)
        layout[there] = shape if third is None else (3 * shape[0], *shape[1:])
    return layout

"""Loads the published .pth file into the network: every tensor of the file is used, and the network needs no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ex4d.depth.video_depth_anything.network import NetworkSize, VideoDepthNetwork, backbone_names
from ex4d.depth.weights import check_layout, load_strictly, read_tensors


def load_network(file: Path, size: NetworkSize, dtype: torch.dtype) -> VideoDepthNetwork:
    """The network with published weights.

    Raises:
        WeightsError: the file is missing, incomplete, or of another model or size.
    """
    published = read_tensors(file)
    with torch.device("meta"):
        own = VideoDepthNetwork(size).state_dict()
    check_layout(
        {name: tuple(value.shape) for name, value in published.items()}, published_layout(size, own), source=file
    )
    names = backbone_names(size, own)
    tensors = {}
    for name, value in own.items():
        there, third = names.get(name, (name, None))
        taken = published[there]
        tensors[name] = (taken if third is None else taken.chunk(3)[third]).reshape(value.shape)
    return load_strictly(lambda: VideoDepthNetwork(size), tensors, file, dtype)


def published_layout(size: NetworkSize, own: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a published checkpoint of this size."""
    layout: dict[str, tuple[int, ...]] = {}
    names = backbone_names(size, own)
    for name, value in own.items():
        there, third = names.get(name, (name, None))
        shape = tuple(value.shape)
        layout[there] = shape if third is None else (3 * shape[0], *shape[1:])
    return layout

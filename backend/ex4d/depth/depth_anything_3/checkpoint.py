"""Loads the published files into the networks: all that these need, and nothing that is not known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import torch

from ex4d.depth.depth_anything_3.network import MetricNetwork, MultiViewNetwork, NetworkSize
from ex4d.weights.checkpoints import load_strictly, read_checkpoint

_Network = TypeVar("_Network", MultiViewNetwork, MetricNetwork)

_PREFIX = "model."
# What the files hold besides: the encoder of known cameras, and the head that gives rays.
_UNUSED = re.compile(r"cam_enc\.|head\.scratch\.(output_conv|refinenet)\d_aux\.")


def load_network(kind: type[_Network], file: Path, size: NetworkSize) -> _Network:
    """A network with published weights, on the CPU, in float32.

    Raises:
        CheckpointError: the file is missing, incomplete, or of another model or size.
    """
    used = {own: value for name, value in read_checkpoint(file).items() if (own := own_name(name)) is not None}
    with torch.device("meta"):
        network = kind(size)
    return load_strictly(network, used, file, device="cpu", dtype=torch.float32)


def own_name(published: str) -> str | None:
    """The name of a tensor of the file in the network; None for one that the network does without."""
    name = published.removeprefix(_PREFIX)
    return None if _UNUSED.match(name) else name

"""EX-4D's camera encoder: maps control latents (of colour and mask) to a residual for the patch embedding.

It becomes ``dit.control_adapter``, which DiffSynth calls with ``control_camera_latents_input`` and whose result it
adds. The published ``ex4d.ckpt`` holds its weights and the LoRA's in one flat dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ex4d.weights.checkpoints import load_strictly, name_of, read_checkpoint
from ex4d.weights.errors import CheckpointError
from ex4d.weights.lora import changes_a_layer
from ex4d.weights.packed import StoredTensor

_PREFIXES = ("latent_encoder.", "latent_patch_embedding.")

# Latent channels of the VAE; the control latents have as many for colour, and for mask.
LATENT_CHANNELS = 16


class RoundedConv3d(nn.Conv3d):
    """A convolution that adds its bias to the rounded result, as torch does on GPUs.

    In bfloat16 that rounds once more. The original ran so; a CPU's own convolution differs by half a per cent.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (B, C, T, H, W) to the convolution's result."""
        result = functional.conv3d(input, self.weight, None, self.stride)
        return result if self.bias is None else result + self.bias.to(result.dtype).view(-1, 1, 1, 1)


class CameraEncoder(nn.Module):
    """Three 1x1x1 convolutions with SiLU between them, then one over patches of 1x2x2 latents."""

    def __init__(self, hidden: int, width: int):
        """Build with ``hidden`` channels (published: 1024) for a transformer of ``width`` channels (5120)."""
        super().__init__()
        self.latent_encoder = nn.Sequential(
            RoundedConv3d(2 * LATENT_CHANNELS, hidden, 1),
            nn.SiLU(),
            RoundedConv3d(hidden, hidden, 1),
            nn.SiLU(),
            RoundedConv3d(hidden, hidden, 1),
        )
        self.latent_patch_embedding = RoundedConv3d(hidden, width, (1, 2, 2), stride=(1, 2, 2))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Map control latents (B, 32, F, h, w), colour before mask, to (B, width, F, h / 2, w / 2)."""
        return self.latent_patch_embedding(self.latent_encoder(latents))


class Adapter(NamedTuple):
    """The parts of an ``ex4d.ckpt``.

    Attributes:
        camera: tensors of the camera encoder, by its own names.
        lora: of the LoRA, as `ex4d.weights.lora.read_lora` takes them.
        unused: keys of what else the file holds, such as an optimiser's state or frozen weights.
    """

    camera: dict[str, torch.Tensor]
    lora: dict[str, torch.Tensor]
    unused: tuple[str, ...]


def split_adapter(path: Path) -> Adapter:
    """Read an ``ex4d.ckpt``, or a file of the same layout with other prefixes or further tensors.

    Raises:
        CheckpointError: the camera encoder or the LoRA is missing.
    """
    camera, lora, unused = {}, {}, []
    for key, value in read_checkpoint(path).items():
        start = min((found for prefix in _PREFIXES if (found := key.find(prefix)) >= 0), default=-1)
        if start == 0 or (start > 0 and key[start - 1] == "."):
            camera[key[start:]] = value
        elif changes_a_layer(key):
            lora[key] = value
        else:
            unused.append(key)
    for what, part in (("camera encoder (latent_encoder.*)", camera), ("LoRA (blocks.N.*.lora_A.*)", lora)):
        if not part:
            raise CheckpointError(f"{path} has no {what}; the published ex4d.ckpt has: ex4d models fetch ex4d")
    return Adapter(camera, lora, tuple(unused))


def load_camera_encoder(
    tensors: Mapping[str, StoredTensor],
    width: int,
    source: Path | Sequence[Path],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
) -> CameraEncoder:
    """Load the encoder for a transformer of ``width`` channels from its part of an ``ex4d.ckpt``.

    Raises:
        CheckpointError: keys or shapes that do not fit.
    """
    encoder = build_camera_encoder(tensors, width, source)
    load_strictly(encoder, tensors, source, device=device, dtype=dtype)
    return encoder


def build_camera_encoder(
    tensors: Mapping[str, StoredTensor], width: int, source: Path | Sequence[Path]
) -> CameraEncoder:
    """Build the encoder on the meta device, with the sizes of these tensors.

    Raises:
        CheckpointError: they are of something else.
    """
    first = tensors.get("latent_encoder.0.weight")
    if first is None or first.ndim != 5:
        raise CheckpointError(f"{name_of(source)} has no latent_encoder.0.weight of a camera encoder")
    with torch.device("meta"):
        return CameraEncoder(first.shape[0], width)

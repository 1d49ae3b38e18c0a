"""TAEW 2.1, a tiny decoder of Wan's latents: a sketch of what the VAE decodes, in a fiftieth of the time.

For the preset live and for the images of steps, where its file is there. The weights are Ollin Boer Bohan's (MIT); the
names of their tensors number the layers of his network, of which those without weights have none here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ex4d.generation.wan.camera_encoder import LATENT_CHANNELS
from ex4d.generation.wan.conditioning import LATENT_FRAMES
from ex4d.generation.wan.decoding import to_uint8_images
from ex4d.weights.catalogue import Part
from ex4d.weights.checkpoints import load_strictly, read_checkpoint, shapes_of
from ex4d.weights.errors import CheckpointError
from ex4d.weights.inventory import Finding

# Channels of the published network's stages, from the latents to the image.
_WIDTHS = (256, 128, 64, 64)
# Numbers of the first of three blocks of each stage; what enlarges the frames follows them.
_STAGES = (3, 9, 15)
_BLOCKS = 3
# How many frames each stage makes of one.
_FRAMES = (1, 2, 2)
_LAST = 22
_FIRST_KEY = "decoder.1.weight"
# Latents that are decoded at once, which bounds the memory of large frames.
_AT_ONCE = 4
# Latents before a step's image that it is decoded with. The network remembers more, but shows little of it.
_BEFORE = 2


class _Block(nn.Module):
    """A residual block over a frame and the one before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU())
        self.conv.add_module("4", _conv(width, width))

    def forward(self, frames: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Map (T, C, h, w), with the frame (1, C, h, w) before them, to the same shape."""
        past = torch.cat([before, frames[:-1]])
        return functional.relu(self.conv(torch.cat([frames, past], dim=1)) + frames)


class _Grow(nn.Module):
    """Makes several frames of each."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width * frames, 1, bias=False)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Map (T, C, h, w) to (T * frames, C, h, w)."""
        return self.conv(frames).reshape(-1, *frames.shape[1:])


class TinyDecoder(nn.Module):
    """The decoder; its parameters have the published names."""

    def __init__(self, widths: tuple[int, ...] = _WIDTHS) -> None:
        """Build a network of the published widths, or others."""
        super().__init__()
        layers: dict[str, nn.Module] = {"1": _conv(LATENT_CHANNELS, widths[0])}
        for first, width, following, frames in zip(_STAGES, widths, widths[1:], _FRAMES, strict=False):
            layers |= {str(first + number): _Block(width) for number in range(_BLOCKS)}
            layers[str(first + _BLOCKS + 1)] = _Grow(width, frames)
            layers[str(first + _BLOCKS + 2)] = _conv(width, following, bias=False)
        layers[str(_LAST)] = _conv(widths[-1], 3)
        self.decoder = nn.ModuleDict(layers)

    @torch.inference_mode()
    def decode_in_order(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield frames (n, 3, H, W) float32 in [-1, 1] of normalised latents (1, 16, F, h, w): 4F - 3 in all.

        The VAE's decoder yields as many: one for the first latent, then four for each.
        """
        memory: dict[str, torch.Tensor] = {}
        for start in range(0, latents.shape[2], _AT_ONCE):
            frames = self._decode(latents[0, :, start : start + _AT_ONCE].transpose(0, 1), memory)
            # Three frames of the first latent are of the time before the clip.
            yield frames if start else frames[LATENT_FRAMES - 1 :]

    @torch.inference_mode()
    def image(self, latents: torch.Tensor, index: int) -> np.ndarray:
        """The last frame (H, W, 3) uint8 of latent ``index`` of (1, 16, F, h, w)."""
        near = latents[0, :, max(0, index - _BEFORE) : index + 1]
        return to_uint8_images(self._decode(near.transpose(0, 1), {})[-1:])[0]

    def _decode(self, latents: torch.Tensor, memory: dict[str, torch.Tensor]) -> torch.Tensor:
        """Decode (F, 16, h, w), after what ``memory`` has of the latents before, to (4F, 3, H, W)."""
        layers = self.decoder
        weight = next(self.parameters())
        # As it was trained: no latent is further from 0 than 3.
        frames = functional.relu(layers["1"](3 * torch.tanh(latents.to(weight) / 3)))
        for first in _STAGES:
            for name in (str(first + number) for number in range(_BLOCKS)):
                before = memory.get(name, torch.zeros_like(frames[:1]))
                memory[name] = frames[-1:]
                frames = layers[name](frames, before)
            frames = functional.interpolate(frames, scale_factor=2)
            frames = layers[str(first + _BLOCKS + 2)](layers[str(first + _BLOCKS + 1)](frames))
        image = layers[str(_LAST)](functional.relu(frames))
        return image.float().clamp(0, 1) * 2 - 1


def _conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


def load_tiny_decoder(path: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype) -> TinyDecoder:
    """Load the decoder of a file that may also hold an encoder; once for each state of the file.

    Raises:
        CheckpointError: the file is damaged, or holds another network.
    """
    state = path.stat()
    return _loaded(path, state.st_size, state.st_mtime_ns, torch.device(device), dtype)


@lru_cache(1)
def _loaded(path: Path, size: int, changed: int, device: torch.device, dtype: torch.dtype) -> TinyDecoder:
    tensors = _decoder_tensors(path)
    with torch.device("meta"):
        model = TinyDecoder(_widths(tensors, path))
    load_strictly(model, tensors, path, device=device, dtype=dtype)
    return model.to(memory_format=torch.channels_last) if device.type == "cuda" else model


def _decoder_tensors(path: Path) -> dict[str, torch.Tensor]:
    return {key: value for key, value in read_checkpoint(path).items() if key.startswith("decoder.")}


def _widths(tensors: dict[str, torch.Tensor], path: Path) -> tuple[int, ...]:
    """The widths of a network's stages, which follow from the shapes."""
    names = [_FIRST_KEY, *(f"decoder.{first + _BLOCKS + 2}.weight" for first in _STAGES)]
    wrong = [name for name in names if name not in tensors or tensors[name].ndim != 4]
    if wrong or tensors[_FIRST_KEY].shape[1] != LATENT_CHANNELS:
        what = f"it has no layer {wrong[0]}" if wrong else f"its latents have {tensors[_FIRST_KEY].shape[1]} channels"
        raise CheckpointError(f"{path} is not TAEW 2.1, the tiny decoder of Wan2.1: {what}")
    return tuple(tensors[name].shape[0] for name in names)


def check_layout(part: Part, paths: tuple[Path, ...], models: Path) -> Finding:
    """A `CheckLayout` of the weights room."""
    with torch.device("meta"):
        published = shapes_of(TinyDecoder().state_dict())
    try:
        right = shapes_of(_decoder_tensors(paths[0])) == published
    except CheckpointError as error:
        return Finding(False, str(error))
    return Finding(right, f"keys and shapes are{'' if right else ' not'} those of the published model ({paths[0]})")

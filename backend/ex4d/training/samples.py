"""`TrainingSample`: all that a training step is given of one window of footage, encoded once by the frozen networks.

The tensors are those that `generation.wan.window_encoding` makes of a window, without the batch's axis: masked video
and mask in, source video out. A sample is stored as one safetensors file, whose metadata say what it was made of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import torch
from torch.nn import functional

from ex4d.generation.wan.conditioning import LATENT_FRAMES, WindowConditioning, latent_count
from ex4d.generation.wan.encoders import MAX_TOKENS
from ex4d.training.errors import SampleError
from ex4d_core.errors import RequestError
from ex4d_core.schema import Length, Range, Settings

MaskKind = Literal["rendered", "tracked", "other"]

# Metadata of the safetensors file: one text, JSON.
_ORIGIN = "origin"
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class SampleOrigin(Settings):
    """What a sample was made of.

    Attributes:
        key: names the sample in its data set; without dots, which end a sample's name in a WebDataset shard.
        frames: of the window, 4n + 1.
        width, height: of the images, pixels.
        mask: how its mask was made; "other" is of experiments.
        unseen: mean share of the frames that the mask hides, as the engine gives it to the networks.
        clip: name of the footage, for people.
        first_frame: of the window, in the footage.
        caption: the prompt.
        angle: degrees that the sampled camera turns around its pivot, at most; 0 of other masks.
        move: the sampled camera or regions in words, for people.
        seed: of the mask.
    """

    key: Annotated[str, Length(100, 1)]
    frames: Annotated[int, Range(1)]
    width: Annotated[int, Range(1)]
    height: Annotated[int, Range(1)]
    mask: MaskKind = "other"
    unseen: Annotated[float, Range(0, 1)] = 0.0
    clip: str = ""
    first_frame: Annotated[int, Range(0)] = 0
    caption: str = ""
    angle: Annotated[float, Range(0, 180)] = 0.0
    move: str = ""
    seed: Annotated[int, Range(0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if "." in self.key or "/" in self.key or not self.key.isprintable():
            raise RequestError(f"invalid key {self.key!r}: expected printable characters without dots and slashes")
        if self.frames % LATENT_FRAMES != 1:
            raise RequestError(f"frames must be 4n + 1 (5, 9, 13...), not {self.frames}")


@dataclass(frozen=True)
class TrainingSample:
    """One window: what the transformer is to denoise, and all that it is given to do so.

    C is the latent channels: 16 of Wan's VAE. All tensors are of one floating-point type.

    Attributes:
        origin: what it was made of, with its key.
        target_latents: (C, F, h, w) of the source frames, normalised as the sampler's latents are.
        control_latents: (2 C, F, h, w) of the masked video and of the mask, for the camera encoder.
        image_latents: (4 + C, F, h, w), mask and latents of the known first frame; Wan's ``y``.
        prompt_embeds: (L, D) of the caption, zeros after its last token.
        image_embeds: (N, E), CLIP's of the first frame.
    """

    origin: SampleOrigin
    target_latents: torch.Tensor
    control_latents: torch.Tensor
    image_latents: torch.Tensor
    prompt_embeds: torch.Tensor
    image_embeds: torch.Tensor

    def __post_init__(self) -> None:
        """Check shapes, types and values.

        Raises:
            SampleError: names the sample, the tensor, and what is wrong with it.
        """
        tensors = self.tensors
        for name, tensor in tensors.items():
            axes = 2 if name.endswith("embeds") else 4
            if tensor.ndim != axes or 0 in tensor.shape:
                raise self._error(f"{name} must have {axes} axes, none of them empty, not {tuple(tensor.shape)}")
            if tensor.dtype not in _DTYPES or tensor.dtype != self.target_latents.dtype:
                raise self._error(
                    f"{name} is {tensor.dtype}, but all must be {self.target_latents.dtype}, of bfloat16, float16 or "
                    "float32"
                )
        channels, *video = self.target_latents.shape
        if video[0] != latent_count(self.origin.frames):
            raise self._error(
                f"target_latents have {video[0]} latents, but {self.origin.frames} frames become "
                f"{latent_count(self.origin.frames)}"
            )
        if video[1] % 2 or video[2] % 2:
            raise self._error(f"latents of {video[2]}x{video[1]} cannot be cut into the transformer's 2x2 patches")
        expected = {"control_latents": 2 * channels, "image_latents": LATENT_FRAMES + channels}
        for name, count in expected.items():
            if tensors[name].shape != (count, *video):
                raise self._error(f"{name} must be {(count, *video)}, not {tuple(tensors[name].shape)}")
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise self._error(f"{name} contains NaN or infinity")

    @property
    def key(self) -> str:
        """Its name in the data set."""
        return self.origin.key

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        return {name: getattr(self, name) for name in _TENSORS}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the tensors by name: equal for all samples of a data set."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def to_bytes(self) -> bytes:
        """As a safetensors file, without the prompt's empty end: it is most of the text features."""
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        filled = tensors["prompt_embeds"].ne(0).any(dim=1).nonzero()
        end = max(1, int(filled.max()) + 1 if len(filled) else 0)
        tensors["prompt_embeds"] = tensors["prompt_embeds"][:end].clone()
        origin = {**self.origin.to_wire(), "prompt_length": len(self.prompt_embeds)}
        return save(tensors, {_ORIGIN: json.dumps(origin, ensure_ascii=False)})

    @staticmethod
    def from_bytes(data: bytes, key: str = "") -> TrainingSample:
        """What `to_bytes` gave.

        Args:
            key: that it must have; "" for any.

        Raises:
            SampleError: it is no such file, lacks a tensor, or holds what the constructor refuses.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(data)
            length = int.from_bytes(data[:8], "little")
            origin = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_ORIGIN])
            prompt_length = origin.pop("prompt_length")
            described = SampleOrigin.from_wire(origin)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SampleError(f"sample {key!r} cannot be read: {type(error).__name__}: {error}") from error
        if key and described.key != key:
            raise SampleError(f"sample {key!r} says that it is {described.key!r}")
        if missing := [name for name in _TENSORS if name not in tensors]:
            raise SampleError(f"sample {described.key!r} has no {', '.join(missing)}")
        prompt = tensors["prompt_embeds"]
        if prompt.ndim != 2 or not isinstance(prompt_length, int) or not len(prompt) <= prompt_length <= MAX_TOKENS:
            raise SampleError(
                f"sample {described.key!r}: prompt_embeds {tuple(prompt.shape)} do not fit a text of {prompt_length!r} "
                "tokens"
            )
        tensors["prompt_embeds"] = functional.pad(prompt, (0, 0, 0, prompt_length - len(prompt)))
        return TrainingSample(described, **{name: tensors[name] for name in _TENSORS})

    def _error(self, what: str) -> SampleError:
        return SampleError(f"sample {self.key!r}: {what}")


_TENSORS = tuple(entry.name for entry in fields(TrainingSample) if entry.name != "origin")


def stacked(samples: Sequence[TrainingSample]) -> tuple[torch.Tensor, WindowConditioning]:
    """Target latents (B, C, F, h, w) of some samples, and their conditioning, which has the same first axis.

    Raises:
        SampleError: they have different shapes.
    """
    first = samples[0]
    for other in samples[1:]:
        if other.shapes != first.shapes:
            raise SampleError(
                f"samples {first.key!r} and {other.key!r} differ in shape and cannot be in one batch: {first.shapes}, "
                f"{other.shapes}"
            )
    tensors = {name: torch.stack([sample.tensors[name] for sample in samples]) for name in _TENSORS}
    target = tensors.pop("target_latents")
    return target, WindowConditioning(negative_prompt_embeds=None, **tensors)

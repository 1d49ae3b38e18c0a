"""Video Depth Anything's network: DINOv2 from `transformers`, and a dense prediction head with temporal attention.

Modules of the head carry the names of the published checkpoint, which therefore loads as it is; the backbone's names
are translated by `backbone_names`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Dinov2Backbone, Dinov2Config

from ex4d.depth.dinov2 import PATCH, resampled_positions
from ex4d.depth.dpt import Fusion, resize_layers, resized
from ex4d.depth.estimation import before_each

LONGEST_WINDOW = 32  # frames: the positions along time that the network knows
_TEMPORAL_HEADS = 8
_FRAMES_AT_ONCE = 4  # through the widest part of the head, where memory peaks


@dataclass(frozen=True)
class NetworkSize:
    """What differs between the published sizes; the defaults are those of the small one.

    Attributes:
        width: channels of the backbone.
        depth: its layers.
        heads: of its attention.
        taps: backbone layers, counted from 1, whose output the head reads.
        channels: of the four taps in the head.
        features: channels of the head after that.
        trained_size: side in pixels of the images that the backbone's position embeddings were trained for.
        hidden: channels of the head's last layer.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    taps: tuple[int, ...] = (3, 6, 9, 12)
    channels: tuple[int, ...] = (48, 96, 192, 384)
    features: int = 64
    trained_size: int = 518
    hidden: int = 32


class VideoDepthNetwork(nn.Module):
    """Frames of a window to disparity, up to a factor and an offset that the whole window shares."""

    def __init__(self, size: NetworkSize) -> None:
        super().__init__()
        config: dict[str, Any] = {
            "hidden_size": size.width,
            "num_hidden_layers": size.depth,
            "num_attention_heads": size.heads,
            "image_size": size.trained_size,
            "patch_size": PATCH,
            "out_indices": list(size.taps),
            "apply_layernorm": True,
            "reshape_hidden_states": False,
        }
        self.pretrained = Dinov2Backbone(Dinov2Config(**config))
        self.pretrained.embeddings.interpolate_pos_encoding = self._positions
        self.head = TemporalDepthHead(size)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Disparity of a window.

        Args:
            frames: (T, 3, H, W), normalised as for ImageNet; H and W multiples of 14, T at most 32.

        Returns:
            (T, H, W), at least 0.
        """
        rows, columns = frames.shape[2] // PATCH, frames.shape[3] // PATCH
        tokens = self.pretrained(frames).feature_maps
        maps = [taken[:, 1:].transpose(1, 2).unflatten(2, (rows, columns)) for taken in tokens]
        return self.head(maps, (rows * PATCH, columns * PATCH))

    @contextmanager
    def between_layers(self, call: Callable[[], None]) -> Iterator[None]:
        """Within the block, `call` is called before each layer of the backbone and each temporal layer of the head.

        It may raise, which ends the pass within a fraction of a second.
        """
        with before_each(self._watched(), call):
            yield

    @property
    def watched_layers(self) -> int:
        """How often `between_layers` calls in a pass."""
        return len(self._watched())

    def _watched(self) -> list[nn.Module]:
        return [*self.pretrained.encoder.layer, *self.head.motion_modules]

    def _positions(self, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return resampled_positions(self.pretrained.embeddings.position_embeddings, height // PATCH, width // PATCH)


class TemporalDepthHead(nn.Module):
    """A dense prediction transformer's head (DPT, arXiv 2103.13413), with four layers of attention over frames."""

    def __init__(self, size: NetworkSize) -> None:
        super().__init__()
        third, fourth = size.channels[2:]
        self.projects = nn.ModuleList(nn.Conv2d(size.width, channels, 1) for channels in size.channels)
        self.resize_layers = resize_layers(size.channels)
        self.motion_modules = nn.ModuleList(
            TemporalLayer(channels) for channels in (third, fourth, size.features, size.features)
        )
        self.scratch = FusionLayers(size)

    def forward(self, maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """(T, H, W) from four maps (T, C, h, w) of the backbone, and the size (H, W) in pixels."""
        pairs = zip(self.projects, self.resize_layers, maps, strict=True)
        one, two, three, four = (resize(project(taken)) for project, resize, taken in pairs)
        scratch = self.scratch
        one, two = scratch.layer1_rn(one), scratch.layer2_rn(two)
        three = scratch.layer3_rn(self.motion_modules[0](three))
        four = scratch.layer4_rn(self.motion_modules[1](four))
        path = self.motion_modules[2](scratch.refinenet4(four, None, three.shape[2:]))
        path = self.motion_modules[3](scratch.refinenet3(path, three, two.shape[2:]))
        # From here on frames do not depend on each other.
        count = _FRAMES_AT_ONCE
        batches = zip(path.split(count), two.split(count), one.split(count), strict=True)
        return torch.cat([scratch.finest(*batch, size) for batch in batches])


class FusionLayers(nn.Module):
    """The convolutions with which the head fuses its four maps, from the coarsest to the finest."""

    def __init__(self, size: NetworkSize) -> None:
        super().__init__()
        first, second, third, fourth = size.channels
        self.layer1_rn = nn.Conv2d(first, size.features, 3, padding=1, bias=False)
        self.layer2_rn = nn.Conv2d(second, size.features, 3, padding=1, bias=False)
        self.layer3_rn = nn.Conv2d(third, size.features, 3, padding=1, bias=False)
        self.layer4_rn = nn.Conv2d(fourth, size.features, 3, padding=1, bias=False)
        self.refinenet1, self.refinenet2 = Fusion(size.features), Fusion(size.features)
        self.refinenet3, self.refinenet4 = Fusion(size.features), Fusion(size.features)
        self.output_conv1 = nn.Conv2d(size.features, size.features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(size.features // 2, size.hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(size.hidden, 1, 1), nn.ReLU()
        )

    def finest(self, path: torch.Tensor, two: torch.Tensor, one: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(T, H, W) from what the two coarser maps gave and the two finer maps (T, C, h, w)."""
        path = self.refinenet2(path, two, one.shape[2:])
        path = self.refinenet1(path, one, (2 * one.shape[2], 2 * one.shape[3]))
        return self.output_conv2(resized(self.output_conv1(path), size))[:, 0]


class TemporalLayer(nn.Module):
    """Attention of every place of a map to the same place in the window's other frames, with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(T, C, h, w) in and out."""
        return maps + self.temporal_transformer(maps)


class TemporalTransformer(nn.Module):
    """A transformer along time, between two projections."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.Sequential(TemporalBlock(channels))
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(T, C, h, w) in and out."""
        along_time = self.norm(maps).permute(2, 3, 0, 1).flatten(0, 1)  # (h w, T, C)
        along_time = self.proj_out(self.transformer_blocks(self.proj_in(along_time)))
        return along_time.unflatten(0, maps.shape[2:]).permute(2, 3, 0, 1)


class TemporalBlock(nn.Module):
    """Two rounds of attention over time and a gated feed-forward layer, each with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(TemporalAttention(channels) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        layers = nn.Sequential(GatedGelu(channels), nn.Identity(), nn.Linear(4 * channels, channels))
        self.ff = nn.ModuleDict({"net": layers})
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """(N, T, C) in and out."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            value = value + attention(norm(value))
        return value + self.ff["net"](self.ff_norm(value))


class GatedGelu(nn.Module):
    """Four times the channels, each times the activation of its gate (GEGLU, arXiv 2002.05202)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 8 * channels)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """(N, T, 4 C) of (N, T, C)."""
        content, gate = self.proj(value).chunk(2, dim=-1)
        return content * F.gelu(gate)


class TemporalAttention(nn.Module):
    """Attention over the frames of a window, whose positions in it are embedded."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(channels, channels))
        self.pos_encoder = PositionalEncoding(channels)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """(N, T, C) in and out."""
        placed = self.pos_encoder(value)
        query, key, content = (
            layer(placed).unflatten(2, (_TEMPORAL_HEADS, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        attended = _attention_in_batches(query, key, content)
        return self.to_out(attended.transpose(1, 2).flatten(2))


class PositionalEncoding(nn.Module):
    """Adds sinusoids of the positions in a window."""

    pe: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoids(LONGEST_WINDOW, channels)[None])

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """(N, T, C) in and out."""
        return value + self.pe[:, : value.shape[1]].to(value.dtype)


def sinusoids(length: int, channels: int) -> torch.Tensor:
    """(length, channels): sines and cosines in turn, of wavelengths from 2 pi to 20000 pi."""
    rates = torch.exp(torch.arange(0, channels, 2) * (-math.log(10_000) / channels))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def backbone_names(size: NetworkSize, own: Mapping[str, object]) -> dict[str, tuple[str, int | None]]:
    """Where each of the backbone's own tensors lies in the published checkpoint.

    Args:
        size: of the network.
        own: its state dict, whose names show how the installed `transformers` names them.

    Returns:
        Own name to (published name, None or which third of it along the first axis).
    """
    renamed = any(".q_proj." in name for name in own)
    parts = ("q_proj", "k_proj", "v_proj") if renamed else ("attention.query", "attention.key", "attention.value")
    joined = "o_proj" if renamed else "output.dense"
    mine, theirs = "pretrained.embeddings.", "pretrained."
    names: dict[str, tuple[str, int | None]] = {
        f"{mine}cls_token": (f"{theirs}cls_token", None),
        f"{mine}mask_token": (f"{theirs}mask_token", None),
        f"{mine}position_embeddings": (f"{theirs}pos_embed", None),
    }
    for kind in ("weight", "bias"):
        names[f"{mine}patch_embeddings.projection.{kind}"] = (f"{theirs}patch_embed.proj.{kind}", None)
        names[f"pretrained.layernorm.{kind}"] = (f"{theirs}norm.{kind}", None)
    for layer in range(size.depth):
        mine, theirs = f"pretrained.encoder.layer.{layer}", f"pretrained.blocks.{layer}"
        for number in (1, 2):
            names[f"{mine}.layer_scale{number}.lambda1"] = (f"{theirs}.ls{number}.gamma", None)
        for kind in ("weight", "bias"):
            for third, part in enumerate(parts):
                names[f"{mine}.attention.{part}.{kind}"] = (f"{theirs}.attn.qkv.{kind}", third)
            names[f"{mine}.attention.{joined}.{kind}"] = (f"{theirs}.attn.proj.{kind}", None)
            for same in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                names[f"{mine}.{same}.{kind}"] = (f"{theirs}.{same}.{kind}", None)
    return names


def _attention_in_batches(query: torch.Tensor, key: torch.Tensor, content: torch.Tensor) -> torch.Tensor:
    """Scaled dot products. CUDA's kernels take no more than 65535 blocks along the first axis."""
    limit = 32_768
    batches = zip(query.split(limit), key.split(limit), content.split(limit), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*batch) for batch in batches])

"""DINOv2's vision transformer (arXiv 2304.07193) under its published tensor names, and with what its descendants add.

Depth Anything 3 and MoGe-2 keep the published layout of the backbone, so one transformer loads them all;
`transformers` has it under other names, and without rotary positions and attention between views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

PATCH = 14
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BLOCK_EPSILON = 1e-6


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Images (..., 3, H, W) in [0, 1] as the transformer was trained on them."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


@dataclass(frozen=True)
class BackboneSize:
    """Sizes of a transformer.

    Attributes:
        width: channels.
        depth: blocks.
        heads: of the attention.
        trained_size: side in pixels of the images that the position embeddings were trained for.
    """

    width: int
    depth: int
    heads: int
    trained_size: int = 518


BACKBONES = {
    "vits": BackboneSize(384, 12, 6),
    "vitb": BackboneSize(768, 12, 12),
    "vitl": BackboneSize(1024, 24, 16),
}


class Tap(NamedTuple):
    """What one block gives.

    Attributes:
        patches: (T, N, C), normalised.
        first: (T, C), the class or camera token.
    """

    patches: torch.Tensor
    first: torch.Tensor


class VisionTransformer(nn.Module):
    """Images to the tokens of chosen blocks; every image on its own.

    Args:
        size: of the transformer.
        epsilon: of the last normalisation, in which the published codes differ.
        mask_token: whether the checkpoint has the token for masked patches, which nothing here uses.
        rotary_from: block from which on attention normalises queries and keys, and turns them by their place.
    """

    def __init__(
        self, size: BackboneSize, *, epsilon: float, mask_token: bool = False, rotary_from: int | None = None
    ) -> None:
        super().__init__()
        patches = (size.trained_size // PATCH) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, size.width))
        if mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, size.width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, size.width, PATCH, stride=PATCH)})
        first = size.depth if rotary_from is None else rotary_from
        self.blocks = nn.ModuleList(Block(size, rotary=index >= first) for index in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=epsilon)

    def forward(self, images: torch.Tensor, layers: Sequence[int]) -> list[Tap]:
        """The normalised tokens behind some blocks.

        Args:
            images: (T, 3, H, W), normalised as for ImageNet; H and W multiples of 14.
            layers: numbers of blocks, counted from 0.
        """
        tokens, taps = self.embedded(images), []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in layers:
                normalised = self.norm(tokens)
                taps.append(Tap(normalised[:, 1:], normalised[:, 0]))
        return taps

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        """(T, 1 + N, C) tokens of patches, with their positions, behind the class token."""
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        return tokens + resampled_positions(self.pos_embed, images.shape[2] // PATCH, images.shape[3] // PATCH)


class Block(nn.Module):
    """Attention and a feed-forward layer, each normalised before, scaled after, and with a shortcut."""

    def __init__(self, size: BackboneSize, *, rotary: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, eps=_BLOCK_EPSILON)
        self.attn = Attention(size, rotary=rotary)
        self.ls1 = Scale(size.width)
        self.norm2 = nn.LayerNorm(size.width, eps=_BLOCK_EPSILON)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(size.width, 4 * size.width), "fc2": nn.Linear(4 * size.width, size.width)}
        )
        self.ls2 = Scale(size.width)

    def forward(self, tokens: torch.Tensor, rotation: Rotation | None = None) -> torch.Tensor:
        """(B, N, C) in and out; `rotation` of the N tokens."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), rotation))
        return tokens + self.ls2(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(tokens)))))


class Attention(nn.Module):
    """Attention of all tokens to each other."""

    def __init__(self, size: BackboneSize, *, rotary: bool) -> None:
        super().__init__()
        self._heads = size.heads
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.proj = nn.Linear(size.width, size.width)
        if rotary:
            self.q_norm = nn.LayerNorm(size.width // size.heads)
            self.k_norm = nn.LayerNorm(size.width // size.heads)

    def forward(self, tokens: torch.Tensor, rotation: Rotation | None) -> torch.Tensor:
        """(B, N, C) in and out."""
        query, key, value = self.qkv(tokens).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            query, key = rotation(self.q_norm(query)), rotation(self.k_norm(key))
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Scale(nn.Module):
    """One factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """(..., C) in and out."""
        return value * self.gamma


class Rotation:
    """Rotary positions in two dimensions: half of a head's channels turn by the row, the other half by the column.

    Args:
        rows, columns: (N,) places of the tokens.
        channels: of a head, a multiple of 4.
    """

    def __init__(self, rows: torch.Tensor, columns: torch.Tensor, channels: int) -> None:
        steps = torch.arange(0, channels // 2, 2, device=rows.device).float()
        rates = 100.0 ** -(steps / (channels // 2))
        angles = torch.stack([rows, columns], dim=1)[..., None] * rates  # (N, 2, channels / 4)
        self._cosine, self._sine = angles.cos()[:, :, None], angles.sin()[:, :, None]

    def __call__(self, heads: torch.Tensor) -> torch.Tensor:
        """(B, heads, N, channels) in and out."""
        pairs = heads.unflatten(-1, (2, 2, -1))
        turned = torch.stack([-pairs[..., 1, :], pairs[..., 0, :]], dim=-2)
        return (pairs * self._cosine + turned * self._sine).flatten(-3)


def resampled_positions(known: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Position embeddings (1, 1 + N, C) for images of another size, resampled as in training.

    DINOv2 scales its square of positions by (patches + 0.1) / side, not exactly to the number of patches;
    `transformers` omits the 0.1, and depth heads amplify the difference.

    Args:
        known: (1, 1 + side^2, C), the class token's first.
        rows, columns: of patches, N in all.
    """
    side = math.isqrt(known.shape[1] - 1)
    if (rows, columns) == (side, side):
        return known
    square = known[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    factors = ((rows + 0.1) / side, (columns + 0.1) / side)
    stretched = F.interpolate(square, scale_factor=factors, mode="bicubic")
    return torch.cat([known[:, :1], stretched.flatten(2).transpose(1, 2).to(known.dtype)], dim=1)

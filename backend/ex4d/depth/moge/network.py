"""MoGe-2's network under its published tensor names; its sizes are in the checkpoint, beside the weights.

The network gives a map of points whose depth lacks an offset; `lens` finds it, with the focal length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ex4d.depth.dinov2 import BACKBONES, IMAGENET_MEAN, IMAGENET_STD, PATCH, BackboneSize, VisionTransformer

_EPSILON = 1e-6
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "layer_norm": lambda channels: nn.GroupNorm(1, channels),
    "group_norm": lambda channels: nn.GroupNorm(channels // 32, channels),
}
_ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU}
_LEVELS = 5  # of resolution, each of twice as many rows and columns as the one before


class Geometry(NamedTuple):
    """What the network says of single frames.

    Attributes:
        points: (T, H, W, 3) in camera space, OpenCV axes, up to one factor and an offset along z for each frame.
        solid: (T, H, W), above 0.5 where there is a surface, and not the sky.
        normals: (T, H, W, 3) of length 1, or None where they were not asked for.
        metres: (T,) for each unit of the points, or None for a network without.
    """

    points: torch.Tensor
    solid: torch.Tensor
    normals: torch.Tensor | None
    metres: torch.Tensor | None


class GeometryNetwork(nn.Module):
    """Single frames to points, normals, and where there is a surface.

    Args:
        config: `model_config` of the checkpoint.
        backbones: sizes of the transformers by their names there.

    Raises:
        KeyError, TypeError, ValueError: the configuration is of another kind of network.
    """

    def __init__(self, config: Mapping[str, Any], backbones: Mapping[str, BackboneSize] | None = None) -> None:
        super().__init__()
        if config["remap_output"] != "exp":
            raise ValueError(f"remap_output {config['remap_output']!r}: expected 'exp'")
        self.tokens = int(max(config["num_tokens_range"]))
        self.encoder = Encoder(config["encoder"], backbones or _published_backbones())
        self.neck = Pyramid(**config["neck"])
        self.points_head, self.mask_head = Pyramid(**config["points_head"]), Pyramid(**config["mask_head"])
        self.normal_head = Pyramid(**config["normal_head"]) if config.get("normal_head") else None
        self.scale_head = _layers(config["scale_head"]["dims"]) if config.get("scale_head") else None

    def forward(self, images: torch.Tensor, *, normals: bool = False) -> Geometry:
        """Points and what else is known of them.

        Args:
            images: (T, 3, H, W) in [0, 1], of any size.
            normals: whether they are wanted, too.
        """
        size = images.shape[2], images.shape[3]
        rows, columns = token_grid(self.tokens, size)
        features, token = self.encoder(images, rows, columns)
        maps = []
        for level in range(_LEVELS):
            place = view_plane(rows << level, columns << level, size[1] / size[0], images.device).to(features.dtype)
            place = place.permute(2, 0, 1).expand(len(images), -1, -1, -1)
            maps.append(torch.cat([features, place], dim=1) if level == 0 else place)
        maps = self.neck(maps)
        points = _enlarged(self.points_head(maps)[-1], size).permute(0, 2, 3, 1)
        depth = points[..., 2:].exp()
        solid = _enlarged(self.mask_head(maps)[-1], size)[:, 0].sigmoid()
        directions = None
        if normals and self.normal_head is not None:
            directions = F.normalize(_enlarged(self.normal_head(maps)[-1], size).permute(0, 2, 3, 1), dim=-1)
        metres = None if self.scale_head is None else self.scale_head(token)[:, 0].float().exp()
        return Geometry(torch.cat([points[..., :2] * depth, depth], dim=-1).float(), solid, directions, metres)


class Encoder(nn.Module):
    """DINOv2, of which the sum of some blocks' projected tokens is taken."""

    image_mean: torch.Tensor
    image_std: torch.Tensor

    def __init__(self, config: Mapping[str, Any], backbones: Mapping[str, BackboneSize]) -> None:
        super().__init__()
        size, layers = backbones[config["backbone"]], config["intermediate_layers"]
        self._layers = range(size.depth - layers, size.depth) if isinstance(layers, int) else tuple(layers)
        self.backbone = VisionTransformer(size, epsilon=_EPSILON, mask_token=True)
        self.output_projections = nn.ModuleList(nn.Conv2d(size.width, config["dim_out"], 1) for _ in self._layers)
        for name, values in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1))

    def forward(self, images: torch.Tensor, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(T, C, rows, columns) features and (T, C) class tokens of images (T, 3, H, W) in [0, 1]."""
        small = F.interpolate(images, (rows * PATCH, columns * PATCH), mode="bilinear", antialias=True)
        taps = self.backbone((small - self.image_mean) / self.image_std, self._layers)
        maps = (tap.patches.transpose(1, 2).unflatten(2, (rows, columns)) for tap in taps)
        projected = [project(one) for project, one in zip(self.output_projections, maps, strict=True)]
        return torch.stack(projected).sum(dim=0), taps[-1].first


class Pyramid(nn.Module):
    """Convolutions from a coarse level to fine ones, which take a map in and give one out at each.

    Args:
        dim_in, dim_out: channels of these maps; None for those that are taken or given as they are.
        dim_res_blocks: channels between them.
        num_res_blocks: residual blocks at each level.
        resamplers: "conv_transpose", "pixel_shuffle", "nearest" or "bilinear", from each level to the next.
        dim_times_res_block_hidden: factor on the channels within residual blocks.
        res_block_in_norm, res_block_hidden_norm: of residual blocks: "none", "layer_norm" or "group_norm".
        activation: of residual blocks: "relu", "silu" or "elu".

    Raises:
        KeyError: an unknown name.
    """

    def __init__(
        self,
        dim_in: Sequence[int | None],
        dim_res_blocks: Sequence[int],
        dim_out: Sequence[int | None] | None,
        resamplers: Sequence[str] | str,
        num_res_blocks: Sequence[int] | int = 1,
        dim_times_res_block_hidden: int = 1,
        res_block_in_norm: str = "layer_norm",
        res_block_hidden_norm: str = "group_norm",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        count = len(dim_res_blocks)
        blocks = [num_res_blocks] * count if isinstance(num_res_blocks, int) else num_res_blocks
        gives = [None] * count if dim_out is None else dim_out
        kinds = [resamplers] * (count - 1) if isinstance(resamplers, str) else resamplers
        norms = res_block_in_norm, res_block_hidden_norm
        self.input_blocks = nn.ModuleList(
            _between(taken, own) for taken, own in zip(dim_in, dim_res_blocks, strict=True)
        )
        self.resamplers = nn.ModuleList(
            _twice(kind, coarse, fine)
            for kind, coarse, fine in zip(kinds, dim_res_blocks[:-1], dim_res_blocks[1:], strict=True)
        )
        self.res_blocks = nn.ModuleList(
            nn.Sequential(
                *(ResidualBlock(own, own * dim_times_res_block_hidden, norms, activation) for _ in range(number))
            )
            for own, number in zip(dim_res_blocks, blocks, strict=True)
        )
        self.output_blocks = nn.ModuleList(
            _between(own, given) for own, given in zip(dim_res_blocks, gives, strict=True)
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One map (T, C, h, w) for each level, in and out."""
        given, value = [], None
        for level, taken in enumerate(maps):
            own = self.input_blocks[level](taken)
            value = self.res_blocks[level](own if value is None else value + own)
            given.append(self.output_blocks[level](value))
            if level < len(self.resamplers):
                value = self.resamplers[level](value)
        return given


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, each behind its activation."""

    def __init__(self, channels: int, hidden: int, norms: tuple[str, str], activation: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _NORMS[norms[0]](channels),
            _ACTIVATIONS[activation](),
            _convolution(channels, hidden),
            _NORMS[norms[1]](hidden),
            _ACTIVATIONS[activation](),
            _convolution(hidden, channels),
        )

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """(T, C, h, w) in and out."""
        return value + self.layers(value)


def token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of about so many patches, in the proportions of an image of `size` (height, width)."""
    ratio = size[1] / size[0]
    return round((tokens / ratio) ** 0.5), round((tokens * ratio) ** 0.5)


def view_plane(rows: int, columns: int, ratio: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """(rows, columns, 2) places of pixels across and down, from the centre in halves of the diagonal."""
    diagonal = (ratio**2 + 1) ** 0.5
    spans = ratio / diagonal * (columns - 1) / columns, 1 / diagonal * (rows - 1) / rows
    across, down = (
        torch.linspace(-span, span, count, device=device) for span, count in zip(spans, (columns, rows), strict=True)
    )
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)


def _published_backbones() -> dict[str, BackboneSize]:
    return {f"dinov2_{name}14": size for name, size in BACKBONES.items()}


def _between(taken: int | None, given: int | None) -> nn.Module:
    return nn.Identity() if taken is None or given is None else nn.Conv2d(taken, given, 1)


def _twice(kind: str, coarse: int, fine: int) -> nn.Sequential:
    if kind == "conv_transpose":
        return nn.Sequential(nn.ConvTranspose2d(coarse, fine, 2, stride=2), _convolution(fine, fine))
    if kind == "pixel_shuffle":
        return nn.Sequential(_convolution(coarse, 4 * fine), nn.PixelShuffle(2), _convolution(fine, fine))
    if kind in ("nearest", "bilinear"):
        return nn.Sequential(nn.Upsample(scale_factor=2, mode=kind), _convolution(coarse, fine))
    raise ValueError(f"resampler {kind!r}: expected conv_transpose, pixel_shuffle, nearest or bilinear")


def _convolution(channels: int, given: int) -> nn.Conv2d:
    return nn.Conv2d(channels, given, 3, padding=1, padding_mode="replicate")


def _layers(channels: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for taken, given in pairwise(channels):
        layers += [nn.Linear(taken, given), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _enlarged(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(maps, size, mode="bilinear")

"""Depth Anything 3's networks: the backbone and its heads, under the published tensor names.

`MultiViewNetwork` is the small or base one, which gives depth, poses and lenses; `MetricNetwork` is the large one for
single frames, which gives metres for a lens of 300 pixels, and where the sky is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import nn

from ex4d.depth.depth_anything_3.backbone import EPSILON, MultiViewTransformer
from ex4d.depth.dinov2 import BACKBONES, PATCH, BackboneSize, Block, VisionTransformer
from ex4d.depth.dpt import Fusion, resize_layers, resized

_AT_ONCE = 8  # frames through the heads, where memory peaks
_HIDDEN = 32  # channels of a head's last layer


@dataclass(frozen=True)
class NetworkSize:
    """Sizes of a network.

    Attributes:
        backbone: of the transformer.
        taps: blocks that the heads read, counted from 0.
        channels: of the four taps in the heads.
        features: channels of the heads after that.
        alternate_from: block from which on every other one attends across frames; 0 where none does.
    """

    backbone: BackboneSize
    taps: tuple[int, ...]
    channels: tuple[int, int, int, int]
    features: int
    alternate_from: int = 0


SMALL = NetworkSize(BACKBONES["vits"], (5, 7, 9, 11), (48, 96, 192, 384), 64, 4)
BASE = NetworkSize(BACKBONES["vitb"], (5, 7, 9, 11), (96, 192, 384, 768), 128, 4)
METRIC_LARGE = NetworkSize(BACKBONES["vitl"], (4, 11, 17, 23), (256, 512, 1024, 1024), 256)


class Views(NamedTuple):
    """What the network says of frames that it saw together; everything up to one factor.

    Attributes:
        depth: (T, H, W) along z, above 0.
        confidence: (T, H, W), above 1.
        camera_to_world: (T, 4, 4), OpenCV axes.
        fields_of_view: (T, 2) radians, horizontal and vertical.
    """

    depth: torch.Tensor
    confidence: torch.Tensor
    camera_to_world: torch.Tensor
    fields_of_view: torch.Tensor


class MultiViewNetwork(nn.Module):
    """Frames of one scene, seen together, to their depth and cameras."""

    def __init__(self, size: NetworkSize) -> None:
        super().__init__()
        self._taps = size.taps
        pretrained = MultiViewTransformer(size.backbone, size.alternate_from)
        self.backbone = nn.ModuleDict({"pretrained": pretrained})
        self.head = DepthHead(size, 2 * size.backbone.width, outputs=2, placed=True)
        self.cam_dec = CameraHead(2 * size.backbone.width)

    @property
    def watched(self) -> list[nn.Module]:
        """Two layers of each block of the backbone, in which almost all time is spent."""
        blocks = [cast(Block, block) for block in self._transformer.blocks]
        return [layer for block in blocks for layer in (block.attn, block.ls2)]

    @property
    def _transformer(self) -> MultiViewTransformer:
        return cast(MultiViewTransformer, self.backbone["pretrained"])

    def forward(self, images: torch.Tensor, precision: torch.dtype = torch.float32) -> Views:
        """Depth and cameras.

        Args:
            images: (T, 3, H, W), normalised as for ImageNet; H and W multiples of 14.
            precision: of the backbone's products; everything else is float32.
        """
        with mixed_precision(images.device, precision):
            taps = self._transformer(images, self._taps)
        size = images.shape[2], images.shape[3]
        batches = zip(*(tap.patches.float().split(_AT_ONCE) for tap in taps), strict=True)
        maps = torch.cat([self.head(batch, size)["depth"] for batch in batches])
        return Views(maps[:, 0].exp(), maps[:, 1].exp() + 1, *self.cam_dec(taps[-1].first.float()))


class MetricNetwork(nn.Module):
    """Single frames to depth, and to where the sky is."""

    def __init__(self, size: NetworkSize) -> None:
        super().__init__()
        self._taps = size.taps
        self.backbone = nn.ModuleDict({"pretrained": VisionTransformer(size.backbone, epsilon=EPSILON)})
        self.head = DepthHead(size, size.backbone.width, outputs=1, placed=False)

    def forward(
        self, images: torch.Tensor, precision: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(T, H, W) depth above 0, and (T, H, W) sky, under 0.3 elsewhere; arguments as for several views."""
        with mixed_precision(images.device, precision):
            taps = self.backbone["pretrained"](images, self._taps)
        found = self.head([tap.patches.float() for tap in taps], (images.shape[2], images.shape[3]))
        return found["depth"][:, 0].exp(), found["sky"][:, 0].relu()


class DepthHead(nn.Module):
    """A dense prediction transformer's head (DPT, arXiv 2103.13413).

    Args:
        size: of the network.
        width: channels of the taps.
        outputs: maps that the main branch gives.
        placed: the head of several views normalises its taps and adds positions to its maps; that of single ones has a
            branch for the sky instead.
    """

    def __init__(self, size: NetworkSize, width: int, *, outputs: int, placed: bool) -> None:
        super().__init__()
        self._placed = placed
        self.norm = nn.LayerNorm(width) if placed else nn.Identity()
        self.projects = nn.ModuleList(nn.Conv2d(width, channels, 1) for channels in size.channels)
        self.resize_layers = resize_layers(size.channels)
        self.scratch = FusionLayers(size, outputs, sky=not placed)

    def forward(self, taps: tuple[torch.Tensor, ...] | list[torch.Tensor], size: tuple[int, int]) -> dict:
        """(T, outputs, H, W) of four taps (T, N, C) of an image of H x W pixels, by branch, before any activation."""
        rows, columns = size[0] // PATCH, size[1] // PATCH
        maps = []
        for tap, project, resize in zip(taps, self.projects, self.resize_layers, strict=True):
            one = project(self.norm(tap).transpose(1, 2).unflatten(2, (rows, columns)))
            maps.append(resize(self._with_positions(one, size)))
        scratch = self.scratch
        fused = self._with_positions(resized(scratch.output_conv1(scratch.fused(maps)), size), size)
        found = {"depth": scratch.output_conv2(fused)}
        if not self._placed:
            found["sky"] = scratch.sky_output_conv2(fused)
        return found

    def _with_positions(self, maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if not self._placed:
            return maps
        _, channels, rows, columns = maps.shape
        return maps + 0.1 * positions_in_image(rows, columns, channels, size[1] / size[0], maps.device)


class FusionLayers(nn.Module):
    """The convolutions with which the head fuses its four maps, and the branches behind them."""

    def __init__(self, size: NetworkSize, outputs: int, *, sky: bool) -> None:
        super().__init__()
        first, second, third, fourth = size.channels
        self.layer1_rn = nn.Conv2d(first, size.features, 3, padding=1, bias=False)
        self.layer2_rn = nn.Conv2d(second, size.features, 3, padding=1, bias=False)
        self.layer3_rn = nn.Conv2d(third, size.features, 3, padding=1, bias=False)
        self.layer4_rn = nn.Conv2d(fourth, size.features, 3, padding=1, bias=False)
        self.refinenet1, self.refinenet2 = Fusion(size.features), Fusion(size.features)
        self.refinenet3, self.refinenet4 = Fusion(size.features), Fusion(size.features, coarsest=True)
        self.output_conv1 = nn.Conv2d(size.features, size.features // 2, 3, padding=1)
        self.output_conv2 = _branch(size.features // 2, outputs)
        if sky:
            self.sky_output_conv2 = _branch(size.features // 2, 1)

    def fused(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """(T, C, 2 h, 2 w) from four maps, the finest of h x w."""
        one, two, three, four = maps
        one, two = self.layer1_rn(one), self.layer2_rn(two)
        three, four = self.layer3_rn(three), self.layer4_rn(four)
        path = self.refinenet4(four, None, three.shape[2:])
        path = self.refinenet3(path, three, two.shape[2:])
        path = self.refinenet2(path, two, one.shape[2:])
        return self.refinenet1(path, one, (2 * one.shape[2], 2 * one.shape[3]))


class CameraHead(nn.Module):
    """Camera tokens to poses and fields of view."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.fc_t, self.fc_qvec = nn.Linear(width, 3), nn.Linear(width, 4)
        self.fc_fov = nn.Sequential(nn.Linear(width, 2), nn.ReLU())

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(T, 4, 4) camera-to-world, and (T, 2) horizontal and vertical fields of view in radians, of tokens (T, C)."""
        features = self.backbone(tokens)
        matrices = torch.eye(4, device=tokens.device).repeat(len(tokens), 1, 1)
        matrices[:, :3, :3] = rotations(self.fc_qvec(features))
        matrices[:, :3, 3] = self.fc_t(features)
        return matrices, self.fc_fov(features).flip(1)


def rotations(quaternions: torch.Tensor) -> torch.Tensor:
    """(T, 3, 3) of quaternions (T, 4) of any length, the scalar last."""
    vector, scalar = quaternions[:, :3], quaternions[:, 3, None, None]
    unit = torch.eye(3, device=vector.device, dtype=vector.dtype).expand(len(vector), 3, 3)
    crossed = torch.linalg.cross(vector[:, None], unit).mT
    outer = vector[:, :, None] * vector[:, None]
    turned = scalar * crossed + outer - (vector**2).sum(dim=1)[:, None, None] * unit
    return unit + 2 * turned / (quaternions**2).sum(dim=1)[:, None, None]


def positions_in_image(rows: int, columns: int, channels: int, ratio: float, device: torch.device) -> torch.Tensor:
    """(channels, rows, columns): sinusoids of the place in an image of this ratio of width to height.

    Places are measured from the centre in halves of the diagonal; the first half of the channels has those across.
    """
    diagonal = (ratio**2 + 1) ** 0.5
    spans = ratio / diagonal * (columns - 1) / columns, 1 / diagonal * (rows - 1) / rows
    steps = torch.arange(channels // 4, device=device, dtype=torch.float32) / (channels / 4)
    waves = []
    for span, count in zip(spans, (columns, rows), strict=True):
        angles = torch.linspace(-span, span, count, device=device) * 100.0 ** -steps[:, None]
        waves.append(torch.cat([angles.sin(), angles.cos()]))
    across, down = waves
    return torch.cat([across[:, None].expand(-1, rows, -1), down[:, :, None].expand(-1, -1, columns)])


def mixed_precision(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Products in this precision, sums and normalisations in float32, as the published code runs its backbone."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def _branch(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, _HIDDEN, 3, padding=1), nn.ReLU(), nn.Conv2d(_HIDDEN, outputs, 1))

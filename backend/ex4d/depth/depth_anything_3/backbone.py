"""Depth Anything 3's backbone: DINOv2 whose later blocks attend within a frame and across all frames in turn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ex4d.depth.dinov2 import PATCH, BackboneSize, Rotation, Tap, VisionTransformer

EPSILON = 1e-5  # of the published code's last normalisation
_FEWEST_TO_CHOOSE = 3  # frames from which on the network chooses its reference


class MultiViewTransformer(VisionTransformer):
    """Frames of one scene to the tokens of chosen blocks.

    From block `alternate_from` on, blocks with odd numbers attend across frames. The first token becomes a camera's:
    one for the reference frame, another for all others. Taps join a block's tokens to those of the last block that saw
    each frame on its own.
    """

    def __init__(self, size: BackboneSize, alternate_from: int) -> None:
        super().__init__(size, epsilon=EPSILON, rotary_from=alternate_from)
        self._from, self._channels = alternate_from, size.width // size.heads
        self.camera_token = nn.Parameter(torch.zeros(1, 2, size.width))

    def forward(self, images: torch.Tensor, layers: Sequence[int]) -> list[Tap]:
        """Taps of 2 C channels, their second half normalised; the camera tokens are not.

        Args:
            images: (T, 3, H, W), normalised as for ImageNet, in any order; H and W multiples of 14.
            layers: numbers of blocks, counted from 0, from `alternate_from` on.
        """
        tokens, taps = self.embedded(images), []
        count, places = len(images), tokens.shape[1]
        within, across = self._rotations(images)
        order = alone = None
        for index, block in enumerate(self.blocks):
            if index == self._from - 1 and count >= _FEWEST_TO_CHOOSE:
                order = reference_first(tokens[:, 0])
                tokens = tokens[order]
            if index == self._from:
                camera = self.camera_token[0, [0] + [1] * (count - 1)].to(tokens.dtype)
                tokens = torch.cat([camera[:, None], tokens[:, 1:]], dim=1)
            if index >= self._from and index % 2 == 1:
                tokens = block(tokens.flatten(0, 1)[None], across).unflatten(1, (count, places))[0]
            else:
                tokens = alone = block(tokens, within if index >= self._from else None)
            if index in layers and alone is not None:
                taps.append(self._tap(alone, tokens, order))
        return taps

    def _tap(self, alone: torch.Tensor, tokens: torch.Tensor, order: torch.Tensor | None) -> Tap:
        joined = torch.cat([alone, self.norm(tokens)], dim=2)
        first = torch.cat([alone[:, 0], tokens[:, 0]], dim=1)
        if order is not None:
            back = order.argsort()
            joined, first = joined[back], first[back]
        return Tap(joined[:, 1:], first)

    def _rotations(self, images: torch.Tensor) -> tuple[Rotation, Rotation]:
        """For attention within a frame, by the patch; and across frames, where only camera and patches differ."""
        count, _, height, width = images.shape
        rows, columns = height // PATCH, width // PATCH
        patches = torch.cartesian_prod(
            torch.arange(rows, device=images.device), torch.arange(columns, device=images.device)
        )
        within = nn.functional.pad(patches + 1, (0, 0, 1, 0))
        across = within.clamp(max=1).repeat(count, 1)
        return (
            Rotation(within[:, 0], within[:, 1], self._channels),
            Rotation(across[:, 0], across[:, 1], self._channels),
        )


def reference_first(first: torch.Tensor) -> torch.Tensor:
    """The order of frames that puts first the one closest to the middle in three measures of its class token.

    Those are likeness to the other frames, length, and spread, each between the clip's lowest (0) and highest (1).

    Args:
        first: (T, C), T > 1.

    Returns:
        (T,) numbers of frames.
    """
    first = first.float()
    length = first.norm(dim=1)
    direction = first / length[:, None]
    alike = (direction @ direction.T).sum(dim=1) - 1
    measures = torch.stack([alike / (len(first) - 1), length, direction.var(dim=1)])
    lowest, highest = measures.amin(dim=1, keepdim=True), measures.amax(dim=1, keepdim=True)
    middle = ((measures - lowest) / (highest - lowest + 1e-8) - 0.5).abs().sum(dim=0)
    reference = int(middle.argmin())
    others = [index for index in range(len(first)) if index != reference]
    return torch.tensor([reference, *others], device=first.device)

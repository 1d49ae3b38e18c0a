"""Holds the colours of later windows to those of the first one, by mean and covariance where the footage is seen.

The generator repaints seen pixels, too, and its colours drift a little at every window's start. What the first window
makes of the footage's colours is the measure: later frames get the affine map of colours after which mean and
covariance of their seen pixels are those that the first window would have made of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

# Colours are compared in means over squares of this side: the colours count, not the sharpness of detail.
_CELL = 8
# Fewer seen cells than this share of a frame say nothing about its colours.
_ENOUGH_SEEN = 0.02
# Standard deviation of colours in [-1, 1] below which a flat image does not say how its contrast changed.
_FLAT = 0.03
# Share of the latent before in the map of a latent of four frames: changes are spread over about 8 frames.
_SMOOTHING = 0.6


@dataclass(frozen=True)
class ColorMap:
    """An affine map of colours in [-1, 1].

    Attributes:
        matrix: (3, 3) float64.
        offset: (3,) float64.
    """

    matrix: torch.Tensor
    offset: torch.Tensor

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Map (n, 3, H, W) in [-1, 1]."""
        matrix, offset = self.matrix.to(frames), self.offset.to(frames)
        return (torch.einsum("ij,njhw->nihw", matrix, frames) + offset[:, None, None]).clamp(-1, 1)

    @staticmethod
    def identity() -> ColorMap:
        """The map that changes nothing."""
        return ColorMap(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))

    def blended(self, before: ColorMap, share: float) -> ColorMap:
        """This map with a ``share`` of the one before."""
        return ColorMap(torch.lerp(self.matrix, before.matrix, share), torch.lerp(self.offset, before.offset, share))


@dataclass(frozen=True)
class ColorMoments:
    """How many colours there are, their sum (3,) and the sum (3, 3) of their products, float64."""

    count: float
    total: torch.Tensor
    products: torch.Tensor

    @staticmethod
    def of(colors: torch.Tensor) -> ColorMoments:
        """Of (n, 3) colours."""
        colors = colors.double().cpu()
        return ColorMoments(len(colors), colors.sum(0), colors.T @ colors)

    def __add__(self, other: ColorMoments) -> ColorMoments:
        return ColorMoments(self.count + other.count, self.total + other.total, self.products + other.products)

    @property
    def mean(self) -> torch.Tensor:
        """(3,)."""
        return self.total / self.count

    @property
    def covariance(self) -> torch.Tensor:
        """(3, 3)."""
        return self.products / self.count - torch.outer(self.mean, self.mean)


def transport(mean: torch.Tensor, covariance: torch.Tensor, to_mean: torch.Tensor, to: torch.Tensor) -> ColorMap:
    """The map from colours of one mean and covariance to those of another that changes them least.

    Optimal transport between normal distributions: Pitié and Kokaram, The linear Monge-Kantorovitch linear colour
    mapping for example-based colour transfer, 2007. Nearly flat images get no contrast.
    """
    flat = _FLAT**2 * torch.eye(3, dtype=torch.float64)
    root = _power(covariance + flat, 0.5)
    inverse = _power(covariance + flat, -0.5)
    matrix = inverse @ _power(root @ (to + flat) @ root, 0.5) @ inverse
    return ColorMap(matrix, to_mean - matrix @ mean)


def _power(matrix: torch.Tensor, exponent: float) -> torch.Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * values.clamp_min(1e-12) ** exponent) @ vectors.T


class ColorHold:
    """Of one window: measures what the first one does, and corrects the frames of later ones."""

    def __init__(self, color: torch.Tensor, seen: torch.Tensor, reference: ColorMap | None, *, first: bool):
        """Take the window's footage.

        Args:
            color: (1, 3, T, H, W) in [-1, 1], the rendered frames.
            seen: (1, 3, T, H, W), positive where they show the footage.
            reference: what the first window did; None where it saw nothing, or for the first window itself.
            first: whether this is the first window.
        """
        self._cells = functional.avg_pool3d(color, (1, _CELL, _CELL))[0]
        self._seen = functional.avg_pool3d((seen[:, :1] > 0).to(color.dtype), (1, _CELL, _CELL))[0, 0] > 1 - 1e-3
        self._reference, self._first = reference, first
        self._moments: tuple[ColorMoments, ColorMoments] | None = None
        self._map: ColorMap | None = None
        self._latents = 0  # that told it

    def hold(self, start: int, frames: torch.Tensor) -> torch.Tensor:
        """Hold the colours of one latent's frames; those of the first window stay.

        Args:
            start: the number of the first of them in the window.
            frames: (n, 3, H, W) in [-1, 1], as they were decoded.

        Returns:
            The same with other colours, which change evenly from those of the latent before.
        """
        part = slice(start, start + len(frames))
        seen = self._seen[part]
        if not len(seen) or seen.float().mean() < _ENOUGH_SEEN:
            return frames if self._map is None else self._map(frames)
        made = functional.avg_pool2d(frames, _CELL).to(seen.device)
        rendered = ColorMoments.of(self._cells[:, part].permute(1, 2, 3, 0)[seen])
        result = ColorMoments.of(made.permute(0, 2, 3, 1)[seen])
        if self._first:
            before = self._moments
            self._moments = (rendered, result) if before is None else (before[0] + rendered, before[1] + result)
            return frames
        if self._reference is None:
            return frames
        matrix, offset = self._reference.matrix, self._reference.offset
        to_mean, to = matrix @ rendered.mean + offset, matrix @ rendered.covariance @ matrix.T
        found = transport(result.mean, result.covariance, to_mean, to)
        # The frames before a window's own ones are shown as they are, and it continues them.
        before, self._latents = self._map or ColorMap.identity(), self._latents + 1
        # The mean of all latents so far, until there are more than the smoothing reaches back.
        self._map = after = found.blended(before, min(_SMOOTHING, 1 - 1 / self._latents))
        shares = [1 - (number + 1) / len(frames) for number in range(len(frames))]
        return torch.cat(
            [after.blended(before, share)(one) for one, share in zip(frames.split(1), shares, strict=True)]
        )

    @property
    def reference(self) -> ColorMap | None:
        """What the first window did to the footage's colours, at that window's end."""
        if self._moments is None:
            return self._reference
        rendered, result = self._moments
        return transport(rendered.mean, rendered.covariance, result.mean, result.covariance)

    @property
    def changes(self) -> bool:
        """Whether frames got other colours."""
        return self._map is not None

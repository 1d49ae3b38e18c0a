"""Cleans simulated masks: specks and slits narrower than a drawn radius go, on the masks' own device."""

from __future__ import annotations

import torch
from torch.nn import functional


def cleaned(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Remove specks and slits of up to twice the radius, seen ones, then unseen ones; larger parts keep their form.

    Args:
        mask: (T, H, W) bool, true where seen.
        radius: of the square, pixels; 0 leaves the mask as it is.
    """
    if radius < 1:
        return mask
    seen = mask[:, None].float()
    opened = _dilated(_eroded(seen, radius), radius)
    return (_eroded(_dilated(opened, radius), radius)[:, 0] > 0.5).contiguous()


def closed(region: torch.Tensor, radius: int) -> torch.Tensor:
    """Fill gaps of a region (T, H, W) bool of up to twice the radius."""
    return _eroded(_dilated(region[:, None].float(), radius), radius)[:, 0] > 0.5


def _dilated(values: torch.Tensor, radius: int) -> torch.Tensor:
    return functional.max_pool2d(values, 2 * radius + 1, 1, radius)


def _eroded(values: torch.Tensor, radius: int) -> torch.Tensor:
    # Outside of the image is neither seen nor unseen: padding by minus infinity never wins.
    return -functional.max_pool2d(-values, 2 * radius + 1, 1, radius)

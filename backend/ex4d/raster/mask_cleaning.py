"""Cleans masks of rendered frames: removes specks, and holds masks steady over time.

`warp/cleaning.py` has the kernels, which run where the frames are.
"""

from __future__ import annotations

import torch

from ex4d.raster.frames import RenderedBatch
from ex4d.raster.warp import cleaning
from ex4d.warp_launch import Kernel, launch_rows

# The second vote removes the pairs and dashes that one leaves where depth is noisy.
VOTES = 2
# In images of a smaller share of the footage's width or height, lone pixels are detail that pixels are too few for.
SMALLEST_SHARE = 0.5


def can_be_cleaned(footage: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether an image has pixels enough to tell specks from detail; sizes are (width, height), pixels."""
    return all(new >= SMALLEST_SHARE * old for old, new in zip(footage, image, strict=True))


def remove_specks(rendered: RenderedBatch) -> None:
    """Give each pixel the state of nearly all its neighbours, and the colour and depth that belong to it, in place.

    Args:
        rendered: with depth.
    """
    drawn = rendered.mask.clone()
    _vote(rendered.mask)
    _recolor(rendered, drawn)
    if rendered.alpha is not None:
        # What a few samples alone saw, or missed, is a speck too: soft edges are left where masks have edges.
        touched, whole = rendered.alpha > 0, rendered.alpha == 255
        _vote(touched)
        _vote(whole)
        kept = torch.where(touched | rendered.mask, rendered.alpha, 0)
        rendered.alpha.copy_(torch.where(whole & rendered.mask, 255, kept))
        rendered.color.masked_fill_((rendered.alpha == 0)[..., None], 0)


def hold_steady(rendered: RenderedBatch, before: torch.Tensor, after: torch.Tensor) -> RenderedBatch:
    """The frames with masks whose edges lie where two of three frames of the footage have them.

    Args:
        rendered: with depth.
        before: (T, H, W) bool, what each camera sees of the footage frame before the one that it shows.
        after: the same of the frame after.
    """
    assert rendered.depth is not None, "rendered with depth"
    steady = rendered.map(torch.clone)
    _launch(cleaning.agree, rendered.mask, before, after, steady.mask)
    _recolor(steady, rendered.mask)
    return steady


def _vote(mask: torch.Tensor) -> None:
    """Give each pixel the state of nearly all its neighbours, in place."""
    for _ in range(VOTES):
        _launch(cleaning.vote, mask.clone(), mask)


def _recolor(rendered: RenderedBatch, drawn: torch.Tensor) -> None:
    """Make colour, depth and alpha agree with a mask that was another when they were drawn, in place."""
    assert rendered.depth is not None, "rendered with depth"
    _launch(cleaning.recolor, drawn, rendered.mask, rendered.color, rendered.depth)
    if rendered.alpha is not None:
        whole = torch.where(rendered.mask, 255, 0).to(torch.uint8)
        rendered.alpha.copy_(torch.where(rendered.mask == drawn, rendered.alpha, whole))


def _launch(kernel: Kernel, drawn: torch.Tensor, *arrays: torch.Tensor) -> None:
    """Launch a kernel for all pixels of some masks (T, H, W) and of arrays that go with them."""
    frames, height, width = drawn.shape
    flat = (values.flatten(1, 2) for values in (drawn, *arrays))
    launch_rows(kernel, (frames, height, width), drawn.device, width, height, *flat)

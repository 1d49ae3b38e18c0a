"""Cleans masks of rendered frames: removes specks, and holds masks steady over time.

`warp/cleaning.py` has the kernels, which run where the frames are.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from ex4d.raster.frames import RenderedBatch
from ex4d.raster.warp import cleaning, near_edges
from ex4d.warp_launch import Kernel, launch_rows

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
    vote(rendered.mask)
    _recolor(rendered, drawn)
    if rendered.alpha is not None:
        # What a few samples alone saw, or missed, is a speck too: soft edges are left where masks have edges.
        touched, whole = rendered.alpha > 0, rendered.alpha == 255
        vote(touched)
        vote(whole)
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
    steady = replace(rendered.map(torch.clone), drawn=rendered.mask)
    _launch(cleaning.agree, rendered.mask, before, after, steady.mask)
    vote(steady.mask, rounds=1)  # where edges moved, single pixels may be left
    _recolor(steady, rendered.mask)
    return steady


def vote(mask: torch.Tensor, rounds: int = cleaning.VOTES) -> None:
    """Give each pixel of (T, H, W) masks the state of nearly all its neighbours, in place."""
    for _ in range(rounds):
        _launch(cleaning.vote, mask.clone(), mask)


def tile_sums(mask: torch.Tensor) -> torch.Tensor:
    """`projection.View.tile_sums` of (T, H, W) masks: how many of the tiles above and to the left are near an edge.

    Returns:
        (T, rows + 1, columns + 1) int32, of tiles.
    """
    frames, height, width = mask.shape
    tile = int(near_edges.TILE)
    marked = torch.zeros(frames, -(-height // tile), -(-width // tile), dtype=torch.int32, device=mask.device)
    launch_rows(near_edges.mark_tiles, mask.shape, mask.device, width, height, mask.flatten(1), marked)
    return F.pad(marked.cumsum(1).cumsum(2, dtype=torch.int32), (1, 0, 1, 0)).contiguous()


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

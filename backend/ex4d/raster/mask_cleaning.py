"""Cleans masks of rendered frames: removes specks, and holds masks steady over time.

`warp/cleaning.py` has the kernels, which run where the frames are.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ex4d.calling_thread import copied, filled, overwrite
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
    drawn, marked = copied(rendered.mask), edge_tiles(rendered.mask)
    vote(rendered.mask, marked=marked)
    _recolor(rendered, drawn, marked)
    if rendered.alpha is not None:
        # What a few samples alone saw, or missed, is a speck too: soft edges are left where masks have edges.
        touched, whole = rendered.alpha > 0, rendered.alpha == 255
        vote(touched)
        vote(whole)
        kept = torch.where(touched | rendered.mask, rendered.alpha, 0)
        rendered.alpha.copy_(torch.where(whole & rendered.mask, 255, kept))
        for color in _colors(rendered):
            color.masked_fill_((rendered.alpha == 0)[..., None], 0)


def hold_steady(
    rendered: RenderedBatch, before: torch.Tensor, after: torch.Tensor, marked: torch.Tensor | None = None
) -> RenderedBatch:
    """Move the edges of masks, in place, to where two of three frames of the footage have them.

    Args:
        rendered: with depth; `RenderedBatch.drawn` is written where it is there.
        before: (T, H, W) bool, what each camera sees of the footage frame before the one that it shows.
        after: the same of the frame after.
        marked: `edge_tiles` of the frames' masks, where they are known already.

    Returns:
        The frames with `RenderedBatch.drawn`.
    """
    assert rendered.depth is not None, "rendered with depth"
    drawn = torch.empty_like(rendered.mask) if rendered.drawn is None else rendered.drawn
    overwrite(drawn, rendered.mask)
    marked = edge_tiles(drawn) if marked is None else marked
    _launch(cleaning.agree, drawn, marked, before, after, rendered.mask)
    vote(rendered.mask, rounds=1, marked=marked)  # where edges moved, by less than tiles reach, pixels may be left
    _recolor(rendered, drawn, marked)
    return replace(rendered, drawn=drawn)


def vote(mask: torch.Tensor, rounds: int = cleaning.VOTES, marked: torch.Tensor | None = None) -> None:
    """Give each pixel of (T, H, W) masks the state of nearly all its neighbours, in place.

    Args:
        marked: `edge_tiles` where only the pixels in these tiles count; by default all pixels do.
    """
    marked = edge_tiles(mask) if marked is None else marked
    for _ in range(rounds):
        _launch_in_tiles(cleaning.vote, mask, copied(mask).flatten(1), marked, mask.flatten(1))


def edge_tiles(mask: torch.Tensor) -> torch.Tensor:
    """(T, rows, columns) int32, 1 for the tiles of (T, H, W) masks whose pixels `hold_steady` or `vote` may change."""
    marked = _no_tiles(mask)
    _launch_in_tiles(near_edges.mark_edges, mask, mask.flatten(1), _words(mask), marked)
    return marked


def different_tiles(mask: torch.Tensor, other: torch.Tensor, within: torch.Tensor) -> torch.Tensor:
    """The same for the tiles that must be known where (T, H, W) masks differ, within the tiles that count."""
    marked = _no_tiles(mask)
    _launch_in_tiles(near_edges.mark_differences, mask, mask.flatten(1), other.flatten(1), within, marked)
    return marked


def _words(mask: torch.Tensor) -> torch.Tensor:
    """(T, H * W / 8) int64, each of 8 pixels of a row of masks; (T, 0) where rows do not divide so."""
    is_divisible = mask.shape[2] % cleaning.TILE_SIDE == 0
    flat = mask.flatten(1)
    aligned = is_divisible and flat.data_ptr() % cleaning.TILE_SIDE == 0
    return flat.view(torch.int64) if aligned else torch.empty(len(mask), 0, dtype=torch.int64, device=mask.device)


def _no_tiles(mask: torch.Tensor) -> torch.Tensor:
    frames, height, width = mask.shape
    rows, columns = (-(-side // cleaning.TILE_SIDE) for side in (height, width))
    return filled((frames, rows, columns), 0, torch.int32, mask.device)


def _launch_in_tiles(kernel: Kernel, mask: torch.Tensor, *arrays: torch.Tensor) -> None:
    """Launch a kernel for all pixels of (T, H, W) masks; arrays are flat, or of tiles.

    A GPU's thread takes a row of a tile: most tiles are not marked, and to start a thread for each of their pixels
    would take longer than all the others need.
    """
    height, width = mask.shape[1:]
    launch_rows(kernel, mask.shape, mask.device, width, height, *arrays, cuda_span=cleaning.TILE_SIDE)


def _recolor(rendered: RenderedBatch, drawn: torch.Tensor, marked: torch.Tensor) -> None:
    """Make colour, depth and alpha agree with a mask that was another in marked tiles as they were drawn, in place."""
    assert rendered.depth is not None, "rendered with depth"
    deep_color = rendered.deep_color
    if deep_color is None:
        deep_color = torch.empty((len(drawn), 0, 1, 3), dtype=torch.float16, device=drawn.device)
    _launch(cleaning.recolor, drawn, marked, rendered.mask, rendered.color, rendered.depth, deep_color)
    if rendered.alpha is not None:
        whole = torch.where(rendered.mask, 255, 0).to(torch.uint8)
        rendered.alpha.copy_(torch.where(rendered.mask == drawn, rendered.alpha, whole))


def _colors(rendered: RenderedBatch) -> list[torch.Tensor]:
    return [rendered.color, *([] if rendered.deep_color is None else [rendered.deep_color])]


def _launch(kernel: Kernel, drawn: torch.Tensor, marked: torch.Tensor, *arrays: torch.Tensor) -> None:
    """Launch a kernel for the pixels of some masks (T, H, W), and of arrays that go with them, in marked tiles."""
    _launch_in_tiles(kernel, drawn, drawn.flatten(1), marked, *(values.flatten(1, 2) for values in arrays))

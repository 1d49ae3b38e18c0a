"""Block-sparse self-attention: a token attends to those near in space, the nearer the further away in time they are.

Tokens are sorted into boxes of two latents of 8x8 tokens, so that a block of 128 of them is compact, and whole blocks
are left out. That attention fades with distance in space and time, and that the reach may shrink with the distance in
time, is what Radial Attention (Li et al. 2025) found in video models. The first latent, the source view's frame, is
seen by all tokens. On a GPU it runs in torch's FlexAttention; elsewhere dense attention is masked alike.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128
_BOX = (2, 8, 8)
# Between blocks of the same latents: reach as a share of the longer side of the frame.
_REACH = 0.25


def token_order(grid: tuple[int, int, int]) -> torch.Tensor:
    """Return the (N,) numbers of the tokens of a grid (F, h, w), box by box; rows of boxes run back and forth."""
    frame, row, column = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    boxes = [-(-side // box) for side, box in zip(grid, _BOX, strict=True)]
    slab, down, across = (axis // box for axis, box in zip((frame, row, column), _BOX, strict=True))
    # Blocks that straddle two boxes stay compact, since these are neighbours.
    line = slab * boxes[1] + torch.where(slab % 2 == 0, down, boxes[1] - 1 - down)
    place = line * boxes[2] + torch.where(line % 2 == 0, across, boxes[2] - 1 - across)
    return torch.argsort(place * len(frame) + torch.arange(len(frame)))


def kept_blocks(grid: tuple[int, int, int]) -> torch.Tensor:
    """Return which blocks of `token_order` attend to which, (B, B) bool: queries' rows, keys' columns."""
    order = token_order(grid)
    padded = torch.cat([order, order[-1:].expand(-len(order) % BLOCK)])
    places = torch.stack(torch.unravel_index(padded, grid), dim=-1).view(-1, BLOCK, 3)
    low, high = places.amin(dim=1), places.amax(dim=1)
    gap = torch.maximum(low[:, None] - high[None], low[None] - high[:, None]).clamp_min(0)
    reach = _REACH * max(grid[1:]) / (1 + gap[..., 0])
    return (gap[..., 1:].amax(dim=-1) <= reach) | (low[None, :, 0] == 0)


class SparseAttention:
    """Attention for one grid of tokens.

    Attributes:
        density: share of all pairs of tokens that is computed.
    """

    def __init__(self, grid: tuple[int, int, int], device: torch.device):
        order, kept = token_order(grid), kept_blocks(grid)
        self.density = kept.double().mean().item()
        self._tokens = len(order)
        self._inverse = torch.argsort(order).to(device)
        self._order = torch.cat([order, order[-1:].expand(-len(order) % BLOCK)]).to(device)
        self._kept = kept.to(device)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, head_dim: int) -> torch.Tensor:
        """Attend with (N, C) queries to those of (N, C) keys and values that are near: (N, C)."""
        query, key, value = (
            part[self._order].unflatten(1, (-1, head_dim)).transpose(0, 1)[None] for part in (query, key, value)
        )
        if query.is_cuda:
            attended = _compiled()(query, key, value, block_mask=self.block_mask)
        else:
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=self.token_mask)
        return attended[0].transpose(0, 1)[self._inverse].flatten(1)

    @property
    def token_mask(self) -> torch.Tensor:
        """Which tokens attend to which, in `token_order` and padded: (N, N) bool."""
        mask = self._kept.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        mask[:, self._tokens :] = False
        return mask

    @property
    def block_mask(self) -> BlockMask:
        """The same for FlexAttention: whole blocks without a mask, and the last one, which is padded, with it."""
        return _block_mask(self)

    def partial_and_full(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Split what is kept into blocks of keys with padding, and without."""
        partial, full = torch.zeros_like(self._kept), self._kept.clone()
        if self._tokens % BLOCK:
            partial[:, -1], full[:, -1] = full[:, -1].clone(), False
        return partial, full

    def keeps(self, batch: object, head: object, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """FlexAttention's mask of single tokens."""
        return self._kept[query // BLOCK, key // BLOCK] & (key < self._tokens)


@lru_cache(maxsize=4)
def sparse_attention(grid: tuple[int, int, int], device: torch.device) -> SparseAttention:
    """Return the attention for a grid (F, h, w); kept for the next window."""
    return SparseAttention(grid, device)


@lru_cache(maxsize=4)
def _block_mask(attention: SparseAttention) -> BlockMask:
    partial, full = attention.partial_and_full()
    return BlockMask.from_kv_blocks(
        *_listed(partial), *_listed(full), BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=attention.keeps
    )


def _listed(kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts (1, 1, B) and indices (1, 1, B, B) int32 of the kept blocks of each row, these first."""
    indices = torch.argsort(kept.int(), dim=1, descending=True, stable=True)
    return kept.sum(dim=1, dtype=torch.int32)[None, None], indices.int()[None, None]


@lru_cache(maxsize=1)
def _compiled() -> Any:
    # Not compiled, FlexAttention computes every pair and holds them all in memory.
    return torch.compile(flex_attention, dynamic=False)

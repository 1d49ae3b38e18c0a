"""Keeps what encoders made of a shot's pixels: takes of several seeds, and drafts of one place, encode once.

Of a process, so that it outlives a job. Entries are found by the content that was encoded, and by who encoded it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from cachetools import LRUCache

# In the host's memory. The latents of 81 frames of 1280x720 take 21 MB, and a window has three of them.
_LIMIT_BYTES = 512 * 1024**2


class EncodeCache:
    """The results used last, at most ``limit_bytes`` of them."""

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        """Start empty."""
        self._kept: LRUCache[tuple[object, ...], torch.Tensor] = LRUCache(limit_bytes, lambda kept: kept.nbytes)

    def find_or_make(
        self, owner: tuple[object, ...], content: torch.Tensor, make: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """What ``owner`` made of ``content``, on its device; ``make`` is called where that is not known.

        Args:
            owner: the encoder, its files and how it computes.
            content: all that the result depends on besides, (1, C, ...).
            make: computes the result.
        """
        key = (*owner, content.device.type, tuple(content.shape), content.dtype, _digest(content))
        if (kept := self._kept.get(key)) is not None:
            return kept.to(content.device, copy=True)
        made = make()
        if made.nbytes <= self._kept.maxsize:
            self._kept[key] = made.to("cpu", copy=True)
        return made

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def _digest(content: torch.Tensor) -> bytes:
    return hashlib.sha256(content.contiguous().view(-1).view(torch.uint8).cpu().numpy().data).digest()


encodes = EncodeCache()

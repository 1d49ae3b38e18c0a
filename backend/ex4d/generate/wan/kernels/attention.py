"""Which of torch's attention kernels the generator uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.attention import SDPBackend, sdpa_kernel

# cuDNN's is the fastest where it runs (`ex4d bench generate` measures it); the others stand in where not.
_ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


@contextmanager
def fastest_attention() -> Iterator[None]:
    """Let torch choose cuDNN's attention where it can."""
    with sdpa_kernel(_ATTENTION, set_priority=True):
        yield

"""Transformer blocks that do not fit the GPU's memory wait in the host's, and come just before their turn.

Each block's weights are one page-locked piece of host memory. While a block computes, the next one's weights are copied
into the other of two buffers on the device, on a stream of their own. A block must be called once in its turn, however
many prompts go through it, or the copy would have less work to hide behind.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class BlockStreaming:
    """Streams all blocks but the first ``resident`` ones.

    Args:
        blocks: of equal layout; their parameters are taken over.
        device: where they compute. On the CPU nothing is gained, but the result is the same.
        again: after the last block the first one's turn comes, so it is sent for; else buffers go after each round.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device, resident: int = 0, *, again: bool = True):
        self._device = device
        self._again = again
        self._blocks = list(blocks[resident:])
        for block in blocks[:resident]:
            block.to(device)
        self._host = [_pack(block, device) for block in self._blocks]
        self._buffers: list[dict[torch.dtype, torch.Tensor]] = []
        # Which blocks are in the buffers or on their way: the buffer's number, and the end of the copy.
        self._held: dict[int, tuple[int, torch.cuda.Event | None]] = {}
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._hooks = [
            block.register_forward_pre_hook(lambda module, inputs, index=index: self._before(index))
            for index, block in enumerate(self._blocks)
        ]
        if not again and self._blocks:
            self._hooks.append(self._blocks[-1].register_forward_hook(lambda *ignored: self._release()))

    def stop(self) -> None:
        """Leave the blocks without their hooks; their parameters stay where they were last."""
        for hook in self._hooks:
            hook.remove()
        if self._side is not None:
            self._side.synchronize()
            for piece in self._host:
                for memory in piece.values():
                    _unlock(memory)

    def _before(self, index: int) -> None:
        """Block ``index`` is about to compute: have its weights ready, and send for the next ones."""
        if not self._buffers:
            self._buffers = [
                {key: torch.empty_like(value, device=self._device) for key, value in piece.items()}
                for piece in self._host[:2]
            ]
        if index not in self._held:
            self._fetch(index, 0)
        place, event = self._held[index]
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)
        _bind(self._blocks[index], self._buffers[place])
        # The other buffer's block has been queued before this one; the copy waits for it, and overlaps with this one.
        following = (index + 1) % len(self._blocks)
        if following not in self._held and (following > index or self._again):
            self._fetch(following, 1 - place)

    def _fetch(self, index: int, place: int) -> None:
        """Copy a block's weights into buffer ``place``, in which another's may have been."""
        buffer = self._buffers[place]
        self._held = {other: held for other, held in self._held.items() if held[0] != place}
        if self._side is None:
            for key, value in self._host[index].items():
                buffer[key].copy_(value)
            self._held[index] = place, None
            return
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            for key, value in self._host[index].items():
                buffer[key].copy_(value, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._side)
        self._held[index] = place, event

    def _release(self) -> None:
        """Give the buffers back. All copies into them were waited for, so torch may hand them out at once."""
        for block, piece in zip(self._blocks, self._host, strict=True):
            _bind(block, piece)
        self._buffers, self._held = [], {}


def _pack(block: nn.Module, device: torch.device) -> dict[torch.dtype, torch.Tensor]:
    """A block's parameters as one flat tensor for each type, page-locked for a GPU; the parameters become views."""
    packed = {}
    for dtype in {parameter.dtype for parameter in block.parameters()}:
        parameters = [parameter for parameter in block.parameters() if parameter.dtype == dtype]
        packed[dtype] = torch.empty(sum(parameter.numel() for parameter in parameters), dtype=dtype)
        start = 0
        for parameter in parameters:
            packed[dtype][start : start + parameter.numel()].copy_(parameter.detach().flatten())
            start += parameter.numel()
        if device.type == "cuda":
            _lock(packed[dtype])
    _bind(block, packed)
    return packed


def _lock(memory: torch.Tensor) -> None:
    """Page-lock memory where it is. Torch's own page-locked memory comes in powers of two, up to twice as much.

    Where the system refuses, copies are slower and not beside other work, but right.
    """
    torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel() * memory.element_size(), 0)


def _unlock(memory: torch.Tensor) -> None:
    if memory.is_pinned():
        torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())


def _bind(block: nn.Module, pieces: dict[torch.dtype, torch.Tensor]) -> None:
    """Let a block's parameters be views into flat tensors."""
    offsets = dict.fromkeys(pieces, 0)
    for parameter in block.parameters():
        start = offsets[parameter.dtype]
        offsets[parameter.dtype] = start + parameter.numel()
        parameter.data = pieces[parameter.dtype][start : start + parameter.numel()].view(parameter.shape)

"""Block streaming: offloads transformer blocks to the host's memory, and copies each to the GPU just before its turn.

Each block's weights are one piece of host memory per type, page-locked as far as the host can spare it. While a block
computes, the next one's weights are copied into the other of two buffers on the device, on a stream of their own. A
block must be called once in its turn for all prompts, or the copy would have less work to overlap with.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn


class PinnedMemory:
    """Page-locks pieces of the host's memory, as long as they stay within a limit together.

    Copies from other memory are slower and do not overlap with other work; page-locked memory cannot be swapped, and a
    host that runs short of it stands still.
    """

    def __init__(self, limit: int):
        """Lock at most ``limit`` bytes."""
        self._left = limit

    def lock(self, memory: torch.Tensor) -> bool:
        """Page-lock a piece where it is, unless it exceeds the limit."""
        size = memory.numel() * memory.element_size()
        if size > self._left:
            return False
        self._left -= size
        _page_lock(memory)
        return True


class BlockStreaming:
    """Streams all blocks but the first ``resident`` ones."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        device: torch.device,
        resident: int = 0,
        *,
        cyclic: bool = True,
        pinned: PinnedMemory | None = None,
    ):
        """Take over the parameters of blocks of equal layout, which compute on ``device``.

        With ``cyclic``, the first block is fetched again while the last one computes; else the buffers are freed then.
        For a GPU, the weights are page-locked within the limit of ``pinned``, or all of them.
        """
        self._device = device
        self._cyclic = cyclic
        self._blocks = list(blocks[resident:])
        for block in blocks[:resident]:
            block.to(device)
        self._host = _pack_all(self._blocks, device, pinned)
        self._buffers: list[dict[torch.dtype, torch.Tensor]] = []
        # Of blocks that are in a buffer or being copied: the buffer's number, and the end of the copy.
        self._buffered: dict[int, tuple[int, torch.cuda.Event | None]] = {}
        self._copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._hooks = [
            block.register_forward_pre_hook(partial(self._before, index)) for index, block in enumerate(self._blocks)
        ]
        if not cyclic and self._blocks:
            self._hooks.append(self._blocks[-1].register_forward_hook(lambda *_: self._release()))

    def stop(self) -> None:
        """Remove the blocks' hooks; their parameters stay where they were last."""
        for hook in self._hooks:
            hook.remove()
        if self._copy_stream is not None:
            self._copy_stream.synchronize()

    @torch.inference_mode()
    def pause(self) -> None:
        """Free the buffers on the device until a block is called again."""
        if self._copy_stream is not None:
            torch.cuda.synchronize(self._device)
        self._release()

    def _before(self, index: int, *_: object) -> None:
        """Before block ``index`` computes: wait for its weights, and start to fetch the next ones."""
        if not self._buffers:
            self._buffers = [
                {key: torch.empty_like(value, device=self._device) for key, value in piece.items()}
                for piece in self._host[:2]
            ]
        if index not in self._buffered:
            self._fetch(index, 0)
        number, event = self._buffered[index]
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)
        _bind(self._blocks[index], self._buffers[number])
        # The other buffer's block was queued before this one; the copy waits for it, and overlaps with this one.
        following = (index + 1) % len(self._blocks)
        if following not in self._buffered and (following > index or self._cyclic):
            self._fetch(following, 1 - number)

    def _fetch(self, index: int, number: int) -> None:
        """Copy a block's weights into buffer ``number``, in place of another's."""
        buffer = self._buffers[number]
        self._buffered = {other: held for other, held in self._buffered.items() if held[0] != number}
        if self._copy_stream is None:
            for key, value in self._host[index].items():
                buffer[key].copy_(value)
            self._buffered[index] = number, None
            return
        self._copy_stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._copy_stream):
            for key, value in self._host[index].items():
                buffer[key].copy_(value, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._copy_stream)
        self._buffered[index] = number, event

    def _release(self) -> None:
        """Free the buffers. All copies into them have ended, so torch may reuse them at once."""
        for block, piece in zip(self._blocks, self._host, strict=True):
            _bind(block, piece)
        self._buffers, self._buffered = [], {}


class HostCopy:
    """Weights that never change, in the host's memory: a network on the device is parked there, and comes back.

    In inference mode, as all weights are loaded: torch does not compute with a parameter that is of that mode by half.
    """

    @torch.inference_mode()
    def __init__(self, parts: Sequence[nn.Module], device: torch.device, pinned: PinnedMemory | None = None):
        """Copy the parameters of modules, which stay in the host's memory from now on.

        For a GPU, they are page-locked within the limit of ``pinned``, or all of them.
        """
        self._device, self._parts = device, list(parts)
        self._host = _pack_all(self._parts, device, pinned)

    @torch.inference_mode()
    def park(self) -> None:
        """Use the copy, and free the device's memory."""
        for part, piece in zip(self._parts, self._host, strict=True):
            _bind(part, piece)

    @torch.inference_mode()
    def bring_back(self) -> None:
        """Copy the weights to the device again, at the rate of its bus."""
        for part, piece in zip(self._parts, self._host, strict=True):
            _bind(part, {dtype: memory.to(self._device, non_blocking=True) for dtype, memory in piece.items()})
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _pack_all(
    modules: Sequence[nn.Module], device: torch.device, pinned: PinnedMemory | None
) -> list[dict[torch.dtype, torch.Tensor]]:
    """Pack the parameters of each module; for a GPU page-locked within the limit of ``pinned``, or all of them."""
    packed = [_pack(module) for module in modules]
    if device.type == "cuda":
        for memory in (memory for piece in packed for memory in piece.values()):
            _page_lock(memory) if pinned is None else pinned.lock(memory)
    return packed


def _pack(block: nn.Module) -> dict[torch.dtype, torch.Tensor]:
    """Pack a block's parameters into a flat tensor per type; they become views of it."""
    packed = {}
    for dtype in {parameter.dtype for parameter in block.parameters()}:
        parameters = [parameter for parameter in block.parameters() if parameter.dtype == dtype]
        packed[dtype] = torch.empty(sum(parameter.numel() for parameter in parameters), dtype=dtype)
        start = 0
        for parameter in parameters:
            packed[dtype][start : start + parameter.numel()].copy_(parameter.detach().flatten())
            start += parameter.numel()
    _bind(block, packed)
    return packed


def _page_lock(memory: torch.Tensor) -> None:
    """Page-lock memory where it is, since torch's own page-locked memory comes in powers of two.

    If the system refuses, the memory stays as it is. It is unlocked when the tensor goes, in whatever way: later memory
    at the same place could not be copied.
    """
    runtime, address = torch.cuda.cudart(), memory.data_ptr()
    if runtime is not None and runtime.cudaHostRegister(address, memory.nbytes, 0) == runtime.cudaError.success:
        weakref.finalize(memory, runtime.cudaHostUnregister, address).atexit = False


def _bind(block: nn.Module, pieces: dict[torch.dtype, torch.Tensor]) -> None:
    """Make a block's parameters views of flat tensors."""
    offsets = dict.fromkeys(pieces, 0)
    for parameter in block.parameters():
        start = offsets[parameter.dtype]
        offsets[parameter.dtype] = start + parameter.numel()
        parameter.data = pieces[parameter.dtype][start : start + parameter.numel()].view(parameter.shape)

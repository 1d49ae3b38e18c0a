"""Progress and cancel inside long work: a callback before each layer of an encoder, of the decoder, or of a step.

A GPU computes later than it is asked to. So that progress is what has been computed, and a cancel does not wait for
work that is queued, the layers' calls are held until the GPU is only a few of them behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

# Called with the parts that have been computed, and with how many there are. An exception that it raises ends the work.
PartCallback = Callable[[int, int], None]

# Layers that are queued ahead: enough that the GPU never waits for the next one.
_AHEAD_OF_SMALL_LAYERS, AHEAD_OF_BLOCKS = 8, 2


class WorkParts:
    """Counts parts of some work as a device computes them."""

    def __init__(
        self,
        callback: PartCallback,
        total: int,
        device: torch.device,
        ahead: int = _AHEAD_OF_SMALL_LAYERS,
    ):
        """Expect ``total`` parts, of which at most ``ahead`` wait for the device."""
        self._callback, self._total, self._ahead = callback, total, ahead
        self._device = device
        self._asked = 0
        self._queued: deque[torch.cuda.Event] = deque()

    def restart(self) -> None:
        """Count from the start again, after all of the work has been computed."""
        self._asked = 0
        self._queued.clear()

    def begin(self) -> None:
        """Report what has been computed, before the next part is asked for."""
        if self._asked and self._device.type == "cuda":
            # The host sleeps while it waits: other threads have work.
            event = torch.cuda.Event(blocking=True)
            event.record(torch.cuda.current_stream(self._device))
            self._queued.append(event)
            if len(self._queued) > self._ahead:
                self._queued.popleft().synchronize()
        # Where a cache leaves layers out, or calls one twice, the number of calls is not known exactly.
        computed = min(self._asked - len(self._queued), self._total)
        self._asked += 1
        self._callback(computed, self._total)


@contextmanager
def reported_calls(layers: Iterable[nn.Module], parts: WorkParts) -> Iterator[None]:
    """Begin a part at every call of a layer."""
    hooks = [layer.register_forward_pre_hook(lambda *_: parts.begin()) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

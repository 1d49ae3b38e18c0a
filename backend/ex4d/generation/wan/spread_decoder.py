"""Spreads the VAE's decoder over several devices, which work on frames of several latents at the same time.

The decoder is causal: each layer needs what it has seen of the frames before, so that clips cannot be cut without a
seam. Its layers can: each device has some of them in a row, with their memory of earlier frames, and hands each
latent's frames on to the next. The result is the one device's, to the bit where the devices are of one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from diffsynth.models.wan_video_vae import VideoVAE_


class SpreadDecoder:
    """A VAE's decoder over several devices, until it is gathered."""

    def __init__(self, model: VideoVAE_, devices: Sequence[torch.device]) -> None:
        """Move layers to ``devices``, of which the first one has the latents.

        Raises:
            torch.OutOfMemoryError: a device has too little memory; all layers are on the first one then.
        """
        self.devices = tuple(devices)
        self._layers = decoder_layers(model)
        # After each latent, since the caller's work is on the first device.
        self._hooks: list[Any] = [model.decoder.register_forward_hook(lambda *_: _make_current(self.devices[0]))]
        try:
            starts = balanced_starts([cost for _, cost in self._layers], len(self.devices))
            for device, start, stop in zip(self.devices, starts, [*starts[1:], len(self._layers)], strict=True):
                for layer, _ in self._layers[start:stop]:
                    layer.to(device)
                if start < stop:
                    first = self._layers[start][0]
                    entered = first[0] if isinstance(first, nn.Sequential) else first
                    self._hooks.append(entered.register_forward_pre_hook(_enter(device)))
        except torch.OutOfMemoryError:
            self.gather()
            raise

    def gather(self) -> None:
        """Move all layers back to the first device."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for layer, _ in self._layers:
            layer.to(self.devices[0])


def decoder_layers(model: VideoVAE_) -> list[tuple[nn.Module, float]]:
    """The decoder's layers in order, and what each costs a latent: multiplications for each pixel of the latent."""
    decoder: Any = model.decoder
    size, found = 1.0, []
    for layer in (decoder.conv1, *decoder.middle, *decoder.upsamples, decoder.head):
        mode = getattr(layer, "mode", "")
        if mode.startswith("upsample"):
            size *= 4 if mode == "upsample2d" else 8  # in both directions, and in time
        kernels = [one.weight.numel() for one in layer.modules() if isinstance(one, (nn.Conv2d, nn.Conv3d))]
        found.append((layer, size * sum(kernels)))
    return found


def balanced_starts(costs: Sequence[float], parts: int) -> list[int]:
    """Where each of ``parts`` runs of layers begins, so that they cost about the same."""
    until = list(accumulate(costs))
    starts = [0]
    for part in range(1, parts):
        goal = until[-1] * part / parts
        # Before or after the layer that reaches the goal, whichever is nearer.
        place = next(index for index, cost in enumerate(until) if cost >= goal)
        before = until[place - 1] if place else 0.0
        starts.append(max(starts[-1], place if goal - before < until[place] - goal else place + 1))
    return starts


def _enter(device: torch.device) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        _make_current(device)
        return (arguments[0].to(device, non_blocking=True), *arguments[1:])

    return hook


def _make_current(device: torch.device) -> None:
    """Let kernels that are launched on the current device run on this one."""
    if device.type == "cuda":
        torch.cuda.set_device(device)

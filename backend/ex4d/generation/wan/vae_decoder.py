"""`VaeDecoder`: decodes latents over all devices of a choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from ex4d.generation.wan.decoding import decode_in_order
from ex4d.generation.wan.memory import free_memory
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.spread_decoder import SpreadDecoder
from ex4d.generation.wan.work_parts import PartCallback
from ex4d.weights.notes import note_once

if TYPE_CHECKING:
    from diffsynth.models.wan_video_vae import WanVideoVAE


class VaeDecoder:
    """Decodes with one VAE, which stays as it is prepared for that between shots."""

    def __init__(self, choice: NetworkChoice):
        """Prepare nothing yet."""
        self._devices = (choice.device, *choice.further_devices)
        self._spread: SpreadDecoder | None = None
        self._is_alone = len(self._devices) == 1

    def decode(
        self,
        vae: WanVideoVAE,
        latents: torch.Tensor,
        precision: Callable[[], AbstractContextManager],
        on_part: PartCallback | None = None,
    ) -> Iterator[torch.Tensor]:
        """Yield frames as `decode_in_order` does."""
        if not self._is_alone and self._spread is None:
            self._spread = self._spread_over_devices(vae)
        ahead = 0 if self._spread is None else len(self._devices) - 1
        yield from decode_in_order(vae, latents, precision, on_part, ahead=ahead)

    def decode_alone(self) -> bool:
        """After running out of memory: decode on the first device alone; false if it was alone."""
        spread, self._spread, self._is_alone = self._spread, None, True
        if spread is not None:
            spread.gather()
            free_memory()
        return spread is not None

    def serves(self, choice: NetworkChoice) -> bool:
        """Whether another choice decodes in the same way, with the same VAE."""
        return self._devices == (choice.device, *choice.further_devices)

    def _spread_over_devices(self, vae: WanVideoVAE) -> SpreadDecoder | None:
        try:
            return SpreadDecoder(vae.model, [torch.device(name) for name in self._devices])
        except torch.OutOfMemoryError:
            self._is_alone = True
            further = ", ".join(self._devices[1:])
            note_once(f"{further} have no room for a part of the VAE: {self._devices[0]} decodes alone")
            return None

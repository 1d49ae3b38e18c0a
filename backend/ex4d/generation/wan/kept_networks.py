"""`KeptNetworks`: what stays in memory while presets, LoRAs and precisions change, so that nothing is loaded twice.

Networks are kept by what they were loaded from. The VAE and the encoders serve all presets. Each transformer, with its
LoRAs merged and its weights rounded, stays whole, since merging is not undone exactly by subtracting: on the device
while it has room, then in the host's memory, and else it is loaded again. The weights as they are stored stay on the
device too where it is large enough, so that other LoRAs are merged into the very same values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ex4d.generation.wan import memory
from ex4d.generation.wan.memory import MemoryMode, TransformerBytes, free_memory, has_little_memory
from ex4d.generation.wan.streaming import BlockStreaming, HostCopy
from ex4d.generation.wan.transformer import Transformer
from ex4d.weights.converted import WRITER

if TYPE_CHECKING:
    from diffsynth.models.wan_video_vae import WanVideoVAE

    from ex4d.generation.wan.parallel.processes import RankProcesses


@dataclass
class KeptTransformer:
    """A transformer, on its device or parked in the host's memory.

    Attributes:
        mode: in which it was loaded.
        streaming: of its blocks, where they are streamed.
        parked: whether its weights are in the host's memory.
    """

    transformer: Transformer
    mode: MemoryMode
    streaming: list[BlockStreaming] = field(default_factory=list)
    parked: bool = False
    _copy: HostCopy | None = None

    @property
    def streamed(self) -> bool:
        """Whether some of its layers are in the host's memory."""
        return has_little_memory(self.mode)

    def device_bytes(self) -> int:
        """Bytes of its weights on the device."""
        return sum(map(bytes_of, self._parts_on_device()))

    def park(self) -> None:
        """Move to the host's memory what is on the device."""
        for streaming in self.streaming:
            streaming.pause()
        if self._copy is None:
            self._copy = HostCopy(self._parts_on_device(), self.transformer.device)
        else:
            self._copy.park()
        self.parked = True

    def bring_back(self) -> None:
        """Move it to the device again."""
        if self._copy is not None:
            self._copy.bring_back()
        self.parked = False

    def drop(self) -> None:
        """End what belongs to it."""
        for streaming in self.streaming:
            streaming.stop()
        self._copy = None

    def _parts_on_device(self) -> list[nn.Module]:
        device = self.transformer.device
        parts = [part for _, part in self.transformer.parts()]
        return [part for part in parts if next(part.parameters()).device == device]


@dataclass
class KeptNetworks:
    """The networks of one device, by keys that say what they were loaded from.

    Attributes:
        device: of all of them.
        vaes, encoders: for all presets.
        transformers: the one that was used last is the last.
        base: key, and weights of a transformer as they are stored, on the device.
        sizes, transformer_sizes: bytes of networks, which are read from headers once.
        rank_processes: on further devices, and which these are.
    """

    device: torch.device
    vaes: dict[str, WanVideoVAE] = field(default_factory=dict)
    encoders: dict[str, Any] = field(default_factory=dict)
    transformers: dict[str, KeptTransformer] = field(default_factory=dict)
    base: tuple[str, dict[str, torch.Tensor]] | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    transformer_sizes: dict[str, TransformerBytes] = field(default_factory=dict)
    rank_processes: tuple[tuple[str, ...], RankProcesses] | None = None

    def transformer(self, key: str, mode: MemoryMode) -> KeptTransformer | None:
        """A transformer that is kept, parked or not; None if there is none, or one that streams other layers."""
        kept = self.transformers.pop(key, None)
        if kept is None:
            return None
        if kept.mode != mode and (kept.streamed or has_little_memory(mode)):
            kept.drop()
            return None
        self.transformers[key] = kept
        return kept

    def retain(self, vae: str, encoders: set[str]) -> None:
        """Free the VAEs and encoders of other files than these."""
        self.vaes = {key: network for key, network in self.vaes.items() if key == vae}
        self.encoders = {key: network for key, network in self.encoders.items() if key in encoders}

    def device_bytes(self) -> int:
        """Bytes of all weights on the device."""
        networks = [*(vae.model for vae in self.vaes.values()), *self.encoders.values()]
        tensors = () if self.base is None else self.base[1].values()
        return (
            sum(bytes_of(network, self.device) for network in networks)
            + sum(kept.device_bytes() for kept in self.transformers.values() if not kept.parked)
            + sum(tensor.nbytes for tensor in tensors)
        )

    def make_room(self, budget: Callable[[], int], needed: int, own: str) -> None:
        """Have ``budget()`` reach ``needed`` bytes, as far as all but the transformer ``own`` can give them up."""
        while budget() < needed and self.give_up_one(own):
            pass

    def make_host_room(self, needed: int, own: str) -> None:
        """Drop what the host keeps for other choices until it has room for ``needed`` bytes more."""
        spares = [key for key, kept in self.transformers.items() if key != own and (kept.parked or kept.streamed)]
        while spares and memory.host_budget() < needed:
            self.transformers.pop(spares.pop(0)).drop()
            free_memory()

    def give_up_one(self, own: str) -> bool:
        """Free memory of the device that the transformer ``own`` does not use; false if there is nothing more.

        First the stored weights, then the transformer that was used longest ago.
        """
        spare = next((key for key, kept in self.transformers.items() if key != own and not kept.parked), None)
        if self.base is not None:
            self.base = None
        elif spare is not None:
            WRITER.stop()  # it may hold weights of any
            size = self.transformers[spare].device_bytes()
            if self.device.type == "cuda" and size <= memory.host_budget():
                self.transformers[spare].park()
            else:
                self.transformers.pop(spare).drop()
        else:
            return False
        free_memory()
        return True

    def clear(self) -> None:
        """Free all memory, and end the processes on further devices."""
        WRITER.stop()
        self.end_rank_processes()
        for kept in self.transformers.values():
            kept.drop()
        self.transformers.clear()
        self.vaes.clear()
        self.encoders.clear()
        self.base = None
        free_memory()

    def end_rank_processes(self) -> None:
        """End the processes on further devices."""
        if self.rank_processes is not None:
            self.rank_processes[1].close()
            self.rank_processes = None


def bytes_of(network: nn.Module, device: torch.device | None = None) -> int:
    """Bytes of a network's weights, of those on ``device`` if it is given."""
    return sum(one.nbytes for one in network.parameters() if device is None or one.device == device)

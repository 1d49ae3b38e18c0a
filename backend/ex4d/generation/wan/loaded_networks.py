"""The networks of one engine: loaded on first use, and kept for later jobs while they fit into memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs
import torch
from torch import nn

from ex4d.generation.wan import memory
from ex4d.generation.wan.arithmetic import Arithmetic, arithmetic_on
from ex4d.generation.wan.encoders import EmbeddingCache, Tokenizer, encode_image, encode_text, files_identity
from ex4d.generation.wan.kernels.attention import fastest_attention
from ex4d.generation.wan.kernels.matmul import fp8_products
from ex4d.generation.wan.memory import MEMORY_MODES, MemoryMode, free_memory, memory_budget
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.networks import (
    load_image_encoder,
    load_text_encoder,
    load_vae,
    network_tensors,
    open_dit,
)
from ex4d.generation.wan.streaming import BlockStreaming
from ex4d.generation.wan.transformer import Transformer
from ex4d.weights.checkpoints import OnTensor
from ex4d.weights.packed import StoredTensor

if TYPE_CHECKING:
    from diffsynth.models.wan_video_vae import WanVideoVAE

    from ex4d.generation.wan.parallel.processes import RankProcesses

_Encoder = TypeVar("_Encoder", bound=nn.Module)
_Result = TypeVar("_Result")

# The latents of 49 frames of 512x512 pixels, until a shot says otherwise.
_TYPICAL_LATENTS = (13, 64, 64)


class LoadedNetworks:
    """The four networks of a choice.

    Attributes:
        mode: how much memory they may take; if not given, each shot chooses it by what is free.
        on_load: called for every tensor that is loaded.
    """

    def __init__(self, choice: NetworkChoice, mode: MemoryMode | None = None):
        self.choice = choice
        self.device = torch.device(choice.device)
        self.mode: MemoryMode = mode or "resident"
        self._fixed_mode = mode is not None
        self.on_load: OnTensor | None = None
        self._transformer: Transformer | None = None
        self._vae: WanVideoVAE | None = None
        self._encoders: dict[str, Any] = {}
        self._working_bytes = memory.working_bytes(_TYPICAL_LATENTS)
        self._streaming: list[BlockStreaming] = []
        self._rank_processes: RankProcesses | None = None
        owner = f"{files_identity(*choice.files.text_encoder, choice.files.tokenizer)} {choice.dtype}"
        cache = Path(platformdirs.user_cache_dir("ex4d", appauthor=False))
        self._embeddings = EmbeddingCache(cache / "text_embeddings", owner)

    @contextmanager
    def precision(self, device: torch.device | None = None) -> Iterator[None]:
        """Enter the context that all networks run in, on their own device or ``device``."""
        kind = (device or self.device).type
        autocast = torch.autocast(kind, torch.bfloat16, enabled=self.choice.precision != "float32")
        with autocast, fastest_attention() if kind == "cuda" else contextlib.nullcontext():
            yield

    @property
    def transformer(self) -> Transformer:
        """The transformer with its camera encoder, LoRAs merged."""
        if self._transformer is None:
            if self.mode != "resident":
                self._encoders.clear()
                free_memory()
            self._transformer = self._load_transformer()
        return self._transformer

    @property
    def vae(self) -> WanVideoVAE:
        """The video VAE."""
        if self._vae is None:
            from ex4d.generation.wan.kernels.vae import optimize_vae

            self._vae = load_vae(
                self.choice.files.vae, device=self.device, dtype=self.choice.dtype, on_tensor=self.on_load
            )
            optimize_vae(self._vae)
        return self._vae

    @property
    def rank_processes(self) -> RankProcesses | None:
        """The processes on further devices, started again if one has ended; None without further devices."""
        if self._rank_processes is not None and not self._rank_processes.alive:
            self.end_rank_processes()
        if self._rank_processes is None and self.choice.further_devices:
            from ex4d.generation.wan.parallel.processes import RankProcesses

            self._rank_processes = RankProcesses((self.choice.device, *self.choice.further_devices))
        return self._rank_processes

    def end_rank_processes(self) -> None:
        """End the processes on further devices."""
        if self._rank_processes is not None:
            self._rank_processes.close()
            self._rank_processes = None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The text encoder's tokenizer."""
        return Tokenizer(self.choice.files.tokenizer)

    @torch.inference_mode()
    def text_embeddings(self, prompts: Sequence[tuple[str, str]]) -> list[torch.Tensor]:
        """Return (1, 512, C) of each prompt, given with its name for errors; from the disk if it was used before."""
        cached = {prompt: found for prompt, _ in prompts if (found := self._embeddings.find(prompt)) is not None}
        new = {prompt: self.tokenizer(prompt, name) for prompt, name in prompts if prompt not in cached}
        if new:
            encoded = self._encode(
                "text_encoder",
                load_text_encoder,
                lambda encoder: {prompt: encode_text(encoder, *tokens) for prompt, tokens in new.items()},
            )
            for prompt, embedding in encoded.items():
                self._embeddings.add(prompt, embedding)
            cached |= encoded
        return [cached[prompt].to(self.device) for prompt, _ in prompts]

    @torch.inference_mode()
    def image_embedding(self, image: torch.Tensor) -> torch.Tensor:
        """Return (1, 257, 1280) of a (1, 3, H, W) image in [-1, 1]."""
        return self._encode(
            "image_encoder", load_image_encoder, lambda encoder: encode_image(encoder, image).to(self.device)
        )

    def choose_mode(self, latent_shape: Sequence[int], at_most: MemoryMode = MEMORY_MODES[0]) -> None:
        """Before the first window, of latents (F, h, w): choose the largest mode that fits and is allowed.

        Raises:
            WanUnavailableError: not even the smallest one fits.
        """
        if self._fixed_mode or self._transformer is not None:
            return
        fitting = self.mode
        if self.device.type == "cuda":
            memory.apply_vram_limit(self.device, self.choice.vram_limit_gb)
            self._working_bytes = memory.working_bytes(latent_shape)
            sizes = {name: self._weight_bytes(name) for name in ("dit", "text_encoder", "image_encoder", "vae")}
            fitting = memory.fitting_mode(self._budget(self.device), sizes, self._working_bytes, str(self.device))
        self.mode = MEMORY_MODES[max(map(MEMORY_MODES.index, (fitting, at_most)))]

    def _budget(self, device: torch.device) -> int:
        return memory_budget(device, self.choice.vram_limit_gb)

    def use_less_memory(self) -> bool:
        """After running out of memory: unload and choose the next smaller mode; false if there is none."""
        following = MEMORY_MODES.index(self.mode) + 1
        if self._fixed_mode or following == len(MEMORY_MODES):
            return False
        self.unload()
        self.mode = MEMORY_MODES[following]
        return True

    def unload(self) -> None:
        """Free all memory, and end the processes on further devices."""
        self.end_rank_processes()
        for streaming in self._streaming:
            streaming.stop()
        self._streaming = []
        self._transformer = self._vae = None
        self._encoders.clear()
        free_memory()

    def _encode(self, name: str, load: Callable[..., _Encoder], work: Callable[[_Encoder], _Result]) -> _Result:
        """Run ``work`` with an encoder, which stays loaded only in the mode "resident"."""
        encoder = self._encoders.get(name)
        if encoder is None:
            device = self.device
            if device.type == "cuda" and self._weight_bytes(name) + memory.ENCODING_BYTES > self._budget(device):
                # On a small GPU the text encoder runs on the CPU, once for each new prompt.
                device = torch.device("cpu")
            encoder = load(
                getattr(self.choice.files, name), device=device, dtype=self.choice.dtype, on_tensor=self.on_load
            )
        if self.mode == "resident":
            self._encoders[name] = encoder
        with self.precision(next(encoder.parameters()).device):
            result = work(encoder)
        if self.mode != "resident":
            del encoder
            free_memory()
        return result

    @property
    def fp8(self) -> bool:
        """Whether the blocks' weights are in fp8: chosen, and supported."""
        return self.choice.precision == "fp8" and fp8_products(self.device) is not None

    @property
    def arithmetic(self) -> Arithmetic:
        """The transformer's, as it is on this device."""
        return arithmetic_on(self.device, self.choice.precision, fp8_attention=self.choice.fp8_attention)

    def _load_transformer(self) -> Transformer:
        choice = self.choice
        streamed = self.mode == "blocks streamed"
        dit, blocks = open_dit(
            *(choice.files.dit, choice.files.ex4d, choice.loras),
            device=self.device,
            dtype=choice.dtype,
            on_tensor=self.on_load,
        )
        transformer = Transformer(
            dit, blocks, device=self.device, fp8=self.fp8, fp8_attention=choice.fp8_attention, blocks_stay=not streamed
        )
        if streamed:
            free_memory()  # loading leaves memory too fragmented for whole blocks
            self._streaming = [
                BlockStreaming(transformer.contexts, self.device, cyclic=False),
                BlockStreaming(transformer.blocks, self.device, self._resident_blocks(transformer.blocks)),
            ]
        return transformer

    def _resident_blocks(self, blocks: Sequence[nn.Module]) -> int:
        """Return how many blocks still fit beside two buffers and a window's work."""
        if self.device.type != "cuda":
            return 0
        one = sum(parameter.numel() * parameter.element_size() for parameter in blocks[0].parameters())
        free = self._budget(self.device) - self._working_bytes
        if free >= len(blocks) * one:
            return len(blocks)
        return max(0, min(len(blocks), (free - 2 * one) // one))

    def _weight_bytes(self, name: str) -> int:
        """Return the bytes of a network's weights in the types that they are used in."""
        tensors = network_tensors(getattr(self.choice.files, name))
        size = self.choice.dtype.itemsize
        fp8 = name == "dit" and self.fp8
        return sum(tensor.numel() * (1 if fp8 and _is_fp8(key, tensor) else size) for key, tensor in tensors.items())


def _is_fp8(key: str, tensor: StoredTensor) -> bool:
    """Whether a stored weight is of a matmul that runs at every step."""
    layer = key.rpartition("blocks.")[2].partition(".")[2]
    return tensor.ndim == 2 and layer.startswith(("self_attn.", "cross_attn.q.", "cross_attn.o.", "ffn."))


_last: LoadedNetworks | None = None


def networks_for(choice: NetworkChoice) -> LoadedNetworks:
    """Return the networks of this choice: those of the last job if nothing has changed."""
    global _last
    if _last is None or _last.choice != choice:
        if _last is not None:
            _last.unload()
        _last = LoadedNetworks(choice)
    return _last

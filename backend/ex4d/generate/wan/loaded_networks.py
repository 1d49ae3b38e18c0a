"""The models of one engine: loaded when first used, kept while that fits, and kept for the next job of this process."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from ex4d.generate.wan.checkpoints import OnTensor, read_checkpoint
from ex4d.generate.wan.conditioning import WorkingSize
from ex4d.generate.wan.encoders import EmbeddingCache, Tokenizer, encode_picture, encode_text, identity_of
from ex4d.generate.wan.errors import WanUnavailableError
from ex4d.generate.wan.files import WanFiles, cache_folder
from ex4d.generate.wan.kernels.attention import fastest_attention
from ex4d.generate.wan.kernels.matmul import has_8_bit_products
from ex4d.generate.wan.networks import load_image_encoder, load_text_encoder, load_vae, open_dit
from ex4d.generate.wan.parallel.group import Peers
from ex4d.generate.wan.streaming import BlockStreaming
from ex4d.generate.wan.transformer import Transformer
from ex4d.machine import VRAM_LIMIT_VARIABLE

if TYPE_CHECKING:
    from diffsynth.models.wan_video_vae import WanVideoVAE

_Made = TypeVar("_Made")

# From most to least memory: everything stays; encoders leave after use; blocks of the transformer also come and go.
MEMORY_MODES = ("resident", "encoders leave", "streamed")

# What one window needs beside weights, per token of the transformer and at least.
_BYTES_PER_TOKEN = 250_000
_WORKING_BYTES = 3 * 2**30
# What an encoder needs beside its weights.
_ENCODING_BYTES = 2**30


@dataclass(frozen=True)
class ModelChoice:
    """What decides which weights are loaded, and how.

    Attributes:
        files: as found on this machine.
        loras: files and weights.
        device: "cpu" or "cuda:N".
        precision: one of `ex4d_core.shot.PRECISIONS`.
        fp8_attention: self-attention in 8 bits too.
        peers: further devices that share every shot's steps.
        identity: of the files, so that a replaced one is loaded again.
    """

    files: WanFiles
    loras: tuple[tuple[Path, float], ...]
    device: str
    precision: str
    fp8_attention: bool = False
    identity: str = ""
    peers: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.precision == "float32" else torch.bfloat16


class LoadedModels:
    """The four models of a choice.

    Args:
        mode: one of `MEMORY_MODES`; None to choose for each shot by what is free.

    Attributes:
        on_load: told of every tensor that is loaded.
    """

    def __init__(self, choice: ModelChoice, mode: str | None = None):
        self.choice = choice
        self.device = torch.device(choice.device)
        self.mode = mode or "resident"
        self._fixed_mode = mode is not None
        self.on_load: OnTensor | None = None
        self._tokenizer: Tokenizer | None = None
        self._transformer: Transformer | None = None
        self._vae: WanVideoVAE | None = None
        self._encoders: dict[str, torch.nn.Module] = {}
        self._working_bytes = working_bytes(WorkingSize(512, 512, 512, 512), 49)
        self._streaming: list[BlockStreaming] = []
        self._peers: Peers | None = None
        owner = f"{identity_of(choice.files.text_encoder, choice.files.tokenizer)} {choice.dtype}"
        self._embeddings = EmbeddingCache(cache_folder() / "text_embeddings", owner)

    @contextmanager
    def precision(self, device: torch.device | None = None) -> Iterator[None]:
        """The context that all models run in; ``device`` where it is not their own."""
        kind = (device or self.device).type
        with contextlib.ExitStack() as contexts:
            if self.choice.precision != "float32":
                contexts.enter_context(torch.autocast(kind, torch.bfloat16))
            if kind == "cuda":
                contexts.enter_context(fastest_attention())
            yield

    @property
    def transformer(self) -> Transformer:
        """The transformer with its camera encoder, LoRAs merged."""
        if self._transformer is None:
            self._make_room()
            self._transformer = self._load_transformer()
        return self._transformer

    @property
    def vae(self) -> WanVideoVAE:
        if self._vae is None:
            from ex4d.generate.wan.kernels.vae import speed_up_vae

            self._vae = load_vae(
                self.choice.files.vae, device=self.device, dtype=self.choice.dtype, on_tensor=self.on_load
            )
            speed_up_vae(self._vae)
        return self._vae

    @property
    def peers(self) -> Peers | None:
        """The processes on further devices; None where there are none."""
        if self._peers is not None and not self._peers.alive:
            self.end_peers()
        if self._peers is None and self.choice.peers:
            self._peers = Peers((self.choice.device, *self.choice.peers))
        return self._peers

    def end_peers(self) -> None:
        """End the processes on further devices; `peers` starts new ones."""
        if self._peers is not None:
            self._peers.close()
            self._peers = None

    def tokenize(self, prompt: str, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask; `PromptError` if there are too many."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(self.choice.files.tokenizer)
        return self._tokenizer(prompt, name)

    @torch.inference_mode()
    def text_embeddings(self, prompts: Sequence[tuple[str, str]]) -> list[torch.Tensor]:
        """(1, 512, C) of each prompt, with its name for errors; from the disk if it was used before."""
        kept = [self._embeddings.find(prompt) for prompt, _ in prompts]
        if not all(embedding is not None for embedding in kept):
            tokens = [self.tokenize(*prompt) for prompt in prompts]

            def encode(encoder: torch.nn.Module) -> list[torch.Tensor]:
                made = zip(kept, tokens, strict=True)
                return [encode_text(encoder, *ids) if embedding is None else embedding for embedding, ids in made]

            made = self._encoded("text_encoder", load_text_encoder, encode)
            for (prompt, _), embedding, new in zip(prompts, kept, made, strict=True):
                if embedding is None:
                    self._embeddings.keep(prompt, new)
            kept = made
        return [embedding.to(self.device) for embedding in kept]

    @torch.inference_mode()
    def picture_embedding(self, picture: torch.Tensor) -> torch.Tensor:
        """(1, 257, 1280) of a (1, 3, H, W) picture in [-1, 1]."""
        return self._encoded(
            "image_encoder", load_image_encoder, lambda encoder: encode_picture(encoder, picture).to(self.device)
        )

    def choose_mode(self, size: WorkingSize, frames: int, at_most: str = MEMORY_MODES[0]) -> None:
        """Before the first window of a shot: the mode with the most memory that fits, but none larger than ``at_most``.

        Raises:
            WanUnavailableError: not even the smallest one does.
        """
        if not self._fixed_mode and self._transformer is None:
            self.mode = max(self._fitting_mode(size, frames), at_most, key=MEMORY_MODES.index)

    def _fitting_mode(self, size: WorkingSize, frames: int) -> str:
        if self.device.type != "cuda":
            return self.mode
        limit = vram_limit()
        if limit is not None:
            # A promise to the user, kept even where the estimates below are wrong.
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), self.device)
        working = self._working_bytes = working_bytes(size, frames)
        bytes_of = {name: self._weight_bytes(name) for name in ("dit", "text_encoder", "image_encoder", "vae")}
        return fitting_mode(memory_budget(self.device), bytes_of, working, str(self.device))

    def use_less_memory(self) -> bool:
        """After running out of memory: unload, and go on in the next smaller mode; false if there is none."""
        later = MEMORY_MODES.index(self.mode) + 1
        if self._fixed_mode or later == len(MEMORY_MODES):
            return False
        self.unload()
        self.mode = MEMORY_MODES[later]
        return True

    def unload(self) -> None:
        """Give all memory back, and end the processes on further devices."""
        self.end_peers()
        for streaming in self._streaming:
            streaming.stop()
        self._streaming = []
        self._transformer = self._vae = None
        self._encoders.clear()
        _collect()

    def _encoded(self, name: str, load, work: Callable[[torch.nn.Module], _Made]) -> _Made:
        """What ``work`` makes with an encoder, which stays for the next time only if everything may stay."""
        encoder = self._encoders.get(name)
        if encoder is None:
            device = self.device
            if device.type == "cuda" and self._weight_bytes(name) + _ENCODING_BYTES > memory_budget(device):
                # On a small GPU the text encoder runs on the processor, once for each new prompt.
                device = torch.device("cpu")
            encoder = load(
                getattr(self.choice.files, name), device=device, dtype=self.choice.dtype, on_tensor=self.on_load
            )
        if self.mode == "resident":
            self._encoders[name] = encoder
        with self.precision(next(encoder.parameters()).device):
            made = work(encoder)
        if self.mode != "resident":
            del encoder
            _collect()
        return made

    @property
    def fp8(self) -> bool:
        """Whether products are in 8 bits: asked for, and to be had."""
        return self.choice.precision == "fp8" and has_8_bit_products(self.device)

    def _load_transformer(self) -> Transformer:
        choice = self.choice
        streamed = self.mode == "streamed"
        dit, blocks = open_dit(
            choice.files.dit,
            choice.files.ex4d,
            choice.loras,
            device=self.device,
            dtype=choice.dtype,
            on_tensor=self.on_load,
        )
        transformer = Transformer(
            dit,
            blocks,
            device=self.device,
            fp8=self.fp8,
            fp8_attention=choice.fp8_attention,
            stays=(lambda number: False) if streamed else (lambda number: True),
        )
        if streamed:
            _collect()  # what loading leaves in pieces would not hold whole blocks
            self._streaming = [
                BlockStreaming(transformer.contexts, self.device, again=False),
                BlockStreaming(transformer.blocks, self.device, self._resident_blocks(transformer.blocks)),
            ]
        return transformer

    def _make_room(self) -> None:
        if self.mode != "resident":
            self._encoders.clear()
            _collect()

    def _resident_blocks(self, blocks: Sequence[torch.nn.Module]) -> int:
        """How many blocks still fit when two buffers and a window's work have their place."""
        if self.device.type != "cuda":
            return 0
        one = sum(parameter.numel() * parameter.element_size() for parameter in blocks[0].parameters())
        free = memory_budget(self.device) - self._working_bytes
        if free >= len(blocks) * one:
            return len(blocks)
        return max(0, min(len(blocks), (free - 2 * one) // one))

    def _weight_bytes(self, name: str) -> int:
        """Of a model's weights as they are used."""
        tensors = read_checkpoint(getattr(self.choice.files, name))
        eight_bit = name == "dit" and self.fp8
        size = torch.empty(0, dtype=self.choice.dtype).element_size()
        return sum(
            tensor.numel() * (1 if eight_bit and _in_8_bits(key, tensor) else size) for key, tensor in tensors.items()
        )


def _in_8_bits(key: str, tensor: torch.Tensor) -> bool:
    """Whether a stored weight is one of the products that run at every step."""
    layer = key.rpartition("blocks.")[2].partition(".")[2]
    return tensor.ndim == 2 and layer.startswith(("self_attn.", "cross_attn.q.", "cross_attn.o.", "ffn."))


def fitting_mode(budget: int, bytes_of: Mapping[str, int], working: int, device: str) -> str:
    """The mode with the most memory that fits into ``budget`` bytes.

    Args:
        bytes_of: of the weights of "dit", "text_encoder", "image_encoder" and "vae".
        working: what a window takes beside weights.

    Raises:
        WanUnavailableError: not even the smallest mode does.
    """
    if budget >= sum(bytes_of.values()) + working:
        return "resident"
    if budget >= max(bytes_of["dit"] + bytes_of["vae"] + working, bytes_of["text_encoder"]):
        return "encoders leave"
    least = bytes_of["vae"] + working + 2 * bytes_of["dit"] // 40
    if budget < least:
        raise WanUnavailableError(
            f"{device} has {budget / 2**30:.1f} GB to use, and this shot needs at least {least / 2**30:.1f} GB: choose "
            "a smaller max_pixels (the preset draft has one) or a shorter window, or the preview engine"
        )
    return "streamed"


def memory_budget(device: torch.device) -> int:
    """Bytes of a GPU's memory that this process may still take, by what is free and by the user's limit."""
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    limit = vram_limit()
    available = free + unused
    return available if limit is None else min(available, limit - torch.cuda.memory_allocated(device))


def vram_limit() -> int | None:
    """Bytes that the user allows, by the environment; None without a limit.

    Raises:
        WanUnavailableError: the limit is no number of gigabytes.
    """
    text = os.environ.get(VRAM_LIMIT_VARIABLE, "")
    if not text:
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not limit > 0:
        raise WanUnavailableError(f"{VRAM_LIMIT_VARIABLE} must be a number of gigabytes, not {text!r}")
    return int(limit * 2**30)


def working_bytes(size: WorkingSize, frames: int) -> int:
    """What a window's work takes beside weights."""
    count, height, width = size.latent_shape(frames)
    return _WORKING_BYTES + _BYTES_PER_TOKEN * count * (height // 2) * (width // 2)


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_kept: LoadedModels | None = None


def models_for(choice: ModelChoice) -> LoadedModels:
    """Models of this choice: those of the last job if nothing has changed."""
    global _kept
    if _kept is None or _kept.choice != choice:
        if _kept is not None:
            _kept.unload()
        _kept = LoadedModels(choice)
    return _kept

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
from ex4d.generation.wan.converted_networks import ConvertedNetworks
from ex4d.generation.wan.encoders import (
    EmbeddingCache,
    Tokenizer,
    encode_image,
    encode_text,
    files_identity,
    image_encoder_layers,
)
from ex4d.generation.wan.kept_networks import KeptNetworks, KeptTransformer
from ex4d.generation.wan.kernels.attention import fastest_attention
from ex4d.generation.wan.kernels.matmul import fp8_products
from ex4d.generation.wan.memory import (
    CHUNK_ROWS,
    MEMORY_MODES,
    MemoryMode,
    TransformerBytes,
    device_bytes,
    free_memory,
    has_little_memory,
    pinnable_bytes,
    smaller_mode,
    transformer_bytes,
)
from ex4d.generation.wan.network_choice import NetworkChoice, NetworkKeys
from ex4d.generation.wan.networks import (
    load_image_encoder,
    load_text_encoder,
    load_vae,
    network_tensors,
    open_dit,
)
from ex4d.generation.wan.streaming import BlockStreaming, PinnedMemory
from ex4d.generation.wan.transformer import Transformer
from ex4d.generation.wan.vae_decoder import VaeDecoder
from ex4d.generation.wan.work_parts import PartCallback, WorkParts, reported_calls
from ex4d.memory import total_memory
from ex4d.weights.checkpoints import OnTensor

if TYPE_CHECKING:
    from diffsynth.models.wan_video_vae import WanVideoVAE

    from ex4d.generation.wan.parallel.processes import RankProcesses

_Encoder = TypeVar("_Encoder", bound=nn.Module)
_Network = TypeVar("_Network")
_Result = TypeVar("_Result")

# The latents of 49 frames of 512x512 pixels, until a shot says otherwise.
_TYPICAL_LATENTS = (13, 64, 64)


class LoadedNetworks:
    """The four networks of a choice.

    Attributes:
        mode: how much memory they may take; if not given, each shot chooses it by what is free.
        on_load: called for every tensor that is loaded.
        on_encode, on_decode: called for every layer of an encoder, and of the decoder.
    """

    def __init__(self, choice: NetworkChoice, mode: MemoryMode | None = None, kept: KeptNetworks | None = None):
        """Use the networks that are ``kept`` in memory, and load others when they are needed."""
        self.choice = choice
        self.device = torch.device(choice.device)
        self.mode: MemoryMode = mode or "resident"
        self._fixed_mode = mode is not None
        self.on_load: OnTensor | None = None
        self.on_encode: PartCallback | None = None
        self.on_decode: PartCallback | None = None
        self._decoder = VaeDecoder(choice)
        self._kept = kept or KeptNetworks(self.device)
        self._converted = ConvertedNetworks(choice)
        self._latent_shape: Sequence[int] = _TYPICAL_LATENTS
        files = choice.files
        self._keys = NetworkKeys.of(choice)
        owner = f"{files_identity(*files.text_encoder, files.tokenizer)} {choice.dtype}"
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
        kept = self._kept.transformer(self._keys.transformer, self.mode)
        if kept is None or kept.parked:
            if self.mode != "resident":
                self._kept.encoders.clear()
                free_memory()
            self._make_room()
        if kept is None:
            kept = self._kept.transformers[self._keys.transformer] = self._load_transformer()
        elif kept.parked:
            kept.bring_back()
        kept.transformer.use_fp8_attention(self.choice.fp8_attention)
        return kept.transformer

    @property
    def vae(self) -> WanVideoVAE:
        """The video VAE."""
        vae = self._kept.vaes.get(self._keys.vae)
        if vae is None:
            from ex4d.generation.wan.kernels.vae import optimize_vae

            vae = self._kept.vaes[self._keys.vae] = self._load_part("vae", load_vae, self.device)
            optimize_vae(vae)
        return vae

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield frames as `decode_in_order` does, over all devices."""
        yield from self._decoder.decode(self.vae, latents, self.precision, self.on_decode)

    def decode_alone(self) -> bool:
        """After running out of memory: decode on the first device alone; false if it was alone."""
        return self._decoder.decode_alone()

    @property
    def rank_processes(self) -> RankProcesses | None:
        """The processes on further devices, started again if one has ended; None without further devices."""
        devices = (self.choice.device, *self.choice.further_devices)
        if (running := self._kept.rank_processes) is not None and not (running[1].alive and running[0] == devices):
            self.end_rank_processes()
        if self._kept.rank_processes is None and self.choice.further_devices:
            from ex4d.generation.wan.parallel.processes import RankProcesses

            self._kept.rank_processes = devices, RankProcesses(devices)
        return None if self._kept.rank_processes is None else self._kept.rank_processes[1]

    def end_rank_processes(self) -> None:
        """End the processes on further devices."""
        self._kept.end_rank_processes()

    def load_all(self) -> None:
        """Load what a shot of the usual size will need, but for the text encoder, which new prompts alone need."""
        self.choose_mode(_TYPICAL_LATENTS)
        with torch.inference_mode():
            _ = self.transformer, self.vae
            if self.mode == "resident":
                self._encoder("image_encoder", load_image_encoder, self.device)

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
                lambda encoder: len(new) * [*encoder.blocks],
            )
            for prompt, embedding in encoded.items():
                self._embeddings.add(prompt, embedding)
            cached |= encoded
        return [cached[prompt].to(self.device) for prompt, _ in prompts]

    @torch.inference_mode()
    def image_embedding(self, image: torch.Tensor) -> torch.Tensor:
        """Return (1, 257, 1280) of a (1, 3, H, W) image in [-1, 1]."""
        return self._encode(
            "image_encoder",
            load_image_encoder,
            lambda encoder: encode_image(encoder, image).to(self.device),
            image_encoder_layers,
        )

    def choose_mode(self, latent_shape: Sequence[int], at_most: MemoryMode = MEMORY_MODES[0]) -> None:
        """Before the first window, of latents (F, h, w): choose the largest mode that fits and is allowed.

        Raises:
            WanUnavailableError: not even the smallest one fits.
        """
        self._latent_shape = tuple(latent_shape)
        kept = self._kept.transformers.get(self._keys.transformer)
        if self._fixed_mode or (kept is not None and not kept.parked):
            self.mode = self.mode if kept is None else kept.mode
            self._make_room()
            return
        # What was parked comes back as it was, where it still fits.
        fitting = self.mode if kept is None else kept.mode
        if self.device.type == "cuda":
            memory.apply_vram_limit(self.device, self.choice.vram_limit_gb)
            # What is kept for other choices can be given up.
            budget = self._budget(self.device) + self._kept.device_bytes()
            others = {name: self._weight_bytes(name) for name in ("text_encoder", "image_encoder", "vae")}
            of_now = memory.fitting_mode(budget, self._transformer_bytes(), others, latent_shape, str(self.device))
            fitting = of_now if kept is None else smaller_mode(fitting, of_now)
        self.mode = smaller_mode(fitting, at_most)
        self._make_room()

    def _missing_bytes(self) -> int:
        """Return the bytes of what a shot will load onto the device beside what is there."""
        kept, missing = self._kept.transformers.get(self._keys.transformer), 0
        if kept is None or kept.parked:
            missing += device_bytes(self._transformer_bytes(), self.mode)
        if self._keys.vae not in self._kept.vaes:
            missing += self._weight_bytes("vae")
        if self.mode == "resident":  # else encoders come before the transformer, and go
            encoders = self._keys.encoders.items()
            missing += sum(self._weight_bytes(name) for name, key in encoders if key not in self._kept.encoders)
        return missing

    def _make_room(self) -> None:
        """Have other choices' networks give up the memory that this one's need."""
        if self.device.type == "cuda" or len(self._kept.transformers) > 1:
            needed = self._missing_bytes() + self._working_bytes()
            self._kept.make_room(lambda: self._budget(self.device), needed, self._keys.transformer)

    def _budget(self, device: torch.device) -> int:
        return memory.memory_budget(device, self.choice.vram_limit_gb)

    def use_less_memory(self) -> bool:
        """After running out of memory: free what other choices keep, or unload and choose the next smaller mode.

        Returns:
            Whether there was something to free.
        """
        if self._kept.give_up_one(self._keys.transformer):
            return True
        following = MEMORY_MODES.index(self.mode) + 1
        if self._fixed_mode or following == len(MEMORY_MODES):
            return False
        self.unload()
        self.mode = MEMORY_MODES[following]
        return True

    def unload(self) -> None:
        """Free all memory, that of other choices too, and end the processes on further devices."""
        self._decoder = VaeDecoder(self.choice)
        self._kept.clear()

    def switch_to(self, choice: NetworkChoice) -> LoadedNetworks:
        """Return another choice's networks on the same device, which use what both have in common."""
        networks = LoadedNetworks(choice, kept=self._kept)
        if networks._keys.vae == self._keys.vae and self._decoder.serves(choice):
            networks._decoder = self._decoder
        else:
            self._decoder.decode_alone()
        self._kept.retain(networks._keys.vae, set(networks._keys.encoders.values()))
        return networks

    def _encode(
        self,
        name: str,
        load: Callable[..., _Encoder],
        work: Callable[[_Encoder], _Result],
        calls: Callable[[_Encoder], Sequence[nn.Module]],
    ) -> _Result:
        """Run ``work`` with an encoder, which stays loaded only in the mode "resident".

        Args:
            calls: the encoder's layers, each as often as ``work`` calls it.
        """
        device, key = self.device, self._keys.encoders[name]
        if (
            device.type == "cuda"
            and key not in self._kept.encoders
            and self._weight_bytes(name) + memory.ENCODING_BYTES > self._budget(device)
        ):
            # On a small GPU the text encoder runs on the CPU, once for each new prompt.
            device = torch.device("cpu")
        encoder = self._encoder(name, load, device)
        device, layers = next(encoder.parameters()).device, calls(encoder)
        parts = WorkParts(self.on_encode or (lambda done, total: None), len(layers), device)
        with self.precision(device), reported_calls(dict.fromkeys(layers), parts):
            result = work(encoder)
        if self.mode != "resident":
            self._kept.encoders.pop(key, None)
            del encoder
            free_memory()
        return result

    def _encoder(self, name: str, load: Callable[..., _Encoder], device: torch.device) -> _Encoder:
        key = self._keys.encoders[name]
        if key not in self._kept.encoders:
            self._kept.encoders[key] = self._load_part(name, load, device)
        return self._kept.encoders[key]

    def _load_part(self, name: str, load: Callable[..., _Network], device: torch.device) -> _Network:
        return self._converted.load_part(name, load, device=device, dtype=self.choice.dtype, on_tensor=self.on_load)

    @property
    def fp8(self) -> bool:
        """Whether the blocks' weights are in fp8: chosen, and supported."""
        return self.choice.precision == "fp8" and fp8_products(self.device) is not None

    @property
    def arithmetic(self) -> Arithmetic:
        """The transformer's, as it is on this device."""
        return arithmetic_on(self.device, self.choice.precision, fp8_attention=self.choice.fp8_attention)

    @torch.inference_mode()
    def _load_transformer(self) -> KeptTransformer:
        streamed, short = self.mode == "blocks streamed", has_little_memory(self.mode)
        if short:
            self._kept.make_host_room(self._transformer_bytes().total, self._keys.transformer)
        computing: dict[str, Any] = {
            "device": self.device,
            "fp8": self.fp8,
            "fp8_attention": self.choice.fp8_attention,
            "blocks_stay": not streamed,
            "contexts_stay": not short,
            "chunk_rows": CHUNK_ROWS if short else None,
        }
        products = fp8_products(self.device) if self.fp8 else None
        converted = self._converted.read_transformer(products, self.on_load, **computing)
        kept = KeptTransformer(converted or self._merge_transformer(**computing), self.mode)
        if short:
            free_memory()  # loading leaves memory too fragmented for whole blocks
            contexts, blocks = kept.transformer.contexts, kept.transformer.blocks
            pinned = PinnedMemory(pinnable_bytes(total_memory(), torch.cuda.device_count()))
            if streamed:  # first, since these are copied at every step, and the others once a window
                resident = self._resident_blocks(blocks)
                kept.streaming.append(BlockStreaming(blocks, self.device, resident, pinned=pinned))
            kept.streaming.append(BlockStreaming(contexts, self.device, cyclic=False, pinned=pinned))
        if converted is None:
            self._converted.keep_transformer(kept.transformer, products)
        return kept

    def _merge_transformer(self, **computing: Any) -> Transformer:
        """Load the transformer from its files."""
        choice = self.choice
        dit, blocks = open_dit(
            *(choice.files.dit, choice.files.ex4d, choice.loras),
            device=self.device,
            dtype=choice.dtype,
            on_tensor=self.on_load,
            base=self._stored_weights(),
        )
        return Transformer(dit, blocks, **computing)

    def _stored_weights(self) -> dict[str, torch.Tensor] | None:
        """The transformer's weights as they are stored, for `open_dit`, if the GPU has room to keep them."""
        if self._kept.base is not None and self._kept.base[0] == self._keys.base:
            return self._kept.base[1]
        self._kept.base = None
        if self.device.type != "cuda" or self.mode != "resident":
            return None
        tensors = network_tensors(self.choice.files.dit).values()
        stored = [tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor)]
        room = self._budget(self.device) - self._missing_bytes() - self._working_bytes()
        if len(stored) < len(tensors) or sum(stored) > room:
            return None
        self._kept.base = self._keys.base, {}
        return self._kept.base[1]

    def _working_bytes(self) -> int:
        return memory.working_bytes(self._latent_shape, in_chunks=has_little_memory(self.mode))

    def _transformer_bytes(self) -> TransformerBytes:
        key = f"{self._keys.base} {self.choice.precision}"
        if key not in self._kept.transformer_sizes:
            tensors = network_tensors(self.choice.files.dit)
            self._kept.transformer_sizes[key] = transformer_bytes(tensors, self.choice.dtype.itemsize, fp8=self.fp8)
        return self._kept.transformer_sizes[key]

    def _resident_blocks(self, blocks: Sequence[nn.Module]) -> int:
        """Return how many blocks still fit beside two buffers and a window's work."""
        if self.device.type != "cuda":
            return 0
        one = sum(parameter.numel() * parameter.element_size() for parameter in blocks[0].parameters())
        free = self._budget(self.device) - memory.working_bytes(self._latent_shape, in_chunks=True)
        if free >= len(blocks) * one:
            return len(blocks)
        return max(0, min(len(blocks), (free - 2 * one) // one))

    def _weight_bytes(self, name: str) -> int:
        """Return the bytes of an encoder's or the VAE's weights in the type that they are used in."""
        key = {"vae": self._keys.vae, **self._keys.encoders}[name]
        if key not in self._kept.sizes:
            tensors = network_tensors(getattr(self.choice.files, name))
            self._kept.sizes[key] = sum(tensor.numel() * self.choice.dtype.itemsize for tensor in tensors.values())
        return self._kept.sizes[key]


_last: LoadedNetworks | None = None


def networks_for(choice: NetworkChoice) -> LoadedNetworks:
    """Return the networks of this choice: those of the last job if nothing has changed, or what they have in common."""
    global _last
    if _last is None:
        _last = LoadedNetworks(choice)
    elif _last.choice != choice:
        last, same = _last.choice, (choice.device, choice.vram_limit_gb)
        if (last.device, last.vram_limit_gb) == same:
            _last = _last.switch_to(choice)
        else:
            _last.unload()
            _last = LoadedNetworks(choice)
    return _last

"""Memory modes: which weights stay on the GPU, by what is free and what the user allows."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ex4d.generation.wan.errors import WanUnavailableError
from ex4d.memory import free_memory as free_host_memory
from ex4d.weights.packed import StoredTensor

# From most to least memory: everything stays; encoders are unloaded after use; the cross-attention's layers for keys
# and values, which work once a window, are on the GPU only then; all other layers of blocks are streamed as well.
MemoryMode = Literal["resident", "encoders unloaded", "context streamed", "blocks streamed"]
MEMORY_MODES: tuple[MemoryMode, ...] = get_args(MemoryMode)

# What one window needs beside weights: per token of the transformer, and in any case.
_BYTES_PER_TOKEN = 250_000
_FIXED_BYTES = 3 * 2**30
# With the feed-forward layers' rows in chunks: their 13,824 hidden values of a token in bf16 and in fp8 are not there
# for all tokens at once, and next comes the self-attention, which takes this much less.
_SAVED_BYTES_PER_TOKEN = 20_000
# Rows of such a chunk: enough to fill any GPU, and 0.17 GB of hidden values.
CHUNK_ROWS = 4096
# What an encoder needs beside its weights.
ENCODING_BYTES = 2**30
# Blocks whose weights are on the GPU at once while they are streamed.
STREAM_BUFFERS = 2
# Layers of a block's cross-attention that work once per window, by the names in their files.
_CONTEXT_LAYERS = tuple(f"cross_attn.{name}." for name in ("k", "v", "norm_k", "k_img", "v_img", "norm_k_img"))
_STEP_LAYERS = ("self_attn.", "cross_attn.q.", "cross_attn.o.", "ffn.")
# Of the host's memory: the system and other programs need some that can be swapped.
_PINNED_SHARE = 0.5


@dataclass(frozen=True)
class TransformerBytes:
    """Bytes of the transformer's weights in the types that they are used in.

    Attributes:
        total: of all.
        context: of the cross-attention's layers for keys and values.
        blocks: number of blocks, which are equally large.
    """

    total: int
    context: int
    blocks: int


def transformer_bytes(
    tensors: Mapping[str, StoredTensor | torch.Tensor], itemsize: int, *, fp8: bool
) -> TransformerBytes:
    """Count the weights of a stored transformer, by Wan's own names.

    Args:
        itemsize: bytes of a value that is not in fp8.
        fp8: the layers that run at every step are in fp8.
    """
    total, context, blocks = 0, 0, set[str]()
    for key, tensor in tensors.items():
        number, _, layer = key.rpartition("blocks.")[2].partition(".")
        in_fp8 = fp8 and tensor.ndim == 2 and layer.startswith(_STEP_LAYERS)
        size = tensor.numel() * (1 if in_fp8 else itemsize)
        total += size
        if key.startswith("blocks."):
            blocks.add(number)
            context += size if layer.startswith(_CONTEXT_LAYERS) else 0
    return TransformerBytes(total, context, len(blocks))


def fitting_mode(
    budget: int, transformer: TransformerBytes, others: Mapping[str, int], latent_shape: Sequence[int], device: str
) -> MemoryMode:
    """Return the mode with the most memory that fits into ``budget`` bytes of ``device``.

    Args:
        others: bytes of "text_encoder", "image_encoder" and "vae".
        latent_shape: (F, h, w) of the longest window.

    Raises:
        WanUnavailableError: not even the smallest mode fits.
    """
    working, in_chunks = working_bytes(latent_shape), working_bytes(latent_shape, in_chunks=True)
    vae = others["vae"]
    if budget >= transformer.total + sum(others.values()) + working:
        return "resident"
    if budget >= max(transformer.total + vae + working, others["text_encoder"]):
        return "encoders unloaded"
    # The window's work begins when the buffers have been freed.
    steps = transformer.total - transformer.context
    buffers = STREAM_BUFFERS * transformer.context // transformer.blocks
    if budget >= steps + vae + max(in_chunks, buffers):
        return "context streamed"
    least = vae + in_chunks + STREAM_BUFFERS * transformer.total // transformer.blocks
    if budget < least:
        raise WanUnavailableError(
            f"{device} has {budget / 2**30:.1f} GB to use, and this shot needs at least {least / 2**30:.1f} GB: choose "
            "a smaller max_pixels (the preset draft has one) or a shorter window, or the preview engine"
        )
    return "blocks streamed"


def device_bytes(transformer: TransformerBytes, mode: MemoryMode) -> int:
    """Return the bytes of the device that a transformer takes in a mode, buffers for its streamed weights included."""
    if mode == "blocks streamed":
        return STREAM_BUFFERS * transformer.total // transformer.blocks
    if mode == "context streamed":
        return transformer.total - transformer.context + STREAM_BUFFERS * transformer.context // transformer.blocks
    return transformer.total


def pinnable_bytes(host_bytes: int, gpus: int) -> int:
    """Return how much of a host's memory a process may page-lock: half of it, shared by all GPUs' processes."""
    return int(_PINNED_SHARE * host_bytes / max(1, gpus))


def memory_budget(device: torch.device, limit_gb: float | None) -> int:
    """Return the bytes of a device's memory that this process may still take, by what is free and the user's limit.

    Of the host's memory that is half of what is available.
    """
    if device.type != "cuda":
        return host_budget()
    free, _ = torch.cuda.mem_get_info(device)
    available = free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if limit_gb is None:
        return available
    return min(available, int(limit_gb * 2**30) - torch.cuda.memory_allocated(device))


def host_budget() -> int:
    """Return the bytes of the host's memory that networks which are not in use may take."""
    return free_host_memory() // 2


def apply_vram_limit(device: torch.device, limit_gb: float | None) -> None:
    """Let torch enforce the user's limit, even where the estimates here are wrong."""
    if limit_gb is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_gb * 2**30 / total), device)


def tokens_of(latent_shape: Sequence[int]) -> int:
    """Return the number of tokens of latents (F, h, w)."""
    frames, height, width = latent_shape
    return frames * (height // 2) * (width // 2)


def working_bytes(latent_shape: Sequence[int], *, in_chunks: bool = False) -> int:
    """Return the bytes that a window of latents (F, h, w) takes beside weights; with rows ``in_chunks``, fewer."""
    per_token = _BYTES_PER_TOKEN - (_SAVED_BYTES_PER_TOKEN if in_chunks else 0)
    return _FIXED_BYTES + per_token * tokens_of(latent_shape)


def smaller_mode(one: MemoryMode, other: MemoryMode) -> MemoryMode:
    """Return the one that takes less memory."""
    return MEMORY_MODES[max(MEMORY_MODES.index(one), MEMORY_MODES.index(other))]


def has_little_memory(mode: MemoryMode) -> bool:
    """Whether a mode streams weights, since memory is short."""
    return mode in ("context streamed", "blocks streamed")


def free_memory() -> None:
    """Return unused memory to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

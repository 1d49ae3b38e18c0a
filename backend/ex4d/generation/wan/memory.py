"""Memory modes: which weights stay on the GPU, by what is free and what the user allows."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch

from ex4d.generation.wan.errors import WanUnavailableError
from ex4d.memory import free_memory as free_host_memory

# From most to least memory: everything stays; encoders are unloaded after use; blocks are streamed as well.
MemoryMode = Literal["resident", "encoders unloaded", "blocks streamed"]
MEMORY_MODES: tuple[MemoryMode, ...] = get_args(MemoryMode)

# What one window needs beside weights: per token of the transformer, and in any case.
_BYTES_PER_TOKEN = 250_000
_FIXED_BYTES = 3 * 2**30
# What an encoder needs beside its weights.
ENCODING_BYTES = 2**30


def fitting_mode(budget: int, weight_bytes: Mapping[str, int], working: int, device: str) -> MemoryMode:
    """Return the mode with the most memory that fits into ``budget`` bytes of ``device``.

    ``weight_bytes`` has "dit", "text_encoder", "image_encoder" and "vae"; ``working`` bytes are for a window's work.

    Raises:
        WanUnavailableError: not even the smallest mode fits.
    """
    if budget >= sum(weight_bytes.values()) + working:
        return "resident"
    if budget >= max(weight_bytes["dit"] + weight_bytes["vae"] + working, weight_bytes["text_encoder"]):
        return "encoders unloaded"
    least = weight_bytes["vae"] + working + 2 * weight_bytes["dit"] // 40
    if budget < least:
        raise WanUnavailableError(
            f"{device} has {budget / 2**30:.1f} GB to use, and this shot needs at least {least / 2**30:.1f} GB: choose "
            "a smaller max_pixels (the preset draft has one) or a shorter window, or the preview engine"
        )
    return "blocks streamed"


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


def working_bytes(latent_shape: Sequence[int]) -> int:
    """Return the bytes that a window of latents (F, h, w) takes beside weights."""
    frames, height, width = latent_shape
    return _FIXED_BYTES + _BYTES_PER_TOKEN * frames * (height // 2) * (width // 2)


def free_memory() -> None:
    """Return unused memory to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

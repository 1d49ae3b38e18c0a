"""Text and image embeddings for the cross-attention (UMT5 and CLIP), and a cache of text embeddings on disk.

Prompts repeat, mostly the default one, and the text encoder has 11 GB, so it is loaded for new prompts only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from ex4d.generation.wan.errors import PromptError
from ex4d_core.durable_files import put_in_place

if TYPE_CHECKING:
    from diffsynth.models.wan_video_image_encoder import WanImageEncoder
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder

# The length of the transformer's text input.
MAX_TOKENS = 512

# CLIP's own normalisation, and the size its vision tower takes.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)

_KEPT_EMBEDDINGS = 50


class Tokenizer:
    """UMT5's tokenizer; a prompt that is too long is an error, not truncated."""

    def __init__(self, folder: Path):
        from diffsynth.models.wan_video_text_encoder import HuggingfaceTokenizer

        self._tokenizer = HuggingfaceTokenizer(str(folder), seq_len=MAX_TOKENS, clean="whitespace")

    def __call__(self, prompt: str, name: str = "prompt") -> tuple[torch.Tensor, torch.Tensor]:
        """Return (1, 512) token ids and their mask; ``name`` is for errors.

        Raises:
            PromptError: the prompt has too many tokens.
        """
        needed = len(self._tokenizer.tokenizer(prompt, add_special_tokens=True).input_ids)
        if needed > MAX_TOKENS:
            raise PromptError(
                f"the {name} has {needed} tokens, and the text encoder takes {MAX_TOKENS}: shorten it by about "
                f"{100 * (needed - MAX_TOKENS) / needed:.0f} % (it begins with {prompt[:40]!r})"
            )
        return self._tokenizer(prompt, return_mask=True, add_special_tokens=True)


def encode_text(encoder: WanTextEncoder, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Embed tokens: (1, 512, C), zeros after the last one."""
    device = next(encoder.parameters()).device
    embedding = encoder(ids.to(device), mask.to(device))
    return embedding * mask.to(device)[..., None].gt(0)


def encode_image(encoder: WanImageEncoder, image: torch.Tensor) -> torch.Tensor:
    """Embed a (1, 3, H, W) image in [-1, 1] by CLIP's last layer but one: (1, 257, 1280).

    The image is squashed to CLIP's square, as in Wan.
    """
    clip: Any = encoder.model  # DiffSynth does not say that it is CLIP
    side = (clip.image_size,) * 2
    small = functional.interpolate(image.float(), side, mode="bicubic", align_corners=False)
    mean, deviation = (small.new_tensor(values).view(1, 3, 1, 1) for values in (_CLIP_MEAN, _CLIP_DEVIATION))
    weight = next(encoder.parameters())
    return clip.visual(((small * 0.5 + 0.5 - mean) / deviation).to(weight), use_31_block=True)


def image_encoder_layers(encoder: WanImageEncoder) -> list[nn.Module]:
    """The layers that `encode_image` calls, in their order."""
    clip: Any = encoder.model
    return list(clip.visual.transformer)[:-1]


class EmbeddingCache:
    """Text embeddings on disk, of the prompts used last.

    They depend on ``owner`` too: the encoder's and tokenizer's files, and the weights' type.
    """

    def __init__(self, folder: Path, owner: str):
        self._folder = folder
        self._owner = owner

    def find(self, prompt: str) -> torch.Tensor | None:
        """Return the prompt's embedding; None if it is missing or its file is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(prompt)
        try:
            embedding = load_file(path)["embedding"]
        except (OSError, SafetensorError, KeyError):
            return None
        with contextlib.suppress(OSError):  # the folder may belong to another user
            os.utime(path)
        return embedding

    def add(self, prompt: str, embedding: torch.Tensor) -> None:
        """Write a prompt's embedding, and remove those that were used longest ago."""
        from safetensors.torch import save_file

        path = self._path(prompt)
        # A cache that cannot be written costs time, not the take.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            # Written to another name and renamed: another worker may be reading it.
            partial = path.with_suffix(f".{os.getpid()}.partial")
            save_file({"embedding": embedding.cpu().contiguous()}, partial)
            put_in_place(partial, path)
            kept = sorted(self._folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
            for old in kept[_KEPT_EMBEDDINGS:]:
                old.unlink(missing_ok=True)

    def _path(self, prompt: str) -> Path:
        name = hashlib.sha256(f"{self._owner}\0{prompt}".encode()).hexdigest()
        return self._folder / f"{name}.safetensors"


def files_identity(*paths: Path) -> str:
    """Join names, sizes and times of files and of those in folders: changes when one of them is replaced."""
    parts = []
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            state = file.stat()
            parts.append(f"{file.name}:{state.st_size}:{state.st_mtime_ns}")
    return ";".join(parts)

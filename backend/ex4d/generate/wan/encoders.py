"""Prompts and first frames to what the transformer attends to: UMT5 and CLIP, both used once and then not needed.

Text embeddings are kept on disk: the same prompt, mostly the default one, is not worth loading 11 GB again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ex4d.generate.wan.errors import PromptError

if TYPE_CHECKING:
    from diffsynth.models.wan_video_image_encoder import WanImageEncoder
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder

# Tokens that the transformer's text input has room for.
MAX_TOKENS = 512

# CLIP's own normalisation, and the size its vision tower takes.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)

_KEPT_EMBEDDINGS = 50


class Tokenizer:
    """UMT5's tokenizer; a prompt that is too long is an error, not cut off in silence."""

    def __init__(self, folder: Path):
        from diffsynth.models.wan_video_text_encoder import HuggingfaceTokenizer

        self._tokenizer = HuggingfaceTokenizer(str(folder), seq_len=MAX_TOKENS, clean="whitespace")

    def __call__(self, prompt: str, name: str = "prompt") -> tuple[torch.Tensor, torch.Tensor]:
        """(1, 512) token ids and their mask.

        Raises:
            PromptError: more tokens than there is room for.
        """
        needed = len(self._tokenizer.tokenizer(prompt, add_special_tokens=True).input_ids)
        if needed > MAX_TOKENS:
            raise PromptError(
                f"the {name} has {needed} tokens, and the text encoder takes {MAX_TOKENS}: shorten it by about "
                f"{100 * (needed - MAX_TOKENS) / needed:.0f} % (it begins with {prompt[:40]!r})"
            )
        return self._tokenizer(prompt, return_mask=True, add_special_tokens=True)


def encode_text(encoder: WanTextEncoder, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(1, 512, C): the embedding of each token, and zeros after the last one."""
    device = next(encoder.parameters()).device
    embedding = encoder(ids.to(device), mask.to(device))
    return embedding * mask.to(device)[..., None].gt(0)


def encode_picture(encoder: WanImageEncoder, picture: torch.Tensor) -> torch.Tensor:
    """(1, 257, 1280) of CLIP's last layer but one.

    Args:
        picture: (1, 3, H, W) in [-1, 1]; its aspect is not kept, as in Wan.
    """
    side = (encoder.model.image_size,) * 2
    small = functional.interpolate(picture.float(), side, mode="bicubic", align_corners=False)
    mean, deviation = (small.new_tensor(values).view(1, 3, 1, 1) for values in (_CLIP_MEAN, _CLIP_DEVIATION))
    weight = next(encoder.parameters())
    return encoder.model.visual(((small * 0.5 + 0.5 - mean) / deviation).to(weight), use_31_block=True)


class EmbeddingCache:
    """Text embeddings on disk, of the prompts used last.

    Args:
        folder: made when needed.
        owner: what the embeddings depend on beside the prompt: the encoder's and the tokenizer's files, and its type.
    """

    def __init__(self, folder: Path, owner: str):
        self._folder = folder
        self._owner = owner

    def find(self, prompt: str) -> torch.Tensor | None:
        """The prompt's embedding; None where it is not there, or its file is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(prompt)
        try:
            embedding = load_file(path)["embedding"]
        except (OSError, SafetensorError, KeyError):
            return None
        with contextlib.suppress(OSError):  # the folder may be somebody else's
            os.utime(path)
        return embedding

    def keep(self, prompt: str, embedding: torch.Tensor) -> None:
        """Keep a prompt's embedding, and let those go that were used longest ago."""
        from safetensors.torch import save_file

        path = self._path(prompt)
        # A cache that cannot be written costs time, not the take.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            # Written beside and renamed: another worker may be reading it.
            partial = path.with_suffix(f".{os.getpid()}.partial")
            save_file({"embedding": embedding.cpu().contiguous()}, partial)
            os.replace(partial, path)
            kept = sorted(self._folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
            for old in kept[_KEPT_EMBEDDINGS:]:
                old.unlink(missing_ok=True)

    def _path(self, prompt: str) -> Path:
        name = hashlib.sha256(f"{self._owner}\0{prompt}".encode()).hexdigest()
        return self._folder / f"{name}.safetensors"


def identity_of(*paths: Path) -> str:
    """Names, sizes and times of files: changes when one of them is replaced."""
    parts = []
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            state = file.stat()
            parts.append(f"{file.name}:{state.st_size}:{state.st_mtime_ns}")
    return ";".join(parts)

"""The published files' layouts at full size, without weights: what `ex4d models check` and the tests compare with.

A fingerprint is DiffSynth's own: the MD5 of a checkpoint's sorted keys and shapes, by which it recognises a model.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ex4d.generate.wan.camera_encoder import CameraEncoder
from ex4d.generate.wan.checkpoints import read_checkpoint
from ex4d.generate.wan.networks import build_image_encoder, build_vae, export_adapter

# Wan2.1-I2V-14B.
DIT_SIZES = {
    "dim": 5120,
    "in_dim": 36,
    "ffn_dim": 13824,
    "out_dim": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "eps": 1e-6,
    "patch_size": (1, 2, 2),
    "num_heads": 40,
    "num_layers": 40,
    "has_image_input": True,
}
CAMERA_ENCODER_HIDDEN = 1024


def fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    """DiffSynth's fingerprint of keys and shapes."""
    from diffsynth.core.loader.file import hash_state_dict_keys

    return hash_state_dict_keys(tensors)


def fingerprint_of(paths: tuple[Path, ...]) -> str:
    """The fingerprint of files on disk, all shards together.

    Raises:
        CheckpointError: a file cannot be read.
    """
    return fingerprint(read_checkpoint(paths))


def full_size_dit() -> torch.nn.Module:
    """The 14B transformer with EX-4D's camera encoder, on the meta device."""
    from diffsynth.models.wan_video_dit import WanModel

    with torch.device("meta"):
        dit = WanModel(**DIT_SIZES)
        dit.control_adapter = CameraEncoder(CAMERA_ENCODER_HIDDEN, DIT_SIZES["dim"])
    return dit


def published_layout(part: str) -> dict[str, torch.Tensor]:
    """Keys and shapes of the published file of "dit", "text_encoder", "image_encoder", "vae" or "ex4d"."""
    if part == "vae":
        return build_vae().model.state_dict()
    if part == "image_encoder":
        return {**build_image_encoder().model.state_dict(), **_text_tower()}
    if part == "text_encoder":
        from diffsynth.models.wan_video_text_encoder import WanTextEncoder

        with torch.device("meta"):
            return WanTextEncoder().state_dict()
    dit = full_size_dit()
    if part == "ex4d":
        return export_adapter(dit)
    return {key: value for key, value in dit.state_dict().items() if not key.startswith("control_adapter.")}


def _text_tower(width: int = 1024, layers: int = 24, vocabulary: int = 250_002, positions: int = 514):
    """XLM-RoBERTa-large, which the published CLIP file holds and nothing here uses."""
    layout: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (vocabulary, width),
        "type_embedding.weight": (1, width),
        "pos_embedding.weight": (positions, width),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.0.weight": (width, width),
        "head.2.weight": (width, width),
    }
    for number in range(layers):
        linear = {f"attn.{name}": (width, width) for name in "qkvo"}
        linear |= {"ffn.0": (4 * width, width), "ffn.2": (width, 4 * width)}
        for name, shape in linear.items():
            layout[f"blocks.{number}.{name}.weight"] = shape
            layout[f"blocks.{number}.{name}.bias"] = shape[:1]
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            layout[f"blocks.{number}.{name}"] = (width,)
    return {f"textual.{key}": torch.empty(shape, device="meta") for key, shape in layout.items()}

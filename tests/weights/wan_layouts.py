"""Writes toy networks of Wan in the layouts of other programs, with these programs' own names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

Tensors = Mapping[str, torch.Tensor]


def save(path: Path, tensors: Tensors) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, path)
    return path


def is_product(key: str, tensor: torch.Tensor) -> bool:
    """Whether ComfyUI stores a tensor in 8 bits."""
    return tensor.ndim == 2 and key.startswith(("blocks.", "encoder.block.")) and key.endswith(".weight")


def fp8(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {key: value.to(torch.float8_e4m3fn) if value.ndim > 1 else value.half() for key, value in tensors.items()}


def fp8_scaled(tensors: Tensors) -> dict[str, torch.Tensor]:
    """ComfyUI's earlier style: one number for each matrix, and a marker."""
    result = {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    for key, value in tensors.items():
        if is_product(key, value):
            scale = value.float().abs().max() / 448
            result[key] = (value.float() / scale).to(torch.float8_e4m3fn)
            result[key.removesuffix("weight") + "scale_weight"] = scale
            result[key.removesuffix("weight") + "scale_input"] = torch.tensor(1.0)
        else:
            result[key] = value.half()
    return result


def fp8_by_rows(tensors: Tensors, kind: str = "float8_e4m3fn") -> dict[str, torch.Tensor]:
    """ComfyUI's later style, here with a number for each row, and a description of each layer."""
    result = {}
    for key, value in tensors.items():
        if is_product(key, value):
            scale = value.float().abs().amax(dim=1, keepdim=True) / 448
            layer = key.removesuffix(".weight")
            result[key] = (value.float() / scale).to(torch.float8_e4m3fn)
            result[f"{layer}.weight_scale"] = scale[:, 0]
            result[f"{layer}.comfy_quant"] = torch.tensor(
                list(json.dumps({"format": kind}).encode()), dtype=torch.uint8
            )
        else:
            result[key] = value.bfloat16()
    return result


def prefixed(prefix: str) -> Callable[[Tensors], dict[str, torch.Tensor]]:
    return lambda tensors: {prefix + key: value for key, value in tensors.items()}


def write_gguf(path: Path, tensors: Tensors, packing: str = "Q8_0", **words: str) -> Path:
    """As ComfyUI-GGUF does: vectors and convolutions stay as they are."""
    import gguf
    from gguf.quants import quantize

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "wan")
    for key, text in words.items():
        writer.add_string(key.replace("__", "."), text)
    for key, value in tensors.items():
        values = value.float().numpy()
        kind = gguf.GGMLQuantizationType[packing if value.ndim == 2 and value.shape[1] % 32 == 0 else "F32"]
        writer.add_tensor(key, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_comfyui(folder: Path, networks: Mapping[str, Tensors]) -> None:
    """Its folders of models, with the names of its repackaged files."""
    models = folder / "models"
    save(models / "diffusion_models" / "wan2.1_i2v_480p_14B_fp16.safetensors", networks["dit"])
    save(models / "text_encoders" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors", fp8_scaled(networks["text_encoder"]))
    save(models / "clip_vision" / "clip_vision_h.safetensors", networks["image_encoder"])
    save(models / "vae" / "wan_2.1_vae.safetensors", networks["vae"])


def llama_names(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The names that llama.cpp gives to transformers' of a T5 encoder."""
    names = {
        "encoder.block.": "enc.blk.",
        "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
        "layer.0.SelfAttention.": "attn_",
        "layer.0.layer_norm": "attn_norm",
        "layer.1.layer_norm": "ffn_norm",
        "layer.1.DenseReluDense.wi_0": "ffn_gate",
        "layer.1.DenseReluDense.wi_1": "ffn_up",
        "layer.1.DenseReluDense.wo": "ffn_down",
        "encoder.final_layer_norm": "enc.output_norm",
        "shared.": "token_embd.",
    }
    result = {}
    for key, value in tensors.items():
        if key == "encoder.embed_tokens.weight":
            continue
        for theirs, own in names.items():
            key = key.replace(theirs, own)
        result[key] = value
    return result

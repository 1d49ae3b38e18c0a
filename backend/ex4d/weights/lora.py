"""Reads LoRAs in the usual key styles, and merges them into a Wan transformer's weights while these load.

Merged once, a LoRA costs nothing at run time. The styles, for one layer:

    peft (EX-4D)   blocks.0.self_attn.q.lora_A.default.weight, .lora_B.default.weight
    diffusers      transformer.blocks.0.attn1.to_q.lora_A.weight, .lora_B.weight
    lightx2v       diffusion_model.blocks.0.self_attn.q.lora_down.weight, .lora_up.weight, .alpha, .diff_b, .diff
    kohya          lora_unet_blocks_0_self_attn_q.lora_down.weight, .lora_up.weight, .alpha
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ex4d.weights.errors import CheckpointError

_PREFIXES = ("base_model.model.", "diffusion_model.", "transformer.", "model.", "dit.", "pipe.dit.")

# What follows a layer's name, and what it is.
_ROLES = {
    "lora_A.weight": "down",
    "lora_down.weight": "down",
    "lora_B.weight": "up",
    "lora_up.weight": "up",
    "lora_B.bias": "bias",
    "alpha": "alpha",
    "diff_b": "bias",
    "diff": "weight",
    "diff_m": "modulation",
}

# diffusers' names of Wan's layers; longer ones first where one begins with another.
_DIFFUSERS = {
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "proj_out": "head.head",
}
_DIFFUSERS_BLOCK = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "attn2.norm_added_k": "cross_attn.norm_k_img",
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "norm2": "norm3",
}
# peft puts its adapter's name in, "default" where nobody gave it one.
_ADAPTER = re.compile(r"\.lora_([AB])\.[^.]+\.weight$")
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class LoraFile:
    """A LoRA that is known to fit a transformer.

    Attributes:
        path: for errors.
        weight: how strongly it is merged.
        layers: tensors by role, by the transformer's own layer names.
    """

    path: Path
    weight: float
    layers: Mapping[str, Mapping[str, torch.Tensor]]

    def merge(self, key: str, value: torch.Tensor) -> torch.Tensor:
        """A transformer's tensor with this LoRA in it; float32 if the LoRA changes it.

        ``weight += strength * alpha / rank * up @ down``, alpha being the rank where the file has none.
        """
        name, _, last = key.rpartition(".")
        if last == "modulation":
            name, last = key, "modulation"
        layer = self.layers.get(name)
        if layer is None:
            return value
        tensors = {role: tensor.to(value.device, torch.float32) for role, tensor in layer.items()}
        if last == "weight" and "down" in tensors:
            down, up = tensors["down"], tensors["up"]
            scale = tensors["alpha"].item() / down.shape[0] if "alpha" in tensors else 1.0
            delta = (up.flatten(1) @ down.flatten(1)).reshape(value.shape)
            value = value.float().add(delta, alpha=self.weight * scale)
        if last in tensors and last != "down":
            value = value.float() + self.weight * tensors[last].reshape(value.shape)
        return value


def read_lora(
    tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]], path: Path, weight: float = 1.0
) -> LoraFile:
    """Recognise a LoRA's style and check it against a transformer.

    Args:
        tensors: as in the file.
        shapes: of the transformer's tensors, by name.

    Raises:
        CheckpointError: a key of unknown style, of no layer here, without its partner, of another shape, there twice,
            or without real numbers.
    """
    names = _LayerNames(shapes)
    layers: dict[str, dict[str, torch.Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        layer_name, role = _split(key)
        target = names.find(layer_name) if role else ""
        if not target:
            unknown.append(key)
            continue
        role = "modulation" if target.endswith("modulation") else role
        of_layer = layers.setdefault(target, {})
        if role in of_layer:
            raise CheckpointError(f"{path} changes {target} twice, the second time as {key}")
        of_layer[role] = tensor
    if unknown:
        listed = ", ".join(sorted(unknown)[:5])
        if any(names.begins(key) for key in unknown):
            raise CheckpointError(
                f"{path} has {len(unknown)} of {len(tensors)} keys that change a layer in a way unknown here: {listed}."
                " Plain LoRAs can be merged, DoRA, LoHa and LoKr cannot"
            )
        raise CheckpointError(
            f"{path} has {len(unknown)} of {len(tensors)} keys that belong to no layer of this transformer: {listed}. "
            "Is it a LoRA for Wan2.1-I2V-14B?"
        )
    if not layers:
        raise CheckpointError(f"{path} holds no LoRA")
    for name, layer in layers.items():
        _check(name, layer, shapes, path)
    return LoraFile(path, weight, layers)


def _split(key: str) -> tuple[str, str]:
    """A key as (layer, role); the role is "" where the style is unknown."""
    key = _ADAPTER.sub(r".lora_\1.weight", key)
    for ending, role in _ROLES.items():
        if key.endswith("." + ending):
            return key[: -len(ending) - 1], role
    return key, ""


class _LayerNames:
    """Finds the transformer's layer that a file's name means."""

    def __init__(self, keys: Mapping[str, Sequence[int]]):
        self._own = {key if key.endswith("modulation") else key.rpartition(".")[0] for key in keys}
        # kohya writes underscores for dots, which only a list of all names turns back for sure.
        self._kohya = {name.replace(".", "_"): name for name in self._own}

    def find(self, name: str) -> str | None:
        """The transformer's own name of a layer; None where it has no such layer."""
        if name.startswith("lora_unet_"):
            return self._kohya.get(name[len("lora_unet_") :])
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        # diffusers' norm2 is Wan's norm3; Wan's own norm2 has no weights, so there is nothing to mistake.
        for candidate in (name, _from_diffusers(name), name + ".modulation"):
            if candidate in self._own:
                return candidate
        return None

    def begins(self, key: str) -> bool:
        """Whether a key begins with the name of a layer that has weights."""
        parts = key.split(".")
        found = (self.find(".".join(parts[:end])) for end in range(1, len(parts)))
        return any(name and not name.endswith("modulation") for name in found)


def _from_diffusers(name: str) -> str:
    match = _BLOCK.fullmatch(name)
    if match and match[2] in _DIFFUSERS_BLOCK:
        return f"blocks.{match[1]}.{_DIFFUSERS_BLOCK[match[2]]}"
    return _DIFFUSERS.get(name, name)


def _check(name: str, tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]], path: Path) -> None:
    if ("down" in tensors) != ("up" in tensors):
        there, gone = ("down", "up") if "down" in tensors else ("up", "down")
        raise CheckpointError(f"{path} has a lora_{there} of {name} but no lora_{gone}; the file is incomplete")
    if "alpha" in tensors and tensors["alpha"].numel() != 1:
        raise CheckpointError(
            f"{path} has an alpha of {name} that is not a number but of shape {tuple(tensors['alpha'].shape)}"
        )
    # An alpha may be a whole number, as some programs write it.
    if odd := [role for role, tensor in tensors.items() if role != "alpha" and not tensor.is_floating_point()]:
        raise CheckpointError(f"{path} has a {odd[0]} of {name} that holds no real numbers; the file is damaged")
    if "down" in tensors:
        weight = tuple(shapes.get(f"{name}.weight", ()))
        down, up = tensors["down"], tensors["up"]
        if not (weight and _fits(up, down, weight)):
            raise CheckpointError(
                f"{path} changes {name} of shape {weight} by {tuple(up.shape)} times {tuple(down.shape)}: it is "
                "for another model"
            )
    for role in ("weight", "bias", "modulation"):
        key = name if role == "modulation" else f"{name}.{role}"
        if role in tensors and tensors[role].numel() != math.prod(shapes.get(key, (0,))):
            raise CheckpointError(
                f"{path} changes {key} of shape {tuple(shapes.get(key, ()))} by {tuple(tensors[role].shape)}"
            )


def _fits(up: torch.Tensor, down: torch.Tensor, weight: Sequence[int]) -> bool:
    """Whether ``up`` times ``down`` is of a weight's shape."""
    if min(up.ndim, down.ndim) < 2:
        return False
    rank, columns = down.flatten(1).shape
    return up.flatten(1).shape == (weight[0], rank) and columns * weight[0] == math.prod(weight)

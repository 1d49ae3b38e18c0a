"""Reads LoRAs in the usual key styles, and merges them into a Wan transformer's weights while these load.

Merged once, a LoRA costs nothing at run time. The styles, for one layer:

    peft (EX-4D)   blocks.0.self_attn.q.lora_A.default.weight, .lora_B.default.weight; also without .weight
    diffusers      transformer.blocks.0.attn1.to_q.lora_A.weight, .lora_B.weight; earlier .lora.down.weight, .lora.up
    lightx2v       diffusion_model.blocks.0.self_attn.q.lora_down.weight, .lora_up.weight, .alpha, .diff_b, .diff
    kohya          lora_unet_blocks_0_self_attn_q.lora_down.weight, .lora_up.weight, .alpha; also lora_unet__,
                   lora_transformer_ and lycoris_, with Wan's or diffusers' names of layers

Before these stand prefixes in any order: see `ex4d.weights.wan_names.PREFIXES`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ex4d.weights.errors import CheckpointError
from ex4d.weights.notes import note_once
from ex4d.weights.wan_names import PREFIXES, diffusers_layer, transformer_layer

# What follows a layer's name, and what it is.
_ROLES = {
    "lora_A.weight": "down",
    "lora_down.weight": "down",
    "lora.down.weight": "down",
    "lora_B.weight": "up",
    "lora_up.weight": "up",
    "lora.up.weight": "up",
    "lora_B.bias": "bias",
    "alpha": "alpha",
    "diff_b": "bias",
    "diff": "weight",
    "diff_m": "modulation",
}
# peft puts its adapter's name in, "default" where nobody gave it one, and leaves .weight out where it saves parameters.
_ADAPTER = re.compile(r"\.lora_([AB])(?:\.(?!bias$)[^.]+)?(?:\.weight)?$")
_BARE = re.compile(r"\.(lora_down|lora_up|lora\.down|lora\.up)$")
# Names of adapters of all kinds, those that cannot be merged here too.
_ADAPTERS = re.compile(r"lora|dora|hada|lokr|loha|oft_|magnitude", re.IGNORECASE)
# Before names of layers whose dots have become underscores.
_UNDERSCORED = re.compile(r"(?:lora_unet|lora_transformer|lora|lycoris|unet|transformer|diffusion_model|model)_+")
# LoRAs of Wan2.2, by the names of their files and folders.
_WAN22 = re.compile(r"wan[ ._-]?2[._-]?2|(?:high|low)[ _-]noise", re.IGNORECASE)
_PATCHES = "patch_embedding"
# A layer of Wan's blocks, under its own name or diffusers', with dots or underscores.
_WAN_LAYER = re.compile(r"blocks[._]\d+[._](self_attn|cross_attn|ffn|attn[12])[._]")


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
    if any(_WAN22.search(part) for part in path.parts[-2:]):
        note_once(
            f"{path} is named as a LoRA of Wan2.2, such as its Lightning, and was trained for one half of that model "
            "(high or low noise); EX-4D is on Wan2.1, whose step-distilled LoRA comes with: ex4d models fetch fast"
        )
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
    _leave_out_other_patches(layers, shapes, path)
    for name, layer in layers.items():
        _check(name, layer, shapes, path)
    return LoraFile(path, weight, layers)


def is_for_wan(keys: Iterable[str]) -> bool:
    """Whether a file's keys are those of a LoRA for a transformer of the Wan family, of whatever size."""
    return any(bool(role) and _of_wan(layer) for layer, role in map(_split, keys))


def _of_wan(layer: str) -> bool:
    while prefix := next((one for one in PREFIXES if layer.startswith(one)), None):
        layer = layer.removeprefix(prefix)
    while match := _UNDERSCORED.match(layer):
        layer = layer[match.end() :]
    return bool(_WAN_LAYER.match(layer))


def changes_a_layer(key: str) -> bool:
    """Whether a key is of a LoRA or of another adapter, whatever transformer it is for."""
    return bool(_split(key)[1] or _ADAPTERS.search(key))


def plain_lora(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A LoRA's tensors in the style of the published ``ex4d.ckpt``, where they have one in it; others as they are."""
    names = {"down": "lora_A.default.weight", "up": "lora_B.default.weight"}
    result = {}
    for key, tensor in tensors.items():
        layer, role = _split(key)
        while role in names and (prefix := next((one for one in PREFIXES if layer.startswith(one)), None)):
            layer = layer.removeprefix(prefix)
        result[f"{layer}.{names[role]}" if role in names else key] = tensor
    return result


def _leave_out_other_patches(
    layers: dict[str, dict[str, torch.Tensor]], shapes: Mapping[str, Sequence[int]], path: Path
) -> None:
    """Leave out what a LoRA for text to video changes in the patch embedding: that has fewer input channels."""
    layer, expected = layers.get(_PATCHES, {}), shapes.get(f"{_PATCHES}.weight", ())
    inputs = [tensor for role, tensor in layer.items() if role in ("down", "weight") and tensor.ndim == 5]
    if not inputs or len(expected) != 5 or inputs[0].shape[1] == expected[1] or len(layers) == 1:
        return
    for role in ("down", "up", "alpha", "weight"):
        layer.pop(role, None)
    if not layer:
        del layers[_PATCHES]
    note_once(
        f"{path} changes {_PATCHES} for {inputs[0].shape[1]} input channels (text to video), and this model has "
        f"{expected[1]} (image to video): that change is left out, all others are merged"
    )


def _split(key: str) -> tuple[str, str]:
    """A key as (layer, role); the role is "" where the style is unknown."""
    key = _BARE.sub(r".\1.weight", _ADAPTER.sub(r".lora_\1.weight", key))
    for ending, role in _ROLES.items():
        if key.endswith("." + ending):
            return key[: -len(ending) - 1], role
    return key, ""


class _LayerNames:
    """Finds the transformer's layer that a file's name means."""

    def __init__(self, keys: Mapping[str, Sequence[int]]):
        self._own = {key if key.endswith("modulation") else key.rpartition(".")[0] for key in keys}
        # kohya writes underscores for dots, which only a list of all names turns back for sure.
        self._underscored = {diffusers_layer(name).replace(".", "_"): name for name in self._own}
        self._underscored |= {name.replace(".", "_"): name for name in self._own}

    def find(self, name: str) -> str | None:
        """The transformer's own name of a layer; None where it has no such layer."""
        while prefix := next((one for one in PREFIXES if name.startswith(one)), None):
            name = name.removeprefix(prefix)
        # diffusers' norm2 is Wan's norm3; Wan's own norm2 has no weights, so there is nothing to mistake.
        for candidate in (name, transformer_layer(name), name + ".modulation"):
            if candidate in self._own:
                return candidate
        while match := _UNDERSCORED.match(name):
            name = name[match.end() :]
            if name in self._underscored:
                return self._underscored[name]
        return None

    def begins(self, key: str) -> bool:
        """Whether a key begins with the name of a layer that has weights."""
        parts = key.split(".")
        found = (self.find(".".join(parts[:end])) for end in range(1, len(parts)))
        return any(name and not name.endswith("modulation") for name in found)


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

"""The published files' layouts at full size, without weights: what `ex4d models check` and the tests compare with.

A fingerprint is DiffSynth's own: the MD5 of a checkpoint's sorted keys and shapes, by which it recognises a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ex4d.generation.wan.camera_encoder import CameraEncoder, split_adapter
from ex4d.generation.wan.errors import WanUnavailableError
from ex4d.generation.wan.networks import build_image_encoder, build_vae, export_adapter, require_diffsynth
from ex4d.weights.catalogue import Part
from ex4d.weights.checkpoints import PICKLED, SAFETENSORS, name_of, read_stored, shapes_of, some_keys
from ex4d.weights.errors import CheckpointError
from ex4d.weights.gguf_files import ENDING as GGUF
from ex4d.weights.inventory import Finding
from ex4d.weights.lora import plain_lora
from ex4d.weights.wan_models import RecognisedModel, recognise
from ex4d.weights.wan_names import own_tensors

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import WanModel

# Which of DiffSynth's registered layouts each part has (`diffsynth.configs.model_configs`): MD5 of keys and shapes.
FINGERPRINTS = {
    "dit": "6bfcfb3b342cb286ce886889d519a77e",
    "text_encoder": "9c8818c2cbea55eca56c7b447df170da",
    "vae": "ccc42284ea13e1ad04693284c7a09be6",
    "image_encoder": "5941c53e207d62f20f9025686193c40b",
}

CAMERA_ENCODER_HIDDEN = 1024


def fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    """DiffSynth's fingerprint of keys and shapes."""
    from diffsynth.core.loader.file import hash_state_dict_keys

    return hash_state_dict_keys(tensors)


def check_layout(part: Part, paths: tuple[Path, ...], models: Path) -> Finding:
    """A `CheckLayout` of the weights room: compares what loading takes from the files with the network's layout."""
    files = tuple(path for path in paths if path.suffix in (*SAFETENSORS, *PICKLED, GGUF))
    try:
        require_diffsynth()
        if part.name == "ex4d":
            adapter = split_adapter(files[0])
            shapes, unused, what = shapes_of({**adapter.camera, **plain_lora(adapter.lora)}), adapter.unused, ""
        else:
            own = own_tensors(read_stored(files))
            model = recognise(own, files)
            if model is not None and model.other:
                return Finding(False, f"{name_of(files)} is {model.name}: {model.refused}")
            shapes, unused, what = shapes_of(own.tensors), own.unused, description(model) if model else ""
        right = shapes == shapes_of(used_layout(part.name))
    except CheckpointError as error:
        return Finding(False, str(error))
    except WanUnavailableError as error:
        return Finding(True, f"keys and shapes were not compared: {error}")
    beside = f"; {len(unused)} tensors are not used: {some_keys(unused)}" if unused else ""
    if right:
        return Finding(True, f"keys and shapes are those of the published model{what}{beside}")
    return Finding(False, f"keys and shapes are not those of the published model ({files[0]}){beside}")


def description(model: RecognisedModel) -> str:
    """How a file of the right layout differs from the published one; "" if it does not."""
    notes = [f"names of {model.style}"] * (model.style != "Wan")
    notes += [f"packed as {model.packing}"] * (model.packing not in ("bf16", "fp16", "float32"))
    notes += [model.name] * bool(model.refused)
    return f" ({', '.join(notes)})" if notes else ""


def used_layout(part: str) -> dict[str, torch.Tensor]:
    """As `published_layout`, without what loading leaves out."""
    return {key: value for key, value in published_layout(part).items() if not key.startswith("textual.")}


def full_size_sizes() -> dict[str, Any]:
    """What DiffSynth's `WanModel` is built with for the 14B transformer."""
    from diffsynth.configs.model_configs import wan_series

    return next(entry["extra_kwargs"] for entry in wan_series if entry["model_hash"] == FINGERPRINTS["dit"])


def full_size_dit() -> WanModel:
    """The 14B transformer with EX-4D's camera encoder, on the meta device."""
    from diffsynth.models.wan_video_dit import WanModel

    sizes = full_size_sizes()
    with torch.device("meta"):
        dit = WanModel(**sizes)
        encoder = CameraEncoder(CAMERA_ENCODER_HIDDEN, sizes["dim"])
        dit.control_adapter = encoder  # pyright: ignore[reportAttributeAccessIssue]
    return dit


def published_layout(part: str) -> dict[str, torch.Tensor]:
    """Keys and shapes of the published file of "dit", "text_encoder", "image_encoder", "vae" or "ex4d"."""
    if part == "vae":
        return build_vae().model.state_dict()
    if part == "image_encoder":
        return {**build_image_encoder().get_submodule("model").state_dict(), **_text_tower()}
    if part == "text_encoder":
        from diffsynth.models.wan_video_text_encoder import WanTextEncoder

        with torch.device("meta"):
            return WanTextEncoder().state_dict()
    dit = full_size_dit()
    if part == "ex4d":
        return export_adapter(dit)
    return {key: value for key, value in dit.state_dict().items() if not key.startswith("control_adapter.")}


def _text_tower(width: int = 1024, layers: int = 24, vocabulary: int = 250_002, positions: int = 514):
    """XLM-RoBERTa-large, which the published CLIP file holds but this engine does not use."""
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

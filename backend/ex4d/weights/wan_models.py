"""Recognises which model of the Wan family a file holds, by keys and shapes, and says why EX-4D cannot use the others.

The transformers of Wan2.1-I2V-14B-480P and 720P and of Wan2.1-Fun-14B-InP have the same keys and shapes, so only what
the file says of itself (its name, its folder, GGUF's title) tells these apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ex4d.weights.packed import StoredTensor, packing_of
from ex4d.weights.wan_names import OwnTensors

I2V = "Wan2.1-I2V-14B"

# The width of CLIP's vision tower that Wan's transformers with image input take, and others that files are found with.
_CLIP_WIDTH = 1280
_OTHER_CLIPS = {768: "CLIP ViT-B", 1024: "CLIP ViT-L/14", 1152: "SigLIP", 1664: "CLIP ViT-bigG/14"}
_LATENT_CHANNELS = 16

# Further networks in a transformer's file, and the models that have them.
_FURTHER = (
    ("vace_blocks.", "Wan2.1-VACE"),
    ("vace_patch_embedding.", "Wan2.1-VACE"),
    ("img_emb.emb_pos", "Wan2.1-FLF2V-14B (first and last frame)"),
    ("face_adapter.", "Wan2.2-Animate-14B"),
    ("audio_injector.", "Wan2.2-S2V-14B"),
    ("casual_audio_encoder.", "Wan2.2-S2V-14B"),
    ("ref_conv.", "Wan2.1-Fun-Control"),
    ("control_adapter.", "Wan2.1-Fun-Control-Camera"),
)
# By the input's channels and whether there is image input: width, if it matters, and name.
_TRANSFORMERS: dict[tuple[int, bool], dict[int, str]] = {
    (36, True): {1536: "Wan2.1-Fun-1.3B-InP"},
    (36, False): {0: "Wan2.2-I2V-A14B (image to video of Wan2.2, which has no image encoder)"},
    (16, False): {
        1536: "Wan2.1-T2V-1.3B (text to video)",
        0: "Wan2.1-T2V-14B or Wan2.2-T2V-A14B (text to video)",
    },
    (48, False): {0: "Wan2.2-TI2V-5B"},
    (48, True): {0: "Wan2.1-Fun-Control"},
    (32, True): {0: "Wan2.1-Fun-Control-Camera"},
}
# Models of the same keys and shapes: words that name them, their right names, and what EX-4D was trained on instead.
_ALIKE = (
    (re.compile(r"720\s*p(?![a-z0-9])", re.IGNORECASE), f"{I2V}-720P", "the 480P model"),
    (re.compile(r"fun[\W_].*inp(?![a-z])", re.IGNORECASE), "Wan2.1-Fun-14B-InP", f"{I2V}-480P"),
)


@dataclass(frozen=True)
class RecognisedModel:
    """A network of the Wan family.

    Attributes:
        part: of the catalogue that it would be.
        name: its right name, for people.
        style: whose names its file has.
        packing: what most of its weights are stored as.
        refused: why it is not used unless somebody names its file, or at all; "" if it is.
        other: whether its layout is another one, so that it cannot be used at all.
    """

    part: str
    name: str
    style: str
    packing: str
    refused: str = ""
    other: bool = False


def recognise(own: OwnTensors, sources: Sequence[Path], title: str = "") -> RecognisedModel | None:
    """Which model some tensors are; None if none of the family.

    Args:
        own: of the whole network, or of some of its shards.
        sources: their files.
        title: what the file calls itself.
    """
    if not own.part:
        return None
    packing = _most_common(own.tensors)
    if own.part == "ex4d":
        return RecognisedModel("ex4d", "adapter of EX-4D's kind", own.style, packing)
    name, reason = {
        "dit": lambda: _transformer(own.tensors, sources, title),
        "vae": lambda: _vae(own.tensors),
        "text_encoder": lambda: _text_encoder(own.tensors),
        "image_encoder": lambda: _image_encoder(own.tensors),
    }[own.part]()
    alike = name in [of_model for _, of_model, _ in _ALIKE]
    return RecognisedModel(own.part, name, own.style, packing, reason, other=bool(reason) and not alike)


def transformer_name(tensors: Mapping[str, StoredTensor]) -> str:
    """The right name of a transformer that is not `I2V`; "" if it is, or if its shapes do not say."""
    for key, name in _FURTHER:
        if any(one.startswith(key) for one in tensors):
            return name
    patches = tensors.get("patch_embedding.weight")
    if patches is None or patches.ndim != 5:
        return ""
    width, channels = patches.shape[:2]
    image_input = any(key.startswith("img_emb.") for key in tensors)
    if channels == 36 and image_input and width != 1536:
        return ""
    names = _TRANSFORMERS.get((channels, image_input), {})
    kind = "with" if image_input else "without"
    return names.get(width) or names.get(0) or f"a Wan transformer of {channels} input channels, {kind} image input"


def _named_otherwise(sources: Sequence[Path], title: str) -> tuple[str, str] | None:
    """The model of 480P's layout that files call themselves, by title, name or folder, and why it is not used."""
    # A model's folder lies up to four levels above, in Hugging Face's cache.
    folders = [folder.name for path in sources[:1] for folder in list(path.parents)[:4]]
    words = [title, *(path.name for path in sources[:1]), *(name for name in folders if "wan" in name.lower())]
    for pattern, name, trained_on in _ALIKE:
        if any(pattern.search(word) for word in words):
            return name, f"EX-4D was trained on {trained_on}; name its file to use it all the same"
    return None


def _transformer(tensors: Mapping[str, StoredTensor], sources: Sequence[Path], title: str) -> tuple[str, str]:
    if name := transformer_name(tensors):
        return name, f"EX-4D needs {I2V}-480P"
    if "patch_embedding.weight" not in tensors:
        return I2V, ""
    return _named_otherwise(sources, title) or (f"{I2V}-480P", "")


def _vae(tensors: Mapping[str, StoredTensor]) -> tuple[str, str]:
    last = tensors.get("conv2.weight")
    if last is not None and last.shape[0] != _LATENT_CHANNELS:
        return f"Wan2.2-VAE ({last.shape[0]} latent channels)", f"EX-4D needs Wan2.1's, of {_LATENT_CHANNELS} channels"
    return "Wan2.1-VAE", ""


def _text_encoder(tensors: Mapping[str, StoredTensor]) -> tuple[str, str]:
    """UMT5 has positions of its own in every block, T5 in the first one alone."""
    blocks = {key.split(".")[1] for key in tensors if key.startswith("blocks.")}
    positions = [key for key in tensors if key.endswith("pos_embedding.embedding.weight")]
    if len(blocks) > 1 and len(positions) == 1:
        return "T5", "EX-4D needs UMT5-XXL"
    return "UMT5-XXL, the encoder", ""


def _image_encoder(tensors: Mapping[str, StoredTensor]) -> tuple[str, str]:
    width = tensors["visual.patch_embedding.weight"].shape[0]
    if width != _CLIP_WIDTH:
        return _OTHER_CLIPS.get(width, f"a CLIP of width {width}"), "EX-4D needs CLIP ViT-H/14"
    return "CLIP ViT-H/14", ""


def _most_common(tensors: Mapping[str, StoredTensor]) -> str:
    """What the most weights of a file are stored as; of those in blocks, whose products packings are made for."""
    sizes: dict[str, int] = {}
    blocks = [tensor for key, tensor in tensors.items() if key.startswith("blocks.") and tensor.ndim == 2]
    for tensor in blocks or tensors.values():
        packing = packing_of(tensor)
        sizes[packing] = sizes.get(packing, 0) + tensor.numel()
    return max(sizes, key=lambda packing: sizes[packing], default="")

"""Names of Wan's tensors in other programs' files, translated into Wan's own: diffusers, transformers, llama.cpp.

The values stay as they are, but for CLIP, whose attention Wan keeps in one matrix instead of three.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ex4d.weights.packed import StoredTensor, reshaped, stacked, transposed

# What programs put before every key, in any order and number.
PREFIXES = (
    *("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.", "pipe.dit.", "pipe."),
    *("denoising_model.", "dit.", "model.", "module."),
)

# diffusers' names of the transformer's layers.
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
    "condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos",
    "proj_out": "head.head",
    "scale_shift_table": "head.modulation",
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
    "scale_shift_table": "modulation",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")

# diffusers' names in the VAE. It groups the decoder's layers by four, of which the last one enlarges.
_VAE_LAYERS = {
    "quant_conv": "conv1",
    "post_quant_conv": "conv2",
    "conv_in": "conv1",
    "conv_out": "head.2",
    "norm_out": "head.0",
    "mid_block.resnets.0": "middle.0",
    "mid_block.attentions.0": "middle.1",
    "mid_block.resnets.1": "middle.2",
}
_VAE_PARTS = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}
_VAE_BLOCKS = re.compile(
    r"(?:down_blocks\.(?P<down>\d+)|up_blocks\.(?P<up>\d+)\.(?:resnets\.(?P<resnet>\d+)|upsamplers\.0))\.(?P<rest>.+)"
)

# The text encoder's names in transformers and, shorter, in llama.cpp.
_TEXT_LAYERS = {
    "layer.0.layer_norm": "norm1",
    "layer.0.SelfAttention.q": "attn.q",
    "layer.0.SelfAttention.k": "attn.k",
    "layer.0.SelfAttention.v": "attn.v",
    "layer.0.SelfAttention.o": "attn.o",
    "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
    "layer.1.layer_norm": "norm2",
    "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
    "layer.1.DenseReluDense.wi_1": "ffn.fc1",
    "layer.1.DenseReluDense.wo": "ffn.fc2",
    "attn_norm": "norm1",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_o": "attn.o",
    "attn_rel_b": "pos_embedding.embedding",
    "ffn_norm": "norm2",
    "ffn_gate": "ffn.gate.0",
    "ffn_up": "ffn.fc1",
    "ffn_down": "ffn.fc2",
}
_TEXT = {
    "shared.weight": "token_embedding.weight",
    "token_embd.weight": "token_embedding.weight",
    "encoder.final_layer_norm.weight": "norm.weight",
    "enc.output_norm.weight": "norm.weight",
}
_TEXT_BLOCK = re.compile(r"(?:encoder\.block|enc\.blk)\.(\d+)\.(.+)\.weight")

# CLIP's names in transformers.
_CLIP = {
    "vision_model.embeddings.patch_embedding.weight": "visual.patch_embedding.weight",
    "vision_model.pre_layrnorm.weight": "visual.pre_norm.weight",
    "vision_model.pre_layrnorm.bias": "visual.pre_norm.bias",
    "vision_model.post_layernorm.weight": "visual.post_norm.weight",
    "vision_model.post_layernorm.bias": "visual.post_norm.bias",
}
_CLIP_LAYERS = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
_CLIP_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_CLIP_QUERIES = re.compile(r"(vision_model\.encoder\.layers\.\d+\.self_attn\.)q_proj\.(weight|bias)")
# The size of CLIP's embedding, which Wan does not compute: it takes the last layer but one.
_CLIP_EMBEDDING = 1024

# Of each part, what its files may hold besides: other networks, copies and tables that the network has itself.
_UNUSED = {
    "text_encoder": ("encoder.embed_tokens.", "decoder.", "dec.", "lm_head.", "output.", "spiece_model"),
    "image_encoder": ("textual.", "text_model.", "text_projection.", "logit_", "vision_model.embeddings.position_ids"),
}
# Of these, what no note is worth: copies of used tensors, and the rest of the published CLIP file.
_EXPECTED = ("encoder.embed_tokens.", "spiece_model", "textual.", "vision_model.embeddings.position_ids")


@dataclass(frozen=True)
class OwnTensors:
    """Tensors under Wan's own names.

    Attributes:
        part: of the catalogue that they look like; "" if like none.
        style: whose names the file has, for people: "Wan", "diffusers", "transformers", "llama.cpp".
        tensors: by Wan's names.
        unused: keys of the file that the network has no use for, and that are worth a note.
    """

    part: str
    style: str
    tensors: dict[str, StoredTensor]
    unused: tuple[str, ...] = ()


# Part, style, a key that says so, and how its keys are translated.
_Translate = Callable[[Mapping[str, StoredTensor]], dict[str, StoredTensor]]


def own_tensors(tensors: Mapping[str, StoredTensor]) -> OwnTensors:
    """Recognise a network of Wan by its keys, and name its tensors as Wan does."""
    tensors = without_prefixes(tensors)
    for part, style, sign, translate in _STYLES:
        if sign in tensors:
            left_out = [key for key in tensors if key.startswith(_UNUSED.get(part, ()))]
            used = {key: value for key, value in tensors.items() if key not in set(left_out)}
            if style == "transformers" and part == "text_encoder" and "shared.weight" not in used:
                used["shared.weight"] = tensors["encoder.embed_tokens.weight"]
            unused = tuple(key for key in left_out if not key.startswith(_EXPECTED))
            return OwnTensors(part, style, translate(used), unused)
    return OwnTensors("", "", dict(tensors))


def without_prefixes(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Remove what a program has put before every key."""
    found = dict(tensors)
    while prefix := next((one for one in PREFIXES if found and all(key.startswith(one) for key in found)), None):
        found = {key[len(prefix) :]: value for key, value in found.items()}
    return found


def transformer_layer(name: str) -> str:
    """The transformer's own name of a layer, from diffusers'; as it is if that has no such name."""
    match = _BLOCK.fullmatch(name)
    if match and match[2] in _DIFFUSERS_BLOCK:
        return f"blocks.{match[1]}.{_DIFFUSERS_BLOCK[match[2]]}"
    return _DIFFUSERS.get(name, name)


def diffusers_layer(name: str) -> str:
    """Name of a layer of the transformer in diffusers, from its own; as it is if they agree."""
    match = _BLOCK.fullmatch(name)
    theirs = {own: other for other, own in (_DIFFUSERS_BLOCK if match else _DIFFUSERS).items()}
    if match:
        return f"blocks.{match[1]}.{theirs.get(match[2], match[2])}"
    return theirs.get(name, name)


def _as_they_are(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    return dict(tensors)


def _transformer(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    result = {}
    for key, value in tensors.items():
        layer, _, last = key.rpartition(".")
        named = transformer_layer(key)
        result[named if named != key or last not in ("weight", "bias") else f"{transformer_layer(layer)}.{last}"] = (
            value
        )
    return result


def _vae(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {_vae_key(key): value for key, value in tensors.items()}


def _vae_key(key: str) -> str:
    side, _, rest = key.partition(".")
    if side not in ("encoder", "decoder"):
        return f"{_VAE_LAYERS.get(side, side)}.{rest}"
    if match := _VAE_BLOCKS.fullmatch(rest):
        if match["down"]:
            block = f"downsamples.{match['down']}"
        else:
            block = f"upsamples.{4 * int(match['up']) + int(match['resnet'] or 3)}"
        return f"{side}.{block}.{_vae_part(match['rest'])}"
    for theirs, own in _VAE_LAYERS.items():
        if rest.startswith(f"{theirs}."):
            return f"{side}.{own}.{_vae_part(rest[len(theirs) + 1 :])}"
    return key


def _vae_part(rest: str) -> str:
    first, _, last = rest.partition(".")
    return f"{_VAE_PARTS.get(first, first)}.{last}" if last else rest


def _text_encoder(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    result = {}
    for key, value in tensors.items():
        match = _TEXT_BLOCK.fullmatch(key)
        if match and match[2] in _TEXT_LAYERS:
            key = f"blocks.{match[1]}.{_TEXT_LAYERS[match[2]]}.weight"
        result[_TEXT.get(key, key)] = value
    return result


def _image_encoder(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """CLIP, with queries, keys and values of each layer in one matrix."""
    tensors = dict(tensors)
    width = tensors["vision_model.embeddings.patch_embedding.weight"].shape[0]
    result: dict[str, StoredTensor] = {"log_scale": torch.zeros(())}
    if (embedding := tensors.pop("vision_model.embeddings.class_embedding", None)) is not None:
        result["visual.cls_embedding"] = reshaped(embedding, (1, 1, *embedding.shape[-1:]))
    if (positions := tensors.pop("vision_model.embeddings.position_embedding.weight", None)) is not None:
        result["visual.pos_embedding"] = reshaped(positions, (1, *positions.shape))
    projection = tensors.pop("visual_projection.weight", None)
    result["visual.head"] = torch.zeros(width, _CLIP_EMBEDDING) if projection is None else transposed(projection)
    for key in list(tensors):
        match = _CLIP_QUERIES.fullmatch(key)
        names = [f"{match[1]}{name}_proj.{match[2]}" for name in "qkv"] if match else []
        if names and all(name in tensors for name in names):
            number = key.split(".")[3]
            joined = stacked([tensors.pop(name) for name in names])
            result[f"visual.transformer.{number}.attn.to_qkv.{names[0].rpartition('.')[2]}"] = joined
    for key, value in tensors.items():
        match = _CLIP_LAYER.fullmatch(key)
        if match and match[2] in _CLIP_LAYERS:
            key = f"visual.transformer.{match[1]}.{_CLIP_LAYERS[match[2]]}.{match[3]}"
        result[_CLIP.get(key, key)] = value
    return result


_STYLES: tuple[tuple[str, str, str, _Translate], ...] = (
    ("dit", "Wan", "blocks.0.self_attn.q.weight", _as_they_are),
    ("dit", "diffusers", "condition_embedder.time_embedder.linear_1.weight", _transformer),
    ("text_encoder", "Wan", "blocks.0.attn.q.weight", _as_they_are),
    ("text_encoder", "transformers", "encoder.block.0.layer.0.SelfAttention.q.weight", _text_encoder),
    ("text_encoder", "llama.cpp", "enc.blk.0.attn_q.weight", _text_encoder),
    ("vae", "Wan", "decoder.middle.0.residual.2.weight", _as_they_are),
    ("vae", "diffusers", "decoder.mid_block.attentions.0.to_qkv.weight", _vae),
    ("image_encoder", "Wan", "visual.patch_embedding.weight", _as_they_are),
    ("image_encoder", "transformers", "vision_model.embeddings.patch_embedding.weight", _image_encoder),
    ("ex4d", "EX-4D", "latent_encoder.0.weight", _as_they_are),
)

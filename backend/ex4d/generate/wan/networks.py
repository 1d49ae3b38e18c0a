"""The four networks of Wan2.1, built without memory from what a checkpoint's shapes say, then loaded strictly.

DiffSynth's classes are used as they are. Their sizes are read off the weights, so that small models with the published
key names run through the same code as the published ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ex4d.generate.wan.camera_encoder import LATENT_CHANNELS, load_camera_encoder, split_adapter
from ex4d.generate.wan.checkpoints import (
    OnTensor,
    fill,
    load_strictly,
    name_of,
    read_checkpoint,
    require_layout,
)
from ex4d.generate.wan.errors import CheckpointError, WanUnavailableError
from ex4d.generate.wan.lora import LoraFile, read_lora

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import DiTBlock, WanModel
    from diffsynth.models.wan_video_image_encoder import WanImageEncoder
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder
    from diffsynth.models.wan_video_vae import WanVideoVAE

# Every Wan transformer has heads of this many channels; the number of heads is in no tensor's shape.
HEAD_CHANNELS = 128
# The vision tower's heads, likewise; its patches and picture size are in shapes.
_VISION_HEADS = 16

# What EX-4D's LoRA changes in each block, and its rank.
LORA_LAYERS = (
    *(f"{attention}.{name}" for attention in ("self_attn", "cross_attn") for name in "qkvo"),
    "ffn.0",
    "ffn.2",
)
LORA_RANK = 16

# Keys by which each model is recognised, and how many sides their tensors have; these say the model's sizes.
_DIT_KEYS = {
    "patch_embedding.weight": 5,
    "text_embedding.0.weight": 2,
    "time_embedding.0.weight": 2,
    "head.head.weight": 2,
    "blocks.0.ffn.0.weight": 2,
}
_VAE_KEYS = {"encoder.conv1.weight": 5}
_TEXT_ENCODER_KEYS = {
    "token_embedding.weight": 2,
    "blocks.0.attn.q.weight": 2,
    "blocks.0.ffn.fc1.weight": 2,
    "blocks.0.pos_embedding.embedding.weight": 2,
}
_IMAGE_ENCODER_KEYS = {
    "visual.patch_embedding.weight": 4,
    "visual.head": 2,
    "visual.transformer.0.mlp.0.weight": 2,
}


def require_diffsynth() -> None:
    """Check that the extra `wan` is installed.

    Raises:
        WanUnavailableError: it is not; says how to install it.
    """
    try:
        import diffsynth.models.wan_video_dit  # noqa: F401
    except ImportError as error:
        raise WanUnavailableError(
            f"the engine wan needs packages that are not installed ({error}): pip install 'ex4d[wan]'; "
            "without them, --engine preview works"
        ) from error


def dit_sizes(tensors: Mapping[str, torch.Tensor], source: Path | Sequence[Path]) -> dict[str, object]:
    """What `WanModel` is built with, read off a checkpoint.

    Raises:
        CheckpointError: this is no Wan image-to-video transformer.
    """
    _recognise(tensors, _DIT_KEYS, source, "Wan transformer", "dit")
    if "img_emb.proj.1.weight" not in tensors:
        raise CheckpointError(
            f"{name_of(source)} is a Wan transformer without image input (text to video); EX-4D needs "
            "Wan2.1-I2V-14B-480P: ex4d models fetch dit"
        )
    patches = tensors["patch_embedding.weight"].shape
    width = patches[0]
    if width % HEAD_CHANNELS:
        raise CheckpointError(f"{name_of(source)} has a width of {width}, no multiple of {HEAD_CHANNELS}")
    patch = tuple(patches[2:])
    return {
        "dim": width,
        "in_dim": patches[1],
        "ffn_dim": tensors["blocks.0.ffn.0.weight"].shape[0],
        "out_dim": tensors["head.head.weight"].shape[0] // (patch[0] * patch[1] * patch[2]),
        "text_dim": tensors["text_embedding.0.weight"].shape[1],
        "freq_dim": tensors["time_embedding.0.weight"].shape[1],
        "eps": 1e-6,
        "patch_size": patch,
        "num_heads": width // HEAD_CHANNELS,
        "num_layers": _count_blocks(tensors, "blocks."),
        "has_image_input": True,
    }


def load_dit(
    files: Sequence[Path],
    adapter: Path | None,
    loras: Sequence[tuple[Path, float]] = (),
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    with_ex4d_lora: bool = True,
) -> WanModel:
    """The transformer with EX-4D's camera encoder as its control adapter, and all LoRAs merged.

    Args:
        adapter: an ``ex4d.ckpt``; None for the plain transformer.
        loras: further ones, with their weights.
        with_ex4d_lora: for comparisons, the camera encoder alone.

    Raises:
        CheckpointError: a file that is damaged or does not fit.
    """
    dit, blocks = open_dit(files, adapter, loras, device=device, dtype=dtype, with_ex4d_lora=with_ex4d_lora)
    dit.blocks = nn.ModuleList(blocks)
    return dit


def open_dit(
    files: Sequence[Path],
    adapter: Path | None,
    loras: Sequence[tuple[Path, float]] = (),
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    with_ex4d_lora: bool = True,
    on_tensor: OnTensor | None = None,
) -> tuple[WanModel, Iterator[DiTBlock]]:
    """As `load_dit`, but the blocks, which are nearly all of it, come after one another, each loaded in its turn.

    So they can be made smaller, or be put elsewhere, without all of them ever being in memory as they are.
    """
    from diffsynth.models.wan_video_dit import WanModel

    tensors = without_wrapper(read_checkpoint(files))
    sizes = dit_sizes(tensors, files)
    with _no_memory():
        dit = WanModel(**sizes)
    require_layout(dit, tensors, files)
    camera, merged = None, []
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    if adapter is not None:
        camera, lora = split_adapter(adapter)
        if with_ex4d_lora:
            merged.append(read_lora(lora, shapes, adapter))
    merged += [read_lora(read_checkpoint(path), shapes, path, weight) for path, weight in loras]
    loaded = itertools.count(1)

    def part(model: nn.Module, prefix: str, keys: Iterable[str]) -> nn.Module:
        def change(key: str, tensor: torch.Tensor) -> torch.Tensor:
            if on_tensor is not None:
                on_tensor(next(loaded), len(tensors))
            return _merge(merged, prefix + key, tensor)

        own = {key.removeprefix(prefix): tensors[key] for key in keys}
        return fill(model, own, device=device, dtype=dtype, change=change)

    blocks, dit.blocks = list(dit.blocks), nn.ModuleList()
    part(dit, "", [key for key in tensors if not key.startswith("blocks.")])
    if camera is not None:
        dit.control_adapter = load_camera_encoder(camera, sizes["dim"], adapter, device=device, dtype=dtype)

    def in_turn() -> Iterator[DiTBlock]:
        for number in range(len(blocks)):
            prefix = f"blocks.{number}."
            yield part(blocks.pop(0), prefix, [key for key in tensors if key.startswith(prefix)])

    return dit, in_turn()


def _merge(loras: Sequence[LoraFile], key: str, value: torch.Tensor) -> torch.Tensor:
    for lora in loras:
        value = lora.merge(key, value)
    return value


def _open(
    file: Path, keys: Mapping[str, int], what: str, part: str
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """A file's tensors, and those of ``keys``; arguments as of `_recognise`."""
    tensors = without_wrapper(read_checkpoint(file))
    _recognise(tensors, keys, file, what, part)
    return tensors, [tensors[key] for key in keys]


def _recognise(
    tensors: Mapping[str, torch.Tensor], keys: Mapping[str, int], source: Path | Sequence[Path], what: str, part: str
) -> None:
    """Check that a checkpoint is of the right model at all.

    Args:
        keys: which it must have, each with its tensor's number of sides.
        what, part: the model's name for people, and for `ex4d models fetch`.

    Raises:
        CheckpointError: it lacks some of them, or they are of another kind.
    """
    wrong = [f"it has no {key}" for key in keys if key not in tensors]
    wrong += [
        f"its {key} is {tuple(tensors[key].shape)}"
        for key, sides in keys.items()
        if key in tensors and tensors[key].ndim != sides
    ]
    if wrong:
        raise CheckpointError(f"{name_of(source)} is no {what}: {', '.join(wrong)}; ex4d models fetch {part}")


def without_wrapper(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys without the "model." or "model.diffusion_model." that some programs put before each of them."""
    for prefix in ("model.diffusion_model.", "model."):
        if tensors and all(key.startswith(prefix) for key in tensors):
            return {key[len(prefix) :]: value for key, value in tensors.items()}
    return tensors


def load_vae(
    file: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    on_tensor: OnTensor | None = None,
) -> WanVideoVAE:
    """The video VAE.

    Raises:
        CheckpointError: as in `load_dit`.
    """
    tensors, (first,) = _open(file, _VAE_KEYS, "Wan VAE", "vae")
    vae = build_vae(first.shape[0])
    load_strictly(vae.model, tensors, file, device=device, dtype=dtype, on_tensor=on_tensor)
    return vae


def build_vae(width: int = 96) -> WanVideoVAE:
    """A VAE without memory, of the published width or another."""
    from diffsynth.models.wan_video_vae import VideoVAE_, WanVideoVAE

    with _no_memory():
        vae = WanVideoVAE(LATENT_CHANNELS)
        if width != 96:
            vae.model = VideoVAE_(dim=width, z_dim=LATENT_CHANNELS)
    return vae.eval().requires_grad_(False)


def load_text_encoder(
    file: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    on_tensor: OnTensor | None = None,
) -> WanTextEncoder:
    """UMT5's encoder.

    Raises:
        CheckpointError: as in `load_dit`.
    """
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder

    tensors, (words, query, hidden, positions) = _open(
        file, _TEXT_ENCODER_KEYS, "UMT5 text encoder of Wan", "text_encoder"
    )
    vocabulary, width = words.shape
    with _no_memory():
        encoder = WanTextEncoder(
            vocab=vocabulary,
            dim=width,
            dim_attn=query.shape[0],
            dim_ffn=hidden.shape[0],
            num_heads=positions.shape[1],
            num_layers=_count_blocks(tensors, "blocks."),
            num_buckets=positions.shape[0],
        )
    return load_strictly(encoder, tensors, file, device=device, dtype=dtype, on_tensor=on_tensor)


def load_image_encoder(
    file: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    on_tensor: OnTensor | None = None,
) -> WanImageEncoder:
    """CLIP's vision tower. The text tower that the published file also holds is left out, as in Wan itself.

    Raises:
        CheckpointError: as in `load_dit`.
    """
    tensors, (patches, head, hidden) = _open(file, _IMAGE_ENCODER_KEYS, "CLIP image encoder of Wan", "image_encoder")
    tensors = {key: value for key, value in tensors.items() if not key.startswith("textual.")}
    width = patches.shape[0]
    encoder = build_image_encoder(
        embed_dim=head.shape[1],
        patch_size=patches.shape[2],
        vision_dim=width,
        # The tower rounds down: half a channel more keeps it at the right number.
        vision_mlp_ratio=(hidden.shape[0] + 0.5) / width,
        vision_layers=_count_blocks(tensors, "visual.transformer."),
    )
    load_strictly(encoder.model, tensors, file, device=device, dtype=dtype, on_tensor=on_tensor)
    return encoder


def build_image_encoder(**sizes: float) -> WanImageEncoder:
    """An image encoder without memory, of the published sizes or others."""
    from diffsynth.models.wan_video_image_encoder import WanImageEncoder, XLMRobertaCLIP

    with _no_memory():
        encoder = WanImageEncoder()
        if sizes:
            encoder.model = XLMRobertaCLIP(vision_heads=_VISION_HEADS, **sizes)
    return encoder.eval().requires_grad_(False)


def _count_blocks(tensors: Mapping[str, torch.Tensor], prefix: str) -> int:
    numbers = {key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)}
    return max((int(number) for number in numbers if number.isdigit()), default=-1) + 1


def _no_memory():
    """Parameters go to the meta device; what a model computes while it is built (rotary tables, scales) stays real."""
    from diffsynth.core.vram.initialization import skip_model_initialization

    return skip_model_initialization()


def export_adapter(dit: nn.Module, rank: int = LORA_RANK) -> dict[str, torch.Tensor]:
    """Layout of an ``ex4d.ckpt`` for a transformer: its camera encoder, and a LoRA on all that EX-4D trains.

    The LoRA's tensors are empty (on the meta device); this names and shapes them.
    """
    layout = dict(dit.control_adapter.state_dict())
    for number, block in enumerate(dit.blocks):
        for target in LORA_LAYERS:
            layer = block.get_submodule(target)
            name = f"blocks.{number}.{target}"
            layout[f"{name}.lora_A.default.weight"] = torch.empty(rank, layer.in_features, device="meta")
            layout[f"{name}.lora_B.default.weight"] = torch.empty(layer.out_features, rank, device="meta")
    return layout

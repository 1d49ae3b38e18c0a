"""The four networks of Wan2.1: built on the meta device with the sizes of a checkpoint, then loaded strictly.

The classes are DiffSynth's. Files may have other programs' names and packings, see `ex4d.weights.wan_names`. Sizes
follow from the weights' shapes, so that small models with the published key names run through the same code as the
published ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ex4d.generation.wan.camera_encoder import (
    LATENT_CHANNELS,
    build_camera_encoder,
    load_camera_encoder,
    split_adapter,
)
from ex4d.generation.wan.errors import WanUnavailableError
from ex4d.installation import install_command
from ex4d.weights.checkpoints import (
    OnTensor,
    fill,
    load_strictly,
    name_of,
    read_checkpoint,
    read_stored,
    require_layout,
    shapes_of,
    some_keys,
)
from ex4d.weights.errors import CheckpointError
from ex4d.weights.lora import read_lora
from ex4d.weights.notes import note_once
from ex4d.weights.packed import StoredTensor
from ex4d.weights.wan_models import I2V, transformer_name
from ex4d.weights.wan_names import own_tensors

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import DiTBlock, WanModel
    from diffsynth.models.wan_video_image_encoder import WanImageEncoder
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder
    from diffsynth.models.wan_video_vae import WanVideoVAE

_Device = torch.device | str

# Channels of a head in every Wan transformer; the number of heads does not follow from the shapes.
HEAD_CHANNELS = 128
# Heads of CLIP's vision tower, which do not follow from the shapes either.
_VISION_HEADS = 16

# Layers of each block that EX-4D's LoRA changes, and its rank.
LORA_LAYERS = (
    *(f"{attention}.{name}" for attention in ("self_attn", "cross_attn") for name in "qkvo"),
    "ffn.0",
    "ffn.2",
)
LORA_RANK = 16

# Keys that identify each network, with their tensors' number of dimensions; their shapes give its sizes.
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
_IMAGE_ENCODER_KEYS = {"visual.patch_embedding.weight": 4, "visual.head": 2, "visual.transformer.0.mlp.0.weight": 2}


def require_diffsynth() -> None:
    """Check that the extra `wan` is installed.

    Raises:
        WanUnavailableError: it is not.
    """
    try:
        import diffsynth.models.wan_video_dit  # noqa: F401
    except ImportError as error:
        raise WanUnavailableError(
            f"the engine wan needs packages that are not installed ({error}): {install_command('wan')}; "
            "without them, --engine preview works"
        ) from error


def _build_dit(
    tensors: Mapping[str, StoredTensor], sizes: Sequence[torch.Size], source: Path | Sequence[Path]
) -> WanModel:
    """Build the transformer on the meta device, with the ``sizes`` of its `_DIT_KEYS`."""
    from diffsynth.models.wan_video_dit import WanModel

    if other := transformer_name(tensors):
        raise CheckpointError(f"{name_of(source)} is {other}; EX-4D needs {I2V}-480P: ex4d models fetch dit")
    (width, channels, *patch), text, time, head, ffn = sizes
    if width % HEAD_CHANNELS:
        raise CheckpointError(f"{name_of(source)} has a width of {width}: expected a multiple of {HEAD_CHANNELS}")
    with _on_meta_device():
        return WanModel(
            dim=width,
            in_dim=channels,
            ffn_dim=ffn[0],
            out_dim=head[0] // math.prod(patch),
            text_dim=text[1],
            freq_dim=time[1],
            eps=1e-6,
            patch_size=(patch[0], patch[1], patch[2]),
            num_heads=width // HEAD_CHANNELS,
            num_layers=_count_blocks(tensors, "blocks."),
            has_image_input=True,
        )


def load_dit(
    files: Sequence[Path],
    adapter: Path | None,
    loras: Sequence[tuple[Path, float]] = (),
    *,
    device: _Device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    with_ex4d_lora: bool = True,
) -> WanModel:
    """Load the transformer with EX-4D's camera encoder as its control adapter, and merge all LoRAs.

    ``adapter`` is an ``ex4d.ckpt``, or None for the plain transformer. ``loras`` are further files, with their weights.
    Without ``with_ex4d_lora``, of ``adapter`` only the camera encoder is used, for comparisons.
    """
    dit, blocks = open_dit(files, adapter, loras, device=device, dtype=dtype, with_ex4d_lora=with_ex4d_lora)
    dit.blocks = nn.ModuleList(blocks)
    return dit


def open_dit(
    files: Sequence[Path],
    adapter: Path | None,
    loras: Sequence[tuple[Path, float]] = (),
    *,
    device: _Device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    with_ex4d_lora: bool = True,
    on_tensor: OnTensor | None = None,
    base: dict[str, torch.Tensor] | None = None,
) -> tuple[WanModel, Iterator[DiTBlock]]:
    """As `load_dit`, but return the blocks, which are nearly all of it, in an iterator that loads each in its turn.

    So they can be quantized or offloaded without all of them ever being in memory as they are stored, unless ``base``
    is given: what it has is taken from there, and all else that ``files`` have is added to it, on ``device`` and as it
    is stored. So other LoRAs are merged into the same values, without reading them again.
    """
    tensors, sizes = _open(files, _DIT_KEYS, "Wan transformer", "dit")
    dit = _build_dit(tensors, sizes, files)
    require_layout(tensors, shapes_of(dit.state_dict()), files, "WanModel")
    shapes = shapes_of(tensors)
    encoder, merged = None, []
    if adapter is not None:
        parts = split_adapter(adapter)
        encoder = load_camera_encoder(parts.camera, dit.dim, adapter, device=device, dtype=dtype)
        if with_ex4d_lora:
            merged.append(read_lora(parts.lora, shapes, adapter))
        if parts.unused:
            some = some_keys(parts.unused)
            note_once(
                f"{adapter} holds {len(parts.unused)} tensors that belong to no adapter, and are not used: {some}"
            )
    merged += [read_lora(read_checkpoint(path), shapes, path, weight) for path, weight in loras]
    loaded = itertools.count(1)

    def stored(key: str) -> torch.Tensor:
        assert base is not None
        if key not in base:
            base[key] = tensors[key].to(device)
        return base[key]

    def load(module: nn.Module, prefix: str, keys: Iterable[str]) -> nn.Module:
        def merge(key: str, tensor: torch.Tensor) -> torch.Tensor:
            if on_tensor is not None:
                on_tensor(next(loaded), len(tensors))
            for lora in merged:
                tensor = lora.merge(prefix + key, tensor)
            return tensor

        own = {key.removeprefix(prefix): tensors[key] if base is None else stored(key) for key in keys}
        return with_exact_norms(fill(module, own, device=device, dtype=dtype, change=merge))

    blocks, dit.blocks = list(dit.blocks), nn.ModuleList()
    load(dit, "", [key for key in tensors if not key.startswith("blocks.")])
    if encoder is not None:
        # DiffSynth's hook calls any module, but is typed as its own camera encoder.
        dit.control_adapter = encoder  # pyright: ignore[reportAttributeAccessIssue]

    def load_in_turn() -> Iterator[DiTBlock]:
        for number in range(len(blocks)):
            prefix = f"blocks.{number}."
            keys = [key for key in tensors if key.startswith(prefix)]
            yield cast("DiTBlock", load(blocks.pop(0), prefix, keys))  # no variable keeps a block

    return dit, load_in_turn()


def dit_on_meta(
    files: Sequence[Path], adapter: Path, *, dtype: torch.dtype = torch.bfloat16
) -> tuple[WanModel, list[DiTBlock]]:
    """What `open_dit` returns, on the meta device: of the sizes that the files have, without weights."""
    tensors, sizes = _open(files, _DIT_KEYS, "Wan transformer", "dit")
    dit = _build_dit(tensors, sizes, files)
    dit.control_adapter = build_camera_encoder(split_adapter(adapter).camera, dit.dim, adapter)  # pyright: ignore[reportAttributeAccessIssue]
    with_exact_norms(dit.to(dtype)).eval().requires_grad_(False)
    blocks, dit.blocks = cast("list[DiTBlock]", list(dit.blocks)), nn.ModuleList()
    return dit, blocks


def _open(
    source: Path | Sequence[Path], keys: Mapping[str, int], what: str, part: str
) -> tuple[dict[str, StoredTensor], list[torch.Size]]:
    """Read the tensors of a network, and the shapes of ``keys``, whose values are their expected numbers of dimensions.

    ``what`` is the network's name for people, ``part`` that for `ex4d models fetch`.
    """
    tensors = network_tensors(source)
    wrong = [f"it has no {key}" for key in keys if key not in tensors]
    wrong += [
        f"its {key} is {tuple(tensors[key].shape)}"
        for key, dimensions in keys.items()
        if key in tensors and tensors[key].ndim != dimensions
    ]
    if wrong:
        raise CheckpointError(f"{name_of(source)} is not a {what}: {', '.join(wrong)}; ex4d models fetch {part}")
    return tensors, [tensors[key].shape for key in keys]


def network_tensors(source: Path | Sequence[Path]) -> dict[str, StoredTensor]:
    """The tensors that loading a network takes from its files, by Wan's own names.

    What a file holds besides is named once in the log.
    """
    own = own_tensors(read_stored(source))
    if own.unused:
        note_once(
            f"{name_of(source)} holds {len(own.unused)} tensors that this network does not use: {some_keys(own.unused)}"
        )
    return own.tensors


def with_exact_norms(module: nn.Module) -> nn.Module:
    """Keep LayerNorms in float32: they are small, and a CPU cannot mix half precision weights with exact inputs."""
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.float()
    return module


def load_vae(
    file: Path, *, device: _Device = "cpu", dtype: torch.dtype = torch.bfloat16, on_tensor: OnTensor | None = None
) -> WanVideoVAE:
    """Load the video VAE."""
    tensors, (first,) = _open(file, _VAE_KEYS, "Wan VAE", "vae")
    vae = build_vae(first[0])
    load_strictly(vae.model, tensors, file, device=device, dtype=dtype, on_tensor=on_tensor)
    return vae


def build_vae(width: int = 96) -> WanVideoVAE:
    """Build a VAE on the meta device, of the published width or another."""
    from diffsynth.models.wan_video_vae import VideoVAE_, WanVideoVAE

    with _on_meta_device():
        vae = WanVideoVAE(LATENT_CHANNELS)
        if width != 96:
            vae.model = VideoVAE_(dim=width, z_dim=LATENT_CHANNELS)
    return vae.eval().requires_grad_(False)


def load_text_encoder(
    file: Path | Sequence[Path],
    *,
    device: _Device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    on_tensor: OnTensor | None = None,
) -> WanTextEncoder:
    """Load UMT5's encoder."""
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder

    tensors, (words, query, hidden, positions) = _open(
        file, _TEXT_ENCODER_KEYS, "UMT5 text encoder of Wan", "text_encoder"
    )
    vocabulary, width = words
    with _on_meta_device():
        encoder = WanTextEncoder(
            vocab=vocabulary,
            dim=width,
            dim_attn=query[0],
            dim_ffn=hidden[0],
            num_heads=positions[1],
            num_layers=_count_blocks(tensors, "blocks."),
            num_buckets=positions[0],
        )
    load_strictly(encoder, tensors, file, device=device, dtype=dtype, on_tensor=on_tensor)
    return encoder


def load_image_encoder(
    file: Path, *, device: _Device = "cpu", dtype: torch.dtype = torch.bfloat16, on_tensor: OnTensor | None = None
) -> WanImageEncoder:
    """Load CLIP's vision tower, without the text tower that the published file also holds, as Wan does."""
    tensors, (patches, head, hidden) = _open(file, _IMAGE_ENCODER_KEYS, "CLIP image encoder of Wan", "image_encoder")
    width = patches[0]
    encoder = build_image_encoder(
        embed_dim=head[1],
        patch_size=patches[2],
        vision_dim=width,
        # The tower rounds down, so half a channel is added.
        vision_mlp_ratio=(hidden[0] + 0.5) / width,
        vision_layers=_count_blocks(tensors, "visual.transformer."),
    )
    model = cast(nn.Module, encoder.model)
    with_exact_norms(load_strictly(model, tensors, file, device=device, dtype=dtype, on_tensor=on_tensor))
    return encoder


def build_image_encoder(**sizes: Any) -> WanImageEncoder:
    """Build an image encoder on the meta device, of the published sizes or others."""
    from diffsynth.models.wan_video_image_encoder import WanImageEncoder, XLMRobertaCLIP

    with _on_meta_device():
        encoder = WanImageEncoder()
        if sizes:
            encoder.model = XLMRobertaCLIP(vision_heads=_VISION_HEADS, **sizes)
    return encoder.eval().requires_grad_(False)


def _count_blocks(tensors: Mapping[str, StoredTensor], prefix: str) -> int:
    numbers = {key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)}
    return max((int(number) for number in numbers if number.isdigit()), default=-1) + 1


def _on_meta_device() -> AbstractContextManager[None]:
    """Put parameters on the meta device, but not what a network computes while it is built (rotary tables, scales)."""
    from diffsynth.core.vram.initialization import skip_model_initialization

    return skip_model_initialization()


def export_adapter(dit: WanModel, rank: int = LORA_RANK) -> dict[str, torch.Tensor]:
    """Return the layout of an ``ex4d.ckpt``: a transformer's camera encoder, and a LoRA on the meta device."""
    layout = dict(dit.get_submodule("control_adapter").state_dict())
    for number, block in enumerate(dit.blocks):
        for target in LORA_LAYERS:
            layer = cast(nn.Linear, block.get_submodule(target))
            name = f"blocks.{number}.{target}"
            layout[f"{name}.lora_A.default.weight"] = torch.empty(rank, layer.in_features, device="meta")
            layout[f"{name}.lora_B.default.weight"] = torch.empty(layer.out_features, rank, device="meta")
    return layout

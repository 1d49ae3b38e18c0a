"""What is trained: a LoRA on a frozen transformer's layers (peft), and the camera encoder, all of it float32.

The names are those of the published ``ex4d.ckpt``, so that a trained adapter is loaded as that is. At the start the
adapter changes nothing: the LoRA's second matrices and the encoder's last layer are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from ex4d.generation.wan.camera_encoder import CameraEncoder, split_adapter
from ex4d.generation.wan.kernels.matmul import Fp8Weights
from ex4d.generation.wan.networks import LORA_LAYERS
from ex4d.generation.wan.transformer import Recomputation, Transformer
from ex4d.training.errors import TrainingUnavailableError
from ex4d.training.settings import AdapterShape
from ex4d.weights.checkpoints import require_layout, shapes_of
from ex4d.weights.errors import CheckpointError
from ex4d.weights.lora import plain_lora

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import DiTBlock, WanModel

    from ex4d.generation.wan.conditioning import WindowConditioning

# peft's own name of an adapter that nobody names, which the published file has in its keys.
_PEFT_NAME = "default"


def require_peft() -> None:
    """Check that the extra `train` is installed.

    Raises:
        TrainingUnavailableError: it is not.
    """
    try:
        import accelerate  # noqa: F401
        import peft  # noqa: F401
    except ImportError as error:
        raise TrainingUnavailableError.without(error) from error


class Adapter:
    """The trained parameters, by their published names; found through their layers, whose parameters FSDP replaces."""

    def __init__(self, layers: Mapping[str, nn.Module], shape: AdapterShape):
        """Take the layers whose weights (and biases, of the encoder) are trained, by their published names."""
        self._layers, self.shape = dict(layers), shape

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters, in a fixed order."""
        return {
            f"{name}.{own}": parameter
            for name, layer in self._layers.items()
            for own, parameter in layer.named_parameters(recurse=False)
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Their values, whole and on the CPU; with FSDP every rank must ask."""
        return {name: whole(parameter) for name, parameter in self.parameters().items()}

    def load(self, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
        """Take over values, as `tensors` returns them; before the model is distributed.

        Raises:
            CheckpointError: names or shapes of another adapter.
        """
        parameters = self.parameters()
        require_layout(tensors, shapes_of(parameters), source, f"adapter of rank {self.shape.rank}")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[name])

    def continue_from(self, path: Path) -> None:
        """Take over a published or exported file, whose LoRA has an alpha that is its rank.

        Raises:
            CheckpointError: it is not of this adapter's rank, width or layers, or changes what is not trained here.
        """
        parts = split_adapter(path)
        lora = plain_lora(parts.lora)
        ranks = sorted({value.shape[0] for key, value in lora.items() if ".lora_A." in key})
        if ranks and ranks != [self.shape.rank]:
            raise CheckpointError(
                f"{path} has a LoRA of rank {', '.join(map(str, ranks))}, not {self.shape.rank}: train with "
                f"--rank {ranks[0]}, or from zero"
            )
        hidden = parts.camera["latent_encoder.0.weight"].shape[0] if "latent_encoder.0.weight" in parts.camera else 0
        if hidden not in (0, self.shape.hidden):
            raise CheckpointError(
                f"{path} has a camera encoder of {hidden} hidden channels, not {self.shape.hidden}: train with "
                f"--hidden {hidden}, or from zero"
            )
        folded = {
            key: value.float() / self.shape.scale if ".lora_B." in key else value.float()
            for key, value in {**lora, **parts.camera}.items()
        }
        self.load(folded, path)


def published_tensors(tensors: Mapping[str, torch.Tensor], shape: AdapterShape) -> dict[str, torch.Tensor]:
    """An adapter's tensors as a file like ``ex4d.ckpt`` has them, in which a LoRA's alpha is its rank."""
    return {key: value * shape.scale if ".lora_B." in key else value for key, value in tensors.items()}


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor's values on the CPU, joined from all ranks where FSDP has sharded it."""
    value = value.detach()
    joined: Callable[[], torch.Tensor] | None = getattr(value, "full_tensor", None)
    return (value if joined is None else joined()).to("cpu", copy=True)


class TrainedTransformer(nn.Module):
    """A transformer with its adapter as a module, which accelerate distributes.

    Attributes:
        transformer: the class that inference runs, built for training.
        adapter: its trained parameters.
    """

    def __init__(self, transformer: Transformer, adapter: Adapter):
        super().__init__()
        self.transformer, self.adapter = transformer, adapter
        self.dit = transformer.dit
        self.contexts, self.blocks = nn.ModuleList(transformer.contexts), nn.ModuleList(transformer.blocks)

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: WindowConditioning) -> torch.Tensor:
        """Predict the velocity (1, 16, F, h, w) float32 of latents (1, 16, F, h, w) float32 at a timestep (1,)."""
        prepared = self.transformer.prepare(conditioning)
        return self.transformer.velocities(latents, timestep, prepared, which=(0,))[0]


@dataclass(frozen=True)
class Building:
    """How a transformer is built for training.

    Attributes:
        shape: of the adapter.
        seed: of the LoRA's first matrices and the camera encoder's first layers.
        frozen_in_8_bits: store the frozen weights of the blocks in fp8 with a scale per row; they are used in bf16.
        recomputation: what is kept for the gradients.
    """

    shape: AdapterShape = field(default_factory=AdapterShape)
    seed: int = 0
    frozen_in_8_bits: bool = False
    recomputation: Recomputation = field(default_factory=Recomputation)


def build_trained(
    dit: WanModel, blocks: Iterable[nn.Module], building: Building, *, device: torch.device | str
) -> TrainedTransformer:
    """Put an adapter that changes nothing on a frozen transformer, as `networks.open_dit` returns it.

    Args:
        dit: without its blocks; nothing else may use it afterwards. A camera encoder that it has is replaced.
        blocks: one at a time, so that they need not fit into memory as they are stored.
    """
    require_peft()
    dit.requires_grad_(False)
    encoder = new_camera_encoder(dit.dim, building).to(device)
    dit.control_adapter = encoder  # pyright: ignore[reportAttributeAccessIssue] (as in `networks`)
    layers: dict[str, nn.Module] = {}

    def adapted() -> Iterator[nn.Module]:
        for number, block in enumerate(blocks):
            layers.update(_add_lora(cast("DiTBlock", block), number, building, device))
            yield block

    transformer = Transformer(dit, adapted(), device=device, trained=building.recomputation)
    layers = {**{name: layer for name, layer in encoder.named_modules() if hasattr(layer, "weight")}, **layers}
    return TrainedTransformer(transformer, Adapter(layers, building.shape))


def new_camera_encoder(width: int, building: Building) -> CameraEncoder:
    """A camera encoder whose last layer is zero, so that it adds nothing; float32 on the CPU."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(building.seed)
        encoder = CameraEncoder(building.shape.hidden, width)
    nn.init.zeros_(encoder.latent_patch_embedding.weight)
    if encoder.latent_patch_embedding.bias is not None:
        nn.init.zeros_(encoder.latent_patch_embedding.bias)
    return encoder


def _add_lora(block: DiTBlock, number: int, building: Building, device: torch.device | str) -> dict[str, nn.Module]:
    """Wrap a block's layers with LoRAs; returns the trained layers by their published names."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    config = LoraConfig(r=building.shape.rank, lora_alpha=building.shape.alpha, target_modules=list(LORA_LAYERS))  # pyright: ignore[reportArgumentType] (typed int, divided as a number)
    block.requires_grad_(False)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(building.seed + 1 + number)
        inject_adapter_in_model(config, block)
    found: dict[str, nn.Module] = {}
    for name in LORA_LAYERS:
        layer = cast("LoraLayer", block.get_submodule(name))
        # Under autocast matmuls round their operands themselves; a float32 copy of the rows would only take memory.
        layer.cast_input_dtype_enabled = False
        for role in ("lora_A", "lora_B"):
            matrix = cast(nn.ModuleDict, getattr(layer, role))[_PEFT_NAME]
            found[f"blocks.{number}.{name}.{role}.{_PEFT_NAME}"] = matrix.to(device, torch.float32)
    if building.frozen_in_8_bits:
        _store_in_8_bits(block, {id(layer) for layer in found.values()})
    return found


def _store_in_8_bits(block: nn.Module, trained: set[int]) -> None:
    """Replace a block's frozen linear layers by ones that store fp8."""
    for parent in list(block.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and id(layer) not in trained:
                setattr(parent, name, Fp8Weights(layer.weight.detach(), layer.bias.detach()))


def count_parameters(shape: AdapterShape, *, width: int, ffn: int, blocks: int) -> dict[str, int]:
    """Trained parameters of an adapter on a transformer, by part; see docs/how-to/train.md for what follows."""
    pairs = {"ffn.0": (width, ffn), "ffn.2": (ffn, width)}
    lora = sum(shape.rank * sum(pairs.get(name, (width, width))) for name in LORA_LAYERS)
    with torch.device("meta"):
        encoder = CameraEncoder(shape.hidden, width)
    camera = sum(parameter.numel() for parameter in encoder.parameters())
    return {"LoRA": blocks * lora, "camera encoder": camera}

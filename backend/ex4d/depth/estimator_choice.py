"""Chooses a depth estimator: by name, or for `auto` by what is installed, allowed by its licence, and fits memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ex4d.depth.depth_models import (
    DEPTH_MODELS,
    DepthModel,
    depth_model,
    require_installed,
)
from ex4d.depth.depth_settings import AUTO, EstimatorSettings
from ex4d.devices import torch_device
from ex4d.installation import install_command
from ex4d.weights.catalogue import Part
from ex4d.weights.errors import CheckpointError, WeightsMissingError
from ex4d.weights.inventory import Finding
from ex4d.weights.places import fetch_command, missing_files

if TYPE_CHECKING:
    from ex4d.depth.estimation import ClipModel, ModelEstimator

_TYPICAL_MEGAPIXELS = 0.59  # 1024x576, what DepthCrafter works at; the others stay under it


@dataclass(frozen=True)
class Verdict:
    """Whether `auto` could take a model, and if not, why: a sentence for people, and the command that changes it."""

    model: DepthModel
    reason: str = ""
    command: str = ""

    @property
    def usable(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reason


def verdicts(settings: EstimatorSettings) -> list[Verdict]:
    """Every model in the order of preference, with what speaks against it."""
    return [Verdict(model, *_objection(model, settings)) for model in DEPTH_MODELS]


def create_estimator(settings: EstimatorSettings) -> ModelEstimator:
    """The estimator that is wanted, loaded.

    A model chosen by name is refused only for its licence or missing files; whether it fits memory is not checked.

    Raises:
        LicenceError, DeviceError, UnknownModelError, WeightsMissingError, CheckpointError, EstimatorUnavailableError:
            with what to do.
    """
    device = torch_device(settings.device)
    if settings.name == AUTO:
        found = verdicts(settings)
        model = next((verdict.model for verdict in found if verdict.usable), None)
        if model is None:
            raise WeightsMissingError(_how_to_get_one(settings.machine.models, found))
    else:
        model = depth_model(settings.name)
        free = ", ".join(one.name for one in DEPTH_MODELS if one.part.commercial)
        settings.machine.require_allowed(
            model.name, model.part.commercial, settings.licence, terms=model.licence, instead=free
        )
    require_installed(model, settings.machine.models)
    return _load(model, settings, device)


def _how_to_get_one(models: Path, found: list[Verdict]) -> str:
    """Why there is no estimator, and the commands that lead to the smallest one that is free for any work."""
    easiest = next(one for one in reversed(DEPTH_MODELS) if one.part.commercial)
    steps = [install_command("depth")] if easiest.missing_packages() else []
    if missing_files(models, easiest.part):
        steps.append(f"{fetch_command(models, easiest.name)} ({easiest.part.bytes / 1e6:.0f} MB)")
    if steps:
        return (
            f"No depth was given and no estimator is installed. Run {' and '.join(steps)}, or give --depth. "
            "(ex4d doctor says what each estimator lacks.)"
        )
    reasons = "; ".join(f"{verdict.model.name}: {verdict.reason}" for verdict in found)
    return f"No depth was given and no estimator can be used here: {reasons}. Give --depth."


def _objection(model: DepthModel, settings: EstimatorSettings) -> tuple[str, str]:
    """What speaks against a model, and the command that helps; what no command changes comes first."""
    models, device = settings.machine.models, torch_device(settings.device)
    if not settings.machine.allows(model.name, model.part.commercial, settings.licence):
        return "for research only", ""
    if device.type != "cuda" and not model.without_gpu:
        return "needs a GPU to finish in reasonable time", ""
    if packages := model.missing_packages():
        return f"needs {' and '.join(packages)}", install_command("depth")
    if missing := missing_files(models, model.part):
        return f"{len(missing)} of its files are not in {models}", fetch_command(models, model.name)
    return ("", "") if device.type != "cuda" else (_lack_of_memory(model, device), "")


def _lack_of_memory(model: DepthModel, device: torch.device) -> str:
    fixed, per_megapixel = model.gpu_gigabytes
    needed, free = fixed + per_megapixel * _TYPICAL_MEGAPIXELS, torch.cuda.mem_get_info(device)[0] / 1e9
    return "" if free >= needed else f"needs about {needed:.0f} GB of GPU memory, of which {free:.0f} GB are free"


def usual_precision(model: DepthModel, device: torch.device) -> torch.dtype:
    """Half precision on a GPU, as the published code runs the model; processors are slower in it than in float32."""
    return getattr(torch, model.half) if device.type == "cuda" else torch.float32


def _load(model: DepthModel, settings: EstimatorSettings, device: torch.device) -> ModelEstimator:
    from ex4d.depth.estimation import ModelEstimator

    dtype = torch.float32 if settings.full_precision else usual_precision(model, device)
    return ModelEstimator(
        load_clip_model(model, settings.machine.models, device, dtype, settings.normalized_focal),
        edges=settings.edges,
        noise_filter=settings.noise_filter,
        temporal_alignment=settings.temporal_alignment,
        device=device,
    )


def load_clip_model(
    model: DepthModel, models: Path, device: torch.device, dtype: torch.dtype, normalized_focal: float | None = None
) -> ClipModel:
    """A model's own code and weights; nothing else in the project imports them."""
    module, _, name = model.code.partition(":")
    load: Callable[..., ClipModel] = getattr(import_module(module), name).load
    # Metres follow from the focal length, where it is known.
    return load(models, device, dtype, normalized_focal) if model.metric else load(models, device, dtype)


def check_layout(part: Part, paths: tuple[Path, ...], models: Path) -> Finding:
    """A `CheckLayout` of the weights room. Loading is strict, so it is the check: every tensor fits, and no other."""
    model = depth_model(part.name)
    if packages := model.missing_packages():
        return Finding(True, f"keys and shapes were not compared: that needs {' and '.join(packages)}")
    try:
        load_clip_model(model, models, torch.device("cpu"), torch.float16)
    except CheckpointError as error:
        return Finding(False, str(error))
    return Finding(True, "loads: every tensor is there and fits")

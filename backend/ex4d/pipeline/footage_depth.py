"""The depth of footage, from files or by an estimator, as `DepthSettings` ask for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ex4d.depth import (
    DepthClip,
    DepthError,
    DepthEstimator,
    DepthFiles,
    EdgeSettings,
    EstimatorSettings,
    KnownIntrinsics,
    create_estimator,
)
from ex4d.depth.noise import depth_without_noise
from ex4d.devices import torch_device
from ex4d.machine import MachineSettings
from ex4d.media import FootageInfo, probe
from ex4d.progress import Progress, ignore_progress
from ex4d_core.errors import RequestError
from ex4d_core.sources import DepthSettings

ESTIMATE_STAGE = "depth"


def depth_of(
    path: Path | None,
    settings: DepthSettings,
    footage: FootageInfo,
    known: KnownIntrinsics | None = None,
    device: str = "auto",
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
) -> DepthClip:
    """The depth of some footage, from the files at ``path`` or, where that is None, estimated.

    Args:
        footage: of `ex4d.media.probe`; with fewer frames than the file has, depth files may be of all of them.
        known: intrinsics of the footage, which a mist pass and some estimators need.

    Raises:
        MediaError, DepthError, LicenceError, DeviceError, WeightsMissingError, CheckpointError: as in `reconstruct`.
        RequestError: the layout of the settings needs files.
    """
    if path is not None:
        clip = depth_from_files(path, settings, footage, known)
        return _smoothed(clip, torch_device(device)) if settings.noise_filter == "on" else clip
    return _estimated_depth(settings, footage, known, device, machine, progress)


def depth_from_files(
    path: Path, settings: DepthSettings, footage: FootageInfo, known: KnownIntrinsics | None
) -> DepthClip:
    """The depth of some footage from files, which may be of all of the footage where only a part of it is used.

    Raises:
        DepthError: depth is missing, invalid, or does not fit the footage.
    """
    files = DepthFiles(
        path,
        scale=settings.scale,
        inverse=settings.inverse,
        invalid=settings.invalid,
        key=settings.key or None,
        mist=settings.mist,
        intrinsics=None if known is None else known.matrix,
        values=settings.values,
    )
    try:
        return files.estimate(footage)
    except DepthError:
        whole = probe(footage.path)
        if whole.frames == footage.frames:
            raise
    # Only a part of the footage is used; the files may cover all of it.
    return files.estimate(whole).first(footage.frames)


def _smoothed(clip: DepthClip, device: torch.device) -> DepthClip:
    """The same clip; frames whose pixels are noisy are smoothed as they are read."""
    return replace(clip, refine=lambda depth, frame: depth_without_noise(depth, device))


def _estimated_depth(
    settings: DepthSettings,
    footage: FootageInfo,
    known: KnownIntrinsics | None,
    device: str,
    machine: MachineSettings | None,
    progress: Progress,
) -> DepthClip:
    if settings.layout != "estimator":
        raise RequestError(f"depth of layout {settings.layout} needs files: give them, or use layout estimator")
    focal = None if known is None else known.normalized_focal(footage.width)
    estimator = estimator_of(settings, device, machine, normalized_focal=focal)
    return estimator.estimate(footage, lambda done, total: progress(ESTIMATE_STAGE, done, total))


def estimator_of(
    settings: DepthSettings,
    device: str = "auto",
    machine: MachineSettings | None = None,
    *,
    normalized_focal: float | None = None,
) -> DepthEstimator:
    """The estimator that settings of layout "estimator" ask for, loaded; errors as `ex4d.depth.create_estimator`."""
    return create_estimator(
        EstimatorSettings(
            name=settings.estimator,
            machine=machine or MachineSettings.from_environment(),
            licence=settings.licence,
            device=device,
            edges=EdgeSettings() if settings.refine_edges else None,
            noise_filter=settings.noise_filter != "off",
            temporal_alignment=settings.temporal_alignment,
            normalized_focal=normalized_focal,
            full_precision=settings.full_precision,
        )
    )

"""Footage to a scene package: depth, the topology of its DW-Mesh, its texture, and the camera that filmed it.

The library, the command line and the service all call `reconstruct` with the same settings. Depth comes from
`footage_depth`; the last step, for depth and intrinsics that are there, is `scene_building`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.depth import (
    ASSUMED_FOV_NOTE,
    KnownIntrinsics,
    intrinsics_from,
    known_intrinsics,
    resolved_intrinsics,
)
from ex4d.depth.depth_models import depth_model
from ex4d.machine import MachineSettings
from ex4d.media import (
    FootageInfo,
    MotionMask,
    Undistorter,
    probe,
)
from ex4d.memory import require_memory
from ex4d.pipeline.deep_colors import deep_colors
from ex4d.pipeline.disk_room import require_room
from ex4d.pipeline.footage_camera import camera_of_file, camera_of_footage
from ex4d.pipeline.footage_depth import depth_from_files, depth_of
from ex4d.pipeline.scaled_depth import scaled_depth
from ex4d.pipeline.scene_building import build_scene
from ex4d.pipeline.scene_estimates import chosen_estimator, estimator_memory_bytes, scene_bytes, scene_memory_bytes
from ex4d.pipeline.source_paths import SourcePaths
from ex4d.pipeline.targets import require_scene_folder
from ex4d.progress import Progress, ignore_progress
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.scene import Scene
from ex4d_core.sources import DepthSettings

SOLVE_STAGE, BUILD_STAGE = "camera", "reconstruct"


def reconstruct(
    sources: SourcePaths,
    settings: ReconstructionSettings,
    folder: Path,
    *,
    device: str = "auto",
    machine: MachineSettings | None = None,
    frames: int | None = None,
    mesh: bool = False,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
    overwrite: bool = False,
) -> Scene:
    """Reconstruct footage into a scene package in ``folder``.

    Args:
        device: for depth estimators: "auto", "cpu", or "cuda" with an optional number.
        machine: as the environment says by default.
        frames: take only this many frames from the start; depth files may be of all of the footage.
        mesh: see `build_scene`.
        progress: called with the stages `SOLVE_STAGE`, `ESTIMATE_STAGE`, `FIT_STAGE` of `scaled_depth` and
            `BUILD_STAGE`, steps done, and steps in all; those of estimating and building are frames.
        note: called with sentences for the user about what was found in the footage or assumed.
        overwrite: replace a scene that is in the folder.

    Raises:
        OutputError: ``folder`` holds a scene already, or one of the sources.
        MediaError: the footage cannot be read, or the mask of what moves does not fit it.
        DepthError: depth is missing, invalid, or does not fit the footage.
        LicenceError, DeviceError, WeightsMissingError, CheckpointError: see `ex4d.depth.create_estimator`.
        CameraError: the source camera's file cannot be used, the camera cannot be solved for, or the lens is given
            twice.
        RequestError: the lens distortion is for images of another shape, the camera is to be solved for and given, or
            the colour space of deep footage is not known.
        ColourSpaceError: see `deep_colors`.
        SceneError: ``folder`` holds something else.
        DiskRoomError: its disk has no room for the scene.
        MemoryRoomError: this machine has not enough free memory for footage of that size.
    """
    read = (sources.footage, sources.depth, sources.camera, sources.mask)
    require_scene_folder(folder, inputs=[path for path in read if path is not None], overwrite=overwrite)
    footage = probe(sources.footage, frames, fps=Fraction(*settings.fps) if settings.fps else None)
    for text in footage.notes:
        note(text)
    size = footage.width, footage.height
    deep = deep_colors(footage, settings, note)
    parts = {"mesh": mesh, "mask": sources.mask is not None, "deep": deep is not None}
    needed = scene_bytes(footage.frames, *size, settings.convention, **parts)
    require_room(folder, needed, f"a scene of {footage.frames} frames of {size[0]}x{size[1]}")
    machine = machine or MachineSettings.from_environment()
    memory, what = scene_memory_bytes(*size, deep=deep is not None), f"footage of {size[0]}x{size[1]} pixels"
    estimator = chosen_estimator(settings.depth, device, machine) if sources.depth is None else None
    if estimator is not None:
        memory, what = memory + estimator_memory_bytes(estimator, device), f"{what} with the estimator {estimator}"
    require_memory(memory, what)
    mask = None
    if sources.mask is not None:
        mask = MotionMask.open(sources.mask, footage, None if frames is None else probe(sources.footage))
        for text in mask.notes:
            note(text)
    distortion = settings.distortion and settings.distortion.resized(*size)
    camera = camera_of_file(sources, settings, footage)
    distortion = distortion or camera.distortion
    known = known_intrinsics(
        footage,
        stated=_stated_intrinsics(settings, footage),
        camera_file=camera.intrinsics,
        convention=settings.convention,
        depth_has_lens=_brings_lens(settings.depth, estimator),
    )
    if settings.camera_motion == "solve":
        lens = _lens_to_solve_with(known, sources.depth, settings.depth, footage)
        camera = camera_of_footage(
            footage, lens, distortion, lambda done, total: progress(SOLVE_STAGE, done, total), mask
        )
        known = known or camera.intrinsics
    depth = depth_of(sources.depth, settings.depth, footage, known, device, machine, progress)
    source_camera, depth, problems = camera.with_depth(depth, distortion)
    for text in (*depth.notes, *problems):
        note(text)
    intrinsics, origin = resolved_intrinsics(known, footage, depth)
    undistorter = None if distortion is None else Undistorter(distortion)
    poses = None if source_camera is None else source_camera.path
    how = {"undistorter": undistorter, "mask": mask, "device": device, "progress": progress, "note": note}
    depth, fitted = scaled_depth(depth, settings.depth, poses, **how)
    provenance = {"footage": sources.footage_label or sources.footage.name, "focal length": origin}
    if source_camera is not None:
        provenance["source camera"] = source_camera.origin
    if sources.mask is not None:
        provenance["motion mask"] = sources.mask_label or sources.mask.name
    if problems:
        provenance["source camera notes"] = "; ".join(problems)
    if fitted:
        provenance["depth scale"] = fitted
    if distortion is not None:
        provenance["lens distortion"] = f"undone: {distortion}"
    if deep is not None:
        provenance["colour space"] = f"{deep.kept.source} to {deep.space}"
    return build_scene(
        footage,
        depth,
        intrinsics,
        folder,
        name=settings.name,
        convention=settings.convention,
        source_camera=None if source_camera is None else source_camera.path,
        mesh=mesh,
        distortion=distortion,
        mask=mask,
        deep=deep,
        provenance=provenance,
        progress=lambda done, total: progress(BUILD_STAGE, done, total),
    )


def _brings_lens(settings: DepthSettings, estimator: str | None) -> bool:
    """Whether depth may hold a lens that goes before the footage's metadata: of files, or one that fits its poses."""
    if estimator is not None:
        return depth_model(estimator).poses
    return settings.layout != "estimator" and settings.mist is None


def _stated_intrinsics(settings: ReconstructionSettings, footage: FootageInfo) -> np.ndarray | None:
    """The intrinsics that the user gives, or None."""
    lens = {name: getattr(settings, name) for name in ("fov_degrees", "focal_mm", "focal_px")}
    if all(value is None for value in lens.values()):
        return None
    size = footage.width, footage.height
    return intrinsics_from(*size, sensor_mm=settings.sensor_mm, pixel_aspect=footage.pixel_aspect, **lens)


def _lens_to_solve_with(
    known: KnownIntrinsics | None, path: Path | None, settings: DepthSettings, footage: FootageInfo
) -> KnownIntrinsics | None:
    """The intrinsics that a solve may rely on, those of depth files among them; None leaves them to the solve."""
    if known is not None or path is None or settings.mist is not None or settings.values == "distance":
        return known
    lens = resolved_intrinsics(None, footage, depth_from_files(path, settings, footage, None))
    return None if lens.origin == ASSUMED_FOV_NOTE else lens

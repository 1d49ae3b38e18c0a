"""Footage to a scene package: depth, the topology of its DW-Mesh, its texture, and the camera that filmed it.

The library, the command line and the service all call `reconstruct` with the same settings. `build_scene` is its last
step, for depth and intrinsics that are already there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ex4d.depth import (
    ASSUMED_FOV_NOTE,
    DepthClip,
    DepthError,
    DepthEstimator,
    DepthFiles,
    EdgeSettings,
    EstimatorSettings,
    KnownIntrinsics,
    create_estimator,
    intrinsics_from,
    known_intrinsics,
    resolved_intrinsics,
)
from ex4d.depth.depth_models import depth_model
from ex4d.depth.noise import depth_without_noise
from ex4d.devices import torch_device
from ex4d.machine import MachineSettings
from ex4d.media import (
    FootageInfo,
    MotionMask,
    Undistorter,
    VideoWriter,
    footage_sha256,
    probe,
    read_frames,
    sound_of,
    start_timecode,
)
from ex4d.memory import require_memory
from ex4d.mesh import DepthSurface, Pc2Writer, grid_topology
from ex4d.pipeline.estimate import (
    chosen_estimator,
    estimator_memory_bytes,
    require_room,
    scene_bytes,
    scene_memory_bytes,
)
from ex4d.pipeline.footage_camera import camera_of_file, camera_of_footage
from ex4d.pipeline.scaled_depth import scaled_depth
from ex4d.pipeline.source_paths import SourcePaths
from ex4d.pipeline.targets import require_scene_folder
from ex4d.progress import Progress, ignore_progress
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.lens_distortion import LensDistortion
from ex4d_core.mesh_cache import frame_positions, grid_vertices
from ex4d_core.pivots import middle_distance
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.render_settings import Convention
from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.scene_manifest import FootageOrigin, SceneManifest
from ex4d_core.sources import DepthSettings, name_for_people
from ex4d_core.trajectories import subject_distance

SOLVE_STAGE, ESTIMATE_STAGE, BUILD_STAGE = "camera", "depth", "reconstruct"

# Footage frames checked and written at a time, 60 MB at 1080p; of larger footage fewer.
_FRAMES_AT_ONCE, _PIXELS_AT_ONCE = 4, 4 * 1920 * 1080


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
        RequestError: the lens distortion is for images of another shape, or the camera is to be solved for and given.
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
    needed = scene_bytes(footage.frames, *size, settings.convention, mesh=mesh, mask=sources.mask is not None)
    require_room(folder, needed, f"a scene of {footage.frames} frames of {size[0]}x{size[1]}")
    machine = machine or MachineSettings.from_environment()
    memory, what = scene_memory_bytes(*size), f"footage of {size[0]}x{size[1]} pixels"
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
        provenance=provenance,
        progress=lambda done, total: progress(BUILD_STAGE, done, total),
    )


def depth_of(
    path: Path | None,
    settings: DepthSettings,
    footage: FootageInfo,
    known: KnownIntrinsics | None = None,
    device: str = "auto",
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
) -> DepthClip:
    """The depth of some footage, from the files at ``path`` or, where that is None, estimated; errors as `reconstruct`.

    Args:
        footage: of `ex4d.media.probe`; with fewer frames than the file has, depth files may be of all of them.
        known: intrinsics of the footage, which a mist pass and some estimators need.
    """
    if path is not None:
        clip = _depth_from_files(path, settings, footage, known)
        return _smoothed(clip, torch_device(device)) if settings.noise_filter == "on" else clip
    return _estimated_depth(settings, footage, known, device, machine, progress)


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
    if known is not None or path is None or settings.mist is not None:
        return known
    lens = resolved_intrinsics(None, footage, _depth_from_files(path, settings, footage, None))
    return None if lens.origin == ASSUMED_FOV_NOTE else lens


def _depth_from_files(
    path: Path, settings: DepthSettings, footage: FootageInfo, known: KnownIntrinsics | None
) -> DepthClip:
    files = DepthFiles(
        path,
        scale=settings.scale,
        inverse=settings.inverse,
        invalid=settings.invalid,
        key=settings.key or None,
        mist=settings.mist,
        intrinsics=None if known is None else known.matrix,
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


def build_scene(
    footage: FootageInfo,
    depth: DepthClip,
    intrinsics: np.ndarray,
    folder: Path,
    *,
    name: str,
    convention: Convention = "centered",
    source_camera: CameraPath | None = None,
    mesh: bool = False,
    distortion: LensDistortion | None = None,
    mask: MotionMask | None = None,
    provenance: dict[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scene:
    """Build a scene package in ``folder``, streaming: memory does not depend on the number of frames.

    Args:
        footage: of `ex4d.media.probe`.
        depth: what a `DepthEstimator` made for this footage.
        intrinsics: (3, 3) or (T, 3, 3), pixels of the footage.
        name: of the scene, for people.
        convention: how the DW-Mesh for display is built; rendering may choose again.
        mesh: write the vertex positions of every frame, too, for a package that Blender imports where it may not write;
            they take 12 bytes a pixel, of 19, and Blender writes them when it imports any other package.
        source_camera: the moving camera that filmed it, one pose for each frame; the meshes are then in that
            camera's world. None: a camera that stands still at the origin. Only `intrinsics` say what the lens is.
        distortion: of the footage's lens, for its size; colour and depth are undistorted by it, and the scene's camera
            is that of the undistorted image. `intrinsics` are those of the lens without it.
        mask: of what moves in the footage.
        provenance: where depth and focal length came from, for people.
        progress: called with frames done and frames in all.

    Raises:
        DepthError: depth has impossible values, or its files are damaged.
        MediaError: the footage cannot be read to its end.
        SceneError: ``folder`` holds something else.
        ValueError: `source_camera` has another number of frames.
    """
    frames, height, width = footage.frames, footage.height, footage.width
    if source_camera is not None and len(source_camera) != frames:
        raise ValueError(f"a source camera of {len(source_camera)} frames does not fit footage of {frames}")
    if distortion is not None:
        intrinsics = distortion.zoomed(intrinsics)
    undistorter = None if distortion is None else Undistorter(distortion)
    still = np.broadcast_to(np.eye(4), (frames, 4, 4))
    camera = CameraPath(still if source_camera is None else source_camera.world_to_camera, intrinsics, width, height)
    vertices = grid_vertices(width, height, convention)
    nearest, farthest, distance, middle = np.inf, 0.0, 0.0, 0.0

    with SceneWriter(folder) as writer:
        color_file = writer.array("color", (frames, height, width, 3), np.uint8)
        depth_file = writer.array("depth", (frames, height, width), np.float32)
        with ExitStack() as files:
            sound = sound_of(footage.path)
            movie = files.enter_context(VideoWriter(writer.path("footage"), width, height, footage.fps, sound=sound))
            positions = files.enter_context(Pc2Writer(writer.path("positions"), vertices, frames)) if mesh else None
            for start, color, z in _batches(footage, depth, undistorter):
                for image in color:
                    movie.write(image)
                part = camera.frames(start, start + len(z))
                lowest, highest = DepthSurface(
                    torch.from_numpy(z),
                    torch.from_numpy(color),
                    torch.tensor(part.intrinsics),
                    torch.from_numpy(part.camera_to_world),
                    convention,
                ).depth_range
                if positions is not None:
                    for index, one in enumerate(z):
                        positions.append(frame_positions(one, part, index, convention))
                color_file.write(color)
                depth_file.write(z)
                nearest, farthest = min(nearest, float(lowest.min())), max(farthest, float(highest.max()))
                if start == 0:
                    distance, middle = subject_distance(z[0]), middle_distance(z[0])
                progress(start + len(z), frames)
        color = z = None  # large frames need not be held beside the topology, which is as large
        faces, uvs, cap_faces = grid_topology(height, width, convention)
        np.savez(writer.path("topology"), faces=faces.numpy(), uvs=uvs.numpy(), cap_faces=np.int64(cap_faces))
        camera.save(writer.path("source_camera"))
        if mask is not None:
            mask_file = writer.array("motion_mask", (frames, height, width), np.bool_)
            for moving in mask.frames():
                mask_file.write(moving if undistorter is None else undistorter.depth(moving))
        label = (provenance or {}).get("footage", footage.path.name)
        origins = {"depth": depth.source, "depth licence": depth.licence, **(provenance or {})}
        return writer.finish(
            SceneManifest(
                name=name_for_people(name),
                frames=frames,
                width=width,
                height=height,
                fps=footage.fps,
                convention=convention,
                depth_range=(nearest, farthest),
                subject_distance=distance,
                middle_distance=middle,
                depth_scale=depth.scale,
                depth_mapping=depth.mapping,
                provenance={what: name_for_people(text) for what, text in origins.items()},
                origin=FootageOrigin(
                    name_for_people(label), footage_sha256(footage.path), start_timecode(footage.path)
                ),
            )
        )


def _batches(
    footage: FootageInfo, depth: DepthClip, undistorter: Undistorter | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(first frame, colour (n, H, W, 3) uint8, depth (n, H, W) float32) until the footage ends."""
    pairs = depth.with_frames(read_frames(footage.path, count=footage.frames))
    if undistorter is not None:
        # Only now: estimated depth is refined along the edges of the footage as it is.
        pairs = ((undistorter.color(color), undistorter.depth(z)) for color, z in pairs)
    at_once = max(1, min(_FRAMES_AT_ONCE, _PIXELS_AT_ONCE // (footage.width * footage.height)))
    start = 0
    while batch := list(islice(pairs, at_once)):
        # A single frame is a view of what was read, not a copy.
        color, z = (part[0][None] if len(part) == 1 else np.stack(part) for part in zip(*batch, strict=True))
        yield start, color, z
        start += len(batch)

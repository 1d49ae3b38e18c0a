"""The camera that filmed the footage, from Blender: a tracked clip's solve, or any animated camera object.

It is written as a camera file, so that the backend needs to know nothing of Blender. The lens distortion of a clip goes
with it, and is undone by the backend in the frames that it was sent; the artist's files stay as they are.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ex4d_core.blender_cameras import intrinsics_from_blender, world_to_camera_from_blender
from ex4d_core.cameras import CameraError, CameraPath, intrinsics_matrix
from ex4d_core.durable_files import put_in_place
from ex4d_core.lens_distortion import COEFFICIENTS, LensDistortion

from ..blender_types import current_context
from ..cameras.keyframes import camera_data
from ..cameras.optics import read_lens, require_even_time
from ..cameras.sampling import without_mesh_caches

# What Blender calls the coefficients of `COEFFICIENTS`, before their names.
_PREFIXES = {"polynomial": "", "division": "division_", "nuke": "nuke_", "brown": "brown_"}
# Missing frames that a message names.
_NAMED_FRAMES = 5


def solved_camera(clip: bpy.types.MovieClip) -> CameraPath:
    """The solved camera of a tracked clip, without lens distortion: one pose for each frame of the clip's file.

    Raises:
        CameraError: the clip is not solved in every frame, or its pixels are not square.
    """
    tracking: Any = clip.tracking
    solved = {one.frame: one.matrix for one in tracking.reconstruction.cameras}
    if not tracking.reconstruction.is_valid or not solved:
        raise CameraError(f"the clip {clip.name!r} has no solved camera; solve its camera motion in the clip editor")
    _require_plain(clip)
    missing = [frame for frame in range(1, clip.frame_duration + 1) if frame not in solved]
    if missing:
        named = ", ".join(map(str, missing[:_NAMED_FRAMES])) + (", ..." if len(missing) > _NAMED_FRAMES else "")
        raise CameraError(
            f"the solve of {clip.name!r} has no camera in {len(missing)} of {clip.frame_duration} frames ({named}); "
            "track and solve all frames, or trim the footage"
        )
    poses = np.array([solved[frame] for frame in range(1, clip.frame_duration + 1)], dtype=np.float64)
    focal, (x, y) = tracking.camera.focal_length_pixels, _principal_point(clip)
    return CameraPath(world_to_camera_from_blender(poses), intrinsics_matrix(focal, focal, x, y), *clip.size)


def camera_of_object(camera: bpy.types.Object, frame_start: int, frames: int, size: tuple[int, int]) -> CameraPath:
    """A camera object as Blender evaluates it, with its animated lens: keys, constraints, imported animation.

    Blender's current frame is restored afterwards.

    Args:
        camera: a perspective camera of the current scene.
        frame_start: Blender frame of the footage's first frame.
        frames: of the footage.
        size: (width, height) of the footage, in square pixels.

    Raises:
        CameraError: not in the view layer, not perspective, sheared, or stretched time.
    """
    context = current_context()
    scene = context.scene
    require_even_time(scene.render)
    read_lens(camera_data(camera), scene.render)
    before, subframe = scene.frame_current, scene.frame_subframe
    poses, lenses = [], []
    with without_mesh_caches(scene):
        try:
            for frame in range(frame_start, frame_start + frames):
                scene.frame_set(frame)
                evaluated = camera.evaluated_get(context.evaluated_depsgraph_get())
                if not evaluated.is_evaluated:
                    raise CameraError(f"{camera.name!r} is not in the current view layer; enable its collection there")
                poses.append(np.array(evaluated.matrix_world, dtype=np.float64))
                lenses.append(_intrinsics_for(evaluated, scene.render, size))
        finally:
            scene.frame_set(before, subframe=subframe)
    return CameraPath(world_to_camera_from_blender(np.stack(poses)), np.stack(lenses), *size)


def distortion_of(clip: bpy.types.MovieClip) -> LensDistortion | None:
    """The lens distortion of a clip; None where all of its coefficients are 0.

    Raises:
        CameraError: its pixels are not square.
        RequestError: it cannot be undone.
    """
    camera: Any = clip.tracking.camera
    model = camera.distortion_model.lower()
    values = tuple(float(getattr(camera, _PREFIXES[model] + name)) for name in COEFFICIENTS[model])
    if not any(values):
        return None
    _require_plain(clip)
    return LensDistortion(model, values, float(camera.focal_length_pixels), _principal_point(clip), *clip.size)


def footage_extent(path: Path) -> tuple[int, tuple[int, int]]:
    """Number of frames and (width, height) of footage, as Blender reads it.

    Args:
        path: a video, or the first image of a sequence.

    Raises:
        CameraError: Blender cannot read it.
    """
    try:
        clip = bpy.data.movieclips.load(str(path), check_existing=False)
    except RuntimeError as error:
        raise CameraError(f"Blender cannot read {path} to count its frames: {error}; choose a camera file") from error
    try:
        width, height = clip.size
        if not clip.frame_duration or not width:
            raise CameraError(f"Blender cannot read {path} to count its frames; choose a camera file")
        return clip.frame_duration, (width, height)
    finally:
        bpy.data.movieclips.remove(clip)


def write_camera(path: CameraPath, folder: Path, stem: str) -> Path:
    """Keep a camera as a file that the backend is sent, named by its content; the same camera has the same file."""
    content = hashlib.sha256(path.world_to_camera.tobytes() + path.intrinsics.tobytes()).hexdigest()
    target = folder / f"{stem}_camera_{content[:8]}.npz"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        path.save(partial)
        put_in_place(partial, target)
    return target


def _intrinsics_for(camera: bpy.types.Object, render: Any, size: tuple[int, int]) -> np.ndarray:
    """(3, 3) of an evaluated camera for the footage's format, whatever the scene renders."""
    optics = read_lens(camera_data(camera), render)
    values = {**vars(optics), "width": size[0], "height": size[1], "pixel_aspect_x": 1.0, "pixel_aspect_y": 1.0}
    return intrinsics_from_blender(type(optics)(**values))


def _principal_point(clip: bpy.types.MovieClip) -> tuple[float, float]:
    """(x, y) in pixels from the top left corner; Blender counts from the bottom."""
    camera: Any = clip.tracking.camera
    x, y = camera.principal_point_pixels
    return float(x), clip.size[1] - float(y)


def _require_plain(clip: bpy.types.MovieClip) -> None:
    camera: Any = clip.tracking.camera
    if abs(camera.pixel_aspect - 1) > 1e-6:
        raise CameraError(
            f"the clip {clip.name!r} has pixels of aspect {camera.pixel_aspect:g}; convert it to square pixels, and "
            "track that"
        )
    if clip.frame_offset:
        raise CameraError(
            f"the clip {clip.name!r} starts {clip.frame_offset} frames into its file; set its Frame Offset to 0, "
            "so that camera and footage belong together"
        )

"""The camera that a result really has, recovered by COLMAP, against the one that was asked for.

No network is needed. A path that is recovered from pictures has no unit: its positions are scaled to fit those that
were asked for.
"""

from __future__ import annotations

import numpy as np

from ex4d.depth.solver import solve_camera
from ex4d.depth.source_camera import in_first_frames_world
from ex4d.evaluation.clips import cropped_size
from ex4d.evaluation.inputs import NotMeasuredError, ResultInputs
from ex4d.media import probe
from ex4d_core.cameras import CameraError, CameraPath

# A path shorter than this share of its longest distance from the origin of depth is standing still.
_STILL = 1e-6


def measure_camera(inputs: ResultInputs, wanted: frozenset[str]) -> dict[str, float]:
    """Rotation and translation error and CamMC, all after the first frames' cameras are laid upon each other.

    Raises:
        NotMeasuredError: no camera was asked for, or none can be recovered from the result.
    """
    asked = inputs.task.camera
    if asked is None:
        raise NotMeasuredError("neither the data set nor the protocol says which camera was asked for")
    footage = probe(inputs.result.path, len(inputs.result))
    asked = asked.frames(0, len(inputs.result)).framed(inputs.result.width, inputs.result.height)
    lens = _lens(asked.intrinsics[0], inputs, (footage.width, footage.height))
    try:
        solved = solve_camera(footage, lens)
    except CameraError as error:
        raise NotMeasuredError(f"no camera can be recovered: {error}") from error
    if solved.camera is not None:
        recovered = solved.camera.path
    elif solved.still:
        recovered = CameraPath(np.repeat(np.eye(4)[None], len(asked), axis=0), asked.intrinsics, *asked.size)
    else:
        raise NotMeasuredError(f"no camera can be recovered: {'; '.join(solved.notes)}")
    return {name: value for name, value in camera_errors(asked, recovered).items() if name in wanted}


def camera_errors(asked: CameraPath, recovered: CameraPath) -> dict[str, float]:
    """The figures of `METRICS` for two paths of T frames; the translation's is missing where nothing moves it.

    CamMC is defined in MotionCtrl (arXiv 2312.03641) and CamI2V (arXiv 2410.15957); here it is averaged over frames.
    """
    asked, recovered = in_first_frames_world(asked), in_first_frames_world(recovered)
    turned = recovered.world_to_camera[:, :3, :3] @ asked.world_to_camera[:, :3, :3].transpose(0, 2, 1)
    degrees = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    figures = {"camera_rotation": float(degrees.mean())}
    there, found = asked.camera_to_world[:, :3, 3], recovered.camera_to_world[:, :3, 3]
    length = float(np.linalg.norm(np.diff(there, axis=0), axis=1).sum())
    moved = float(np.linalg.norm(found, axis=1).max())
    if length <= _STILL:
        if moved > _STILL:
            return figures  # it moves by an unknown distance where it should stand still
        length = 1.0
    # The factor of least squares; never negative, which would mirror a path that runs backwards.
    scale = max(0.0, float((there * found).sum())) / max(float((found**2).sum()), np.finfo(float).tiny)
    found = found * (scale if moved > _STILL else 0.0)
    figures["camera_translation"] = float(np.linalg.norm(found - there, axis=1).mean()) / length
    rotations = recovered.world_to_camera[:, :3, :3], asked.world_to_camera[:, :3, :3]
    offsets = [
        -np.einsum("tij,tj->ti", turn, place / length) for turn, place in zip(rotations, (found, there), strict=True)
    ]
    matrices = [np.concatenate([turn, offset[..., None]], 2) for turn, offset in zip(rotations, offsets, strict=True)]
    figures["camera_matrix"] = float(np.linalg.norm(matrices[0] - matrices[1], axis=(1, 2)).mean())
    return figures


def _lens(lens: np.ndarray, inputs: ResultInputs, size: tuple[int, int]) -> np.ndarray:
    """(3, 3) intrinsics in the pixels of the result's own file, of which the middle was cropped and resized."""
    here = inputs.result.width, inputs.result.height
    across, down = np.divide(cropped_size(size, here), here)
    left, top = np.subtract(size, cropped_size(size, here)) // 2
    moved = np.diag([across, down, 1.0]) @ lens
    moved[:2, 2] += left, top
    return moved

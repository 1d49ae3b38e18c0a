"""The camera inside depth files: intrinsics in pixels of the footage, whatever unit or size they have, and poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.depth.arrays import small_array
from ex4d.depth.depth_clip import DepthError
from ex4d.depth.tool_layouts import PoseDirection
from ex4d_core.cameras import CameraError, invert_rigid, require_rigid

# A principal point this far from the centre on the diagonal, as a share of the sides, is the centre of another image.
_OFF_CENTRE, _ON_DIAGONAL = 0.05, 0.005
_LARGEST_NORMALISED_FOCAL = 20.0  # in widths: a field of view of 3 degrees
_RIGID_TO = 1e-2  # rotations in half floats are orthonormal to about 0.001


def stored_intrinsics(
    path: Path, key: str, frames: int, size: tuple[int, int], footage: tuple[int, int]
) -> tuple[np.ndarray, str]:
    """Intrinsics (T, 3, 3) in pixels of the footage, and a sentence for the artist if they had another unit.

    Args:
        path: of an .npz.
        key: of (3, 3) or (T, 3, 3) in pixels of the depth or of the footage, or normalised to an image of 1 by 1.
        frames: of the footage.
        size: (width, height) of the depth.
        footage: (width, height) of the footage.

    Raises:
        DepthError: not intrinsics, or those of an image of another size.
    """
    stored = small_array(path, key).astype(np.float64)
    if stored.shape not in ((3, 3), (frames, 3, 3)):
        raise DepthError(
            f"{path}: {key!r} has shape {stored.shape}. Save (3, 3), or ({frames}, 3, 3) for one per frame."
        )
    matrices = np.array(np.broadcast_to(stored, (frames, 3, 3)))
    valid = np.isfinite(matrices).all(axis=(1, 2)) & (matrices[:, 2] == (0, 0, 1)).all(axis=1)
    valid &= (matrices[:, [0, 1], [0, 1]] > 0).all(axis=1)
    if not valid.all():
        bad = int(np.argmin(valid))
        raise DepthError(
            f"{path}: {key!r} of frame {bad} is {matrices[bad].tolist()}. Save finite values in pixels, with "
            "focal lengths above 0 and 0, 0, 1 in the last row."
        )
    unit, note = footage, ""
    if _is_normalised(matrices) and min(footage) > _LARGEST_NORMALISED_FOCAL:
        unit, note = (1, 1), f"the intrinsics in {path.name} are normalised, and are scaled by the footage's size"
    elif size != footage:
        unit = min((size, footage), key=lambda one: _distance_from_centre(matrices, one))
    _require_centre_of(matrices, unit, f"{path}: {key!r}", footage)
    matrices[:, :2] *= (np.array(footage) / unit)[:, None]
    return matrices, note


def stored_poses(path: Path, key: str, direction: PoseDirection, frames: int) -> np.ndarray:
    """World to camera (T, 4, 4), OpenCV axes, exactly rigid.

    Args:
        key: of (T, 4, 4) or (T, 3, 4) in an .npz.

    Raises:
        DepthError: not poses of that many frames.
    """
    stored = small_array(path, key).astype(np.float64)
    if stored.shape not in ((frames, 4, 4), (frames, 3, 4)):
        raise DepthError(
            f"{path}: {key!r} has shape {stored.shape}, which is not one pose for each of {frames} frames."
        )
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3] = stored[:, :3]
    rotations = poses[:, :3, :3]
    if not np.isfinite(poses).all() or np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() > _RIGID_TO:
        raise DepthError(f"{path}: {key!r} holds matrices that are not rotations with positions. Export it again.")
    u, _, vt = np.linalg.svd(rotations)
    poses[:, :3, :3] = u @ vt
    try:
        require_rigid(poses)
    except CameraError as error:
        raise DepthError(f"{path}: {key!r}: {error}. Export it again.") from error
    return invert_rigid(poses) if direction == "camera to world" else poses


def _is_normalised(matrices: np.ndarray) -> bool:
    focal, centre = matrices[:, [0, 1], [0, 1]], matrices[:, :2, 2]
    return bool((focal <= _LARGEST_NORMALISED_FOCAL).all() and ((centre > 0) & (centre < 1)).all())


def _distance_from_centre(matrices: np.ndarray, size: tuple[int, int]) -> float:
    return float(np.abs(matrices[0, :2, 2] / size - 0.5).max())


def _require_centre_of(matrices: np.ndarray, size: tuple[int, int], what: str, footage: tuple[int, int]) -> None:
    """Raises DepthError if a principal point is the centre of an image of another size, or outside of this one."""
    shares = matrices[:, :2, 2] / size
    outside = ~((shares > 0) & (shares < 1)).all(axis=1)
    off = np.abs(shares - 0.5).max(axis=1) > _OFF_CENTRE
    elsewhere = off & (np.abs(shares[:, 0] - shares[:, 1]) < _ON_DIAGONAL)
    wrong = outside | elsewhere
    if not wrong.any():
        return
    frame = int(np.argmax(wrong))
    (x, y), focal = matrices[frame, :2, 2], matrices[frame, 0, 0]
    guess = f", but could be the centre of {2 * x:.0f}x{2 * y:.0f}" if elsewhere[frame] else ""
    raise DepthError(
        f"{what} of frame {frame} is not of an image of {size[0]}x{size[1]}: its principal point is at ({x:.4g}, "
        f"{y:.4g}){guess}; its focal length is {focal:.4g} pixels. Save it in pixels of the footage's size, "
        f"{footage[0]}x{footage[1]}, or give the lens (Custom Field of View in Blender; --fov, --focal-mm, "
        "--focal-px)."
    )

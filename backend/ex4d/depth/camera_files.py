"""Reads the camera that filmed some footage from COLMAP's, NeRF's and our own files, as a `SourceCamera`.

With known depth and such a camera, the meshes of all frames are in one world, that of the first frame's camera, so that
presets and the Blender import work as for a static camera.
"""

from __future__ import annotations

import math
from pathlib import Path

from ex4d.depth.colmap import MODEL_FILES, read_colmap, read_colmap_points
from ex4d.depth.intrinsics import require_plausible
from ex4d.depth.solved_images import SolvedImage, SourceCamera, camera_of_images, fitted_intrinsics, frames_of
from ex4d.depth.source_camera import in_first_frames_world
from ex4d.depth.sparse_points import SparsePoints
from ex4d.depth.transforms_json import read_transforms
from ex4d.media import FootageInfo
from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.reconstruction import CameraGaps
from ex4d_core.sources import colmap_folder

# Of programs that Blender reads, itself or with an add-on of its own.
_FOR_BLENDER = (".abc", ".bvh", ".chan", ".dae", ".fbx", ".glb", ".gltf", ".usd", ".usda", ".usdc", ".usdz")


def read_source_camera(
    path: Path, footage: FootageInfo, scale: float = 1.0, gaps: CameraGaps = "refuse"
) -> SourceCamera:
    """The moving camera that filmed `footage`.

    Args:
        path: our own .npz (`CameraPath.save`); a transforms.json, or a folder that holds one; or a folder with
            COLMAP's model (cameras.bin and images.bin, or both as .txt), one above it, or one of its files.
        footage: of `ex4d.media.probe`.
        scale: multiplies positions, where depth has another unit than the cameras.
        gaps: what happens to frames without a camera.

    Returns:
        One camera for each frame, in the order of the images' numbers or times, at the footage's size; the first is
        the world.

    Raises:
        CameraError: unreadable, not rigid, of a lens that cannot be undistorted, implausible, or not as many cameras
            as frames.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise CameraError(f"invalid --camera-scale {scale:g}: expected a finite factor above 0")
    notes: tuple[str, ...] = ()
    if path.suffix.lower() == ".npz":
        found = SourceCamera(_own_camera(path, footage))
    elif (transforms := _transforms(path)) is not None:
        images, notes = read_transforms(transforms, footage)
        found = camera_of_images(transforms, images, footage, gaps)
    elif path.is_dir() or path.name in MODEL_FILES:
        model = colmap_folder(path)
        found = camera_of_images(path, read_colmap(model), footage, gaps)
        if model != path and len(list(model.parent.glob("*/images.*"))) > 1:
            notes = (f"{path.name} holds several models; {model.name} has the most images and is taken",)
    elif path.suffix.lower() in _FOR_BLENDER:
        raise CameraError(
            f"{path}: {path.suffix} is read by Blender, not here. Import it into Blender, and choose that camera as "
            "the footage's: From Footage > Depth and Camera > Object."
        )
    else:
        raise CameraError(
            f"{path}: not a camera file. Give a .npz, a transforms.json, or a folder with COLMAP's cameras and images "
            "(.bin or .txt)."
        )
    return found._replace(path=in_first_frames_world(found.path, scale), notes=(*notes, *found.notes))


def read_source_points(
    path: Path, footage: FootageInfo, scale: float = 1.0, gaps: CameraGaps = "refuse"
) -> SparsePoints | None:
    """The points that were solved together with a camera of `read_source_camera`, which takes the same arguments.

    Returns:
        None for camera files without points: only COLMAP's models have them.

    Raises:
        CameraError: the points cannot be read.
    """
    if _transforms(path) is not None or not (path.is_dir() or path.name in MODEL_FILES):
        return None
    model = colmap_folder(path)
    images = read_colmap(model)
    points = read_colmap_points(model, frames_of(path, images, footage, gaps))
    if points is None:
        return None
    return points.resized(footage.width / images[0].width, footage.height / images[0].height).scaled(scale)


def _transforms(path: Path) -> Path | None:
    if path.suffix.lower() == ".json":
        return path
    return path / "transforms.json" if path.is_dir() and (path / "transforms.json").exists() else None


def _own_camera(path: Path, footage: FootageInfo) -> CameraPath:
    camera = CameraPath.load(path, footage.width, footage.height)
    if len(camera) != footage.frames:
        raise CameraError(
            f"{path}: has {len(camera)} cameras, but the footage {footage.path.name} has {footage.frames} frames. "
            "Solve every frame, or trim the footage."
        )
    image = SolvedImage("", camera.world_to_camera[0], camera.intrinsics[0], camera.width, camera.height)
    fitted_intrinsics(path, image, footage)  # which checks the shape
    camera = camera.resized(footage.width, footage.height)
    require_plausible(camera.intrinsics, camera.width, camera.height, str(path))
    return camera

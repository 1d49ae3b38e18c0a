"""Vista4D's evaluation set: real footage with estimated depth and masks, and two or three asked-for cameras of each.

The layout is that of Vista4D's README and scripts/preprocess/render_eval.py:

metadata.csv                             a row a clip: name, video and camera
recon_and_seg/VIDEO/video.mp4
recon_and_seg/VIDEO/cameras.npz          cam_c2w (T, 4, 4), OpenCV axes, and intrinsics (T, 4): fx, fy, cx, cy in pixels
recon_and_seg/VIDEO/depths/00000.exr     along z, in the channel Y
recon_and_seg/VIDEO/dynamic_mask/00000.png
recon_and_seg/VIDEO/sky_mask/00000.png   where there is one: its depth is 1000, as in Vista4D's renderings
cameras/VIDEO/CAMERA.npz                 in the same world, for images of the footage's size

There are no true views.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ex4d.depth.arrays import small_array
from ex4d.depth.stored_camera import stored_poses
from ex4d.evaluation.clips import EvaluationClip
from ex4d.evaluation.datasets.own_files import saved_camera, stored, work_folder
from ex4d.evaluation.depth_frames import DepthFrames
from ex4d.evaluation.errors import EvaluationError
from ex4d.media import probe, read_exr_channels, read_png
from ex4d_core.cameras import CameraPath, intrinsics_matrix

TITLE = "Vista4D's evaluation set"
_SKY_DEPTH = 1000.0
_WHITE = 127


def matches(folder: Path) -> bool:
    """Whether it is one."""
    return (folder / "metadata.csv").is_file() and (folder / "recon_and_seg").is_dir()


def clips(folder: Path, work: Path) -> list[EvaluationClip]:
    """One for each row of its table.

    Raises:
        EvaluationError: a file cannot be used.
    """
    table, place = folder / "metadata.csv", work_folder(folder, work)
    with stored(table, TITLE), table.open(newline="", encoding="utf-8") as stream:
        rows = [(row["name"], row["video"], row["camera"]) for row in csv.DictReader(stream)]
    return [_clip(folder, name, video, camera, place / video) for name, video, camera in rows]


def _clip(folder: Path, name: str, video: str, camera: str, work: Path) -> EvaluationClip:
    footage = folder / "recon_and_seg" / video
    source = footage / "video.mp4"
    if not source.is_file():
        raise EvaluationError(f"{source} is not there, and metadata.csv names it: fetch it, or delete the row {name}")
    found = probe(source)
    size = (found.width, found.height)
    source_camera = _camera(footage / "cameras.npz", size)
    return EvaluationClip(
        name,
        source,
        depth=_depth(footage),
        source_camera=saved_camera(source_camera, work / "source_camera.npz"),
        moving=footage / "dynamic_mask" if (footage / "dynamic_mask").is_dir() else None,
        camera=_camera(folder / "cameras" / video / f"{camera}.npz", size),
    )


def _depth(footage: Path) -> DepthFrames | None:
    depth = sorted((footage / "depths").glob("*.exr"))
    sky = sorted((footage / "sky_mask").glob("*.png"))
    if sky and len(sky) != len(depth):
        raise EvaluationError(f"{footage}: {len(depth)} files of depth, but {len(sky)} of the sky. Fetch them again.")
    files = tuple(zip(depth, sky, strict=True)) if sky else tuple((file,) for file in depth)
    return DepthFrames(files, _read_depth) if depth else None


def _read_depth(file: Path, sky: Path | None = None) -> np.ndarray:
    depth = read_exr_channels(file)["Y"].astype(np.float32)
    if sky is not None:
        mask = read_png(sky)
        depth[(mask if mask.ndim == 2 else mask[..., 0]) > _WHITE] = _SKY_DEPTH
    return depth


def _camera(file: Path, size: tuple[int, int]) -> CameraPath:
    with stored(file, TITLE):
        lenses = small_array(file, "intrinsics")
        poses = stored_poses(file, "cam_c2w", "camera to world", len(lenses))
        return CameraPath(poses, np.stack([intrinsics_matrix(*lens) for lens in lenses]), *size)

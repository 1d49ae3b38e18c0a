"""Kubric-4D as GCD publishes it: scenes of falling objects, rendered from sixteen cameras that stand still.

The layout is that of GCD's data-gen/export_kub_mv.py:

SCENE/SCENE_p0_vN.json                 of view N: size, lens, and pose of the camera in every frame
SCENE/frames_p0_vN/rgba_00000.png
SCENE/frames_p0_vN/depth_00000.tiff    distance from the camera's centre, in its unit

View 4 is the footage, as in GCD; every other view that is there is a clip, SCENE/vN, whose truth was rendered. GCD's
own truth is another: the merged points of all views, drawn as new cameras see them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ex4d.depth.mist import ray_lengths
from ex4d.evaluation.clips import EvaluationClip
from ex4d.evaluation.datasets.own_files import read_json, saved_camera, stored, work_folder
from ex4d.evaluation.depth_frames import DepthFrames
from ex4d_core.cameras import CameraPath, camera_from_quaternion, world_to_camera_from_opengl

TITLE = "Kubric-4D"
SOURCE_VIEW = 4
_VIEWS = 16


def matches(folder: Path) -> bool:
    """Whether it holds scenes."""
    return bool(_scenes(folder))


def clips(folder: Path, work: Path) -> list[EvaluationClip]:
    """One for each view but the footage's, by scene.

    Raises:
        EvaluationError: a file cannot be used.
    """
    place = work_folder(folder, work)
    return [clip for one in _scenes(folder) for clip in _clips(one, place / one.name)]


def _scenes(folder: Path) -> list[Path]:
    return [one for one in sorted(folder.glob("scn*")) if _has_view(one, SOURCE_VIEW)]


def _has_view(scene: Path, view: int) -> bool:
    return _camera_file(scene, view).is_file() and _frames(scene, view).is_dir()


def _camera_file(scene: Path, view: int) -> Path:
    return scene / f"{scene.name}_p0_v{view}.json"


def _frames(scene: Path, view: int) -> Path:
    return scene / f"frames_p0_v{view}"


def _clips(scene: Path, work: Path) -> list[EvaluationClip]:
    camera = _camera(_camera_file(scene, SOURCE_VIEW))
    depth = sorted(_frames(scene, SOURCE_VIEW).glob("depth_*.tiff"))
    read = partial(_read_depth, lens=camera.intrinsics[0])
    source_camera = saved_camera(camera, work / "source_camera.npz")
    return [
        EvaluationClip(
            f"{scene.name}/v{view}",
            _frames(scene, SOURCE_VIEW) / "rgba_%05d.png",
            depth=DepthFrames(tuple((file,) for file in depth), read) if depth else None,
            source_camera=source_camera,
            camera=_camera(_camera_file(scene, view)),
            truth=_frames(scene, view) / "rgba_%05d.png",
        )
        for view in range(_VIEWS)
        if view != SOURCE_VIEW and _has_view(scene, view)
    ]


def _read_depth(file: Path, lens: np.ndarray) -> np.ndarray:
    with Image.open(file) as image:
        distance = np.asarray(image, np.float32)
    height, width = distance.shape
    return distance / ray_lengths(height, width, lens).astype(np.float32)


def _camera(file: Path) -> CameraPath:
    with stored(file, TITLE):
        values = read_json(file)
        width, height = (int(side) for side in values["scene"]["resolution"])
        camera = values["camera"]
        poses = [
            camera_from_quaternion(turn, place)
            for turn, place in zip(camera["quaternions"], camera["positions"], strict=True)
        ]
        # Shares of the image's sides, with the signs of a camera that looks along -z.
        lens = np.diag([width, height, 1.0]) @ np.abs(np.asarray(camera["K"], np.float64))
        return CameraPath(world_to_camera_from_opengl(np.stack(poses)), lens, width, height)

"""ParallelDomain-4D as GCD publishes it: drives through a rendered city, seen from cameras that are fixed to the car.

The layout is that which GCD's data-gen/convert_pcl_pardom.py reads:

SCENE/calibration/*.json               lens and pose of each camera in the car's frame, right, down, forward
SCENE/rgb/VIEW/000000000000000005.png  by time: 5, 15, 25 ...
SCENE/depth/VIEW/000000000000000005.npz  "data", along z

The view forward, "yaw-0", is the footage, as in GCD; every other view that is there is a clip, SCENE/VIEW, whose truth
was rendered. Times at which an image or its depth is missing, as some are, are left out. The world of the cameras is
the car's: to them the city moves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ex4d.evaluation.clips import EvaluationClip
from ex4d.evaluation.datasets.own_files import chosen_frames, read_json, saved_camera, stored, work_folder
from ex4d.evaluation.depth_frames import DepthFrames
from ex4d.media import probe
from ex4d.media.sequences import natural_key
from ex4d_core.cameras import CameraPath, camera_from_quaternion, intrinsics_matrix, invert_rigid

TITLE = "ParallelDomain-4D"
SOURCE_VIEW = "yaw-0"


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
    return [one.parents[1] for one in sorted(folder.glob(f"scene_*/rgb/{SOURCE_VIEW}")) if _calibration(one.parents[1])]


def _calibration(scene: Path) -> list[Path]:
    return sorted(scene.glob("calibration/*.json"))


def _clips(scene: Path, work: Path) -> list[EvaluationClip]:
    views = sorted((one for one in (scene / "rgb").iterdir() if one.is_dir()), key=lambda one: natural_key(one.name))
    pairs = [(one, _common_times(scene, one.name)) for one in views if one.name != SOURCE_VIEW]
    return [_clip(scene, view.name, times, work / view.name) for view, times in pairs if times]


def _common_times(scene: Path, view: str) -> list[str]:
    """The names, without ending, of the times that footage, its depth where there is any, and a view have."""
    times = {one.stem for one in (scene / "rgb" / view).glob("*.png")}
    times &= {one.stem for one in (scene / "rgb" / SOURCE_VIEW).glob("*.png")}
    depth = {one.stem for one in (scene / "depth" / SOURCE_VIEW).glob("*.npz")}
    return sorted(times & depth if depth else times)


def _clip(scene: Path, view: str, times: list[str], work: Path) -> EvaluationClip:
    source, truth = (
        chosen_frames([scene / "rgb" / one / f"{time}.png" for time in times], work / name)
        for name, one in (("source", SOURCE_VIEW), ("truth", view))
    )
    depth = [scene / "depth" / SOURCE_VIEW / f"{time}.npz" for time in times]
    return EvaluationClip(
        f"{scene.name}/{view}",
        source,
        depth=DepthFrames(tuple((file,) for file in depth), _read_depth) if depth[0].is_file() else None,
        source_camera=saved_camera(_camera(scene, SOURCE_VIEW, source), work / "source_camera.npz"),
        camera=_camera(scene, view, truth),
        truth=truth,
    )


def _read_depth(file: Path) -> np.ndarray:
    with np.load(file) as arrays:
        return arrays["data"]


def _camera(scene: Path, view: str, images: Path) -> CameraPath:
    """Of a view, which is fixed to the car, for the images in a folder."""
    file, footage = _calibration(scene)[0], probe(images)
    with stored(file, TITLE):
        values = read_json(file)
        index = values["names"].index(view)
        pose = invert_rigid(_camera_to_car(values["extrinsics"][index]))
        lens = values["intrinsics"][index]
        matrix = intrinsics_matrix(*(float(lens[name]) for name in ("fx", "fy", "cx", "cy")))
        return CameraPath(np.tile(pose, (footage.frames, 1, 1)), matrix, footage.width, footage.height)


def _camera_to_car(values: dict[str, Any]) -> np.ndarray:
    turn, place = values["rotation"], values["translation"]
    quaternion = [float(turn[name]) for name in ("qw", "qx", "qy", "qz")]
    return camera_from_quaternion(quaternion, [float(place[name]) for name in "xyz"])

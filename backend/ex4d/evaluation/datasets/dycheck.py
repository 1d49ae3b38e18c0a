"""DyCheck's iPhone sequences: a phone that moves about a scene, and one or two that stand still and film it, too.

The layout is that of DyCheck's docs/DATASETS.md:

SEQUENCE/dataset.json, metadata.json   all frames, with the camera (0 moves) and the time of each
SEQUENCE/extra.json                    "factor", by which images are smaller than the cameras say
SEQUENCE/camera/ID.json                of each frame: OpenCV axes, pixel centres at +0.5
SEQUENCE/rgb/FACTORx/ID.png
SEQUENCE/depth/FACTORx/ID.npy          (H, W, 1) along z in the cameras' unit, 0 for unknown; of camera 0
SEQUENCE/covisible/FACTORx/val/ID.png  white where enough of camera 0's frames saw it; of the others

Each camera that stands still is a clip, SEQUENCE/CAMERA, of the times at which both cameras have a frame. Sequences
without such a camera have no truth, and are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.evaluation.clips import EvaluationClip
from ex4d.evaluation.datasets.own_files import chosen_frames, read_json, saved_camera, stored, work_folder
from ex4d.evaluation.depth_frames import DepthFrames
from ex4d.evaluation.errors import EvaluationError
from ex4d.media import probe
from ex4d_core.cameras import CameraPath

TITLE = "DyCheck's iPhone sequences"
_MOVING = 0


def matches(folder: Path) -> bool:
    """Whether it holds sequences."""
    return bool(_sequences(folder))


def clips(folder: Path, work: Path) -> list[EvaluationClip]:
    """One for each camera that stands still, by sequence.

    Raises:
        EvaluationError: a file cannot be used.
    """
    place = work_folder(folder, work)
    return [clip for one in _sequences(folder) for clip in _clips(one, place / one.name)]


def _sequences(folder: Path) -> list[Path]:
    places = [one.parent for one in sorted(folder.glob("*/dataset.json"))]
    return [one for one in places if (one / "camera").is_dir() and (one / "extra.json").is_file()]


def _clips(sequence: Path, work: Path) -> list[EvaluationClip]:
    with stored(sequence / "metadata.json", TITLE):
        metadata, names = read_json(sequence / "metadata.json"), read_json(sequence / "dataset.json")["ids"]
        frames = {(metadata[name]["camera_id"], metadata[name]["warp_id"]): name for name in names}
    with stored(sequence / "extra.json", TITLE):
        scale = f"{int(read_json(sequence / 'extra.json')['factor'])}x"
    found = []
    for camera in sorted({camera for camera, _ in frames} - {_MOVING}):
        times = sorted(time for one, time in frames if one == camera and (_MOVING, time) in frames)
        if times:
            pairs = [(frames[_MOVING, time], frames[camera, time]) for time in times]
            found.append(_clip(sequence, camera, scale, pairs, work / str(camera)))
    return found


def _clip(sequence: Path, camera: int, scale: str, pairs: list[tuple[str, str]], work: Path) -> EvaluationClip:
    moving, still = ([pair[side] for pair in pairs] for side in (0, 1))
    images = sequence / "rgb" / scale
    source = chosen_frames([images / f"{name}.png" for name in moving], work / "source")
    truth = chosen_frames([images / f"{name}.png" for name in still], work / "truth")
    depth = [sequence / "depth" / scale / f"{name}.npy" for name in moving]
    seen = [sequence / "covisible" / scale / "val" / f"{name}.png" for name in still]
    return EvaluationClip(
        f"{sequence.name}/{camera}",
        source,
        depth=DepthFrames(tuple((file,) for file in depth), _read_depth) if _all_there(depth) else None,
        source_camera=saved_camera(_camera(sequence, moving, source), work / "source_camera.npz"),
        camera=_camera(sequence, still, truth),
        truth=truth,
        seen=chosen_frames(seen, work / "seen") if _all_there(seen) else None,
    )


def _all_there(files: list[Path]) -> bool:
    return all(file.is_file() for file in files)


def _read_depth(file: Path) -> np.ndarray:
    depth = np.load(file)
    return depth[..., 0] if depth.ndim == 3 else depth


def _camera(sequence: Path, names: list[str], images: Path) -> CameraPath:
    """Of these frames, for images of the size of those in a folder."""
    files = [sequence / "camera" / f"{name}.json" for name in names]
    poses, lenses = np.tile(np.eye(4), (len(names), 1, 1)), np.tile(np.eye(3), (len(names), 1, 1))
    size = (0, 0)
    for file, pose, lens in zip(files, poses, lenses, strict=True):
        with stored(file, TITLE):
            values = read_json(file)
            if np.any(values["radial_distortion"]) or np.any(values["tangential_distortion"]):
                raise EvaluationError(f"{file}: its lens bends the image; undistort the data set's images")
            pose[:3, :3] = values["orientation"]
            pose[:3, 3] = -pose[:3, :3] @ values["position"]
            lens[0, 0] = values["focal_length"]
            lens[1, 1] = values["focal_length"] * values["pixel_aspect_ratio"]
            lens[0, 1], lens[:2, 2] = values["skew"], values["principal_point"]
            size = (int(values["image_size"][0]), int(values["image_size"][1]))
    footage = probe(images)
    with stored(files[0], TITLE):
        return CameraPath(poses, lenses, *size).resized(footage.width, footage.height)

"""Public data sets in their published layouts, of a ray-cast scene: the footage must land on the true views."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from ex4d.cli.main import main
from ex4d.evaluation import EvaluationClip, EvaluationError
from ex4d.evaluation.clip_scene import ClipInputs, KnownViews
from ex4d.evaluation.clips import Frames
from ex4d.evaluation.datasets import load_clips
from ex4d.evaluation.protocols import Protocol
from ex4d.media import write_exr_channels, write_png
from ex4d_core.cameras import FLIP_Y_AND_Z, CameraPath, intrinsics_matrix, look_at

WIDTH, HEIGHT = 64, 48
TIMES = 4
SKY = np.s_[..., :8, :8]
# A plane through the origin, which z is up in; its colours change with place and time.
NORMAL = np.array([1.0, 0.3, 0.4])
WAVES = np.array([[0.0, 2.0, 1.0], [0.0, -1.0, 2.5], [1.0, 1.5, -1.0]])


@dataclass(frozen=True)
class View:
    """What a camera sees: (T, H, W, 3) uint8, and (T, H, W) depth along z and distance from the camera's centre."""

    images: np.ndarray
    depth: np.ndarray
    distance: np.ndarray


def camera_at(*places: Sequence[float], focal: float = 60.0) -> CameraPath:
    """One that looks at the origin from these places."""
    lens = intrinsics_matrix(focal, focal, WIDTH / 2, HEIGHT / 2)
    return CameraPath(look_at(np.array(places, float), np.zeros(3), down=(0, 0, -1)), lens, WIDTH, HEIGHT)


STILL = camera_at(*[(4, 0, 1)] * TIMES)
MOVING = camera_at(*[(4, 0.1 * time, 1) for time in range(TIMES)])
ASIDE = camera_at(*[(3.8, 0.9, 1.3)] * TIMES, focal=55.0)


def seen_by(camera: CameraPath, times: Sequence[int] = range(TIMES)) -> View:
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    images, depths, distances = [], [], []
    for pose, lens, time in zip(camera.camera_to_world, camera.intrinsics, times, strict=True):
        rays = pixels @ np.linalg.inv(lens).T  # whose z is 1
        depth = -(pose[:3, 3] @ NORMAL) / (rays @ pose[:3, :3].T @ NORMAL)
        points = rays * depth[..., None] @ pose[:3, :3].T + pose[:3, 3]
        images.append((127.5 + 110 * np.sin(points @ WAVES.T + time)).round().astype(np.uint8))
        depths.append(depth)
        distances.append(np.linalg.norm(points - pose[:3, 3], axis=-1))
    return View(np.stack(images), np.stack(depths), np.stack(distances))


def prepared(data: Path, work: Path, name: str) -> tuple[EvaluationClip, KnownViews, np.ndarray]:
    """A clip by its name, what is known of its new view, and the scene's depth."""
    protocol = Protocol.load("with-truth")
    clip = next(one for one in load_clips(data, work)[1] if one.name == name)
    inputs = ClipInputs.prepare(clip, protocol, work, "cpu")
    assert inputs.scene is not None
    return clip, KnownViews.of(inputs.tasks[0], inputs.scene, protocol, "cpu"), np.asarray(inputs.scene.depth())


def assert_lands(known: KnownViews, true: np.ndarray) -> None:
    """The footage's pixels, seen from the new camera, are those of its true view."""
    assert known.render is not None and known.rendered is not None
    assert known.render.shape == true.shape and known.rendered.mean() > 0.6
    assert np.abs(known.render.astype(int) - true)[known.rendered].mean() < 5


@pytest.fixture
def dycheck(tmp_path) -> Path:
    """A moving phone and one that stands still and lacks a frame; images are half as large as their cameras say."""
    data = tmp_path / "iphone"
    sequence, metadata = data / "apple", {}
    for number, camera, times in ((0, MOVING, range(TIMES)), (1, ASIDE, [0, 2, 3])):
        view = seen_by(camera)
        for time in times:
            name = f"{number}_{time:05d}"
            metadata[name] = {"appearance_id": time, "camera_id": number, "warp_id": time}
            _write_rgba(sequence / "rgb" / "2x" / f"{name}.png", view.images[time])
            write_json(sequence / "camera" / f"{name}.json", _phone(camera, time))
            if number == 0:
                depth = view.depth[time].astype(np.float32)
                depth[SKY] = 0
                _save(sequence / "depth" / "2x" / f"{name}.npy", depth[..., None])
            else:
                (sequence / "covisible" / "2x" / "val").mkdir(parents=True, exist_ok=True)
                write_png(sequence / "covisible" / "2x" / "val" / f"{name}.png", _left_half())
    write_json(sequence / "dataset.json", {"count": len(metadata), "ids": list(metadata)})
    write_json(sequence / "metadata.json", metadata)
    write_json(sequence / "extra.json", {"factor": 2, "fps": 30.0})
    return data


def _phone(camera: CameraPath, frame: int) -> dict:
    lens, pose = camera.intrinsics[frame], camera.camera_to_world[frame]
    return {
        "focal_length": 2 * lens[0, 0],
        "image_size": [2 * WIDTH, 2 * HEIGHT],
        "orientation": pose[:3, :3].T.tolist(),
        "pixel_aspect_ratio": 1.0,
        "position": pose[:3, 3].tolist(),
        "principal_point": (2 * lens[:2, 2]).tolist(),
        "radial_distortion": [0.0, 0.0, 0.0],
        "skew": 0.0,
        "tangential_distortion": [0.0, 0.0],
    }


def _left_half() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, : WIDTH // 2] = True
    return mask


def write_json(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def _write_rgba(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])).save(path)


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def test_dycheck_pairs_the_times_that_both_phones_have(dycheck, tmp_path):
    clip, known, depth = prepared(dycheck, tmp_path / "work", "apple/1")
    true, moving = seen_by(ASIDE).images[[0, 2, 3]], seen_by(MOVING)
    assert known.truth is not None and np.array_equal(known.truth.array(), true)
    assert np.array_equal(known.source.array(), moving.images[[0, 2, 3]])
    assert_lands(known, true)
    assert np.allclose(depth[:, 8:], moving.depth[[0, 2, 3], 8:], rtol=1e-4)
    assert (depth[SKY] == depth.max(axis=(1, 2))[:, None, None]).all()
    # DyCheck's own masks say what was seen; the footage's pixels are compared where they were rendered.
    assert known.seen is not None and (known.seen == _left_half()).all()
    assert known.size == (WIDTH, HEIGHT) and clip.camera is not None and clip.camera.size == (WIDTH, HEIGHT)


def test_dycheck_follows_changes_of_its_files_and_names_what_is_missing(dycheck, tmp_path):
    ids = json.loads((dycheck / "apple" / "dataset.json").read_text())["ids"]
    assert len(Frames(load_clips(dycheck, tmp_path)[1][0].source)) == 3
    write_json(dycheck / "apple" / "dataset.json", {"ids": [one for one in ids if one != "1_00002"]})
    clip = load_clips(dycheck, tmp_path)[1][0]
    assert np.array_equal(Frames(clip.source).array(), seen_by(MOVING).images[[0, 3]])
    (dycheck / "apple" / "rgb" / "2x" / "1_00003.png").unlink()
    with pytest.raises(EvaluationError, match=r"1_00003\.png is not there"):
        load_clips(dycheck, tmp_path)
    bent = _phone(MOVING, 0) | {"radial_distortion": [0.1, 0.0, 0.0]}
    write_json(dycheck / "apple" / "dataset.json", {"ids": ["0_00000", "1_00000"]})
    write_json(dycheck / "apple" / "camera" / "0_00000.json", bent)
    with pytest.raises(EvaluationError, match="its lens bends the image"):
        load_clips(dycheck, tmp_path)
    del bent["position"]
    write_json(dycheck / "apple" / "camera" / "0_00000.json", bent | {"radial_distortion": [0, 0, 0]})
    with pytest.raises(EvaluationError, match=r"0_00000\.json: not as DyCheck's .* 'position'"):
        load_clips(dycheck, tmp_path)


@pytest.fixture
def kubric(tmp_path) -> Path:
    """A scene of which three views are there."""
    data = tmp_path / "kubric"
    scene = data / "scn02900"
    for number, camera in ((2, ASIDE), (4, STILL), (11, MOVING)):
        view, frames = seen_by(camera), scene / f"frames_p0_v{number}"
        for time in range(TIMES):
            _write_rgba(frames / f"rgba_{time:05d}.png", view.images[time])
            Image.fromarray(view.distance[time].astype(np.float32)).save(frames / f"depth_{time:05d}.tiff")
            _write_rgba(frames / f"segmentation_{time:05d}.png", view.images[0])
        write_json(scene / f"{scene.name}_p0_v{number}.json", _kubric_camera(camera))
    return data


def _kubric_camera(camera: CameraPath) -> dict:
    poses = camera.camera_to_world @ FLIP_Y_AND_Z
    turns = Rotation.from_matrix(poses[:, :3, :3]).as_quat()[:, [3, 0, 1, 2]]
    across, down = camera.intrinsics[0, 0, 0] / WIDTH, camera.intrinsics[0, 1, 1] / HEIGHT
    lens = [[across, 0, -0.5], [0, -down, -0.5], [0, 0, -1]]
    places = poses[:, :3, 3].tolist()
    return {
        "scene": {"resolution": [WIDTH, HEIGHT], "num_frames": TIMES},
        "camera": {"positions": places, "quaternions": turns.tolist(), "K": lens},
    }


def test_kubric_4d_turns_distances_into_depth_and_takes_every_other_view(kubric, tmp_path):
    layout, clips = load_clips(kubric, tmp_path)
    assert layout.name == "kubric-4d" and [one.name for one in clips] == ["scn02900/v2", "scn02900/v11"]
    _, known, depth = prepared(kubric, tmp_path / "work", "scn02900/v2")
    true = seen_by(ASIDE).images
    assert known.truth is not None and np.array_equal(known.truth.array(), true)
    assert np.array_equal(known.source.array(), seen_by(STILL).images)
    assert_lands(known, true)
    assert np.allclose(depth, seen_by(STILL).depth, rtol=1e-4)
    assert known.seen is not None and np.array_equal(known.seen, known.rendered)
    assert_lands(prepared(kubric, tmp_path / "work", "scn02900/v11")[1], seen_by(MOVING).images)
    assert len(list((tmp_path / "work" / "scenes").iterdir())) == 1, "both clips have the same footage"


def test_depth_that_cannot_be_read_is_named(kubric, tmp_path):
    damaged = kubric / "scn02900" / "frames_p0_v4" / "depth_00002.tiff"
    damaged.write_bytes(b"not an image")
    with pytest.raises(EvaluationError, match=r"depth_00002\.tiff: no readable depth"):
        prepared(kubric, tmp_path / "work", "scn02900/v2")
    Image.fromarray(np.ones((6, 8), np.float32)).save(damaged)
    with pytest.raises(EvaluationError, match=r"depth_00002\.tiff: depth of \(8, 6\) pixels"):
        prepared(kubric, tmp_path / "work", "scn02900/v2")
    assert not list((tmp_path / "work" / "scenes").iterdir())


@pytest.fixture
def parallel_domain(tmp_path) -> Path:
    """A scene with a view forward, which lacks an image at the second time, and one aside."""
    data = tmp_path / "pardom"
    scene = data / "scene_000048"
    names, lenses, poses = ["velodyne"], [{"fx": 0, "fy": 0, "cx": 0, "cy": 0}], [_car(np.eye(4))]
    for name, camera in (("yaw-0", STILL), ("camera12", ASIDE)):
        view, lens = seen_by(camera), camera.intrinsics[0]
        for time in range(TIMES):
            stem = f"{10 * time + 5:018d}"
            if (name, time) != ("yaw-0", 1):
                _write_rgba(scene / "rgb" / name / f"{stem}.png", view.images[time])
            (scene / "depth" / name).mkdir(parents=True, exist_ok=True)
            np.savez_compressed(scene / "depth" / name / f"{stem}.npz", data=view.depth[time].astype(np.float32))
        names.append(name)
        lenses.append({"fx": lens[0, 0], "fy": lens[1, 1], "cx": lens[0, 2], "cy": lens[1, 2]})
        poses.append(_car(camera.camera_to_world[0]))
    write_json(scene / "calibration" / "0123abcd.json", {"names": names, "intrinsics": lenses, "extrinsics": poses})
    return data


def _car(pose: np.ndarray) -> dict:
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()
    return {
        "rotation": {"qw": w, "qx": x, "qy": y, "qz": z},
        "translation": dict(zip("xyz", pose[:3, 3].tolist(), strict=True)),
    }


def test_parallel_domain_4d_takes_the_times_at_which_nothing_is_missing(parallel_domain, tmp_path):
    layout, clips = load_clips(parallel_domain, tmp_path)
    assert layout.name == "parallel-domain-4d" and [one.name for one in clips] == ["scene_000048/camera12"]
    _, known, depth = prepared(parallel_domain, tmp_path / "work", "scene_000048/camera12")
    true = seen_by(ASIDE).images[[0, 2, 3]]
    assert known.truth is not None and np.array_equal(known.truth.array(), true)
    assert np.array_equal(known.source.array(), seen_by(STILL).images[[0, 2, 3]])
    assert_lands(known, true)
    assert np.allclose(depth, seen_by(STILL).depth[[0, 2, 3]], rtol=1e-4)


@pytest.fixture
def vista4d(tmp_path, write_movie) -> Path:
    """A video with two asked-for cameras; one zooms, and a corner is sky."""
    data = tmp_path / "eval_data"
    footage, view = data / "recon_and_seg" / "slice", seen_by(MOVING)
    write_movie(footage / "video.mp4", view.images)
    sky = np.zeros((HEIGHT, WIDTH), bool)
    sky[SKY] = True
    for folder in ("depths", "sky_mask", "dynamic_mask"):
        (footage / folder).mkdir(parents=True)
    for time, depth in enumerate(view.depth):
        write_exr_channels(footage / "depths" / f"{time:05d}.exr", {"Y": np.where(sky, 0.1, depth).astype(np.float16)})
        write_png(footage / "sky_mask" / f"{time:05d}.png", sky)
        write_png(footage / "dynamic_mask" / f"{time:05d}.png", _left_half())
    _save_cameras(footage / "cameras.npz", MOVING)
    _save_cameras(data / "cameras" / "slice" / "arc.npz", ASIDE)
    _save_cameras(data / "cameras" / "slice" / "zoom.npz", _zooming())
    with (data / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["name", "video", "camera", "seed", "prompt", "dynamic", "do_sky_seg", "source", "video_id"])
        for camera in ("arc", "zoom"):
            table.writerow([f"slice_{camera}", "slice", camera, 7, "A plane, with waves", "", "true", "davis", ""])
    return data


def _zooming() -> CameraPath:
    lenses = [intrinsics_matrix(focal, focal, WIDTH / 2, HEIGHT / 2) for focal in np.linspace(60, 90, TIMES)]
    return CameraPath(MOVING.world_to_camera, np.stack(lenses), WIDTH, HEIGHT)


def _save_cameras(path: Path, camera: CameraPath) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lenses = np.ascontiguousarray(camera.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]])
    np.savez(path, cam_c2w=camera.camera_to_world, intrinsics=lenses)


def test_vista4d_has_asked_for_cameras_depth_and_masks(vista4d, tmp_path):
    layout, clips = load_clips(vista4d, tmp_path)
    assert layout.name == "vista4d" and [one.name for one in clips] == ["slice_arc", "slice_zoom"]
    clip, known, depth = prepared(vista4d, tmp_path / "work", "slice_zoom")
    assert clip.truth is None and known.truth is None and clip.moving is not None
    # The corner's sky is behind the plane, and hardly any of it is in a picture that is zoomed.
    assert_lands(known, seen_by(_zooming()).images)
    assert_lands(prepared(vista4d, tmp_path / "work", "slice_arc")[1], seen_by(ASIDE).images)
    assert (depth[SKY] == 1000).all()
    assert np.allclose(depth[:, 8:], seen_by(MOVING).depth[:, 8:], rtol=1e-3)
    (vista4d / "recon_and_seg" / "slice" / "video.mp4").unlink()
    with pytest.raises(EvaluationError, match=r"metadata.csv names it: fetch it, or delete the row slice_arc"):
        load_clips(vista4d, tmp_path)


def test_scenes_keep_the_masks_of_what_moves(vista4d, tmp_path):
    clip = load_clips(vista4d, tmp_path)[1][0]
    scene = ClipInputs.prepare(clip, Protocol.load("with-truth"), tmp_path / "work", "cpu").scene
    assert scene is not None and scene.motion_mask() is not None
    assert (np.asarray(scene.motion_mask()) == _left_half()).all()


def test_a_public_data_set_is_evaluated_like_any_other(dycheck, tmp_path):
    for time in (0, 2, 3):
        _write_rgba(tmp_path / "ours" / "apple" / "1" / f"{time}.png", seen_by(ASIDE).images[time])
    protocol = tmp_path / "pixels.toml"
    protocol.write_text(
        'title = "Pixels"\nframes = 0\nsize = []\nseeds = [0]\nreference = "truth"\nmetrics = ["psnr", "seen_psnr"]\n'
    )
    command = ["evaluate", str(dycheck), f"--results=ours={tmp_path / 'ours'}", "-o", str(tmp_path / "report")]
    assert main([*command, "--protocol", str(protocol), "--device", "cpu"]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    figures = report["results"][0]["figures"]
    assert report["layout"] == "dycheck" and figures["psnr"] > 60 and figures["seen_psnr"] > 25
    assert {"psnr/seen", "psnr/unseen"} <= set(figures)


def test_a_folder_of_another_layout_than_named_has_no_clips(tmp_path):
    with pytest.raises(EvaluationError, match="has no clips of the layout kubric-4d"):
        load_clips(tmp_path, tmp_path, "kubric-4d")

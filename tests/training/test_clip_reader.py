"""Windows of clips: depth from files or estimated, the lens, and poses of a source camera, at the samples' size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ex4d.depth import DepthFiles
from ex4d.media import read_frames
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.source_paths import SourcePaths
from ex4d.training.clip_list import Clip
from ex4d.training.clip_reader import ClipReader
from ex4d.training.framing import Framing
from ex4d_core.cameras import CameraPath, invert_rigid
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.sources import DepthSettings
from tests.conftest import DATA

SAMPLE, MOVING = DATA / "sample", DATA / "moving_camera"


def no_estimator():
    raise AssertionError("this clip has depth files")


def stored_depth(path: Path) -> np.ndarray:
    with np.load(path) as arrays:
        scale = arrays.get("scale", 1.0)
        return arrays["depth"].astype(np.float32) * scale


def test_windows_of_depth_files_are_read_in_any_order():
    clip = Clip(str(SAMPLE / "footage.mp4"), "rain", depth=str(SAMPLE / "depth.npz"), camera="still", fov=50.0)
    reader = ClipReader(clip, (64, 48), no_estimator)
    first = next(read_frames(clip.footage))
    framing = Framing(first.shape[1], first.shape[0], (64, 48))
    stored = stored_depth(SAMPLE / "depth.npz")
    for start in (10, 20, 5):
        read = reader.read(start, 5)
        expected = np.stack([framing.depth(one) for one in stored[start : start + 5]])
        np.testing.assert_allclose(read.surface.depth.numpy(), expected, rtol=1e-3)
        assert np.array_equal(read.frames[0], framing.color(next(read_frames(clip.footage, start, 1))))
        assert read.camera_known and read.surface.camera_to_world is None
    # The middle of the footage is taken, so the lens is as long as for all of it.
    width = first.shape[1] * framing.scaled[0] / first.shape[1]
    focal = width / (2 * np.tan(np.radians(25)))
    assert read.surface.intrinsics[0, 0, 0].item() == pytest.approx(focal)
    assert read.surface.intrinsics[0, :2, 2].tolist() == pytest.approx([32, 24])


def test_estimated_depth_is_of_the_frames_as_samples_show_them(tmp_path):
    depth = np.linspace(1, 5, 5 * 48 * 64, dtype=np.float32).reshape(5, 48, 64)
    np.savez(tmp_path / "depth.npz", depth=depth)
    # Files are an estimator, too, and refuse depth of another size than the footage that they are given.
    clip = Clip(str(SAMPLE / "footage.mp4"), "rain")
    read = ClipReader(clip, (64, 48), lambda: DepthFiles(tmp_path / "depth.npz")).read(7, 5)
    np.testing.assert_array_equal(read.surface.depth.numpy(), depth)
    assert not read.camera_known and read.surface.camera_to_world is None and read.depth_source


def test_poses_of_a_camera_file_go_with_the_window():
    [depth], [camera] = MOVING.glob("depth*"), MOVING.glob("*camera*.npz")
    clip = Clip(str(next(MOVING.glob("*.mp4"))), "rain", depth=str(depth), camera=str(camera))
    read = ClipReader(clip, (64, 64), no_estimator).read(6, 5)
    path = CameraPath.load(camera)
    assert read.camera_known and read.surface.camera_to_world is not None
    moved = invert_rigid(path.world_to_camera[6:7]) @ np.eye(4)
    relative = np.linalg.inv(moved) @ invert_rigid(path.world_to_camera[6:11])
    poses = read.surface.camera_to_world.numpy()
    np.testing.assert_allclose(np.linalg.inv(poses[0]) @ poses, relative, atol=1e-6)


def test_lens_distortion_of_the_camera_file_is_undone_as_in_a_scene(tmp_path):
    document = json.loads((DATA / "cases" / "07_root_size" / "transforms.json").read_text())
    (tmp_path / "transforms.json").write_text(json.dumps({**document, "camera_model": "OPENCV", "k1": -0.1}))
    sources = SourcePaths(MOVING / "footage.mp4", MOVING / "depth.npz", tmp_path / "transforms.json")
    settings = ReconstructionSettings("moving", DepthSettings("array"))
    scene = reconstruct(sources, settings, tmp_path / "scene", device="cpu", mesh=False)
    clip = Clip(str(sources.footage), "rain", depth=str(sources.depth), camera=str(sources.camera))
    read = ClipReader(clip, (256, 256), no_estimator).read(6, 5)
    assert scene.manifest.distortion is not None
    np.testing.assert_array_equal(read.frames, scene.color()[6:11])
    np.testing.assert_array_equal(read.surface.depth.numpy(), scene.depth()[6:11])
    np.testing.assert_allclose(read.surface.intrinsics.numpy(), scene.source_camera().intrinsics[6:11])


@pytest.mark.parametrize("camera", ["", "still"])
def test_poses_in_depth_files_are_taken_unless_the_camera_stands_still(tmp_path, camera):
    path = CameraPath.load(MOVING / "camera.npz")
    moved = invert_rigid(path.world_to_camera)
    depth = stored_depth(MOVING / "depth.npz")
    np.savez(tmp_path / "clip_sgd_cvd_hr.npz", depths=depth, intrinsic=path.intrinsics[0], cam_c2w=moved)
    clip = Clip(str(MOVING / "footage.mp4"), "rain", depth=str(tmp_path / "clip_sgd_cvd_hr.npz"), camera=camera)
    read = ClipReader(clip, (64, 64), no_estimator).read(6, 5)
    assert read.camera_known
    if camera == "still":
        assert read.surface.camera_to_world is None
    else:
        poses = read.surface.camera_to_world.numpy()
        np.testing.assert_allclose(np.linalg.inv(poses[0]) @ poses, np.linalg.inv(moved[6]) @ moved[6:11], atol=1e-6)

"""Windows of clips: depth from files or estimated, the lens, and poses of a source camera, at the samples' size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ex4d.depth import DepthFiles
from ex4d.media import read_frames
from ex4d.training.clip_list import Clip
from ex4d.training.clip_reader import ClipReader
from ex4d.training.framing import Framing
from ex4d_core.cameras import CameraPath, invert_rigid
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

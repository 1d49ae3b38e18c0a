"""Footage whose camera moves, without files: the poses that an estimator finds become the scene's source camera."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.depth.depth_models import depth_model
from ex4d.depth.estimation import ClipModel, ModelEstimator, Step
from ex4d.depth.intrinsics import intrinsics_from
from ex4d.depth.source_camera import KnownCamera, resolved_camera, stands_still
from ex4d.media import FootageInfo, VideoWriter, probe
from ex4d.pipeline import footage_depth
from ex4d.pipeline.reconstruct import SourcePaths, reconstruct
from ex4d_core.cameras import CameraPath, invert_rigid
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.scene import Scene
from ex4d_core.sources import DepthSettings
from tests.depth.conftest import moving_image

SIZE = (96, 64)
FRAMES = 6


class Wall(ClipModel):
    """Stands in for a network: a wall three units away, in units of its own, before a camera that walks past it.

    Args:
        step: how far it walks to the right from frame to frame, in the network's unit.
    """

    model = depth_model("depth-anything-3-small")
    farthest_share = 1e-4

    def __init__(self, step: float = 0.2) -> None:
        self._step, self._frames = step, 0

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """As it is."""
        return width, height

    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """One over three, and over two in the left half."""
        self._frames = 0
        for frame in frames:
            self._frames += 1
            step("predict", 1)
            disparity = np.full(frame.shape[1:], 1 / 3, np.float32)
            disparity[:, : SIZE[0] // 2] = 1 / 2
            yield disparity

    def cameras(self, width: int, height: int) -> CameraPath | None:
        """Of the last frames."""
        poses = np.tile(np.eye(4), (self._frames, 1, 1))
        poses[:, 0, 3] = self._step * np.arange(self._frames)
        return CameraPath(invert_rigid(poses), intrinsics_from(width, height, fov_degrees=70), width, height)


@pytest.fixture
def write(tmp_path):
    def clip(images: list[np.ndarray]) -> FootageInfo:
        path = tmp_path / "clip.mp4"
        with VideoWriter(path, *SIZE, 24, crf=4) as movie:
            for image in images:
                movie.write(image)
        return probe(path)

    return clip


def shot(frames: int, negative: bool = False) -> list[np.ndarray]:
    images = [moving_image(index, *SIZE) for index in range(frames)]
    return [255 - image[::-1] for image in images] if negative else images


@pytest.fixture
def footage(write) -> FootageInfo:
    return write(shot(FRAMES))


@pytest.fixture
def estimate(monkeypatch, footage, tmp_path):
    """Reconstructs the clip with the stand-in, and returns the scene and the notes."""

    def run(model: ClipModel, camera: Path | None = None, **settings) -> tuple[Scene, list[str]]:
        monkeypatch.setattr(footage_depth, "create_estimator", lambda _: ModelEstimator(model, edges=None))
        notes: list[str] = []
        wanted = ReconstructionSettings("clip", DepthSettings("estimator", estimator=model.model.name), **settings)
        folder = tmp_path / "scene"
        scene = reconstruct(
            SourcePaths(footage.path, camera=camera), wanted, folder, device="cpu", note=notes.append, overwrite=True
        )
        return scene, notes

    return run


def test_poses_and_lens_of_the_estimator_become_the_source_camera(estimate):
    scene, notes = estimate(Wall())
    camera, depth = scene.source_camera(), scene.depth()
    assert camera.intrinsics[0, 0, 0] == pytest.approx(48 / np.tan(np.radians(35)))
    assert scene.manifest.provenance["source camera"] == "the depth (Depth Anything 3 (small))"
    assert "Depth Anything 3" in scene.manifest.provenance["focal length"]
    # Positions are in the depth's unit: the wall is 15 steps of the camera away.
    walked = camera.camera_to_world[:, 0, 3]
    assert walked == pytest.approx(walked[1] * np.arange(FRAMES), abs=1e-6)
    assert depth[0, 0, -1] == pytest.approx(15 * walked[1], rel=1e-4)
    assert depth[0, 0, 0] == pytest.approx(10 * walked[1], rel=1e-4)
    assert not any("standing still" in text for text in notes)


def test_still_ignores_the_poses_and_keeps_the_lens(estimate):
    scene, _ = estimate(Wall(), camera_motion="still")
    camera = scene.source_camera()
    assert np.array_equal(camera.world_to_camera, np.tile(np.eye(4), (FRAMES, 1, 1)))
    assert camera.intrinsics[0, 0, 0] == pytest.approx(48 / np.tan(np.radians(35)))
    assert "source camera" not in scene.manifest.provenance


def test_a_camera_file_goes_before_the_estimators_poses(estimate, tmp_path):
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 1, 3] = np.arange(FRAMES)
    CameraPath(poses, intrinsics_from(*SIZE, fov_degrees=50), *SIZE).save(tmp_path / "solved.npz")
    scene, _ = estimate(Wall(), tmp_path / "solved.npz")
    assert np.allclose(scene.source_camera().world_to_camera, poses)
    assert scene.manifest.provenance["source camera"] == "the camera file solved.npz"


def test_the_users_lens_goes_before_the_estimators(estimate):
    scene, _ = estimate(Wall(), fov_degrees=40.0)
    assert scene.source_camera().intrinsics[0, 0, 0] == pytest.approx(48 / np.tan(np.radians(20)))
    assert not np.allclose(scene.source_camera().world_to_camera[-1], np.eye(4))


def test_noise_of_poses_is_a_camera_that_stands_still(estimate):
    scene, notes = estimate(Wall(step=0.0001))
    assert np.array_equal(scene.source_camera().world_to_camera, np.tile(np.eye(4), (FRAMES, 1, 1)))
    assert any("standing still" in text for text in notes)


def test_every_shot_begins_in_a_world_of_its_own(write):
    """Frames of different shots are never seen together, and the camera starts again at the cut."""
    footage = write(shot(8) + shot(5, negative=True))
    clip = ModelEstimator(Wall(), edges=None).estimate(footage)
    assert any("frame 8" in text for text in clip.notes)
    walked = clip.camera.camera_to_world[:, 0, 3]
    assert walked[:8] == pytest.approx(walked[1] * np.arange(8)) and walked[8:] == pytest.approx(walked[:5])
    assert len(clip.first(9).camera) == 9


def test_a_shot_that_stands_still_beside_one_that_moves(write):
    class OnlyTheFirst(Wall):
        def cameras(self, width: int, height: int) -> CameraPath | None:
            self._step = 0.2 if self._frames == 8 else 0.0
            return super().cameras(width, height)

    footage = write(shot(8) + shot(5, negative=True))
    clip = ModelEstimator(OnlyTheFirst(), edges=None).estimate(footage)
    assert clip.camera is not None and clip.camera.camera_to_world[7, 0, 3] > 0
    assert np.array_equal(clip.camera.world_to_camera[8:], np.tile(np.eye(4), (5, 1, 1)))
    assert not any("standing still" in text for text in clip.notes)


def test_what_counts_as_motion():
    poses = np.tile(np.eye(4), (2, 1, 1))
    lens = intrinsics_from(*SIZE, fov_degrees=70)

    def camera(x: float = 0.0, z: float = 0.0, turn: float = 0.0) -> CameraPath:
        moved = poses.copy()
        moved[1, :3, 3] = x, 0, z
        moved[1, :3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
        return CameraPath(moved, lens, *SIZE)

    assert stands_still(camera(), 3.0) and stands_still(camera(x=0.01), 3.0)
    assert not stands_still(camera(x=0.1), 3.0) and stands_still(camera(x=0.1), 300.0)
    assert not stands_still(camera(z=0.3), 3.0) and not stands_still(camera(turn=0.02), 3.0)
    assert not stands_still(camera(z=-4.0), 3.0), "the camera went past what it saw"


def test_the_depths_camera_is_the_last_choice(footage):
    clip = ModelEstimator(Wall(), edges=None).estimate(footage)
    known = KnownCamera(clip.camera, "a solver")
    assert resolved_camera(known, clip, "still") is known and resolved_camera(known, clip) is known
    assert resolved_camera(None, clip).path is clip.camera
    assert resolved_camera(None, clip, "still") is None
    assert resolved_camera(None, replace(clip, camera=None)) is None

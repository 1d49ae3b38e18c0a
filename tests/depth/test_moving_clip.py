"""A clip that Blender filmed with a moving camera: with true depth and cameras, what stands still stays where it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.depth import DepthFiles, read_source_camera
from ex4d.depth.depth_models import depth_model
from ex4d.depth.estimation import ClipModel, ModelEstimator, Step
from ex4d.depth.joined_windows import Window, joined_windows
from ex4d.media import probe
from ex4d.pipeline.scene_building import build_scene
from ex4d_core.cameras import CameraPath, invert_rigid
from ex4d_core.mesh_cache import positions_file
from ex4d_core.scene import Scene

CLIP = Path(__file__).resolve().parents[1] / "data" / "moving_camera"
# Units from the camera; the fence, the bird house, hills and sky lie behind, and nothing there moves.
STILL_BEHIND = 4.5


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    footage = probe(CLIP / "footage.mp4")
    camera = read_source_camera(CLIP / "camera.npz", footage).path
    depth = DepthFiles(CLIP / "depth.npz").estimate(footage)
    folder = tmp_path_factory.mktemp("moving") / "scene"
    return build_scene(footage, depth, camera.intrinsics, folder, name="moving", source_camera=camera)


def vertices(scene: Scene, frame: int) -> np.ndarray:
    """(H W, 3) in the world, without the ring around the image."""
    rows, columns = scene.manifest.height + 2, scene.manifest.width + 2
    data = np.memmap(positions_file(scene), "<f4", "r", 32).reshape(-1, rows, columns, 3)
    return np.array(data[frame, 1:-1, 1:-1], np.float64).reshape(-1, 3)


class SeenInWindows(ClipModel):
    """Stands in for a network without errors: windows of eight frames, each in a unit and a world of its own.

    Args:
        depth: (T, H, W), the true one.
        camera: the true one.
    """

    model = depth_model("depth-anything-3-small")
    farthest_share = 1e-4

    def __init__(self, depth: np.ndarray, camera: CameraPath) -> None:
        self._depth, self._true = torch.from_numpy(depth), camera
        self._parts: list[Window] = []

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """As it is."""
        return width, height

    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """One over depth."""
        random, taken, self._parts = np.random.default_rng(1), 0, []

        def window(images: torch.Tensor, new: int) -> Window:
            nonlocal taken
            numbers = slice(taken + new - len(images), taken + new)
            taken += new
            step("predict", new)
            scale, world = random.uniform(0.2, 5), np.linalg.inv(self._true.world_to_camera[random.integers(20)])
            poses = world @ self._true.camera_to_world[numbers]
            poses[:, :3, 3] *= scale
            focal = self._true.intrinsics[numbers, 0, 0] / self._true.width
            return Window(scale * self._depth[numbers], torch.ones_like(self._depth[numbers]), poses, focal)

        for part in joined_windows(frames, window, 8, 3):
            self._parts.append(part)
            yield from (1 / part.depth).numpy()

    def cameras(self, width: int, height: int) -> CameraPath | None:
        """Of all windows."""
        poses = np.concatenate([part.camera_to_world for part in self._parts])
        relative = invert_rigid(poses) @ poses[:1]
        return CameraPath(relative, self._true.intrinsics, width, height)


def test_windows_of_an_estimator_become_one_aligned_scene(scene, tmp_path):
    """The same world as with the known camera, but for its unit, from depth and poses that the estimator gives."""
    footage, known = probe(CLIP / "footage.mp4"), scene.source_camera()
    model = SeenInWindows(np.array(scene.depth()), known)
    clip = ModelEstimator(model, edges=None).estimate(footage)
    found = build_scene(footage, clip, clip.intrinsics, tmp_path / "scene", name="found", source_camera=clip.camera)
    unit = np.median(found.depth()[0] / scene.depth()[0])
    assert not 0.9 < unit < 1.1, "or nothing would show that positions follow the unit"
    first = vertices(scene, 0)
    size = np.linalg.norm(first.max(axis=0) - first.min(axis=0))
    apart = np.abs(vertices(found, 19) / unit - vertices(scene, 19)).max() / size
    print(f"largest difference to the scene of the known camera: {apart:.2e} of its size")
    assert apart < 1e-5


def seen_again(points: np.ndarray, scene: Scene, camera: CameraPath) -> tuple[np.ndarray, np.ndarray]:
    """Points in frame 0's image: how far they lie from its surface (nearest of 3 x 3 pixels), and how far before."""
    depth, lens = np.array(scene.depth()[0]), camera.intrinsics[0]
    column, row = np.floor(points[:, :2].T * lens[[0, 1], [0, 1], None] / points[:, 2] + lens[:2, 2:]).astype(int)
    near = (row > 0) & (row < len(depth) - 1) & (column > 0) & (column < depth.shape[1] - 1)
    near[near] = depth[row[near], column[near]] > STILL_BEHIND
    row, column, z = row[near], column[near], points[near, 2]
    around = [depth[row + r, column + c] for r in (-1, 0, 1) for c in (-1, 0, 1)]
    return np.min([np.abs(z - one) for one in around], axis=0), np.maximum(np.min(around, axis=0) - z, 0)


def test_a_static_scene_becomes_one_aligned_scene(scene):
    camera = scene.source_camera()
    first = vertices(scene, 0)
    size = np.linalg.norm(first.max(axis=0) - first.min(axis=0))
    moved = np.linalg.norm(camera.camera_to_world[-1, :3, 3])
    assert moved > 1, "or there would be nothing to show"
    worst = 0.0
    for frame in range(1, scene.manifest.frames, 3):
        points = vertices(scene, frame)
        from_camera = (points - camera.camera_to_world[frame, :3, 3]) @ camera.world_to_camera[frame, 2, :3]
        drift, before = seen_again(points[from_camera > STILL_BEHIND], scene, camera)
        assert len(drift) > 10_000
        worst = max(worst, float(np.median(drift)) / size)
        # Some points lie behind what frame 0 saw, because it was in the way; before it can only be what has drifted.
        assert np.quantile(before, 0.99) < 0.01 * size
    print(f"the camera travels {moved:.2f} units through a scene of {size:.1f}; median drift {worst:.3%} of that")
    assert worst < 1e-3


def test_without_the_camera_it_drifts(scene):
    camera = scene.source_camera()
    still = vertices(scene, 19) @ camera.world_to_camera[19, :3, :3].T + camera.world_to_camera[19, :3, 3]
    drift, _ = seen_again(still[still[:, 2] > STILL_BEHIND], scene, camera)
    first = vertices(scene, 0)
    assert np.median(drift) > 0.01 * np.linalg.norm(first.max(axis=0) - first.min(axis=0))

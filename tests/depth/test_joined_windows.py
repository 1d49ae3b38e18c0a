"""Windows in worlds and units of their own become one clip, whatever the camera does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ex4d.depth.joined_windows import Window, joined_windows, nearest_rotation
from ex4d_core.cameras import invert_rigid

LENGTH, SHARED = 8, 3


def rotation(angle: float, axis: int = 1) -> np.ndarray:
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(4)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def walk(frames: int, step: float) -> np.ndarray:
    """(T, 4, 4) camera-to-world of a camera that walks in a curve; `step` 0 turns it on the spot."""
    poses = np.stack([rotation(0.03 * index) @ rotation(0.01 * index, 0) for index in range(frames)])
    poses[:, :3, 3] = step * np.array([[index, 0.2 * index**1.3, 0.5 * index] for index in range(frames)])
    return poses


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 13, 14, 40])
@pytest.mark.parametrize("step", [0.0, 0.1], ids=["turns on the spot", "walks"])
def test_windows_become_one_clip(frames, step):
    generator = np.random.default_rng(0)
    truth = 1 + torch.from_numpy(generator.random((frames, 6, 8)))
    poses, windows = walk(frames, step), []

    def predict(inputs: torch.Tensor, new: int) -> Window:
        numbers = inputs[:, 0, 0, 0].long().numpy()
        assert len(numbers) <= LENGTH and list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
        assert new == len(numbers) - (SHARED if windows else 0)
        windows.append(len(numbers))
        scale, world = float(generator.uniform(0.3, 3)), rotation(generator.uniform(-3, 3), 2)
        world[:3, 3] = generator.uniform(-5, 5, 3)
        own = invert_rigid(world[None])[0] @ poses[numbers]
        own[:, :3, 3] /= scale
        depth = truth[numbers] / scale
        confidence = torch.ones_like(depth)
        depth[:, 0, 0] *= 50  # a pixel that is wrong, and says so
        confidence[:, 0, 0] = 0
        return Window(depth, confidence, own, np.full(len(numbers), 0.8 + 0.001 * len(windows)))

    images = (torch.full((3, 2, 2), float(index)) for index in range(frames))
    parts = list(joined_windows(images, predict, LENGTH, SHARED))
    depth = torch.cat([part.depth for part in parts])
    assert len(depth) == frames and len(windows) == max(1, -(-(frames - SHARED) // (LENGTH - SHARED)))
    ratio = (depth / truth)[:, 1:]
    assert np.allclose(ratio, ratio[0, 0, 0], rtol=1e-6), "one unit"
    found = np.concatenate([part.camera_to_world for part in parts])
    relative, true = invert_rigid(found[:1]) @ found, invert_rigid(poses[:1]) @ poses
    relative[:, :3, 3] /= float(ratio[0, 0, 0])
    assert np.allclose(relative, true, atol=1e-6), "one world"
    assert np.concatenate([part.focal for part in parts]).shape == (frames,)


def test_a_difference_between_windows_is_blended_over_the_frames_that_they_share():
    """The second window sees everything drift away from where the first ends; no frame jumps."""
    windows = []

    def predict(inputs: torch.Tensor, new: int) -> Window:
        numbers = inputs[:, 0, 0, 0].numpy()
        drift = np.linspace(0, 0.3, len(numbers)) if not windows else np.zeros(len(numbers))
        windows.append(1)
        poses = np.tile(np.eye(4), (len(numbers), 1, 1))
        poses[:, 0, 3] = drift
        depth = torch.full((len(numbers), 4, 4), 2.0) + torch.from_numpy(drift)[:, None, None]
        return Window(depth, torch.ones_like(depth), poses, np.ones(len(numbers)))

    parts = list(joined_windows((torch.full((3, 2, 2), float(i)) for i in range(20)), predict, 12, 6))
    depth = torch.cat([part.depth for part in parts])[:, 0, 0].numpy()
    across = np.concatenate([part.camera_to_world for part in parts])[:, 0, 3]
    assert np.abs(np.diff(depth)).max() < 0.06 and np.abs(np.diff(across)).max() < 0.06


def test_the_nearest_rotation_never_mirrors():
    found = nearest_rotation(np.stack([np.diag([1.0, 1.0, -0.1]), 3 * np.eye(3)]))
    assert np.allclose(np.linalg.det(found), 1) and np.allclose(found[1], np.eye(3))

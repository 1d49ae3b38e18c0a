"""Joins windows of frames whose depth and cameras are known up to a similarity, to clips of any length.

Consecutive windows share frames. The factor between two windows is the median ratio of the depths of all that they
share, the turn and the shift the mean of those between the cameras of each shared frame: a camera that stands still
determines them, too, unlike its positions alone. Over the shared frames one window is blended into the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from ex4d_core.cameras import invert_rigid

_LEAST_CONFIDENT = 0.5  # this share of the pixels is left out where windows are compared


@dataclass(frozen=True)
class Window:
    """Frames that a network saw together.

    Attributes:
        depth: (T, h, w) along z, above 0, up to a factor.
        confidence: (T, h, w); only its order matters.
        camera_to_world: (T, 4, 4) float64, OpenCV axes, in a world of the window's own.
        focal: (T,) focal lengths over the images' width.
    """

    depth: torch.Tensor
    confidence: torch.Tensor
    camera_to_world: np.ndarray
    focal: np.ndarray

    def part(self, start: int, stop: int | None = None) -> Window:
        """Some of its frames."""
        frames = slice(start, stop)
        return Window(self.depth[frames], self.confidence[frames], self.camera_to_world[frames], self.focal[frames])

    def __len__(self) -> int:
        return len(self.depth)


Predict = Callable[[torch.Tensor, int], Window]


def joined_windows(frames: Iterable[torch.Tensor], predict: Predict, length: int, shared: int) -> Iterator[Window]:
    """Depth and cameras of all frames, in the world and the unit of the first window.

    Args:
        frames: (3, H, W) each, ready for the network.
        predict: a window of up to `length` frames (T, 3, H, W), and how many of them are new, to what is seen there.
        length: frames in a window, which are in memory at a time.
        shared: frames that two windows have in common, fewer than `length`.

    Yields:
        Windows that follow each other without a gap.
    """
    source = iter(frames)
    batch = list(islice(source, length))
    ending: Window | None = None
    while batch:
        window = predict(torch.stack(batch), len(batch) - (0 if ending is None else shared))
        if ending is not None:
            window = blended(ending, moved_onto(ending, window))
        following = list(islice(source, length - shared))
        if not following:
            yield window
            return
        yield window.part(0, len(batch) - shared)
        ending = window.part(len(batch) - shared)
        batch = batch[len(batch) - shared :] + following


def moved_onto(target: Window, window: Window) -> Window:
    """A window in the world and the unit of another one, whose frames are this one's first."""
    begins = window.part(0, len(target))
    scale = scale_between(target, begins)
    poses = window.camera_to_world.copy()
    poses[:, :3, 3] *= scale
    onto = target.camera_to_world @ invert_rigid(poses[: len(target)])
    turn = nearest_rotation(onto[:, :3, :3].sum(axis=0))
    # Where the turned cameras are beside the others: for each of them, so that far positions do not lever.
    shift = np.median(target.camera_to_world[:, :3, 3] - poses[: len(target), :3, 3] @ turn.T, axis=0)
    similarity = np.eye(4)
    similarity[:3, :3], similarity[:3, 3] = turn, shift
    return Window(window.depth * scale, window.confidence, similarity @ poses, window.focal)


def scale_between(target: Window, window: Window) -> float:
    """The factor that brings a window's depth onto that of the same frames in another, by the surer half of pixels."""
    sure = target.confidence * window.confidence
    few = torch.linspace(0, sure.numel() - 1, min(sure.numel(), 1_000_000), device=sure.device).long()
    sure = sure.flatten()[few]
    ratios = (target.depth.flatten()[few] / window.depth.flatten()[few]).log()
    return float(ratios[sure >= torch.quantile(sure, _LEAST_CONFIDENT)].median().exp())


def blended(first: Window, second: Window) -> Window:
    """The second window, over whose beginning the first one is faded out."""
    count = len(first)
    weight = np.arange(1, count + 1) / (count + 1)
    share = torch.from_numpy(weight).to(first.depth)[:, None, None]
    begins = second.part(0, count)
    # In disparity, in which a blend of two surfaces stays between them in the picture.
    depth = 1 / ((1 - share) / first.depth + share / begins.depth)
    poses = begins.camera_to_world.copy()
    mean = (1 - weight)[:, None, None] * first.camera_to_world + weight[:, None, None] * poses
    poses[:, :3, 3] = mean[:, :3, 3]
    poses[:, :3, :3] = nearest_rotation(mean[:, :3, :3])
    focal = (1 - weight) * first.focal + weight * begins.focal
    return Window(
        torch.cat([depth, second.depth[count:]]),
        second.confidence,
        np.concatenate([poses, second.camera_to_world[count:]]),
        np.concatenate([focal, second.focal[count:]]),
    )


def nearest_rotation(matrices: np.ndarray) -> np.ndarray:
    """The rotations (..., 3, 3) that are closest to matrices of that shape, such as sums of rotations."""
    left, _, right = np.linalg.svd(matrices)
    left[..., :, 2] *= np.sign(np.linalg.det(left @ right))[..., None]
    return left @ right

"""Depth Anything 3 as clip models: windows of frames with their cameras, and metres for single frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from ex4d.depth.depth_anything_3.checkpoint import load_network
from ex4d.depth.depth_anything_3.network import BASE, METRIC_LARGE, SMALL, MetricNetwork, MultiViewNetwork, NetworkSize
from ex4d.depth.depth_models import depth_model
from ex4d.depth.dinov2 import PATCH, normalised
from ex4d.depth.estimation import ClipModel, StageProgress, Step, batches, before_each
from ex4d.depth.intrinsics import DEFAULT_FOV_DEGREES, intrinsics_from
from ex4d.depth.joined_windows import Window, joined_windows
from ex4d.weights.catalogue import DEPTH_ANYTHING_3_BASE, DEPTH_ANYTHING_3_METRIC, DEPTH_ANYTHING_3_SMALL
from ex4d.weights.places import path_of
from ex4d_core.cameras import CameraPath, invert_rigid

_LONGER_SIDE = 504
_WINDOW, _SHARED = 32, 8  # frames
_BATCH = 4  # of single frames
_WEIGHTS = 1  # among the published files; the other is the configuration
# A lens whose focal length stays within this factor over the clip does not zoom: what differs is noise.
_ZOOM = 1.1

_NO_SKY = 0.3
_METRIC_FOCAL = 300.0  # pixels of the lens for which the metric network gives metres


class DepthAnything3(ClipModel):
    """Depth, poses and lenses of windows of 32 frames, of which eight are shared with the window before.

    Depth and positions are up to one factor; there is no unknown offset.

    Args:
        network: loaded, on one device, in float32; see `load`.
        precision: of the backbone's products.
        longer_side: pixels that footage is resized to.
    """

    size: ClassVar[NetworkSize]
    farthest_share = 1e-4  # seen from a camera that moves, far things must be as far as they are

    def __init__(
        self, network: MultiViewNetwork, precision: torch.dtype = torch.float32, longer_side: int = _LONGER_SIDE
    ) -> None:
        self._network, self._precision, self._longer_side = network, precision, longer_side
        self._poses: list[np.ndarray] = []
        self._focal: list[np.ndarray] = []

    @classmethod
    def load(
        cls,
        models: Path,
        device: torch.device,
        dtype: torch.dtype,
        size: NetworkSize | None = None,
        longer_side: int = _LONGER_SIDE,
    ) -> DepthAnything3:
        """With the published weights from a folder of models.

        Args:
            size: the network's; the published one by default.

        Raises:
            CheckpointError: the published file does not fit.
        """
        file = path_of(models, cls.model.part.files[_WEIGHTS])
        return cls(load_network(MultiViewNetwork, file, size or cls.size).to(device), dtype, longer_side)

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """As the base class; in whole patches of the network."""
        return _in_patches(width, height, self._longer_side)

    @torch.inference_mode()
    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """As the base class; a window of frames at a time, whose cameras are remembered."""
        self._poses.clear()
        self._focal.clear()
        device = next(self._network.parameters()).device

        def window(inputs: torch.Tensor, new: int) -> Window:
            progress = StageProgress(step, "predict", new, len(self._network.watched))
            with before_each(self._network.watched, progress.tick):
                views = self._network(inputs, self._precision)
            progress.finish()
            # Square pixels: where the two fields of view disagree, their mean is the better guess.
            tangents = (views.fields_of_view.double() / 2).tan().clamp_min(1e-6).cpu().numpy()
            across, down = tangents[:, 0], tangents[:, 1] * inputs.shape[3] / inputs.shape[2]
            poses = views.camera_to_world.double().cpu().numpy()
            return Window(views.depth, views.confidence, poses, 0.5 / np.sqrt(across * down))

        ready = (normalised(frame.to(device)) for frame in frames)
        for part in joined_windows(ready, window, _WINDOW, _SHARED):
            self._poses.append(part.camera_to_world)
            self._focal.append(part.focal)
            yield from (1 / part.depth).cpu().numpy()

    def cameras(self, width: int, height: int) -> CameraPath | None:
        """As the base class; a lens that hardly changes is taken as one that does not."""
        if not self._poses:
            return None
        focal, poses = np.concatenate(self._focal), np.concatenate(self._poses)
        low, high = np.quantile(focal, [0.05, 0.95])
        if high <= _ZOOM * low:
            focal = np.full(len(focal), np.median(focal))
        intrinsics = np.stack([intrinsics_from(width, height, focal_px=one * width) for one in focal])
        relative = invert_rigid(poses) @ poses[:1]
        relative[0] = np.eye(4)
        return CameraPath(relative, intrinsics, width, height)


class DepthAnything3Small(DepthAnything3):
    """The small network."""

    model = depth_model(DEPTH_ANYTHING_3_SMALL)
    size = SMALL


class DepthAnything3Base(DepthAnything3):
    """The base network."""

    model = depth_model(DEPTH_ANYTHING_3_BASE)
    size = BASE


class DepthAnything3Metric(ClipModel):
    """Metres, one frame at a time, for a lens that has to be known; where the sky is, the frame's farthest depth.

    Args:
        network: loaded, on one device, in float32; see `load`.
        precision: of the backbone's products.
        normalized_focal: the known focal length over the image's width; else an ordinary field of view is assumed.
        longer_side: pixels that footage is resized to.
    """

    model = depth_model(DEPTH_ANYTHING_3_METRIC)

    def __init__(
        self,
        network: MetricNetwork,
        precision: torch.dtype = torch.float32,
        normalized_focal: float | None = None,
        longer_side: int = _LONGER_SIDE,
    ) -> None:
        self._network, self._precision, self._longer_side = network, precision, longer_side
        self._focal = normalized_focal or 0.5 / np.tan(np.radians(DEFAULT_FOV_DEGREES) / 2)
        self._width = longer_side

    @classmethod
    def load(
        cls,
        models: Path,
        device: torch.device,
        dtype: torch.dtype,
        normalized_focal: float | None = None,
        size: NetworkSize = METRIC_LARGE,
        longer_side: int = _LONGER_SIDE,
    ) -> DepthAnything3Metric:
        """With the published weights from a folder of models.

        Raises:
            CheckpointError: the published file does not fit.
        """
        file = path_of(models, cls.model.part.files[_WEIGHTS])
        network = load_network(MetricNetwork, file, size).to(device)
        return cls(network, dtype, normalized_focal, longer_side)

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """As the base class; in whole patches of the network."""
        return _in_patches(width, height, self._longer_side)

    @torch.inference_mode()
    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """As the base class; a few frames at a time."""
        device = next(self._network.parameters()).device
        for batch in batches(frames, _BATCH):
            step("predict", 0)
            depth, sky = self._network(normalised(batch.to(device)), self._precision)
            step("predict", len(batch))
            self._width = batch.shape[3]
            for one, above in zip(depth, sky < _NO_SKY, strict=True):
                yield (1 / with_far_sky(one, above)).cpu().numpy()

    def depth(self, raw: np.ndarray, lowest: float, highest: float) -> np.ndarray:
        """Metres: the network's depth times the focal length in pixels of its own images, over 300."""
        return (self._focal * self._width / _METRIC_FOCAL / np.clip(raw, 1e-4, 1e4)).astype(np.float32)


def with_far_sky(depth: torch.Tensor, solid: torch.Tensor) -> torch.Tensor:
    """Depth (H, W) whose sky is as far as the farthest hundredth of what is solid (H, W); unchanged without both."""
    if min(int(solid.sum()), int((~solid).sum())) <= 10:  # pixels, as the published code has it
        return depth
    seen = depth[solid]
    farthest = torch.quantile(seen[:: max(1, len(seen) // 100_000)], 0.99)
    return torch.where(solid, depth, farthest)


def _in_patches(width: int, height: int, longer: int) -> tuple[int, int]:
    scale = longer / max(width, height)
    sides = (max(1, round(side * scale / PATCH)) * PATCH for side in (width, height))
    return next(sides), next(sides)

"""Video Depth Anything as one of the clip models: the published file to a network, a stream of frames to disparity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from ex4d.depth.depth_models import depth_model
from ex4d.depth.dinov2 import PATCH, normalised
from ex4d.depth.estimation import ClipModel, StageProgress, Step, size_in_patches
from ex4d.depth.video_depth_anything.checkpoint import load_network
from ex4d.depth.video_depth_anything.network import NetworkSize, VideoDepthNetwork
from ex4d.depth.video_depth_anything.window_stitching import stitched_windows
from ex4d.weights.catalogue import VIDEO_DEPTH_ANYTHING
from ex4d.weights.places import path_of

MODEL = depth_model(VIDEO_DEPTH_ANYTHING)
_SHORTER_SIDE = 518
_WIDEST = 16 / 9


class VideoDepthAnything(ClipModel):
    """Estimates disparity in windows of 32 frames that attend to each other.

    Args:
        network: loaded, on one device and in one precision; see `load`.
        shorter_side: pixels that footage is resized to.
    """

    model = MODEL

    def __init__(self, network: VideoDepthNetwork, shorter_side: int = _SHORTER_SIDE) -> None:
        self._network, self._shorter_side = network, shorter_side

    @classmethod
    def load(
        cls,
        models: Path,
        device: torch.device,
        dtype: torch.dtype,
        size: NetworkSize | None = None,
        shorter_side: int = _SHORTER_SIDE,
    ) -> VideoDepthAnything:
        """With the published weights from a folder of models.

        Args:
            size: the network's; published as the small one.

        Raises:
            CheckpointError: the published file does not fit.
        """
        file = path_of(models, MODEL.part.files[0])
        return cls(load_network(file, size or NetworkSize(), dtype).to(device), shorter_side)

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """As the base class; in whole patches of the network."""
        return size_in_patches(width, height, self._shorter_side, PATCH, _WIDEST)

    @torch.inference_mode()
    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """As the base class; a window of frames at a time."""
        like = next(self._network.parameters())
        taken = reported = 0

        def ready() -> Iterator[torch.Tensor]:
            nonlocal taken
            for frame in frames:
                taken += 1
                yield normalised(frame.to(like.device)).to(like.dtype)

        def window(inputs: torch.Tensor) -> torch.Tensor:
            nonlocal reported
            # What else is in the window was reported before, or pads the last one.
            progress = StageProgress(step, "predict", taken - reported, self._network.watched_layers)
            with self._network.between_layers(progress.tick):
                disparity = self._network(inputs).float()
            progress.finish()
            reported = taken
            return disparity

        for disparity in stitched_windows(ready(), window):
            yield disparity.cpu().numpy()

"""Models of `transformers` that see one image at a time: Depth Anything V2 and Depth Pro."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth.depth_models import depth_model
from ex4d.depth.dinov2 import normalised
from ex4d.depth.estimation import ClipModel, Step, batches, size_in_patches
from ex4d.weights.catalogue import DEPTH_ANYTHING, DEPTH_PRO
from ex4d.weights.places import repository_folder
from ex4d.weights.pretrained import load_pretrained

if TYPE_CHECKING:
    from transformers import DepthAnythingForDepthEstimation, DepthProForDepthEstimation

_SHORTER_SIDE = 518
_WIDEST = 2.4  # cinema's widest usual format
_BATCH = 4  # images; more gain nothing and cost memory


class DepthAnything(ClipModel):
    """Depth Anything V2 (arXiv 2406.09414), in the layout that `transformers` reads.

    Args:
        network: loaded, on one device and in one precision; see `load`.
        shorter_side: pixels that footage is resized to.
    """

    model = depth_model(DEPTH_ANYTHING)

    def __init__(self, network: DepthAnythingForDepthEstimation, shorter_side: int = _SHORTER_SIDE) -> None:
        self._network, self._shorter_side = network, shorter_side

    @classmethod
    def load(cls, models: Path, device: torch.device, dtype: torch.dtype) -> DepthAnything:
        """With the published weights from a folder of models.

        Raises:
            CheckpointError: the published files do not fit.
        """
        from transformers import DepthAnythingForDepthEstimation

        folder = repository_folder(models, cls.model.part.repositories[0])
        return cls(load_pretrained(DepthAnythingForDepthEstimation, folder, dtype).to(device))

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """As the base class; in whole patches of the network."""
        config: Any = self._network.config
        return size_in_patches(width, height, self._shorter_side, config.patch_size, _WIDEST)

    @torch.inference_mode()
    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """As the base class; a few frames at a time."""
        device, dtype = self._network.device, self._network.dtype
        for batch in batches(frames, _BATCH):
            step("predict", 0)
            disparity = self._network(pixel_values=normalised(batch.to(device)).to(dtype)).predicted_depth.float()
            step("predict", len(batch))
            yield from disparity.clamp_min(0).cpu().numpy()


class DepthPro(ClipModel):
    """Depth Pro (arXiv 2410.02073): metres, and a field of view for each image.

    The network gives inverse depth for a camera whose focal length is the image's width; the true focal length turns
    it into metres. One focal length is assumed for the whole clip: the known one, or the median of the images'.

    Args:
        network: loaded, on one device and in one precision; see `load`.
        normalized_focal: the known focal length over the image's width.
    """

    model = depth_model(DEPTH_PRO)

    def __init__(self, network: DepthProForDepthEstimation, normalized_focal: float | None = None) -> None:
        config: Any = network.config
        self._network, self._known_focal = network, normalized_focal
        self._side = round(config.patch_size / min(config.scaled_images_ratios))
        self._fields_of_view: list[float] = []

    @classmethod
    def load(
        cls, models: Path, device: torch.device, dtype: torch.dtype, normalized_focal: float | None = None
    ) -> DepthPro:
        """With the published weights from a folder of models.

        Raises:
            CheckpointError: the published files do not fit.
        """
        from transformers import DepthProForDepthEstimation

        folder = repository_folder(models, cls.model.part.repositories[0])
        return cls(load_pretrained(DepthProForDepthEstimation, folder, dtype).to(device), normalized_focal)

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """A size of the image's own shape; the network itself always sees a square."""
        scale = min(1.0, self._side / max(width, height))
        return max(16, round(width * scale)), max(16, round(height * scale))

    @torch.inference_mode()
    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """As the base class; one frame at a time, whose field of view is remembered."""
        self._fields_of_view.clear()
        for frame in frames:
            step("predict", 0)
            size = frame.shape[1:]
            square = F.interpolate(
                frame[None].to(self._network.device), (self._side, self._side), mode="bilinear", antialias=True
            )
            found = self._network(pixel_values=((square - 0.5) / 0.5).to(self._network.dtype))
            if found.field_of_view is not None:
                self._fields_of_view.append(float(found.field_of_view))
            inverse = F.interpolate(found.predicted_depth.float()[:, None], size, mode="bilinear", antialias=True)
            step("predict", 1)
            yield inverse[0, 0].clamp_min(0).cpu().numpy()

    def depth(self, raw: np.ndarray, lowest: float, highest: float) -> np.ndarray:
        """Metres: 1 / (inverse depth x width / focal length), between 0.1 mm and 10 km."""
        focal = self._normalized_focal() or 1.0
        return (1 / np.clip(raw / focal, 1e-4, 1e4)).astype(np.float32)

    def focal(self, width: int) -> float | None:
        """As the base class: the known focal length, or the clip's median."""
        normalized = self._normalized_focal()
        return None if normalized is None else normalized * width

    def _normalized_focal(self) -> float | None:
        if self._known_focal is not None:
            return self._known_focal
        usable = [angle for angle in self._fields_of_view if 1 < angle < 175]
        return 1 / (2 * math.tan(math.radians(float(np.median(usable))) / 2)) if usable else None

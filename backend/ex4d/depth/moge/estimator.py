"""MoGe-2 as a clip model: metres and the field of view, one frame at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch

from ex4d.depth.depth_models import depth_model
from ex4d.depth.dinov2 import PATCH, BackboneSize
from ex4d.depth.estimation import ClipModel, Step
from ex4d.depth.intrinsics import DEFAULT_FOV_DEGREES
from ex4d.depth.moge.checkpoint import load_network
from ex4d.depth.moge.lens import lens_and_offset
from ex4d.depth.moge.network import Geometry, GeometryNetwork, token_grid
from ex4d.weights.catalogue import MOGE_2, MOGE_2_SMALL
from ex4d.weights.places import path_of

_FINEST = 16  # rows of the network's finest level for each row of patches
_LENS_FRAMES = 8  # whose lenses decide the clip's; their points are held
_NEAREST, _FARTHEST = 1e-4, 1e4  # metres
_SURFACE = 0.5
_ORDINARY_FOCAL = 0.5 / math.tan(math.radians(DEFAULT_FOV_DEGREES) / 2)  # where no frame shows a lens


class MoGe(ClipModel):
    """Metres, and one lens for the whole clip: the known one, or the median of those of the first frames.

    Where there is no surface, such as in the sky, depth is 10 km.

    Args:
        network: loaded, on one device, in float32; see `load`.
        precision: of the network's products.
        normalized_focal: the known focal length over the image's width.
    """

    def __init__(
        self,
        network: GeometryNetwork,
        precision: torch.dtype = torch.float32,
        normalized_focal: float | None = None,
    ) -> None:
        self._network, self._precision, self._focal = network, precision, normalized_focal
        self._known = normalized_focal is not None

    @classmethod
    def load(
        cls,
        models: Path,
        device: torch.device,
        dtype: torch.dtype,
        normalized_focal: float | None = None,
        backbones: Mapping[str, BackboneSize] | None = None,
    ) -> MoGe:
        """With the published weights from a folder of models.

        Args:
            backbones: sizes of the transformers by name; the published ones by default.

        Raises:
            CheckpointError: the published file does not fit.
        """
        network = load_network(path_of(models, cls.model.part.files[0]), backbones)
        return cls(network.to(device), dtype, normalized_focal)

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """As the base class; the network resizes by itself, and gives no more than its finest level."""
        rows, columns = token_grid(self._network.tokens, (height, width))
        scale = min(1.0, _FINEST * min(rows / height, columns / width))
        return max(PATCH, round(width * scale)), max(PATCH, round(height * scale))

    @torch.inference_mode()
    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """As the base class; the first few frames wait for the lens that they agree on."""
        if not self._known:
            self._focal = None
        found = (self._geometry(frame, step) for frame in frames)
        first = list(islice(found, 1 if self._known else _LENS_FRAMES))
        if not self._known and first:
            lenses = (lens_and_offset(one.points[0], one.solid[0] > _SURFACE)[0] for one in first)
            usable = [one * _diagonal_over_width(first[0]) / 2 for one in lenses if one > 0]
            self._focal = float(np.median(usable)) if usable else None
        for one in chain(first, found):
            yield self._disparity(one)

    def _geometry(self, frame: torch.Tensor, step: Step) -> Geometry:
        step("predict", 0)
        image = frame[None].to(next(self._network.parameters()).device)
        with torch.autocast(image.device.type, self._precision, enabled=self._precision != torch.float32):
            found = self._network(image)
        step("predict", 1)
        return found

    def _disparity(self, found: Geometry) -> np.ndarray:
        """One over metres, 0 where there is no surface."""
        solid = found.solid[0] > _SURFACE
        focal = 2 * (self._focal or _ORDINARY_FOCAL) / _diagonal_over_width(found)
        depth = found.points[0, ..., 2] + lens_and_offset(found.points[0], solid, focal)[1]
        metres = depth if found.metres is None else depth * found.metres[0]
        seen = solid & (depth > 0)
        return torch.where(seen, 1 / metres.clamp(_NEAREST, _FARTHEST), 0).float().cpu().numpy()

    def depth(self, raw: np.ndarray, lowest: float, highest: float) -> np.ndarray:
        """Metres, between 0.1 mm and 10 km."""
        return (1 / np.clip(raw, 1 / _FARTHEST, 1 / _NEAREST)).astype(np.float32)

    def focal(self, width: int) -> float | None:
        """As the base class: the known focal length, or that of the first frames."""
        return None if self._focal is None else self._focal * width


class MoGe2(MoGe):
    """The large network with normals."""

    model = depth_model(MOGE_2)


class MoGe2Small(MoGe):
    """The small network with normals."""

    model = depth_model(MOGE_2_SMALL)


def _diagonal_over_width(found: Geometry) -> float:
    rows, columns = found.solid.shape[1:]
    return math.hypot(rows, columns) / columns

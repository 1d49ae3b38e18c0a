"""`DepthMapping`, how the disparity of relative depth became depth, and how it becomes other depth. Numpy only.

An estimator of relative depth knows disparity (1 / depth) up to a factor and an offset. The factor is the unit of the
scene. The offset bends space: under a wrong one flat things stay flat, since a plane is affine in disparity, but angles
between them change (see `docs/conventions.md`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from ex4d_core.schema import Range, Settings

MIN_OFFSET, MAX_OFFSET = -0.95, 10.0
NEAREST_DEPTH = 10_000 / 3900  # of a relative clip, in scene units: where EX-4D's conversion puts its nearest point
DEFAULT_FAR_LIMIT = 100.0  # parallax of anything farther can hardly be seen

Offset = Annotated[float, Range(MIN_OFFSET, MAX_OFFSET)]
FarLimit = Annotated[float, Range(1.01, 1e6)]


@dataclass(frozen=True)
class DepthMapping(Settings):
    """Relative disparity d, 1 at the clip's nearest point, to depth along z.

    depth = nearest / clip((d + offset) / (1 + offset), 1 / far_limit, 1): the nearest point keeps its depth under every
    offset.

    Attributes:
        nearest: depth of the nearest point, scene units.
        offset: added to disparity, as a share of the nearest point's; above 0 the background comes nearer, below 0 it
            recedes.
        far_limit: the farthest depth, as a multiple of the nearest.

    Raises:
        RequestError: a value out of range.
    """

    nearest: Annotated[float, Range(above=0)]
    offset: Offset = 0.0
    far_limit: FarLimit = DEFAULT_FAR_LIMIT

    def depth(self, disparity: np.ndarray) -> np.ndarray:
        """Depth along z, float32, of relative disparity of any shape."""
        shifted = disparity if self.offset == 0 else (disparity + self.offset) / (1 + self.offset)
        return (self.nearest / np.clip(shifted, 1 / self.far_limit, 1)).astype(np.float32)

    def disparity(self, depth: np.ndarray) -> np.ndarray:
        """Relative disparity of depth that `depth` gave; what the far limit cut off comes back as what it became."""
        return self.nearest / depth * (1 + self.offset) - self.offset

    def moved(self, shift: float) -> float:
        """The offset that adds a shift, in 1 / scene units, to all of this mapping's 1 / depth, up to a factor."""
        return self.offset + shift * self.nearest * (1 + self.offset)

    def changed(self, offset: float | None = None, far_limit: float | None = None) -> DepthMapping:
        """The same with another offset, far limit, or both; None keeps one.

        Raises:
            RequestError: a value out of range.
        """
        given = {"offset": offset, "far_limit": far_limit}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def __str__(self) -> str:
        return f"offset {self.offset:.4g}, far limit {self.far_limit:.4g}"


def mapping_of_range(nearest: float, farthest: float) -> DepthMapping:
    """The mapping of depth about whose making nothing is known: no offset, and a far limit that cuts nothing off."""
    return DepthMapping(nearest, far_limit=max(DEFAULT_FAR_LIMIT, 1.001 * farthest / nearest))

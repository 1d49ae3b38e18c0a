"""Pivots: the points that camera moves turn around, go towards and keep in their place in the picture.

A `Pivot` says how the point is found. `Pivot.in_view` finds it, in the axes of the source camera at the move's start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from ex4d_core.errors import RequestError
from ex4d_core.scene import PlacedFootage

MIDDLE, NEAREST = "middle", "nearest"
# "nearest" is this share of the distance behind the nearest surface, in any unit. EX-4D's rule, 0.15 scene units, is
# the same for a surface at distance 1.
BEHIND_NEAREST_SHARE = 0.15
# What stands out before the rest of a picture's middle: two groups of depths explain so much of the variance of their
# logarithms (of an even slope, as of ground, 0.75), and the nearer one is no speck.
EXPLAINED_BY_GROUPS = 0.8
LEAST_SHARE = 0.05

_EXPECTED = "expected middle, nearest, a distance, X,Y of a pixel of the footage, or X,Y,Z in the scene's world"


@dataclass(frozen=True)
class Pivot:
    """How the point that a move turns around is found.

    Attributes:
        place: "middle" (on the source camera's axis, as far as `middle_distance`),
            "nearest" (on that axis, 15 % behind the nearest surface), or numbers: a distance along that axis in scene
            units, x and y of a pixel of the footage (the surface that it shows), or a point in the scene's world.

    Raises:
        RequestError: no such place.
    """

    place: str | tuple[float, ...] = MIDDLE

    def __post_init__(self) -> None:
        if self.place in (MIDDLE, NEAREST):
            return
        if isinstance(self.place, str) or len(self.place) not in (1, 2, 3) or not all(map(_is_number, self.place)):
            raise RequestError(f"invalid pivot {self.place!r:.80}: {_EXPECTED}")
        object.__setattr__(self, "place", tuple(float(number) for number in self.place))
        if len(self.place) == 1 and self.place[0] <= 0:
            raise RequestError(f"the pivot's distance must be above 0, not {self.place[0]:g}")

    @classmethod
    def of(cls, place: object) -> Pivot:
        """A pivot from a pivot, a place as `Pivot` has it, a number, or text.

        Raises:
            RequestError: see the class.
        """
        if isinstance(place, Pivot):
            return place
        if isinstance(place, str):
            return cls.from_text(place)
        if _is_number(place):
            return cls((place,))
        if isinstance(place, np.ndarray):
            place = place.tolist()
        if not isinstance(place, Sequence) or isinstance(place, bytes):
            raise RequestError(f"invalid pivot {place!r:.80}: {_EXPECTED}")
        return cls(tuple(place))

    @classmethod
    def from_text(cls, text: str) -> Pivot:
        """A pivot from "middle", "nearest", or one to three numbers with commas.

        Raises:
            RequestError: see the class.
        """
        if text in (MIDDLE, NEAREST):
            return cls(text)
        try:
            return cls(tuple(float(part) for part in text.split(",")))
        except ValueError as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(f"invalid pivot {text!r:.80}: {_EXPECTED}") from error

    def __str__(self) -> str:
        return self.place if isinstance(self.place, str) else ",".join(f"{number:g}" for number in self.place)

    def plain(self) -> str | list[float]:
        """What `of` makes a pivot of again, for msgpack and JSON."""
        return self.place if isinstance(self.place, str) else list(self.place)

    def in_view(self, footage: PlacedFootage, frame: int) -> np.ndarray:
        """The point in the axes of the source camera (x right, y down, z forward) in a frame of the footage.

        Args:
            footage: an opened scene, or anything else with its manifest, depth and source camera.
            frame: at which the move starts.

        Returns:
            (3,) float64, scene units; its z is positive.

        Raises:
            RequestError: the footage has no such pixel, or the point is not in front of the camera.
        """
        if isinstance(self.place, str):
            return np.array([0.0, 0.0, _distance(self.place, footage, frame)])
        if len(self.place) == 1:
            return np.array([0.0, 0.0, self.place[0]])
        if len(self.place) == 2:
            return _behind_pixel(*self.place, footage, frame)
        pose = footage.source_camera().world_to_camera[frame]
        point = pose[:3, :3] @ np.array(self.place) + pose[:3, 3]
        if point[2] <= 0:
            raise RequestError(
                f"the pivot {self} is behind the camera that filmed frame {frame} of the footage (by "
                f"{-point[2]:.3g} scene units): choose a point in front of it"
            )
        return point


DEFAULT_PIVOT = Pivot()


def middle_distance(depth: np.ndarray) -> float:
    """Median depth of a picture's middle third, in both directions, or of the subject that stands out in it.

    A subject that fills less than half of the middle would be in front of a pivot at the median.

    Args:
        depth: (H, W), along z, scene units.

    Raises:
        RequestError: it is not positive and finite.
    """
    height, width = depth.shape
    third = depth[height // 3 : height - height // 3, width // 3 : width - width // 3]
    middle = float(np.median(third))
    if not math.isfinite(middle) or middle <= 0:
        raise RequestError(f"the depth in the middle of the picture must be positive, not {middle}; check the depth")
    nearer = _nearer_group(third[np.isfinite(third) & (third > 0)])
    return middle if nearer is None else float(np.median(nearer))


def _nearer_group(depth: np.ndarray) -> np.ndarray | None:
    """The nearer of two groups of depths (N,), split where they explain most of the variance (Otsu, 1979)."""
    ordered = np.sort(depth)
    logarithms = np.log(ordered, dtype=np.float64)
    variance, count = logarithms.var(), len(ordered)
    near = np.arange(1, count)  # how many are in the nearer group
    sums = logarithms.cumsum()
    apart = sums[:-1] / near - (sums[-1] - sums[:-1]) / (count - near)
    between = near * (count - near) / count**2 * apart**2
    if not len(near) or between.max() < EXPLAINED_BY_GROUPS * variance or variance == 0:
        return None
    split = int(near[between.argmax()])
    return ordered[:split] if split >= LEAST_SHARE * count else None


def _distance(place: str, footage: PlacedFootage, frame: int) -> float:
    if place == NEAREST:
        return (1 + BEHIND_NEAREST_SHARE) * float(footage.depth()[frame].min())
    if frame == 0 or footage.manifest.middle_distance is None:  # the moves of older scenes stay as they were
        return footage.manifest.pivot_distance
    return middle_distance(footage.depth()[frame])


def _behind_pixel(x: float, y: float, footage: PlacedFootage, frame: int) -> np.ndarray:
    width, height = footage.manifest.width, footage.manifest.height
    if not (0 <= x < width and 0 <= y < height):
        raise RequestError(
            f"the pivot's pixel {x:g},{y:g} is outside of the footage: x must be below {width}, y below {height}"
        )
    column, row = int(x), int(y)
    ray = np.linalg.solve(footage.source_camera().intrinsics[frame], [column + 0.5, row + 0.5, 1.0])
    return ray * float(footage.depth()[frame, row, column])


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

"""The lens distortion of footage, as Blender's motion tracking (libmv) describes it, and where its pixels belong.

Scenes are pinhole images: footage with distortion is undistorted when it is reconstructed, and takes can be distorted
again. The models are libmv's (`intern/libmv/libmv/simple_pipeline/distortion_models.h` of Blender), with normalised
coordinates from a focal length and a principal point, y up; and OpenCV's fisheye lens, which camera files have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from ex4d_core.errors import RequestError
from ex4d_core.schema import Range, Settings

DistortionModel = Literal["polynomial", "division", "nuke", "brown", "fisheye"]
# The names of each model's coefficients, in order.
COEFFICIENTS: dict[DistortionModel, tuple[str, ...]] = {
    "polynomial": ("k1", "k2", "k3"),
    "division": ("k1", "k2"),
    "nuke": ("k1", "k2"),
    "brown": ("k1", "k2", "k3", "k4", "p1", "p2"),
    "fisheye": ("k1", "k2", "k3", "k4"),
}
_Coefficient = Annotated[float, Range(-1000, 1000)]
# How far the undistorted image may be enlarged, or made smaller, until footage fills it.
_ZOOMS = (0.5, 2.0)
_NEWTON_STEPS, _ZOOM_STEPS = 30, 40
# Normalised units: of a difference in place of a derivative, and how exact an inverse must be, a thousandth of a pixel
# of the longest lenses.
_STEP, _SETTLED = 1e-6, 1e-8
# Points of the image's edge, on each side, that have to be within the footage; each pixel of smaller images.
_EDGE_POINTS = 1024


@dataclass(frozen=True)
class LensDistortion(Settings):
    """What a lens did to the image.

    Attributes:
        model: "polynomial", "division", "nuke", "brown" or "fisheye".
        coefficients: as `COEFFICIENTS` names them for the model.
        focal: in pixels, the unit of the coefficients' coordinates; the camera itself may zoom.
        principal_point: (x, y) in pixels from the top left corner.
        width, height: of the image that these are for.
        focal_y: in pixels, down the image, where pixels are not square; None for `focal`, which older sides understand.

    Raises:
        RequestError: a field of the wrong type or out of range, or coefficients that fold the image over itself.
    """

    model: DistortionModel
    coefficients: tuple[_Coefficient, ...]
    focal: Annotated[float, Range(above=0)]
    principal_point: tuple[float, float]
    width: Annotated[int, Range(1, 2**16)]
    height: Annotated[int, Range(1, 2**16)]
    focal_y: Annotated[float | None, Range(above=0)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        names = COEFFICIENTS[self.model]
        if len(self.coefficients) != len(names):
            raise RequestError(
                f"coefficients of lens distortion {self.model} must be {', '.join(names)}, not {self.coefficients}"
            )
        self.zoom()  # which finds out whether they can be undone

    def __str__(self) -> str:
        named = zip(COEFFICIENTS[self.model], self.coefficients, strict=True)
        return f"{self.model}, " + " ".join(f"{name}={value:.6g}" for name, value in named)

    def to_wire(self) -> dict[str, Any]:
        """Plain values for msgpack and JSON; without what is at its default and older sides refuse."""
        values = super().to_wire()
        if self.focal_y is None:
            del values["focal_y"]
        return values

    def resized(self, width: int, height: int) -> LensDistortion:
        """The same lens in an image of another size.

        Raises:
            RequestError: the image has another aspect ratio.
        """
        if (width, height) == (self.width, self.height):
            return self
        if abs(width * self.height - height * self.width) > 0.01 * width * self.height:
            raise RequestError(
                f"lens distortion is for images of {self.width}x{self.height}, whose aspect ratio {width}x{height} "
                "does not have; use the footage's shape"
            )
        scale = width / self.width
        x, y = (scale * value for value in self.principal_point)
        focal_y = None if self.focal_y is None else scale * self.focal_y
        return LensDistortion(self.model, self.coefficients, scale * self.focal, (x, y), width, height, focal_y)

    def zoom(self) -> float:
        """By how much the undistorted image is enlarged, so that footage just fills it, without empty corners.

        Raises:
            RequestError: no zoom within reason does.
        """
        smallest, largest = _ZOOMS
        if not self._fills(largest):
            raise RequestError(
                f"lens distortion ({self}) cannot be undone: it folds the image over itself; check the solve"
            )
        for _ in range(_ZOOM_STEPS):
            middle = (smallest * largest) ** 0.5
            smallest, largest = (smallest, middle) if self._fills(middle) else (middle, largest)
        return largest

    def zoomed(self, intrinsics: np.ndarray) -> np.ndarray:
        """Intrinsics (..., 3, 3) of the footage's ideal camera to those of its undistorted image."""
        zoom, (x, y) = self.zoom(), self.principal_point
        enlarge = np.array([[zoom, 0, (1 - zoom) * x], [0, zoom, (1 - zoom) * y], [0, 0, 1]])
        return enlarge @ intrinsics

    def footage_pixels(self) -> np.ndarray:
        """(H, W, 2) float32: where in the footage the centre of each pixel of the undistorted image is, x and y."""
        x, y = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        return self._from_undistorted(np.stack([x, y], axis=-1), self.zoom()).astype(np.float32)

    def take_pixels(self, zoom: float) -> np.ndarray:
        """(H, W, 2) float32, the inverse of `footage_pixels`: where the footage's pixels are in the undistorted image.

        Args:
            zoom: of the undistorted image, which that of another size has differently by rounding.

        Returns:
            NaN where the lens has no such pixel.
        """
        x, y = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        centre = np.array(self.principal_point)
        straight = self.undistorted(np.stack([x, y], axis=-1))
        return (centre + (straight - centre) * zoom).astype(np.float32)

    def distorted(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of the ideal pinhole camera to those of the footage; NaN where the lens has no image."""
        with np.errstate(all="ignore"):
            bent = self._bend((np.asarray(pixels, dtype=np.float64) - self.principal_point) / self._unit)
        return bent * self._unit + self.principal_point

    def undistorted(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of the footage to those of the ideal pinhole camera, the inverse of `distorted`: by Newton.

        NaN where no pixel of the ideal camera comes out there.
        """
        wanted = (np.asarray(pixels, dtype=np.float64) - self.principal_point) / self._unit
        with np.errstate(all="ignore"):
            points = wanted.copy()
            for _ in range(_NEWTON_STEPS):
                off = self._bend(points) - wanted
                across, down = ((self._bend(points + step) - wanted - off) / _STEP for step in np.eye(2) * _STEP)
                determinant = across[..., 0] * down[..., 1] - down[..., 0] * across[..., 1]
                points = points - np.stack(
                    [
                        (down[..., 1] * off[..., 0] - down[..., 0] * off[..., 1]) / determinant,
                        (across[..., 0] * off[..., 1] - across[..., 1] * off[..., 0]) / determinant,
                    ],
                    axis=-1,
                )
            settled = np.abs(self._bend(points) - wanted).max(axis=-1, keepdims=True) < _SETTLED
        return np.where(settled, points, np.nan) * self._unit + self.principal_point

    @property
    def _unit(self) -> np.ndarray:
        """(2,) pixels of one normalised unit, whose y points up."""
        return np.array([self.focal, -(self.focal_y or self.focal)])

    def _from_undistorted(self, pixels: np.ndarray, zoom: float) -> np.ndarray:
        centre = np.array(self.principal_point)
        return self.distorted(centre + (pixels - centre) / zoom)

    def _fills(self, zoom: float) -> bool:
        """Whether every pixel of the undistorted image's edge, enlarged so much, is in the footage."""
        columns, rows = (np.linspace(0.5, side - 0.5, min(side, _EDGE_POINTS)) for side in (self.width, self.height))
        edge = [np.stack(np.broadcast_arrays(columns, y), axis=-1) for y in (0.5, self.height - 0.5)]
        edge += [np.stack(np.broadcast_arrays(x, rows), axis=-1) for x in (0.5, self.width - 0.5)]
        at = self._from_undistorted(np.concatenate(edge), zoom)
        return bool(((at >= 0) & (at <= (self.width, self.height))).all())  # NaN is not

    def _bend(self, points: np.ndarray) -> np.ndarray:
        """Normalised ideal points (..., 2), y up, to distorted ones; NaN where the image would fold over itself."""
        x, y = points[..., 0], points[..., 1]
        squared = x * x + y * y
        if self.model == "nuke":
            return points * self._nuke_factor(np.sqrt(squared))[..., None]
        if self.model == "fisheye":
            return points * self._fisheye_factor(np.sqrt(squared))[..., None]
        if self.model == "division":
            k1, k2 = self.coefficients
            factor = np.where(_rises(squared, k1, k2), 1 / (1 + k1 * squared + k2 * squared**2), np.nan)
            return points * factor[..., None]
        radial = self.coefficients[:3] if self.model == "polynomial" else self.coefficients[:4]
        factor = 1 + sum(k * squared**power for power, k in enumerate(radial, start=1))
        slope = 1 + sum((2 * power + 1) * k * squared**power for power, k in enumerate(radial, start=1))
        bent = points * np.where(slope > 0, factor, np.nan)[..., None]
        if self.model == "brown":
            p1, p2 = self.coefficients[4:]
            bent[..., 0] += p1 * (squared + 2 * x * x) + 2 * p2 * x * y
            bent[..., 1] += p2 * (squared + 2 * y * y) + 2 * p1 * x * y
        return bent

    def _fisheye_factor(self, radius: np.ndarray) -> np.ndarray:
        """Distorted by ideal radius: a polynomial of the angle from the axis (OpenCV's `cv::fisheye`)."""
        angle = np.arctan(radius)
        powers = [(2 * power, k) for power, k in enumerate(self.coefficients, start=1)]
        bent = angle * (1 + sum(k * angle**power for power, k in powers))
        rises = 1 + sum((power + 1) * k * angle**power for power, k in powers) > 0
        return np.where(radius > 1e-12, np.where(rises, bent / np.maximum(radius, 1e-12), np.nan), 1.0)

    def _nuke_factor(self, radius: np.ndarray) -> np.ndarray:
        """Distorted by ideal radius, where ideal = distorted / (1 + k1 r^2 + k2 r^4) of the distorted one: by Newton.

        Nuke measures radii in halves of the image's longer side.
        """
        k1, k2 = self.coefficients
        ideal = radius * self.focal / (max(self.width, self.height) / 2)
        r = ideal.copy()
        for _ in range(_NEWTON_STEPS):
            slope = ideal * (2 * k1 * r + 4 * k2 * r**3) - 1
            r = r - (ideal * (1 + k1 * r**2 + k2 * r**4) - r) / slope
        settled = np.abs(ideal * (1 + k1 * r**2 + k2 * r**4) - r) <= 1e-9 * np.maximum(ideal, 1)
        found = settled & (r >= 0) & _rises(r**2, k1, k2)
        return np.where(ideal > 1e-12, np.where(found, r / np.maximum(ideal, 1e-12), np.nan), 1.0)


def _rises(squared: np.ndarray, k1: float, k2: float) -> np.ndarray:
    """Where r / (1 + k1 r^2 + k2 r^4) rises with r, from its square."""
    return (1 + k1 * squared + k2 * squared**2 > 0) & (1 - k1 * squared - 3 * k2 * squared**2 > 0)

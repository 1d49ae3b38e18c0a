"""Stereo: two eyes for one camera, and how their images are laid out.

Both eyes look the same way, and their images are shifted sideways so that both show a point at the convergence distance
in the same place ("off-axis"). Eyes that turn towards each other ("toe-in") would also shift points vertically, more
towards the corners, which the viewer's own eyes cannot follow; there is no such mode.

With x to the right, a point at depth z lies at interaxial * f * (1 / z - 1 / convergence) pixels further to the right
for the left eye than for the right one: in front of the screen where that is positive, behind it where negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from ex4d_core.cameras import MAX_SIDE, CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.schema import Length, Option, Range, Settings
from ex4d_core.source_frames import MAX_FRAMES

StereoLayout = Literal["off", "side-by-side", "files", "vr180"]
PivotEye = Literal["center", "left", "right"]

# Names of the left and the right eye, behind those of files and folders.
EYES = ("L", "R")
# Where the eyes are along the camera's x axis, as shares of the interaxial distance.
_PLACES: dict[str, tuple[float, float]] = {"center": (-0.5, 0.5), "left": (0.0, 1.0), "right": (-1.0, 0.0)}
# Adults' eyes are 63 mm apart on average, and most stereo cameras 65.
EYE_DISTANCE = 0.065
MAX_EYE_SIDE = MAX_SIDE // 2


def _numbers(text: str) -> list[float]:
    """0.065 or 0.05,0.055,0.06."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(f"invalid distance {text!r}: expected a number, or a,b,c for each frame") from error


@dataclass(frozen=True)
class StereoSettings(Settings):
    """Whether a shot is taken with two eyes, and how.

    Attributes:
        layout: "off" for one image; "side-by-side" for both in one of twice the width, the left eye's at the left;
            "files" for renders or takes of their own, whose names end in `EYES`; "vr180" for side by side with each eye
            as an equirectangular image of 180 by 180 degrees.
        interaxial: distance between the eyes in scene units, once or for each frame.
        convergence: distance along z, in scene units, of what both eyes show in the same place, once or for each
            frame; None for infinity (parallel eyes), as always in "vr180", where the viewer's eyes converge.
        pivot_eye: where the camera is: in the "center" between the eyes, or one of them.
        vr180_side: pixels of an eye's square image in "vr180"; None for the camera's own resolution in its middle.

    Raises:
        RequestError: a field of the wrong type or out of range, or one that the layout does not have.
    """

    layout: Annotated[
        StereoLayout,
        Option(
            "two eyes: side-by-side in one picture of twice the width; files of their own, whose names end in _L and "
            "_R; or vr180, side by side as equirectangular halves",
            flag="--stereo",
        ),
    ] = "off"
    interaxial: Annotated[
        tuple[Annotated[float, Range(above=0)], ...],
        Length(MAX_FRAMES, minimum=1),
        Option(
            "distance between the eyes in scene units (metres where the scene's scale is known)",
            metavar="D",
            read=_numbers,
        ),
    ] = (EYE_DISTANCE,)
    convergence: Annotated[
        tuple[Annotated[float, Range(above=0)], ...] | None,
        Length(MAX_FRAMES, minimum=1),
        Option(
            "distance in scene units at which things are on the screen; nearer ones are in front of it (default: "
            "infinity, so that everything is)",
            metavar="D",
            read=_numbers,
        ),
    ] = None
    pivot_eye: Annotated[PivotEye, Option("where the camera is: in the center between the eyes, or one of them")] = (
        "center"
    )
    vr180_side: Annotated[
        int | None,
        Range(64, MAX_EYE_SIDE),
        Option("pixels of an eye's side in vr180 (default: the camera's own resolution in its middle)", metavar="N"),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.interaxial or self.convergence == ():
            raise RequestError("interaxial and convergence need at least one distance, or no convergence at all")
        if self.layout == "vr180" and self.convergence is not None:
            raise RequestError("vr180 has no convergence, since the viewer's own eyes converge: leave it out")
        for name in ("interaxial", "convergence", "pivot_eye", "vr180_side"):
            other_layout = self.layout == "off" or (name == "vr180_side" and self.layout != "vr180")
            if other_layout and getattr(self, name) != getattr(StereoSettings, name):
                needed = "vr180" if name == "vr180_side" else "side-by-side, files or vr180"
                raise RequestError(f"{name} has no effect with stereo {self.layout}: leave it out, or choose {needed}")

    @property
    def is_on(self) -> bool:
        """Whether there are two eyes."""
        return self.layout != "off"

    @property
    def kind_of_movie(self) -> Literal["side-by-side", "vr180"] | None:
        """How the frames of one movie have both eyes; None where they do not."""
        return None if self.layout in ("off", "files") else self.layout

    def part(self, start: int, stop: int) -> StereoSettings:
        """The settings of a shot's frames from ``start`` up to, but not including, ``stop``."""
        interaxial, convergence = (
            values if values is None or len(values) == 1 else values[start:stop]
            for values in (self.interaxial, self.convergence)
        )
        return replace(self, interaxial=interaxial, convergence=convergence)

    def require_frames(self, frames: int) -> None:
        """Check that distances are given once, or for each frame of a shot.

        Raises:
            RequestError: they are not.
        """
        for name in ("interaxial", "convergence"):
            values = getattr(self, name)
            if values is not None and len(values) not in (1, frames):
                raise RequestError(f"{name} has {len(values)} values: expected 1, or {frames}, one for each frame")

    def eye_size(self, camera: CameraPath) -> tuple[int, int]:
        """(width, height) of each eye's image, pixels."""
        if self.layout != "vr180":
            return camera.size
        # An equirectangular image has as many pixels for an angle everywhere along its middle row.
        of_lens = min(round(np.pi * camera.intrinsics[0, 0, 0] / 2) * 2, MAX_EYE_SIDE)
        side = self.vr180_side or max(of_lens, 64)
        return side, side

    def frame_size(self, camera: CameraPath) -> tuple[int, int]:
        """(width, height) of the images, of both eyes where they are side by side."""
        width, height = self.eye_size(camera)
        return (2 * width if self.kind_of_movie else width), height

    def pixel_aspect(self, camera: CameraPath) -> float:
        """Width of the images' pixels by their height."""
        return 1.0 if self.layout == "vr180" else camera.pixel_aspect

    def eyes(self, camera: CameraPath) -> tuple[CameraPath, CameraPath]:
        """The left and the right eye of a camera, in the image of which each sees; see the module.

        Raises:
            RequestError: as `require_frames`.
        """
        self.require_frames(len(camera))
        left, right = (self._eye(camera, place) for place in _PLACES[self.pivot_eye])
        return left, right

    def _eye(self, camera: CameraPath, place: float) -> CameraPath:
        moved = place * np.asarray(self.interaxial)
        world_to_camera, intrinsics = camera.world_to_camera.copy(), camera.intrinsics.copy()
        world_to_camera[:, 0, 3] -= moved
        if self.convergence is not None:
            intrinsics[:, 0, 2] += intrinsics[:, 0, 0] * moved / np.asarray(self.convergence)
        return replace(camera, world_to_camera=world_to_camera, intrinsics=intrinsics)

    def disparity(self, camera: CameraPath, depth: float, frame: int = 0) -> float:
        """How far left and right eye show a point at a depth apart, in pixels; positive in front of the screen."""
        screen = 0.0 if self.convergence is None else 1 / self.convergence[frame % len(self.convergence)]
        interaxial = self.interaxial[frame % len(self.interaxial)]
        return float(interaxial * camera.intrinsics[frame, 0, 0] * (1 / depth - screen))


def disparity_note(stereo: StereoSettings, camera: CameraPath, depth_range: Sequence[float], depth_scale: str) -> str:
    """What a person should know of a stereo shot's disparity in frame 0, and of an unknown scale; "" if nothing.

    Args:
        depth_range: nearest and farthest depth of the scene, as its source camera sees them.
        depth_scale: of the scene's manifest, "metric" or "relative".
    """
    nearest, farthest = depth_range
    near, far = (100 * stereo.disparity(camera, depth) / camera.width for depth in (nearest, farthest))
    text = ""
    if stereo.layout != "vr180":
        text = (
            f"disparity is {near:+.1f} % of the width for the nearest thing that was filmed ({nearest:.3g} units away) "
            f"and {far:+.1f} % for the farthest ({farthest:.3g})"
        )
    if depth_scale != "metric":
        unknown = (
            f"the scene's scale is relative, so an interaxial distance of {stereo.interaxial[0]:.3g} is not in metres: "
            f"{nearest / stereo.interaxial[0]:.0f} of it reach to the nearest thing; 30 to 50 are comfortable"
        )
        text = f"{text}; {unknown}" if text else unknown
    return text

"""The intrinsics of footage: a matrix from a field of view or focal length, and the order of precedence of sources.

The command line and the service take the first of these that is known:

1. the user;
2. the file of the camera that filmed it;
3. in the reference convention only, EX-4D's 500 pixels for all footage;
4. the depth files, which may hold the intrinsics that they were rendered or measured with, and estimators that find
   poses out, which fit their own lens;
5. the footage's own metadata;
6. the estimator's guess;
7. otherwise `DEFAULT_FOV_DEGREES` is assumed and reported.

`known_intrinsics` goes through what is known before there is any depth, since a mist pass and some estimators need it;
`resolved_intrinsics` answers once there is depth.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ex4d.depth.depth_clip import DepthClip
from ex4d.media import FootageInfo, lens_of
from ex4d_core.cameras import CameraError

# Between a normal lens on full frame (Blender's own default, 50 mm on 36 mm: 40 degrees) and a phone's main camera
# (about 65), and close to the 54 degrees that EX-4D's fixed focal length of 500 pixels means for 512 pixels of width.
DEFAULT_FOV_DEGREES = 50.0

# EX-4D's focal length for all footage, used by the "reference" convention.
_REFERENCE_FOCAL_PX = 500.0

ASSUMED_FOV_NOTE = (
    f"an assumed field of view of {DEFAULT_FOV_DEGREES:g} degrees, since no file states it; "
    "give the real one if depth looks stretched or flat"
)

_FULL_FRAME_MM = 36.0


# No lens has less or more, in degrees across a picture; values beyond are of another unit or another image.
_NARROWEST, _WIDEST = 0.5, 175.0
# Pixels that are more stretched than any anamorphic lens or format has them.
_MOST_STRETCHED = 3.0


class KnownIntrinsics(NamedTuple):
    """Intrinsics, and where they come from.

    Attributes:
        matrix: (3, 3) or (T, 3, 3) in pixels.
        origin: for people.
    """

    matrix: np.ndarray
    origin: str

    def normalized_focal(self, width: int) -> float:
        """The focal length of the first frame over the image's width, as estimators need it."""
        return float(self.matrix.reshape(-1, 3, 3)[0, 0, 0]) / width


def intrinsics_from(
    width: int,
    height: int,
    *,
    fov_degrees: float | None = None,
    focal_mm: float | None = None,
    sensor_mm: float = _FULL_FRAME_MM,
    focal_px: float | None = None,
    pixel_aspect: float = 1.0,
) -> np.ndarray:
    """Intrinsic matrix with the principal point in the image's centre, (W/2, H/2).

    With neither a field of view nor a focal length, `DEFAULT_FOV_DEGREES` is assumed: the caller then shows
    `ASSUMED_FOV_NOTE`.

    Args:
        fov_degrees: horizontal field of view.
        focal_mm: focal length in millimetres, on a sensor of `sensor_mm`.
        sensor_mm: side of the sensor along the longer side of the picture as it is shown, as Blender's sensor fit
            *Auto* has it (36 mm: full-frame equivalent).
        focal_px: focal length in pixels, along the width.
        pixel_aspect: width of a pixel by its height.

    Returns:
        (3, 3) float64, in pixels, with pixel centres at +0.5. f = W / (2 tan(fov / 2)) = max(W, H) focal_mm / sensor_mm
        for square pixels.

    Raises:
        CameraError: more than one of field of view and focal lengths, or a value out of range.
    """
    given = {"fov_degrees": fov_degrees, "focal_mm": focal_mm, "focal_px": focal_px}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        text = ", ".join(f"{name}={value:g}" for name, value in given.items())
        raise CameraError(f"the focal length is given more than once ({text}). Give one of them.")
    for name, value in {
        **given,
        "sensor_mm": sensor_mm,
        "width": width,
        "height": height,
        "pixel_aspect": pixel_aspect,
    }.items():
        if not (math.isfinite(value) and value > 0):
            raise CameraError(f"invalid {name}={value:g}: expected a finite value above 0")
    if focal_mm is not None:
        focal = max(width, height / pixel_aspect) * focal_mm / sensor_mm
    elif focal_px is not None:
        focal = float(focal_px)
    else:
        fov = DEFAULT_FOV_DEGREES if fov_degrees is None else fov_degrees
        if fov >= 180:
            raise CameraError(f"invalid fov_degrees={fov:g}: expected a horizontal angle below 180 degrees")
        focal = width / (2 * math.tan(math.radians(fov) / 2))
    return np.array([[focal, 0, width / 2], [0, focal * pixel_aspect, height / 2], [0, 0, 1]], dtype=np.float64)


def require_plausible(intrinsics: np.ndarray, width: int, height: int, source: str) -> None:
    """Check that intrinsics can be those of an image, and not of one of another size or in another unit.

    Args:
        intrinsics: (T, 3, 3) or (3, 3), in pixels of an image of `width` x `height`.
        source: where they come from, for the message.

    Raises:
        CameraError: with the numbers, if the field of view, the principal point or the pixels' shape is none.
    """
    matrices = np.asarray(intrinsics, dtype=np.float64).reshape(-1, 3, 3)
    focal, centre = matrices[:, [0, 1], [0, 1]], matrices[:, :2, 2]
    with np.errstate(all="ignore"):
        fov = 2 * np.degrees(np.arctan2(np.array([width, height]) / 2, focal))
        stretched = np.abs(np.log(focal[:, 1] / focal[:, 0])) > math.log(_MOST_STRETCHED)
    checks = (
        (((fov < _NARROWEST) | (fov > _WIDEST)).any(axis=1), "a field of view that no lens has"),
        (~((centre > 0) & (centre < (width, height))).all(axis=1), "a principal point outside of the image"),
        (stretched, "pixels that are more than three times as long as wide"),
    )
    for wrong, what in checks:
        if wrong.any():
            frame = int(np.argmax(wrong))
            (x, y), (fx, fy), (across, down) = centre[frame], focal[frame], fov[frame]
            raise CameraError(
                f"{source}: intrinsics of frame {frame} have {what}: focal lengths {fx:.4g} and {fy:.4g} pixels "
                f"({across:.1f} x {down:.1f} degrees), principal point ({x:.4g}, {y:.4g}), for an image of "
                f"{width}x{height}. Give them in pixels of the footage's size, or state their own size with them."
            )


def known_intrinsics(
    footage: FootageInfo,
    *,
    stated: np.ndarray | None = None,
    camera_file: KnownIntrinsics | None = None,
    convention: str = "centered",
    depth_has_lens: bool = False,
) -> KnownIntrinsics | None:
    """What is known of the intrinsics before any depth is read; the module's docstring has the order.

    Args:
        footage: of `ex4d.media.probe`.
        stated: (3, 3), as the user states them.
        camera_file: what the file of the camera that filmed it holds.
        convention: "centered" or "reference".
        depth_has_lens: whether depth comes from files that may hold intrinsics, which a mist pass does not, or from an
            estimator that finds poses out, which fit its lens. The footage's metadata then has to wait for
            `resolved_intrinsics`.

    Returns:
        None where nothing is known yet.
    """
    if stated is not None:
        return KnownIntrinsics(stated, "the user")
    if camera_file is not None:
        return camera_file
    if convention == "reference":
        matrix = intrinsics_from(footage.width, footage.height, focal_px=_REFERENCE_FOCAL_PX)
        return KnownIntrinsics(matrix, "EX-4D's default for all footage")
    return None if depth_has_lens else _metadata_intrinsics(footage)


def resolved_intrinsics(known: KnownIntrinsics | None, footage: FootageInfo, depth: DepthClip) -> KnownIntrinsics:
    """The intrinsics, now that there is depth: what is known, or what depth or footage say, or an assumption.

    Returns:
        Its origin is `ASSUMED_FOV_NOTE` where nothing is known: show it.

    Raises:
        CameraError: the depth's intrinsics cannot be those of the footage.
    """
    if known is None and depth.intrinsics is not None:
        require_plausible(depth.intrinsics, footage.width, footage.height, depth.source)
        return KnownIntrinsics(depth.intrinsics, f"the depth ({depth.source})")
    matrix = intrinsics_from(footage.width, footage.height, pixel_aspect=footage.pixel_aspect)
    assumed = KnownIntrinsics(matrix, ASSUMED_FOV_NOTE)
    return known or _metadata_intrinsics(footage) or assumed


def _metadata_intrinsics(footage: FootageInfo) -> KnownIntrinsics | None:
    """What the footage's own metadata states, or None."""
    lens = lens_of(footage)
    if lens is None:
        return None
    matrix = intrinsics_from(footage.width, footage.height, focal_px=lens.focal_px, pixel_aspect=footage.pixel_aspect)
    return KnownIntrinsics(matrix, f"the footage ({lens.source})")

"""The lens of some footage: from an artist's words to an intrinsic matrix, and whom to trust where several know it.

In the order of trust, for the command line and the service alike:

1. the artist;
2. the file of the camera that filmed it;
3. EX-4D, which takes the same 500 pixels for all footage: in the reference convention only;
4. files of depth, which may hold the intrinsics that it was rendered or measured with;
5. the footage's own metadata;
6. the estimator that made the depth, which guesses;
7. nobody: `DEFAULT_FOV_DEGREES` is assumed, and said so.

`known_lens` goes through what is known before there is any depth, since a mist pass and some estimators want the lens;
`lens_for` answers once there is depth.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from ex4d.depth.depth_clip import DepthClip
from ex4d.media import FootageInfo, lens_of
from ex4d_core.errors import Ex4dError

# Between a normal lens on full frame (Blender's own default, 50 mm on 36 mm: 40 degrees) and a phone's main camera
# (about 65), and close to the 54 degrees that EX-4D's fixed focal length of 500 pixels means for 512 pixels of width.
DEFAULT_FOV_DEGREES = 50.0

# What EX-4D takes whatever the footage, as the "reference" convention does.
_REFERENCE_FOCAL_PX = 500.0

ASSUMED_FOV_NOTE = (
    f"The lens is unknown; a horizontal field of view of {DEFAULT_FOV_DEGREES:g} degrees is assumed. "
    "Give the real one if depth looks stretched or flat."
)

_FULL_FRAME_MM = 36.0


# Intrinsics (3, 3) or (T, 3, 3) in pixels, and who said so, for people.
KnownLens: TypeAlias = tuple[np.ndarray, str]


class IntrinsicsError(Ex4dError, ValueError):
    """A lens is described twice or by an impossible value."""


def intrinsics_from(
    width: int,
    height: int,
    *,
    fov_degrees: float | None = None,
    focal_mm: float | None = None,
    sensor_mm: float = _FULL_FRAME_MM,
    focal_px: float | None = None,
) -> np.ndarray:
    """Intrinsic matrix with square pixels and the principal point in the picture's centre, (W/2, H/2).

    Args:
        width, height: pixels.
        fov_degrees: horizontal field of view.
        focal_mm: focal length, with `sensor_mm`, the width of the sensor (36 mm: full-frame equivalent).
        focal_px: focal length in pixels.

        With none of the three, `DEFAULT_FOV_DEGREES` is taken: a caller that passes none shows `ASSUMED_FOV_NOTE`.

    Returns:
        (3, 3) float64, in pixels, with pixel centres at +0.5. f = W / (2 tan(fov / 2)) = W focal_mm / sensor_mm.

    Raises:
        IntrinsicsError: more than one of the three, or a value out of range.
    """
    given = {"fov_degrees": fov_degrees, "focal_mm": focal_mm, "focal_px": focal_px}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        text = ", ".join(f"{name}={value:g}" for name, value in given.items())
        raise IntrinsicsError(f"the lens is described more than once ({text}). Give one of them.")
    if width < 1 or height < 1:
        raise IntrinsicsError(f"a picture of {width}x{height} has no camera. Give its size in pixels.")
    for name, value in {**given, "sensor_mm": sensor_mm}.items():
        if not (math.isfinite(value) and value > 0):
            raise IntrinsicsError(f"{name}={value:g} is not possible. Give a finite value above 0.")
    if focal_mm is not None:
        focal = width * focal_mm / sensor_mm
    elif focal_px is not None:
        focal = float(focal_px)
    else:
        fov = DEFAULT_FOV_DEGREES if fov_degrees is None else fov_degrees
        if fov >= 180:
            raise IntrinsicsError(f"fov_degrees={fov:g} is not possible. Give a horizontal angle below 180 degrees.")
        focal = width / (2 * math.tan(math.radians(fov) / 2))
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=np.float64)


def known_lens(
    footage: FootageInfo,
    *,
    stated: np.ndarray | None = None,
    filmed_by: KnownLens | None = None,
    convention: str = "centered",
    depth_files: bool = False,
) -> KnownLens | None:
    """What is known of the lens before any depth is read; the module's head has the order of trust.

    Args:
        stated: (3, 3) intrinsics in the artist's own words.
        filmed_by: the lens that the file of the camera holds.
        convention: "centered" or "reference".
        depth_files: whether depth comes from files that may know the lens, which a mist pass does not. The footage's
            metadata then has to wait for `lens_for`.

    Returns:
        Intrinsics and their origin, or None where nobody has said anything yet.
    """
    if stated is not None:
        return stated, "the user"
    if filmed_by is not None:
        return filmed_by
    if convention == "reference":
        matrix = intrinsics_from(footage.width, footage.height, focal_px=_REFERENCE_FOCAL_PX)
        return matrix, "EX-4D, whose focal length is the same for all footage"
    return None if depth_files else _lens_from_footage(footage)


def lens_for(known: KnownLens | None, footage: FootageInfo, depth: DepthClip) -> KnownLens:
    """The lens, now that there is depth: what was `known_lens`, or what depth or footage say, or an assumption.

    Returns:
        Intrinsics and their origin, which is `ASSUMED_FOV_NOTE` where nothing is known: show it.
    """
    if known is None and depth.intrinsics is not None:
        return depth.intrinsics, f"the depth ({depth.source})"
    known = known or _lens_from_footage(footage)
    return known or (intrinsics_from(footage.width, footage.height), ASSUMED_FOV_NOTE)


def focal_in_widths(known: KnownLens | None, footage: FootageInfo) -> float | None:
    """The focal length of the first frame over the picture's width, as estimators want it."""
    return None if known is None else float(known[0].reshape(-1, 3, 3)[0, 0, 0]) / footage.width


def _lens_from_footage(footage: FootageInfo) -> KnownLens | None:
    """The lens that the footage's own metadata states, or None."""
    lens = lens_of(footage)
    if lens is None:
        return None
    return intrinsics_from(footage.width, footage.height, focal_px=lens.focal_px), f"the footage ({lens.source})"

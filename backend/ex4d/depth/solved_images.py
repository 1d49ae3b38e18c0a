"""Cameras that another program solved, image by image, as the one path of the camera that filmed some footage.

The readers of files (`ex4d.depth.colmap`, `ex4d.depth.transforms_json`) make a `SolvedImage` of what each file says;
`camera_of_images` brings them to the footage's size and frames, and to one lens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ex4d.depth.intrinsics import require_plausible
from ex4d.depth.pose_gaps import frames_of_images, image_names, interpolated_poses
from ex4d.media import FootageInfo
from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.lens_distortion import DistortionModel, LensDistortion
from ex4d_core.reconstruction import CameraGaps

# Beyond this, straight lines are visibly bent; below, undistorting would only cost sharpness.
_SMALLEST_DISTORTION = 1e-3
_SAME_SHAPE = 0.01  # share by which aspect ratios may differ: sizes are rounded


class Bend(NamedTuple):
    """A lens distortion in coordinates normalised by the image's own focal lengths, as `LensDistortion` has them."""

    model: DistortionModel
    coefficients: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class SolvedImage:
    """What a file says of one image.

    Attributes:
        name: of the image's file; "" where the file has none.
        pose: (4, 4) world to camera.
        intrinsics: (3, 3) in pixels of an image of `width` x `height`.
        width, height: that the intrinsics are for.
        bend: None for a pinhole.
    """

    name: str
    pose: np.ndarray
    intrinsics: np.ndarray
    width: float
    height: float
    bend: Bend | None = None


class SourceCamera(NamedTuple):
    """The camera that filmed some footage, as a file has it.

    Attributes:
        path: one camera for each frame, at the footage's size; that of the image without distortion, if there is any.
        distortion: of the footage's lens.
        notes: sentences for the artist about what was assumed.
    """

    path: CameraPath
    distortion: LensDistortion | None = None
    notes: tuple[str, ...] = ()


def brown(radial: Sequence[float], tangential: Sequence[float] = (0.0, 0.0)) -> Bend | None:
    """OpenCV's radial and tangential coefficients; None where they are too small to see.

    Args:
        radial: k1, k2 and so on, at most four.
        tangential: p1 and p2 of an image whose y points down; the tracker's y points up, which swaps them.
    """
    values = (*radial, *(0.0,) * (4 - len(radial)), tangential[1], -tangential[0])
    return Bend("brown", values) if max(map(abs, values)) > _SMALLEST_DISTORTION else None


def fisheye(coefficients: Sequence[float] = ()) -> Bend:
    """OpenCV's fisheye lens: the angle from the axis, bent by k1 to k4, is the radius."""
    return Bend("fisheye", (*coefficients, *(0.0,) * (4 - len(coefficients))))


def camera_of_images(
    path: Path, images: Sequence[SolvedImage], footage: FootageInfo, gaps: CameraGaps = "refuse"
) -> SourceCamera:
    """One camera for each frame of the footage.

    Args:
        path: of the file, for messages.
        images: in the order of their frames.
        footage: of `ex4d.media.probe`.
        gaps: what happens to frames without a camera.

    Raises:
        CameraError: not as many cameras as frames, of another shape, implausible, or of several lenses.
    """
    lenses = np.stack([fitted_intrinsics(path, image, footage) for image in images])
    require_plausible(lenses, footage.width, footage.height, str(path))
    poses, frames = np.stack([image.pose for image in images]), frames_of(path, images, footage, gaps)
    notes: tuple[str, ...] = ()
    if len(frames) < footage.frames:
        missing = sorted(set(range(footage.frames)) - set(frames))
        named = image_names(missing, [image.name for image in images], frames, footage)
        notes = (f"the camera is interpolated in {named}, which {path.name} has no camera for",)
        poses = interpolated_poses(dict(zip(frames, poses, strict=True)), footage.frames)
        flat = lenses.reshape(-1, 9)
        columns = [np.interp(range(footage.frames), frames, flat[:, column]) for column in range(9)]
        lenses = np.stack(columns, axis=-1).reshape(-1, 3, 3)
    camera = CameraPath(poses, lenses, footage.width, footage.height)
    return SourceCamera(camera, _distortion(path, images, lenses[0], footage), notes)


def fitted_intrinsics(path: Path, image: SolvedImage, footage: FootageInfo) -> np.ndarray:
    """(3, 3) of an image, in pixels of the footage.

    Raises:
        CameraError: the image has another shape than the footage, as it is stored and as it is shown.
    """
    stored = footage.width / footage.height
    shape = image.width / image.height
    if all(abs(shape / wanted - 1) > _SAME_SHAPE for wanted in (stored, stored * footage.pixel_aspect)):
        raise CameraError(
            f"{path}: is for images of {image.width:g}x{image.height:g}, whose aspect ratio the footage "
            f"({footage.width}x{footage.height}) does not have. Use the same framing."
        )
    return np.diag([footage.width / image.width, footage.height / image.height, 1.0]) @ image.intrinsics


def frames_of(path: Path, images: Sequence[SolvedImage], footage: FootageInfo, gaps: CameraGaps) -> list[int]:
    """The frame that each image is.

    Raises:
        CameraError: there are more images than frames, or fewer and `gaps` does not allow that.
    """
    if len(images) == footage.frames:
        return list(range(footage.frames))
    counts = f"{path}: has {len(images)} cameras, but the footage {footage.path.name} has {footage.frames} frames"
    names = [image.name for image in images]
    frames = frames_of_images(names, footage) if len(images) < footage.frames else None
    if frames is None:
        raise CameraError(f"{counts}. Solve every frame, or trim the footage.")
    missing = sorted(set(range(footage.frames)) - set(frames))
    named = image_names(missing, names, frames, footage)
    if gaps != "interpolate":
        raise CameraError(
            f"{counts}. There is none for {named}. Register them, trim the footage, or interpolate with "
            "--camera-gaps interpolate."
        )
    if frames[0] > 0 or frames[-1] < footage.frames - 1:
        raise CameraError(
            f"{counts}. There is none for {named}, and nothing to interpolate from at the footage's ends. Register "
            "them, or trim the footage."
        )
    return frames


def _distortion(
    path: Path, images: Sequence[SolvedImage], lens: np.ndarray, footage: FootageInfo
) -> LensDistortion | None:
    """The distortion that all images share, for the footage's size."""
    bends = {image.bend for image in images}
    if len(bends) > 1:
        raise CameraError(
            f"{path}: images have {len(bends)} lens distortions. Solve the clip with one camera (COLMAP: "
            "--ImageReader.single_camera 1)."
        )
    bend = bends.pop()
    if bend is None:
        return None
    focal, focal_y = float(lens[0, 0]), float(lens[1, 1])
    if bend.model == "nuke":  # which measures radii in halves of the longer side
        bend = _with_radii_in(bend, max(footage.width, footage.height) / 2 / focal)
    try:
        return LensDistortion(
            *bend,
            focal,
            (float(lens[0, 2]), float(lens[1, 2])),
            footage.width,
            footage.height,
            None if math.isclose(focal, focal_y) else focal_y,
        )
    except RequestError as error:
        raise CameraError(f"{path}: {error}") from error


def _with_radii_in(bend: Bend, unit: float) -> Bend:
    """The same distortion with radii in another unit, as a multiple of the focal length."""
    return bend._replace(coefficients=tuple(k * unit ** (2 * n) for n, k in enumerate(bend.coefficients, start=1)))

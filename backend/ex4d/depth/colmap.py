"""Reads the cameras of COLMAP's sparse models, as text or binary.

Layout: COLMAP's documentation, "Output Format". A model is cameras (intrinsics) and images (poses); points are not
needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.media.sequences import natural_key
from ex4d_core.cameras import CameraError, CameraPath, camera_from_quaternion, intrinsics_matrix


@dataclass(frozen=True)
class _Model:
    """A camera model: its number in binary files, how many parameters it has, and how many are focal lengths."""

    number: int
    parameters: int
    focals: int


# Those that are a pinhole where their distortion is zero: focal lengths, centre, distortion.
_MODELS = {
    "SIMPLE_PINHOLE": _Model(0, 3, 1),
    "PINHOLE": _Model(1, 4, 2),
    "SIMPLE_RADIAL": _Model(2, 4, 1),
    "RADIAL": _Model(3, 5, 1),
    "OPENCV": _Model(4, 8, 2),
}
# The others, for messages.
_OTHER_MODELS = {
    5: "OPENCV_FISHEYE",
    6: "FULL_OPENCV",
    7: "FOV",
    8: "SIMPLE_RADIAL_FISHEYE",
    9: "RADIAL_FISHEYE",
    10: "THIN_PRISM_FISHEYE",
}
_LARGEST_DISTORTION = 1e-3  # beyond this, straight lines are visibly bent, and a pinhole camera is wrong
_LONGEST_NAME = 4096  # bytes of an image's name; more means a damaged file

MODEL_FILES = ("cameras.txt", "images.txt", "cameras.bin", "images.bin")


@dataclass(frozen=True)
class _Camera:
    number: int
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class _Image:
    """`pose` is a quaternion (w first) and a translation, world to camera in OpenCV's axes."""

    name: str
    pose: tuple[float, ...]
    camera: int


def read_colmap(path: Path) -> CameraPath:
    """The cameras of a model in the order of its images' names, in its own world.

    Args:
        path: the folder, in which binary files come before text, or one of the four files, which says which of them.

    Raises:
        CameraError: unreadable, distorted, or images of different sizes.
    """
    folder = path if path.is_dir() else path.parent
    binary = path.suffix == ".bin" or (path.is_dir() and (folder / "images.bin").exists())
    ending = "bin" if binary else "txt"
    camera_file, image_file = folder / f"cameras.{ending}", folder / f"images.{ending}"
    cameras = {camera.number: camera for camera in (_binary_cameras if binary else _text_cameras)(camera_file)}
    images = sorted((_binary_images if binary else _text_images)(image_file), key=lambda image: natural_key(image.name))
    if not images:
        raise CameraError(f"{image_file}: holds no images. Export the model again.")
    matrices = {number: _intrinsics(camera_file, camera) for number, camera in cameras.items()}
    try:
        intrinsics = np.stack([matrices[image.camera] for image in images])
    except KeyError as error:
        raise CameraError(f"{image_file}: names camera {error}, which is missing in {camera_file.name}.") from error
    sizes = {(cameras[image.camera].width, cameras[image.camera].height) for image in images}
    if len(sizes) > 1:
        raise CameraError(f"{image_file}: images have different sizes {sorted(sizes)}. Solve the frames of one clip.")
    poses = np.stack([camera_from_quaternion(image.pose[:4], image.pose[4:]) for image in images])
    return CameraPath(poses, intrinsics, *sizes.pop())


def refuse_distortion(path: Path, number: int, coefficients: list[float]) -> None:
    """Checks that the camera has no lens distortion.

    Raises:
        CameraError: it does.
    """
    if any(abs(value) > _LARGEST_DISTORTION for value in coefficients):
        raise CameraError(
            f"{path}: camera {number} has lens distortion {coefficients}. Undistort the footage and its depth first "
            "(colmap image_undistorter)."
        )


def _intrinsics(path: Path, camera: _Camera) -> np.ndarray:
    """(3, 3) in pixels; COLMAP measures the principal point with pixel centres at +0.5, as we do."""
    if camera.model not in _MODELS:
        raise CameraError(
            f"{path}: unsupported camera model '{camera.model}'. Undistort to one of {', '.join(_MODELS)}."
        )
    values, focals = camera.parameters, _MODELS[camera.model].focals
    refuse_distortion(path, camera.number, list(values[focals + 2 :]))
    return intrinsics_matrix(values[0], values[focals - 1], values[focals], values[focals + 1])


def _text_cameras(path: Path) -> Iterator[_Camera]:
    for line in _lines(path):
        words = line.split()
        try:
            values = tuple(map(float, words[4:]))
            camera = _Camera(int(words[0]), words[1], int(words[2]), int(words[3]), values)
            if camera.model in _MODELS and len(values) != _MODELS[camera.model].parameters:
                raise ValueError
        except (ValueError, IndexError) as error:
            raise CameraError(f"{path}: cannot read the line {line[:80]!r}.") from error
        yield camera


def _text_images(path: Path) -> Iterator[_Image]:
    # Two lines for each image: its pose, and its points, of which there may be none.
    for line in _lines(path, keep_empty=True)[::2]:
        words = line.split(maxsplit=9)
        try:
            yield _Image(words[9], tuple(map(float, words[1:8])), int(words[8]))
        except (ValueError, IndexError) as error:
            raise CameraError(f"{path}: cannot read the line {line[:80]!r}.") from error


def _lines(path: Path, keep_empty: bool = False) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CameraError(f"{path}: cannot be read ({error}).") from error
    return [line for line in lines if not line.startswith("#") and (keep_empty or line.strip())]


class _Bytes:
    """A binary file, read from front to back; everything in it is little-endian."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise CameraError(f"{path}: cannot be read ({error}).") from error

    def take(self, layout: str) -> tuple[Any, ...]:
        start, self._at = self._at, self._at + struct.calcsize("<" + layout)
        if self._at > len(self._data):
            raise CameraError(f"{self._path}: ends in the middle of a record. Export or copy it again.")
        return struct.unpack_from("<" + layout, self._data, start)

    def take_name(self) -> str:
        end = self._data.find(b"\0", self._at, self._at + _LONGEST_NAME)
        if end < 0:
            raise CameraError(f"{self._path}: an image has no end to its name. Export or copy it again.")
        name, self._at = self._data[self._at : end], end + 1
        return name.decode("utf-8", "replace")

    def skip(self, size: int) -> None:
        self._at += size
        self.take("")

    def finish(self) -> None:
        if self._at != len(self._data):
            raise CameraError(
                f"{self._path}: {len(self._data) - self._at} bytes follow the last record; this is another file, or "
                "of another version of COLMAP. Convert it: colmap model_converter --output_type TXT"
            )


def _binary_cameras(path: Path) -> Iterator[_Camera]:
    names = {model.number: name for name, model in _MODELS.items()}
    file = _Bytes(path)
    for _ in range(*file.take("Q")):
        number, model, width, height = file.take("iiQQ")
        if model not in names:
            # How many parameters follow is unknown, so reading ends here, with the model's name.
            yield _Camera(number, _OTHER_MODELS.get(model, str(model)), width, height, ())
            return
        values = file.take(f"{_MODELS[names[model]].parameters}d")
        yield _Camera(number, names[model], width, height, values)
    file.finish()


def _binary_images(path: Path) -> Iterator[_Image]:
    file = _Bytes(path)
    for _ in range(*file.take("Q")):
        _, *pose, camera = file.take("i7di")
        name = file.take_name()
        (points,) = file.take("Q")
        file.skip(24 * points)  # for each point, two doubles in the image and its number
        yield _Image(name, tuple(pose), camera)
    file.finish()

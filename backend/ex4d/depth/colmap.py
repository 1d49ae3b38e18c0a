"""Reads the cameras and the points of COLMAP's sparse models, as text or binary.

Layout: COLMAP's documentation, "Output Format". A model is cameras (intrinsics), images (poses, and where they see
points) and points3D, without which the cameras can be read all the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.depth.pose_gaps import frame_order
from ex4d.depth.solved_images import Bend, SolvedImage, brown, fisheye
from ex4d.depth.sparse_points import SparsePoints
from ex4d_core.cameras import CameraError, camera_from_quaternion, intrinsics_matrix


@dataclass(frozen=True)
class _Model:
    """A camera model: its number in binary files, its parameters, how many are focal lengths, and what they bend.

    Parameters are focal lengths, centre, distortion. `bend` gets those of distortion.
    """

    number: int
    parameters: int
    focals: int
    bend: Callable[[Sequence[float]], Bend | None] = lambda values: None


_MODELS = {
    "SIMPLE_PINHOLE": _Model(0, 3, 1),
    "PINHOLE": _Model(1, 4, 2),
    "SIMPLE_RADIAL": _Model(2, 4, 1, brown),
    "RADIAL": _Model(3, 5, 1, brown),
    "OPENCV": _Model(4, 8, 2, lambda values: brown(values[:2], values[2:])),
    "OPENCV_FISHEYE": _Model(5, 8, 2, fisheye),
    "FULL_OPENCV": _Model(6, 12, 2, lambda values: brown((*values[:2], values[4]), values[2:4])),
    "SIMPLE_RADIAL_FISHEYE": _Model(8, 4, 1, fisheye),
    "RADIAL_FISHEYE": _Model(9, 5, 1, fisheye),
    # The tracker's model Nuke has the same formula.
    "SIMPLE_DIVISION": _Model(12, 4, 1, lambda values: Bend("nuke", (values[0], 0.0))),
    "DIVISION": _Model(13, 5, 2, lambda values: Bend("nuke", (values[0], 0.0))),
    "SIMPLE_FISHEYE": _Model(14, 3, 1, fisheye),
    "FISHEYE": _Model(15, 4, 2, fisheye),
}
# The others, for messages.
_OTHER_MODELS = {
    7: "FOV",
    10: "THIN_PRISM_FISHEYE",
    11: "RAD_TAN_THIN_PRISM_FISHEYE",
    16: "EUCM",
    17: "EQUIRECTANGULAR",
}
_LONGEST_NAME = 4096  # bytes of an image's name; more means a damaged file

_SEEN_POINT = np.dtype([("pixel", "<f8", 2), ("number", "<i8")])  # of an image's points; -1 is without a 3D point

MODEL_FILES = ("cameras.txt", "images.txt", "points3D.txt", "cameras.bin", "images.bin", "points3D.bin")


@dataclass(frozen=True)
class _Camera:
    number: int
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class _Image:
    """`pose` is a quaternion (w first) and a translation, world to camera in OpenCV's axes.

    `points` is what the file says of the points in it: a line of text, or binary; most readers need none of it.
    """

    name: str
    pose: tuple[float, ...]
    camera: int
    points: str | bytes


def read_colmap(path: Path) -> list[SolvedImage]:
    """The images of a model in the order of their frames, in its own world.

    Args:
        path: the folder, in which binary files come before text, or one of its files, which says which of them.

    Raises:
        CameraError: unreadable, of a lens that cannot be undistorted, or images of different sizes.
    """
    camera_file, image_file, _ = _model_files(path)
    cameras = {camera.number: camera for camera in _cameras(camera_file)}
    images = _images(image_file)
    lenses = {number: _lens(camera_file, camera) for number, camera in cameras.items()}
    missing = {image.camera for image in images} - lenses.keys()
    if missing:
        raise CameraError(f"{image_file}: names camera {min(missing)}, which is missing in {camera_file.name}.")
    sizes = {(cameras[image.camera].width, cameras[image.camera].height) for image in images}
    if len(sizes) > 1:
        raise CameraError(f"{image_file}: images have different sizes {sorted(sizes)}. Solve the frames of one clip.")
    size = sizes.pop()
    solved = []
    for image in images:
        matrix, bend = lenses[image.camera]
        pose = camera_from_quaternion(image.pose[:4], image.pose[4:])
        solved.append(SolvedImage(image.name, pose, matrix, *size, bend))
    return solved


def read_colmap_points(path: Path, frames: Sequence[int]) -> SparsePoints | None:
    """The points of a model in the pixels of its images.

    Args:
        path: as for `read_colmap`.
        frames: of the footage, one for each image, in their order.

    Returns:
        None where the model has no points3D beside its images.

    Raises:
        CameraError: unreadable.
    """
    _, image_file, point_file = _model_files(path)
    if not point_file.exists():
        return None
    numbers, positions = _points(point_file)
    pixels, depths = [], []
    images = _images(image_file)
    for image in images:
        seen = _seen_points(image_file, image)
        at = np.searchsorted(numbers, seen["number"])
        known = at < len(numbers)
        known[known] = numbers[at[known]] == seen["number"][known]
        pose = camera_from_quaternion(image.pose[:4], image.pose[4:])
        pixels.append(seen["pixel"][known])
        depths.append(positions[at[known]] @ pose[2, :3] + pose[2, 3])
    return SparsePoints.joined(frames, pixels, depths)


def _model_files(path: Path) -> tuple[Path, Path, Path]:
    """Cameras, images and points3D of a model; the last need not exist."""
    folder = path if path.is_dir() else path.parent
    binary = path.suffix == ".bin" or (path.is_dir() and (folder / "images.bin").exists())
    ending = "bin" if binary else "txt"
    return folder / f"cameras.{ending}", folder / f"images.{ending}", folder / f"points3D.{ending}"


def _cameras(path: Path) -> Iterator[_Camera]:
    return (_binary_cameras if path.suffix == ".bin" else _text_cameras)(path)


def _images(path: Path) -> list[_Image]:
    """In the order of their frames, which their names tell."""
    read = _binary_images if path.suffix == ".bin" else _text_images
    found = list(read(path))
    images = [found[index] for index in frame_order([image.name for image in found])]
    if not images:
        raise CameraError(f"{path}: holds no images. Export the model again.")
    return images


def _points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (N,) int64, ascending, and positions (N, 3) of a model's points."""
    read = _binary_points if path.suffix == ".bin" else _text_points
    rows = list(read(path))
    numbers = np.array([number for number, _ in rows], dtype=np.int64)
    positions = np.array([position for _, position in rows], dtype=np.float64).reshape(-1, 3)
    order = np.argsort(numbers)
    return numbers[order], positions[order]


def _seen_points(path: Path, image: _Image) -> np.ndarray:
    """What an image sees, (N,) of `_SEEN_POINT`."""
    if isinstance(image.points, bytes):
        return np.frombuffer(image.points, _SEEN_POINT)
    try:
        values = np.array(image.points.split(), dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise CameraError(f"{path}: cannot read the points of {image.name}, {image.points[:80]!r}.") from error
    seen = np.empty(len(values), _SEEN_POINT)
    seen["pixel"], seen["number"] = values[:, :2], values[:, 2]
    return seen


def _lens(path: Path, camera: _Camera) -> tuple[np.ndarray, Bend | None]:
    """(3, 3) in pixels, and what bends it; COLMAP's principal point has pixel centres at +0.5, as ours."""
    model, values = _MODELS.get(camera.model), camera.parameters
    if model is None:
        raise CameraError(
            f"{path}: unsupported camera model '{camera.model}'. Undistort to one of {', '.join(_MODELS)}."
        )
    focals, distortion = model.focals, values[model.focals + 2 :]
    if camera.model == "FULL_OPENCV" and any(distortion[5:]):
        raise CameraError(
            f"{path}: camera {camera.number} has FULL_OPENCV's k4 to k6 {list(distortion[5:])}, which cannot be "
            "undistorted here. Solve with OPENCV, or run colmap image_undistorter."
        )
    return intrinsics_matrix(values[0], values[focals - 1], values[focals], values[focals + 1]), model.bend(distortion)


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
    lines = _lines(path, keep_empty=True)
    for line, points in zip_longest(lines[::2], lines[1::2], fillvalue=""):
        words = line.split(maxsplit=9)
        try:
            yield _Image(words[9], tuple(map(float, words[1:8])), int(words[8]), points)
        except (ValueError, IndexError) as error:
            raise CameraError(f"{path}: cannot read the line {line[:80]!r}.") from error


def _text_points(path: Path) -> Iterator[tuple[int, tuple[float, ...]]]:
    for line in _lines(path):
        words = line.split(maxsplit=4)
        try:
            x, y, z = map(float, words[1:4])
            yield int(words[0]), (x, y, z)
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

    def take_bytes(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        self.take("")
        return self._data[start : self._at]

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
        yield _Image(name, tuple(pose), camera, file.take_bytes(_SEEN_POINT.itemsize * points))
    file.finish()


def _binary_points(path: Path) -> Iterator[tuple[int, tuple[float, ...]]]:
    file = _Bytes(path)
    for _ in range(*file.take("Q")):
        number, *position = file.take("Q3d")
        *_, track = file.take("3BdQ")  # colour, error, and how many images see it
        file.take_bytes(8 * track)
        yield number, tuple(position)
    file.finish()

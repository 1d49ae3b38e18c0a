"""Cameras and conversions between camera conventions; only `ex4d_core.blender_cameras` converts, too: Blender's.

The convention is OpenCV's: x right, y down, z forward, ``world_to_camera`` matrices, intrinsics in pixels, pixel
centres at +0.5 (the centre of the top left pixel is (0.5, 0.5)). The scene's world is the frame of the source camera.
Matrices of OpenGL, OpenEXR and the original EX-4D are converted here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ex4d_core.archives import ArchiveError, read_npz
from ex4d_core.errors import Ex4dError

# A Blender (or OpenGL) camera looks along -z with y up; an OpenCV camera along +z with y down.
FLIP_Y_AND_Z = np.diag([1.0, -1.0, -1.0, 1.0])
FLIP_Y = np.diag([1.0, -1.0, 1.0, 1.0])

ORTHONORMAL_TOLERANCE = 1e-4

# 100,000 frames of float64 matrices and intrinsics have 20 MB.
# Of a frame; it keeps one request from taking a backend down. Raise it together with the memory tests.
MAX_SIDE = 8192
_MAX_FILE_BYTES = 64 * 1024 * 1024


# What an image of another shape shows of a camera's: see `CameraPath.framed`.
Framing = Literal["crop", "extend"]


class CameraError(Ex4dError, ValueError):
    """A camera that cannot be used: not finite, not rigid, of the wrong shape, or of a kind that is not rendered."""


@dataclass(frozen=True)
class CameraPath:
    """A perspective camera over T frames.

    Attributes:
        world_to_camera: (T, 4, 4) float64, OpenCV axes, rigid (rotation and translation only).
        intrinsics: (T, 3, 3) float64 in pixels of an image of ``width`` x ``height``, per frame since lenses zoom.
        width, height: size of the image in pixels.

    Raises:
        CameraError: on wrong shapes, values that are not finite, matrices that are not rigid, focal lengths <= 0.
    """

    world_to_camera: np.ndarray
    intrinsics: np.ndarray
    width: int
    height: int

    def __post_init__(self) -> None:
        world_to_camera = _float64_copy("world_to_camera", self.world_to_camera)
        intrinsics = _float64_copy("intrinsics", self.intrinsics)
        if world_to_camera.ndim != 3 or world_to_camera.shape[1:] != (4, 4) or len(world_to_camera) == 0:
            raise CameraError(f"world_to_camera must be (T, 4, 4) with T > 0, not {world_to_camera.shape}")
        if intrinsics.shape == (3, 3):
            intrinsics = np.repeat(intrinsics[None], len(world_to_camera), axis=0)
        if intrinsics.shape != (len(world_to_camera), 3, 3):
            raise CameraError(f"intrinsics must be ({len(world_to_camera)}, 3, 3) or (3, 3), not {intrinsics.shape}")
        if self.width < 1 or self.height < 1:
            raise CameraError(f"a camera's image needs at least 1x1 pixels, not {self.width}x{self.height}")
        require_rigid(world_to_camera)
        _require_intrinsics(intrinsics)
        world_to_camera.setflags(write=False)
        intrinsics.setflags(write=False)
        object.__setattr__(self, "world_to_camera", world_to_camera)
        object.__setattr__(self, "intrinsics", intrinsics)

    def __len__(self) -> int:
        return len(self.world_to_camera)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image, pixels."""
        return self.width, self.height

    @property
    def pixel_aspect(self) -> float:
        """Width of a pixel by its height, by the first camera's focal lengths."""
        return float(self.intrinsics[0, 1, 1] / self.intrinsics[0, 0, 0])

    @property
    def camera_to_world(self) -> np.ndarray:
        """(T, 4, 4) float64."""
        return invert_rigid(self.world_to_camera)

    def frames(self, start: int, stop: int) -> CameraPath:
        """The part of the path from frame ``start`` up to, but not including, ``stop``: views of its arrays.

        Raises:
            CameraError: the path has no such frames.
        """
        part = slice(start, stop)
        if not len(self.world_to_camera[part]):
            raise CameraError(f"a camera path of {len(self)} frames has no frames {start} to {stop}")
        return self._with_checked(self.world_to_camera[part], self.intrinsics[part])

    def at(self, frames: Sequence[int]) -> CameraPath:
        """The cameras of these frames, in their order; of consecutive ones (a `range`) views of its arrays.

        Raises:
            CameraError: the path has no such frame.
        """
        if isinstance(frames, range) and frames.step == 1:
            return self.frames(frames.start, frames.stop)
        missing = next((one for one in frames if not 0 <= one < len(self)), None)
        if missing is not None or not len(frames):
            raise CameraError(f"a camera path of {len(self)} frames has no frame {missing}")
        places = np.asarray(frames)
        return self._with_checked(self.world_to_camera[places], self.intrinsics[places])

    def resized(self, width: int, height: int) -> CameraPath:
        """The same cameras seen through an image of another size (another aspect ratio stretches the image)."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return replace(self, intrinsics=scale @ self.intrinsics, width=width, height=height)

    def has_shape(self, width: int, height: int) -> bool:
        """Whether an image of this size has the same sides' ratio, but for rounding to whole pixels."""
        return abs(width * self.height / self.width - height) < 1 or abs(height * self.width / self.height - width) < 1

    def framed(self, width: int, height: int, framing: Framing = "crop") -> CameraPath:
        """The same cameras seen through an image of another size, which never stretches what they show.

        An image of the same shape has the same pixels' shape; one of another has square pixels, about the same middle.

        Args:
            width: of the image.
            height: of the image.
            framing: "crop" fills it, and leaves out what is at two sides; "extend" shows all, and more at two sides.
        """
        if self.has_shape(width, height):
            return self.resized(width, height)
        scale = self._scale_to(width, height, framing)
        across, down = scale * self.pixel_aspect, scale
        placed = np.array(
            [
                [across, 0, (width - across * self.width) / 2],
                [0, down, (height - down * self.height) / 2],
                [0, 0, 1],
            ]
        )
        return replace(self, intrinsics=placed @ self.intrinsics, width=width, height=height)

    def shown_shares(self, width: int, height: int, framing: Framing = "crop") -> tuple[float, float]:
        """What `framed` shows of the image's width and height; more than 1 is beyond its border."""
        if self.has_shape(width, height):
            return 1.0, 1.0
        scale = self._scale_to(width, height, framing)
        return width / (scale * self.pixel_aspect * self.width), height / (scale * self.height)

    def _scale_to(self, width: int, height: int, framing: Framing) -> float:
        """Pixels of a framed image for each of this one's rows."""
        sides = width / (self.width * self.pixel_aspect), height / self.height
        return max(sides) if framing == "crop" else min(sides)

    def with_centred_principal_point(self) -> CameraPath:
        """The same cameras with the principal point in the image's centre."""
        intrinsics = self.intrinsics.copy()
        intrinsics[:, :2, 2] = self.width / 2, self.height / 2
        return self._with_checked(self.world_to_camera, intrinsics)

    def _with_checked(self, world_to_camera: np.ndarray, intrinsics: np.ndarray) -> CameraPath:
        """This path with arrays that need no check, which takes longer than a GPU needs for some frames."""
        path = copy.copy(self)
        intrinsics.setflags(write=False)
        object.__setattr__(path, "world_to_camera", world_to_camera)
        object.__setattr__(path, "intrinsics", intrinsics)
        return path

    def save(self, path: str | Path, convention: str = "opencv") -> None:
        """Write ``extrinsics`` (T,4,4), ``intrinsics`` (T,3,3), ``width`` and ``height`` as .npz, in OpenCV terms.

        Args:
            convention: "original" writes what EX-4D's recon.py saves instead: float32 ``extrinsics`` (T,4,4) with its
                signs and ``intrinsics`` (3,3), and nothing else.

        Raises:
            CameraError: the lens zooms, for which the original's file has no place.
        """
        if convention == "original":
            if not (self.intrinsics == self.intrinsics[0]).all():
                raise CameraError("EX-4D's camera files have one lens for all frames, but this camera zooms")
            extrinsics = from_reference_file(self.world_to_camera)  # its own inverse
            with open(path, "wb") as file:
                np.savez_compressed(
                    file,
                    extrinsics=extrinsics.astype(np.float32),
                    intrinsics=self.intrinsics[0].astype(np.float32),
                )
            return
        with open(path, "wb") as file:
            np.savez(
                file,
                extrinsics=self.world_to_camera,
                intrinsics=self.intrinsics,
                width=np.int64(self.width),
                height=np.int64(self.height),
            )

    @staticmethod
    def load(
        path: str | Path, width: int | None = None, height: int | None = None, convention: str = "opencv"
    ) -> CameraPath:
        """Read a camera file.

        Files without ``width`` and ``height`` (the original's have only ``extrinsics`` and ``intrinsics``) take them
        from the arguments, or else from the principal point of frame 0, taken as the centre of the image.

        Args:
            convention: of ``extrinsics``: "opencv" world-to-camera, as `save` writes it, or "original", as the files
                that EX-4D saves have it.

        Raises:
            CameraError: the file is not an .npz, lacks an array, or holds a camera that cannot be used.
        """
        try:
            data = read_npz(path, most_bytes=_MAX_FILE_BYTES)
        except (OSError, ArchiveError) as error:
            raise CameraError(f"cannot read the camera file {path}: {error}") from error
        missing = {"extrinsics", "intrinsics"} - set(data)
        if missing:
            raise CameraError(f"{path} is not a camera file: it lacks {sorted(missing)}, and holds {sorted(data)}")
        intrinsics = _float64_copy("intrinsics", data["intrinsics"])
        if intrinsics.ndim not in (2, 3) or intrinsics.shape[-2:] != (3, 3):
            raise CameraError(f"intrinsics in {path} must be (3, 3) or (T, 3, 3), not {intrinsics.shape}")
        principal_point = intrinsics.reshape(-1, 3, 3)[0, :2, 2]
        sides = {"width": width or 2 * principal_point[0], "height": height or 2 * principal_point[1]}
        stated = tuple(data.get(name, side) for name, side in sides.items())
        try:
            columns, rows = (round(float(side)) for side in stated)
        except (TypeError, ValueError, OverflowError) as error:
            raise CameraError(f"invalid size {stated} in {path}: expected width and height in pixels") from error
        extrinsics = _float64_copy("extrinsics", data["extrinsics"])
        world_to_camera = extrinsics if convention == "opencv" else from_reference_file(extrinsics)
        return CameraPath(world_to_camera, intrinsics, columns, rows)


def _float64_copy(name: str, values: np.ndarray | Sequence) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "iuf":
        raise CameraError(f"{name} must be numbers, not {values.dtype}")
    return values.astype(np.float64)


def require_rigid(matrices: np.ndarray) -> None:
    """Check that (T, 4, 4) matrices only rotate and move.

    Raises:
        CameraError: one does not, or is not finite.
    """
    finite = np.isfinite(matrices).all(axis=(1, 2))
    if not finite.all():
        raise CameraError(f"camera matrix of frame {int(np.argmin(finite))} is not finite (NaN or infinite)")
    rotation = matrices[:, :3, :3]
    error = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    # Asked for what is right, since huge numbers overflow to NaN, which is neither above nor below a tolerance.
    right = (error <= ORTHONORMAL_TOLERANCE) & (np.linalg.det(rotation) > 0)
    right &= np.abs(matrices[:, 3] - [0, 0, 0, 1]).max(axis=1) <= ORTHONORMAL_TOLERANCE
    if not right.all():
        raise CameraError(
            f"camera matrix of frame {int(np.argmin(right))} is not rigid: it scales, shears or mirrors; "
            "remove scale from the camera and its parents"
        )


def _require_intrinsics(intrinsics: np.ndarray) -> None:
    finite = np.isfinite(intrinsics).all(axis=(1, 2))
    if not finite.all():
        raise CameraError(f"intrinsics of frame {int(np.argmin(finite))} are not finite (NaN or infinite)")
    focal = np.minimum(intrinsics[:, 0, 0], intrinsics[:, 1, 1])
    if focal.min() <= 0:
        frame = int(np.argmin(focal))
        raise CameraError(f"focal length of frame {frame} is {focal[frame]:g} pixels; it must be positive")


def invert_rigid(matrices: np.ndarray) -> np.ndarray:
    """Inverse of (..., 4, 4) rigid matrices, exact but for rounding: transpose the rotation, turn the translation."""
    inverse = np.zeros_like(matrices)
    rotation = np.swapaxes(matrices[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ matrices[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def intrinsics_matrix(focal_x: float, focal_y: float, centre_x: float, centre_y: float) -> np.ndarray:
    """(3, 3) float64 pinhole intrinsics, in pixels."""
    return np.array([[focal_x, 0, centre_x], [0, focal_y, centre_y], [0, 0, 1]], dtype=np.float64)


def look_at(eye: np.ndarray, target: np.ndarray, down: tuple[float, float, float] = (0.0, 1.0, 0.0)) -> np.ndarray:
    """World-to-camera matrices that look from ``eye`` to ``target`` with the image's y axis along ``down``.

    Args:
        eye: (T, 3) positions in the scene's world.
        target: (T, 3), or (3,) for one point.
        down: the direction that is down in the image; +y in the scene's world.

    Returns:
        (T, 4, 4) float64.

    Raises:
        CameraError: eye and target coincide, or the view runs along ``down``.
    """
    eye = np.asarray(eye, dtype=np.float64)
    forward = np.broadcast_to(target, eye.shape) - eye
    distance = np.linalg.norm(forward, axis=1, keepdims=True)
    if distance.min() < 1e-9:
        raise CameraError(f"frame {int(np.argmin(distance))}: the camera is at the point it looks at")
    forward = forward / distance
    right = np.cross(np.broadcast_to(down, eye.shape), forward)
    length = np.linalg.norm(right, axis=1, keepdims=True)
    if length.min() < 1e-9:
        raise CameraError(f"frame {int(np.argmin(length))}: the camera looks straight up or down, so it has no horizon")
    right = right / length
    matrices = np.zeros((len(eye), 4, 4))
    matrices[:, 0, :3] = right
    matrices[:, 1, :3] = np.cross(forward, right)
    matrices[:, 2, :3] = forward
    matrices[:, :3, 3] = -np.einsum("tij,tj->ti", matrices[:, :3, :3], eye)
    matrices[:, 3, 3] = 1.0
    return matrices


def world_to_camera_from_opengl(camera_to_world: np.ndarray) -> np.ndarray:
    """OpenCV world-to-camera from camera-to-world matrices of cameras with y up and -z forward (OpenGL, NeRF).

    Args:
        camera_to_world: (T, 4, 4); a uniform scale, which some programs leave in, is taken out.

    Raises:
        CameraError: not finite, sheared or mirrored.
    """
    poses = np.array(camera_to_world, dtype=np.float64)
    lengths = np.linalg.norm(poses[:, :3, :3], axis=1, keepdims=True)
    if lengths.min() < 1e-12:
        raise CameraError("a camera is scaled to zero; export it with a scale of 1")
    poses[:, :3, :3] /= lengths
    poses = poses @ FLIP_Y_AND_Z
    require_rigid(poses)
    return invert_rigid(poses)


def openexr_from_world_to_camera(world_to_camera: np.ndarray) -> np.ndarray:
    """OpenEXR's standard attribute `worldToCamera`, from OpenCV's matrices (..., 4, 4).

    Row vectors: the translation is in the last row. The camera's axes are left-handed, x right, y up and z forward, as
    RenderMan has them; the world stays as it is.
    """
    return (FLIP_Y @ world_to_camera).swapaxes(-1, -2)


def camera_from_quaternion(quaternion: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """(4, 4) world-to-camera from a rotation quaternion (w, x, y, z) and a translation, OpenCV axes, as COLMAP has it.

    Raises:
        CameraError: a quaternion without length.
    """
    length = float(np.linalg.norm(quaternion))
    if not length > 1e-9:
        raise CameraError(f"the quaternion {list(quaternion)} cannot be a rotation: its length is 0")
    w, x, y, z = (float(value) / length for value in quaternion)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = translation
    return matrix


def from_reference(raw: np.ndarray) -> np.ndarray:
    """OpenCV world-to-camera from EX-4D's raw ``get_camera_pose`` matrices.

    A raw matrix has the rows right, up, forward with right = forward x up, which is -x, +y, +z in OpenCV terms.

    Args:
        raw: (..., 4, 4).
    """
    return np.diag([-1.0, 1.0, 1.0, 1.0]) @ np.asarray(raw, dtype=np.float64)


def from_reference_file(extrinsics: np.ndarray) -> np.ndarray:
    """OpenCV world-to-camera from the ``camera_*.npz`` files that EX-4D saves: raw matrices, first three rows negated.

    Args:
        extrinsics: (..., 4, 4).
    """
    return FLIP_Y_AND_Z @ np.asarray(extrinsics, dtype=np.float64)

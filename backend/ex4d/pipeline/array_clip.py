"""`ArrayClip`: depth, colour and intrinsics of one .npz instead of a scene folder, for `ex4d render`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d_core.archives import ArchiveError, read_npz
from ex4d_core.cameras import CameraPath
from ex4d_core.pivots import middle_distance
from ex4d_core.scene_manifest import SceneError, SceneManifest
from ex4d_core.trajectories import subject_distance

_FPS = Fraction(24)  # for movies; frames have no time in the file


class ArrayClip:
    """What `ex4d.pipeline.render.render_shot` reads of a scene, from arrays in memory.

    Attributes:
        manifest: frames, size and subject distance of the clip.
    """

    def __init__(self, name: str, depth: np.ndarray, rgb: np.ndarray, intrinsics: np.ndarray):
        """Check the arrays.

        Args:
            name: for people.
            depth: (T, H, W), along z, finite and positive.
            rgb: (T, H, W, 3) uint8 sRGB.
            intrinsics: (3, 3) or (T, 3, 3), pixels.

        Raises:
            SceneError: shapes or types that do not belong together, or depth that cannot be rendered.
            CameraError: impossible intrinsics.
        """
        if depth.ndim != 3 or not np.issubdtype(depth.dtype, np.floating):
            raise SceneError(f"{name}: depth must be (T, H, W) in floating point, not {depth.shape} {depth.dtype}")
        if rgb.shape != (*depth.shape, 3) or rgb.dtype != np.uint8:
            raise SceneError(f"{name}: rgb must be {(*depth.shape, 3)} uint8, not {rgb.shape} {rgb.dtype}")
        if 0 in depth.shape:
            raise SceneError(f"{name}: depth of shape {depth.shape} has no pixels")
        frames, height, width = depth.shape
        with np.errstate(over="ignore"):  # becomes infinite, which is refused below
            self._depth, self._color = depth.astype(np.float32), rgb
        usable = np.isfinite(self._depth) & (self._depth > 0)
        if not usable.all():
            frame, row, column = (int(index[0]) for index in np.nonzero(~usable))
            raise SceneError(
                f"{name}: depth of frame {frame} at row {row}, column {column} is {depth[frame, row, column]}; depth "
                "must be finite and positive: fill it, or set sky to a large finite depth"
            )
        still = np.repeat(np.eye(4)[None], frames, axis=0)
        self._source = CameraPath(still, intrinsics, width, height)
        nearest, farthest = float(self._depth.min()), float(self._depth.max())
        distance = subject_distance(self._depth[0])
        self.manifest = SceneManifest(
            *(name, frames, width, height, _FPS, "centered", (nearest, farthest), distance),
            middle_distance=middle_distance(self._depth[0]),
        )

    @staticmethod
    def load(path: Path) -> ArrayClip:
        """Read ``depth``, ``rgb`` and ``intrinsics`` from a .npz.

        Raises:
            SceneError: no such file, not a .npz, an array missing, or what the constructor refuses.
        """
        try:
            arrays = read_npz(path)
        except FileNotFoundError as error:
            raise SceneError(f"{path} does not exist") from error
        except ArchiveError as error:
            raise SceneError(f"{path} cannot be read as .npz: {error}") from error
        missing = [name for name in ("depth", "rgb", "intrinsics") if name not in arrays]
        if missing:
            raise SceneError(f"{path} has no {', '.join(missing)}: it needs depth, rgb and intrinsics")
        return ArrayClip(str(path), arrays["depth"], arrays["rgb"], arrays["intrinsics"])

    def color(self) -> np.ndarray:
        """(T, H, W, 3) uint8 sRGB."""
        return self._color

    def deep_color(self) -> np.ndarray:
        """The file has none.

        Raises:
            SceneError: always.
        """
        raise SceneError(f"{self.manifest.name} has colours of 8 bits: reconstruct a scene with --bit-depth 16")

    def depth(self) -> np.ndarray:
        """(T, H, W) float32 along z, scene units."""
        return self._depth

    def source_camera(self) -> CameraPath:
        """A camera that stands still at the world's origin."""
        return self._source

    def motion_mask(self) -> None:
        """The file has none."""

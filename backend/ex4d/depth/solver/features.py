"""SIFT features of every frame in a COLMAP database on the disk: memory does not grow with the clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth.solver.package import colmap

# The longer side of the image that features are found in: at a fifth of its pixel they are still far more precise than
# depth is, and it bounds the time that a frame takes.
LONGEST_SIDE = 1024
MOST_FEATURES = 3000
# Where no file states the lens, COLMAP's own first guess, which it then refines.
_GUESSED_FOCAL = 1.2


class FeatureDatabase:
    """A COLMAP database of one camera, with an image for every frame: frame t is image t + 1.

    Attributes:
        path: of the database.
        size: (width, height) of the images that features are measured in, pixels.
        lens_known: whether the intrinsics are fixed; otherwise the focal length is solved for.
        count: frames so far.
    """

    def __init__(self, folder: Path, width: int, height: int, lens: np.ndarray | None) -> None:
        """Create it in a folder.

        Args:
            width, height: of the footage.
            lens: (3, 3) intrinsics in its pixels, or None.
        """
        self._colmap = colmap()
        self.path = folder / "features.db"
        scale = min(1.0, LONGEST_SIDE / max(width, height))
        self.size = max(1, round(width * scale)), max(1, round(height * scale))
        self.lens_known, self.count = lens is not None, 0
        options = self._colmap.FeatureExtractionOptions()
        options.use_gpu, options.sift.max_num_features = False, MOST_FEATURES
        self._extractor = self._colmap.FeatureExtractor.create(options)
        self._database = self._colmap.Database.open(self.path)
        camera = self._camera(width, height, lens)
        camera.camera_id = self._camera_number = self._database.write_camera(camera)
        rig = self._colmap.Rig()
        rig.add_ref_sensor(camera.sensor_id)
        self._rig = self._database.write_rig(rig)

    def append(self, image: np.ndarray, moving: np.ndarray | None = None) -> int:
        """Add the next frame; returns how many features it has.

        Args:
            image: (H, W, 3) uint8, without lens distortion.
            moving: (H, W) bool, where something moves: features there are left out.
        """
        small = _resized(image, self.size)
        keypoints, descriptors = self._extractor.extract_from_uint8_array(small)
        if moving is not None:
            kept = ~_is_moving(_positions(keypoints), moving, self.size)
            keypoints = self._colmap.FeatureKeypoints([one for one, keep in zip(keypoints, kept, strict=True) if keep])
            descriptors.data = descriptors.data[kept]
        self.count += 1
        one = self._colmap.Image(name=frame_name(self.count - 1), camera_id=self._camera_number)
        one.image_id = self._database.write_image(one)
        assert one.image_id == self.count, "COLMAP numbers images from 1"
        frame = self._colmap.Frame()
        frame.rig_id = self._rig
        frame.add_data_id(one.data_id)
        self._database.write_frame(frame)
        self._database.write_keypoints(one.image_id, _positions(keypoints))
        self._database.write_descriptors(one.image_id, descriptors)
        return len(keypoints)

    def close(self) -> None:
        """Finish writing; other parts open the file at `path`."""
        self._database.close()

    def _camera(self, width: int, height: int, lens: np.ndarray | None) -> Any:
        """COLMAP's camera: a pinhole, whose focal length alone is solved for where the lens is not known."""
        across, down = self.size[0] / width, self.size[1] / height
        if lens is None:
            focal = _GUESSED_FOCAL * max(self.size)
            camera = self._colmap.Camera(
                model="SIMPLE_PINHOLE",
                width=self.size[0],
                height=self.size[1],
                params=[focal, self.size[0] / 2, self.size[1] / 2],
            )
        else:
            values = [lens[0, 0] * across, lens[1, 1] * down, lens[0, 2] * across, lens[1, 2] * down]
            camera = self._colmap.Camera(model="PINHOLE", width=self.size[0], height=self.size[1], params=values)
        camera.has_prior_focal_length = lens is not None
        return camera


def frame_name(frame: int) -> str:
    """The name of a frame's image in the database."""
    return f"{frame:06d}"


def _positions(keypoints: Any) -> np.ndarray:
    """(n, 2) float32, x and y."""
    return np.array([(one.x, one.y) for one in keypoints], dtype=np.float32).reshape(-1, 2)


def _is_moving(positions: np.ndarray, moving: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n,) bool: which features a mask covers.

    Args:
        positions: (n, 2), x and y in an image of a size (width, height).
        moving: (H, W) bool.
    """
    shape = np.array(moving.shape[::-1])
    column, row = np.clip(positions * shape / size, 0, shape - 1).astype(np.int64).T
    return moving[row, column]


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8 brightness at another size."""
    gray = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    if gray.shape != size[::-1]:
        whole = torch.from_numpy(gray)[None, None]
        gray = F.interpolate(whole, size=list(size[::-1]), mode="bilinear", antialias=True)[0, 0].numpy()
    return np.ascontiguousarray(np.rint(gray).clip(0, 255).astype(np.uint8))

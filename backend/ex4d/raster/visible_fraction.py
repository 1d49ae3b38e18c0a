"""The visible fraction of each frame of a camera path (the share that the footage saw), fast enough for live editing.

A GPU draws every frame and returns a number for each frame (`visible_fractions`). A CPU takes every n-th ray
of the new image (`sparse_camera`), and a mesh with large faces wherever the surface is smooth (`simplified_frame.py`),
which is fast enough to follow an artist who drags a keyframe. `ex4d.pipeline.coverage` combines these for a shot.
"""

from __future__ import annotations

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster.batches import BATCH_PIXELS
from ex4d.raster.rasterizer import Rasterizer, require_same_frames
from ex4d_core.cameras import CameraPath

# Rays of an image, about. The visible fraction is then within 0.01 of the full image's; the tests check it.
RAYS = 1 << 16


def visible_fractions(rasterizer: Rasterizer, surface: DepthSurface, camera: CameraPath) -> np.ndarray:
    """(T,) float64, the visible fraction of each frame of a path; the images stay on the device.

    For arguments and errors see `Rasterizer.render`.
    """
    require_same_frames(surface, camera)
    step = max(1, BATCH_PIXELS // (camera.width * camera.height))
    fractions = []
    for start in range(0, surface.frames, step):
        part = start, start + step
        frames = rasterizer.render(surface.frame_range(*part), camera.frames(*part))
        fractions.append(frames.mask.flatten(1).double().mean(dim=1))
    return torch.cat(fractions).cpu().numpy()


def sparse_camera(camera: CameraPath, convention: str = "centered") -> CameraPath:
    """The camera whose pixels are every n-th pixel of this one, in both directions, so that there are about `RAYS`.

    Its rays are rays of the full image. Other rays, in a view close to the source camera's, would meet the stretched
    faces at every discontinuity, which lie between the rays of the full image. In the "reference" convention n is odd,
    and the rays are up to four times as many: there colours fade over a pixel or two, and in an image of twice the
    footage's size every second ray would meet the same side of all of these. The full image's centre is its principal
    point there, as in a render.
    """
    step = max(1, round((camera.width * camera.height / RAYS) ** 0.5))
    if convention == "reference" and step % 2 == 0:
        step -= 1
    first = min((step - 1) // 2, camera.width - 1, camera.height - 1)
    if convention == "reference":
        camera = camera.with_centred_principal_point()
    intrinsics = camera.intrinsics.copy()
    intrinsics[:, :2] /= step
    # The centre of pixel `first` is the centre of pixel 0 now: u' = (u - first - 0.5) / step + 0.5.
    intrinsics[:, :2, 2] += 0.5 - (first + 0.5) / step
    width, height = (len(range(first, size, step)) for size in camera.size)
    return CameraPath(camera.world_to_camera, intrinsics, width, height)


def view_angles(source: CameraPath, camera: CameraPath, subject_distance: float) -> np.ndarray:
    """(T,) degrees between the directions to the subject, which lies on the source camera's axis, of two cameras."""
    pose = source.camera_to_world
    ahead = pose[:, :3, 2] * subject_distance
    there = pose[:, :3, 3] + ahead - camera.camera_to_world[:, :3, 3]
    lengths = np.linalg.norm(ahead, axis=1) * np.linalg.norm(there, axis=1)
    cosine = (ahead * there).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))

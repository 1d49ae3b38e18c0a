"""How much of each new frame the footage saw, and from how far aside: for an artist who is dragging a keyframe.

Renders every n-th pixel of the picture, which is quick enough to follow the hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backend.render import render_shot
from ex4d_core.cameras import CameraPath
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest

# The longer side of the reduced pictures; what is left of the time then is the mesh's, not the pixels'.
REDUCED_SIDE = 192


@dataclass(frozen=True)
class PathCoverage:
    """What a camera path asks of the generator.

    Attributes:
        seen: (T,) float64, share of each frame that the footage saw, 0 to 1.
        view_angle: (T,) float64, degrees between the directions from which the source camera and the new camera look
            at the subject.
    """

    seen: np.ndarray
    view_angle: np.ndarray


def shot_coverage(scene: Scene, request: ShotRequest, *, device: str = "auto") -> PathCoverage:
    """Coverage and view angle of each frame of a shot.

    Raises:
        RequestError: the camera runs past the footage.
    """
    camera = request.camera
    frames = render_shot(scene, sparse_camera(camera), request.render, first_frame=request.first_frame, device=device)
    seen = np.array([frame.mask.mean() for frame in frames])
    source = scene.source_camera().frames(request.first_frame, request.first_frame + len(camera))
    return PathCoverage(seen, view_angles(source, camera, scene.manifest.subject_distance))


def sparse_camera(camera: CameraPath, side: int = REDUCED_SIDE) -> CameraPath:
    """The camera whose pixels are every n-th pixel of this one, so that its longer side is at most ``side``.

    Its rays are rays of the full picture, so its mask is a sample of the full mask. A reduced mesh, or rays that fall
    between the pixels' own, would see the curtains at every edge, which in the source view lie between the rays.
    """
    step = -(-max(camera.width, camera.height) // side)
    first = min((step - 1) // 2, camera.width - 1, camera.height - 1)
    intrinsics = camera.intrinsics.copy()
    intrinsics[:, :2] /= step
    # The centre of pixel `first` is the centre of pixel 0 now: u' = (u - first - 0.5) / step + 0.5.
    intrinsics[:, :2, 2] += 0.5 - (first + 0.5) / step
    width, height = (len(range(first, size, step)) for size in (camera.width, camera.height))
    return CameraPath(camera.world_to_camera, intrinsics, width, height)


def view_angles(source: CameraPath, camera: CameraPath, subject_distance: float) -> np.ndarray:
    """(T,) degrees between the two cameras' directions to the subject, which lies on the source camera's axis."""
    pose = source.camera_to_world
    ahead = pose[:, :3, 2] * subject_distance
    there = pose[:, :3, 3] + ahead - camera.camera_to_world[:, :3, 3]
    lengths = np.linalg.norm(ahead, axis=1) * np.linalg.norm(there, axis=1)
    cosine = (ahead * there).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def to_wire(coverage: PathCoverage) -> Mapping[str, list[float]]:
    """As `ex4d_core.messages.Coverage` has it."""
    return {"seen": coverage.seen.tolist(), "view_angle": coverage.view_angle.tolist()}

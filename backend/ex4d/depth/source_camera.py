"""The moving camera that filmed the footage: from a file, or as an estimator found it out, in one world for all frames.

`resolved_camera` takes the first of these that is known: the camera's file, or poses that were solved for; the poses
that the depth comes with; otherwise the camera stood still. `ex4d.depth.intrinsics` does the same for the lens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ex4d.depth.depth_clip import DepthClip
from ex4d_core.cameras import CameraPath, invert_rigid
from ex4d_core.reconstruction import CameraMotion

# Poses that move no pixel by more than this share of the image's width are those of a camera that stood still: what is
# left is the estimator's noise, of which the whole scene would tremble.
_STILL_SHARE = 0.005

STILL_NOTE = (
    "the estimator's poses hardly differ from frame to frame: the source camera is taken as standing still. "
    "Give the camera's file if it moved."
)


class KnownCamera(NamedTuple):
    """A moving source camera, and where it comes from.

    Attributes:
        path: one camera for each frame, at the footage's size and in the depth's unit; the first one is the world.
        origin: for people.
        notes: sentences for the artist about how it was found.
    """

    path: CameraPath
    origin: str
    notes: tuple[str, ...] = ()


def resolved_camera(known: KnownCamera | None, depth: DepthClip, motion: CameraMotion = "auto") -> KnownCamera | None:
    """The camera that filmed the footage, now that there is depth; None for one that stood still.

    Args:
        known: of a file, or solved for.
        depth: of the footage; its poses are taken where no camera is known.
        motion: "still" ignores the depth's poses.
    """
    if known is not None or depth.camera is None or motion == "still":
        return known
    return KnownCamera(depth.camera, f"the depth ({depth.source})")


def in_first_frames_world(camera: CameraPath, scale: float = 1.0) -> CameraPath:
    """The same cameras in the world of the first one, exactly the identity there.

    Args:
        scale: multiplies positions.
    """
    relative = camera.world_to_camera @ invert_rigid(camera.world_to_camera[:1])
    relative[:, :3, 3] *= scale
    relative[0] = np.eye(4)
    return CameraPath(relative, camera.intrinsics, camera.width, camera.height)


def stands_still(camera: CameraPath, distance: float) -> bool:
    """Whether no frame shows a surface at a distance more than half a percent of the width from where the first does.

    Args:
        camera: in the first frame's world.
        distance: along z, in the unit of the camera's positions; the scene's nearest quarter, say.
    """
    columns, rows = np.meshgrid([0, camera.width / 2, camera.width], [0, camera.height / 2, camera.height])
    pixels = np.stack([columns.ravel(), rows.ravel(), np.ones(9)])
    seen = distance * np.linalg.inv(camera.intrinsics[0]) @ pixels
    there = camera.world_to_camera[:, :3, :3] @ seen + camera.world_to_camera[:, :3, 3:]
    if (there[:, 2] <= 0).any():
        return False
    # With the first frame's lens: a lens that zooms is no motion.
    shown = camera.intrinsics[0] @ (there / there[:, 2:])
    moved = np.linalg.norm((shown - pixels)[:, :2], axis=1).max()
    return bool(moved < _STILL_SHARE * camera.width)

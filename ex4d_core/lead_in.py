"""Where a final take starts: how far its first camera is from the source view, and the hidden lead-in between both.

The engine wan starts from its frame 0. A shot that starts at the source view starts from the source frame; any other
one would start from an image with holes, so some frames are generated first, from the source view to the first camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ex4d_core.cameras import CameraPath, invert_rigid
from ex4d_core.scene_manifest import SceneManifest

# A start within this distance of the source view, in pixels of the shot, is the source view.
AT_SOURCE = 0.5
# Below this angle (radians) a rotation's axis is lost in rounding.
_SMALL_ANGLE = 1e-9


@dataclass(frozen=True)
class LeadIn:
    """Hidden frames before a shot.

    Attributes:
        camera: of each hidden frame; the first one is the source view.
        source_frames: the footage frame that each shows.
    """

    camera: CameraPath
    source_frames: tuple[int, ...]


def shows_first_frame(footage: SceneManifest, camera: CameraPath, convention: str) -> bool:
    """Whether a shot's frame 0 is the source frame, all of it seen, whatever its camera: EX-4D's habit.

    Args:
        footage: the scene's.
        camera: the shot's.
        convention: that the shot is rendered in, "reference" or "centered".
    """
    same_size = (footage.width, footage.height) == camera.size
    return convention == "reference" and same_size


def source_view(source: CameraPath, camera: CameraPath) -> CameraPath:
    """The source camera at a shot's size: what a whole image of the footage fills.

    Pixels are as wide by their height as the shot's. Where its image is wider or narrower than the footage's, the
    footage is cut at the sides, or above and below.

    Args:
        source: one camera of the footage.
        camera: the shot's; its first frame counts.
    """
    (focal_x, focal_y), (centre_x, centre_y) = _lens(source)
    aspect = camera.intrinsics[0, 0, 0] / camera.intrinsics[0, 1, 1]
    new_y = max(camera.height * focal_y / source.height, camera.width * focal_x / (source.width * aspect))
    new_x = aspect * new_y
    intrinsics = np.eye(3)
    intrinsics[0, 0], intrinsics[1, 1] = new_x, new_y
    intrinsics[0, 2] = camera.width / 2 + (centre_x - source.width / 2) * new_x / focal_x
    intrinsics[1, 2] = camera.height / 2 + (centre_y - source.height / 2) * new_y / focal_y
    return CameraPath(source.world_to_camera[:1], intrinsics[None], camera.width, camera.height)


def start_distance(source: CameraPath, camera: CameraPath, depth_range: tuple[float, float]) -> float:
    """How far a shot's first frame shows points of the footage from where the source view shows them, in pixels.

    Args:
        source: the camera of the footage frame that the shot's first frame shows.
        camera: the shot's; its first frame counts.
        depth_range: nearest and farthest depth of the footage.

    Returns:
        The largest distance of points over the image, at both depths; infinite where one is behind the camera.
    """
    view = source_view(source, camera)
    across, down = np.meshgrid(np.linspace(0, view.width, 5), np.linspace(0, view.height, 5))
    pixels = np.stack([across.ravel(), down.ravel(), np.ones(25)])
    rays = np.linalg.inv(view.intrinsics[0]) @ pixels
    to_camera = camera.world_to_camera[0] @ invert_rigid(view.world_to_camera)[0]
    farthest = 0.0
    for depth in depth_range:
        points = to_camera[:3, :3] @ (rays * depth) + to_camera[:3, 3:]
        if points[2].min() <= 0:
            return float("inf")
        seen = camera.intrinsics[0] @ (points / points[2])
        farthest = max(farthest, float(np.linalg.norm(seen[:2] - pixels[:2], axis=0).max()))
    return farthest


def lead_in(sources: CameraPath, camera: CameraPath, shown: Sequence[int], frames: int) -> LeadIn:
    """Hidden frames from the source view to a shot's first camera.

    The camera moves along a screw, which is an arc where the shot starts on an orbit and a line where it starts on a
    dolly, and starts and ends slowly. Time runs as it does at the shot's start, from as many frames earlier; where the
    footage has none, its first (or last) one stands still.

    Args:
        sources: the footage's cameras, of each of its frames.
        camera: the shot's; its first frame counts.
        shown: the footage frames that the shot shows, of which the first two tell how time runs.
        frames: how many are hidden, at least 1.
    """
    step = shown[1] - shown[0] if len(shown) > 1 else 0
    times = [min(max(shown[0] - step * before, 0), len(sources) - 1) for before in range(frames, 0, -1)]
    view = source_view(sources.at([times[0]]), camera)
    place = np.arange(frames) / frames
    place = place**2 * (3 - 2 * place)
    move = camera.world_to_camera[0] @ invert_rigid(view.world_to_camera)[0]
    matrices = np.stack([_part_of_screw(move, part) for part in place]) @ view.world_to_camera[0]
    logs = np.log(_focal_lengths(view.intrinsics[0])), np.log(_focal_lengths(camera.intrinsics[0]))
    intrinsics = np.repeat(np.eye(3)[None], frames, axis=0)
    for axis in range(2):
        intrinsics[:, axis, axis] = np.exp((1 - place) * logs[0][axis] + place * logs[1][axis])
        intrinsics[:, axis, 2] = (1 - place) * view.intrinsics[0, axis, 2] + place * camera.intrinsics[0, axis, 2]
    return LeadIn(CameraPath(matrices, intrinsics, camera.width, camera.height), tuple(times))


def _lens(camera: CameraPath) -> tuple[np.ndarray, np.ndarray]:
    return _focal_lengths(camera.intrinsics[0]), camera.intrinsics[0, :2, 2]


def _focal_lengths(intrinsics: np.ndarray) -> np.ndarray:
    return np.array([intrinsics[0, 0], intrinsics[1, 1]])


def _part_of_screw(move: np.ndarray, part: float) -> np.ndarray:
    """``part`` (0 to 1) of a rigid (4, 4) motion: exp(part * log(move)) in SE(3).

    Murray, Li, Sastry, A Mathematical Introduction to Robotic Manipulation, 1994, appendix A.
    """
    axis, angle = _axis_and_angle(move[:3, :3])
    velocity = np.linalg.solve(_left_jacobian(axis, angle), move[:3, 3])
    result = np.eye(4)
    result[:3, :3] = _rotation(axis, part * angle)
    result[:3, 3] = part * _left_jacobian(axis, part * angle) @ velocity
    return result


def _axis_and_angle(rotation: np.ndarray) -> tuple[np.ndarray, float]:
    """The unit axis of a (3, 3) rotation and its angle, 0 to pi."""
    turned = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    angle = float(np.arctan2(np.linalg.norm(turned), np.trace(rotation) - 1))
    if angle < _SMALL_ANGLE:
        return np.array([0.0, 0.0, 1.0]), 0.0
    if np.linalg.norm(turned) > 1e-6:
        return turned / np.linalg.norm(turned), angle
    # Half a turn: the axis is what it leaves in place.
    column = (rotation + np.eye(3))[:, np.argmax(np.diag(rotation))]
    return column / np.linalg.norm(column), angle


def _cross(axis: np.ndarray) -> np.ndarray:
    return np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    cross = _cross(axis)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _left_jacobian(axis: np.ndarray, angle: float) -> np.ndarray:
    if angle < _SMALL_ANGLE:
        return np.eye(3)
    cross = _cross(axis)
    along, turned = (1 - np.cos(angle)) / angle, 1 - np.sin(angle) / angle
    return np.eye(3) + along * cross + turned * cross @ cross

"""`solve_camera`: a clip to the camera that filmed it and the points that it saw, from front to back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ex4d.depth.depth_clip import FrameProgress, ignore_frame_progress
from ex4d.depth.solver.features import FeatureDatabase
from ex4d.depth.solver.mapping import Mapping, map_key_frames
from ex4d.depth.solver.matching import Matches, between_pairs, key_frames, key_pairs
from ex4d.depth.solver.parallax import Motion, motion_of
from ex4d.depth.solver.registration import Placed, Registration
from ex4d.depth.source_camera import KnownCamera, in_first_frames_world
from ex4d.depth.sparse_points import SparsePoints
from ex4d.media import FootageInfo, MotionMask, Undistorter, read_frames
from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.lens_distortion import LensDistortion

# Shares of the time: features of all frames, matches, key frames; the rest places the frames between.
_FEATURES, _MATCHES, _MAPPING = 0.4, 0.6, 0.95
_STEPS = 1000  # that a progress bar is told of
_LONGEST_GAP = 5  # frames without a pose, blurred ones, say, over which the camera is interpolated
_NAMED_FRAMES = 5  # that a message names
# The field of view that a lens can have, in degrees across the image's width.
_NARROWEST, _WIDEST = 4.0, 140.0


@dataclass(frozen=True, eq=False)
class SolvedCamera:
    """What the footage says of the camera that filmed it.

    Attributes:
        camera: at the footage's size, its positions in an unknown unit. None for a clip without parallax, whose camera
            is taken as standing still.
        points: that the frames see, in the same unit; in pixels of the undistorted image if there is lens distortion.
        notes: sentences for the artist where there is no camera; a camera has its own.
        still: whether that is because nothing moves in the frames; a camera that turns or zooms is none, either.
    """

    camera: KnownCamera | None
    points: SparsePoints | None
    notes: tuple[str, ...] = ()
    still: bool = False


def solve_camera(
    footage: FootageInfo,
    lens: np.ndarray | None = None,
    distortion: LensDistortion | None = None,
    progress: FrameProgress = ignore_frame_progress,
    mask: MotionMask | None = None,
) -> SolvedCamera:
    """Solve for the camera of a static scene; subjects that move in it are left out by what their points do.

    The footage is decoded once; features wait on the disk, so that memory grows by the points of key frames alone.

    Args:
        footage: of `ex4d.media.probe`.
        lens: (3, 3) or (T, 3, 3) intrinsics in its pixels where they are known, those of the lens without distortion;
            of a lens that zooms, the first frame's are taken.
        distortion: of the lens, for its size.
        progress: called with steps done and steps in all; what it raises ends the work.
        mask: of what moves; no feature in it is used.

    Raises:
        SolverUnavailableError: pycolmap is not installed.
        CameraError: the frames cannot be related to each other; says which.
        MediaError: the footage cannot be read.
    """
    if footage.frames < 2:
        return SolvedCamera(None, None, ("one frame alone has no moving camera: it is taken as standing still",))
    fixed = None if lens is None else lens.reshape(-1, 3, 3)[0]
    if fixed is not None and distortion is not None:
        fixed = distortion.zoomed(fixed)

    def report(first: float, last: float) -> Callable[[float], None]:
        return lambda share: progress(round(_STEPS * (first + share * (last - first))), _STEPS)

    with TemporaryDirectory(prefix="ex4d-solve-") as name:
        folder = Path(name)
        features = _features(footage, fixed, distortion, mask, folder, report(0.0, _FEATURES))
        keys = key_frames(footage.frames)
        pairs = [*key_pairs(keys), *between_pairs(keys, footage.frames)]
        matches = Matches(features)
        try:
            matches.match(pairs, folder, report(_FEATURES, _MATCHES))
            motion = motion_of(matches)
            if motion is not Motion.MOVING:
                return _without_parallax(motion, footage)
            mapping = map_key_frames(features, keys, folder, report(_MATCHES, _MAPPING))
            placed = _placed(mapping, matches, keys, footage, report(_MAPPING, 1.0)) if mapping else {}
        finally:
            matches.close()
        if mapping is None or len(placed) < 2:
            raise CameraError(
                f"{footage.path.name}: the camera cannot be solved, since its frames share too few points that stay in "
                "place: does a moving subject fill the image? Film more of what stands still, or give the camera's "
                "file."
            )
        return _solved(mapping, placed, footage, distortion)


def _features(
    footage: FootageInfo,
    lens: np.ndarray | None,
    distortion: LensDistortion | None,
    mask: MotionMask | None,
    folder: Path,
    progress: Callable[[float], None],
) -> FeatureDatabase:
    features = FeatureDatabase(folder, footage.width, footage.height, lens)
    undistorter = None if distortion is None else Undistorter(distortion)
    try:
        masks = repeat(None, footage.frames) if mask is None else mask.frames()
        for image, moving in zip(read_frames(footage.path, count=footage.frames), masks, strict=True):
            if undistorter is not None:
                image, moving = undistorter.color(image), None if moving is None else undistorter.depth(moving)
            features.append(image, moving)
            progress(features.count / footage.frames)
    finally:
        features.close()
    return features


def _without_parallax(motion: Motion, footage: FootageInfo) -> SolvedCamera:
    if motion is Motion.UNRELATED:
        raise CameraError(
            f"{footage.path.name}: the camera cannot be solved, since its frames have too little in common. Film "
            "something with more texture, trim cuts away, or give the camera's file."
        )
    why = motion.value
    return SolvedCamera(
        None,
        None,
        (f"the footage has no parallax ({why}): the source camera is taken as standing still",),
        still=motion is Motion.STILL,
    )


def _placed(
    mapping: Mapping, matches: Matches, keys: list[int], footage: FootageInfo, progress: Callable[[float], None]
) -> dict[int, Placed]:
    """Every frame that can be placed, in order."""
    registration, solved = Registration(mapping, matches), set(mapping.frames)
    found: dict[int, Placed] = {}
    partners: dict[int, list[int]] = {}
    for one, other in [*key_pairs(keys), *between_pairs(keys, footage.frames)]:
        partners.setdefault(one, []).append(other)
        partners.setdefault(other, []).append(one)
    for frame in range(footage.frames):
        if frame in solved:
            found[frame] = registration.solved(frame)
        elif beside := tuple(other for other in sorted(partners[frame]) if other in solved):
            placed = registration.placed(frame, beside)
            if placed is not None:
                found[frame] = placed
        progress((frame + 1) / footage.frames)
    return found


def _solved(
    mapping: Mapping, placed: dict[int, Placed], footage: FootageInfo, distortion: LensDistortion | None
) -> SolvedCamera:
    notes = []
    missing = [frame for frame in range(footage.frames) if frame not in placed]
    if missing:
        _require_short_gaps(missing, footage)
        notes.append(f"the camera is interpolated in {_named(missing)}, which share too few points with the others")
    poses = _interpolated({frame: one.pose for frame, one in placed.items()}, footage.frames)
    width, height = mapping.camera.width, mapping.camera.height
    path = CameraPath(poses, mapping.intrinsics(), width, height).resized(footage.width, footage.height)
    fov = 2 * math.degrees(math.atan(footage.width / 2 / path.intrinsics[0, 0, 0]))
    if not _NARROWEST < fov < _WIDEST:
        raise CameraError(
            f"{footage.path.name}: the solve gives a lens of {fov:.0f} degrees, so the camera's motion does not tell "
            "the lens. Give its field of view or focal length."
        )
    depths = [one.points @ one.pose[2, :3] + one.pose[2, 3] for one in placed.values()]
    points = SparsePoints.joined(list(placed), [one.pixels for one in placed.values()], depths)
    points = points.resized(footage.width / width, footage.height / height)
    if distortion is not None:
        path = CameraPath(
            path.world_to_camera, np.linalg.inv(distortion.zoomed(np.eye(3))) @ path.intrinsics, path.width, path.height
        )
    count = mapping.reconstruction.num_points3D()
    error = mapping.reconstruction.compute_mean_reprojection_error()
    origin = f"solved from {count} points, with a mean error of {error:.2f} pixels"
    return SolvedCamera(KnownCamera(in_first_frames_world(path), origin, tuple(notes)), points)


def _require_short_gaps(missing: list[int], footage: FootageInfo) -> None:
    """Raises CameraError where frames without a pose are at an end of the clip, or many in a row."""
    runs = np.split(np.array(missing), np.flatnonzero(np.diff(missing) > 1) + 1)
    for run in runs:
        if run[0] == 0 or run[-1] == footage.frames - 1 or len(run) > _LONGEST_GAP:
            raise CameraError(
                f"{footage.path.name}: the camera cannot be solved in frames {run[0]} to {run[-1]}, which share too "
                "few points with the others: a cut, motion blur, or a subject that fills the image. Trim the footage, "
                "or give the camera's file."
            )


def _interpolated(poses: dict[int, np.ndarray], frames: int) -> np.ndarray:
    """(T, 4, 4) world to camera: positions and rotations between known ones, linearly in time."""
    known = sorted(poses)
    result = np.empty((frames, 4, 4))
    for frame in range(frames):
        after = min(int(np.searchsorted(known, frame)), len(known) - 1)
        if known[after] == frame:
            result[frame] = poses[frame]
            continue
        one, other = known[after - 1], known[after]
        share = (frame - one) / (other - one)
        start, end = np.linalg.inv(poses[one]), np.linalg.inv(poses[other])
        centre = (1 - share) * start[:3, 3] + share * end[:3, 3]
        # The rotation closest to the mean of both matrices.
        left, _, right = np.linalg.svd((1 - share) * poses[one][:3, :3] + share * poses[other][:3, :3])
        rotation = left @ right
        result[frame] = np.eye(4)
        result[frame, :3, :3], result[frame, :3, 3] = rotation, -rotation @ centre
    return result


def _named(frames: list[int]) -> str:
    names = ", ".join(map(str, frames[:_NAMED_FRAMES])) + (", ..." if len(frames) > _NAMED_FRAMES else "")
    return f"frame{'s' if len(frames) > 1 else ''} {names}"

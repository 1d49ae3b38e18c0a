"""The camera that filmed some footage, before and after there is depth: from a file, solved for, or with the depth.

A solve needs the lens where it is known, and depth needs the lens that a solve found; afterwards the points that a
camera was solved with bring both into one unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ex4d.depth import (
    DepthClip,
    KnownCamera,
    KnownIntrinsics,
    SparsePoints,
    read_source_camera,
    read_source_points,
    resolved_camera,
    solve_camera,
    with_points,
)
from ex4d.media import FootageInfo, MotionMask
from ex4d.pipeline.source_paths import SourcePaths
from ex4d_core.errors import RequestError
from ex4d_core.lens_distortion import LensDistortion
from ex4d_core.reconstruction import CameraMotion, ReconstructionSettings


@dataclass(frozen=True, eq=False)
class FoundCamera:
    """What is known of the camera before there is depth.

    Attributes:
        camera: None where nothing is known yet, or a solve found that it stood still.
        points: that it was solved with.
        motion: how poses that come with the depth are used.
        solved: whether the unit of the camera means nothing yet.
        distortion: of the footage's lens, where the camera's file states it.
        notes: sentences for the artist about a solve without a camera.
    """

    camera: KnownCamera | None = None
    points: SparsePoints | None = None
    motion: CameraMotion = "auto"
    solved: bool = False
    notes: tuple[str, ...] = ()
    distortion: LensDistortion | None = None

    @property
    def intrinsics(self) -> KnownIntrinsics | None:
        """The lens of the camera, if there is one."""
        return None if self.camera is None else KnownIntrinsics(self.camera.path.intrinsics, self.camera.origin)

    def with_depth(
        self, depth: DepthClip, distortion: LensDistortion | None
    ) -> tuple[KnownCamera | None, DepthClip, tuple[str, ...]]:
        """The camera and the depth in one unit, and sentences for the artist about the camera.

        Args:
            depth: of the footage; its own poses are taken where no camera is known.
            distortion: of the footage's lens.

        Raises:
            DepthError: the depth cannot be related to the points.
        """
        camera = self.camera
        if camera is not None and self.points is not None:
            # A file's points are in the pixels of the footage as it is, those of a solve in undistorted ones.
            undone = distortion if self.distortion is None else None
            camera, depth = with_points(camera, depth, self.points, solved=self.solved, distortion=undone)
        camera = resolved_camera(camera, depth, self.motion)
        return camera, depth, (*self.notes, *(() if camera is None else camera.notes))


def camera_of_file(sources: SourcePaths, settings: ReconstructionSettings, footage: FootageInfo) -> FoundCamera:
    """The camera of the source's file, with the points that it holds; without a file nothing is known.

    Raises:
        CameraError: the file cannot be used.
        RequestError: the camera is to be solved for as well.
    """
    if sources.camera is None:
        return FoundCamera(motion=settings.camera_motion)
    if settings.camera_motion == "solve":
        raise RequestError("the camera is either solved for or given by a file; leave one of them out")
    how = (sources.camera, footage, settings.camera_scale, settings.camera_gaps)
    found, points = read_source_camera(*how), read_source_points(*how)
    if found.distortion is not None and settings.depth.mist is not None:
        raise RequestError("a mist pass is rendered without lens distortion, which the camera file has; leave one out")
    origin = f"the camera file {sources.camera_label or sources.camera.name}"
    camera = KnownCamera(found.path, origin, found.notes)
    return FoundCamera(camera, points, settings.camera_motion, distortion=found.distortion)


def camera_of_footage(
    footage: FootageInfo,
    lens: KnownIntrinsics | None,
    distortion: LensDistortion | None,
    progress: Callable[[int, int], None],
    mask: MotionMask | None = None,
) -> FoundCamera:
    """The camera that a solve finds in the footage; errors and `progress` as `ex4d.depth.solve_camera`.

    Args:
        lens: where it is known; otherwise the solve finds it, too.
        distortion: of the footage's lens.
        mask: of what moves in it.
    """
    solved = solve_camera(footage, None if lens is None else lens.matrix, distortion, progress, mask)
    return FoundCamera(solved.camera, solved.points, "still", True, solved.notes)

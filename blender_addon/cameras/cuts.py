"""Cuts between cameras: which camera shoots which frames, where markers on the timeline switch between them.

A shot is a list of `Cut`s, one after the other; most have one. `sample_cuts` reads all of them as one `CameraPath`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import bpy
import numpy as np

from ex4d_core.cameras import CameraPath

from .sampling import sample_camera


@dataclass(frozen=True)
class Cut:
    """A stretch of frames with one camera.

    Attributes:
        camera: shoots it.
        frame_start: first Blender frame.
        frame_end: last Blender frame, included.
        name: of the marker that begins it; "" where no marker does.
    """

    camera: bpy.types.Object
    frame_start: int
    frame_end: int
    name: str = ""


def camera_markers(blender_scene: bpy.types.Scene) -> list[bpy.types.TimelineMarker]:
    """The markers that switch cameras, in the order of their frames; Blender ignores cameras that are not rendered."""
    bound = (marker for marker in blender_scene.timeline_markers if marker.camera and not marker.camera.hide_render)
    return sorted(bound, key=lambda marker: marker.frame)


def cuts_by_markers(blender_scene: bpy.types.Scene, frame_start: int, frame_end: int) -> list[Cut]:
    """The cameras that Blender plays and renders a range with.

    As in Blender, the first marker's camera also shoots what comes before it.

    Args:
        blender_scene: has the markers.
        frame_start: first frame of the range.
        frame_end: last frame, included.

    Returns:
        One cut for each marker that counts, or one with the active camera; none without any camera or frame.
    """
    markers = camera_markers(blender_scene)
    if not markers:
        active = blender_scene.camera
        return [Cut(active, frame_start, frame_end)] if active is not None and frame_start <= frame_end else []
    begins = [min(frame_start, markers[0].frame), *(marker.frame for marker in markers[1:])]
    ends = [begin - 1 for begin in begins[1:]] + [frame_end]
    cuts = (
        Cut(marker.camera, max(begin, frame_start), min(end, frame_end), marker.name)
        for marker, begin, end in zip(markers, begins, ends, strict=True)
    )
    return [cut for cut in cuts if cut.frame_start <= cut.frame_end]


def sample_cuts(cuts: Sequence[Cut], scene_object: bpy.types.Object) -> CameraPath:
    """The camera of every frame of some cuts, as `sample_camera` reads one.

    Args:
        cuts: one after the other, at least one.
        scene_object: the imported scene.

    Raises:
        CameraError: see `sample_camera`.
    """
    return join([sample_camera(cut.camera, scene_object, cut.frame_start, cut.frame_end) for cut in cuts])


def join(paths: Sequence[CameraPath]) -> CameraPath:
    """One path of several, which have images of the same size."""
    return replace(
        paths[0],
        world_to_camera=np.concatenate([path.world_to_camera for path in paths]),
        intrinsics=np.concatenate([path.intrinsics for path in paths]),
    )

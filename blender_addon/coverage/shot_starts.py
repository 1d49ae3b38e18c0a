"""What is known about a shot's first frame: whether it is the source view, and how much of it the footage shows."""

from __future__ import annotations

from dataclasses import dataclass

import bpy

from ex4d_core.lead_in import AT_SOURCE, start_distance
from ex4d_core.scene_manifest import SceneError

from .live_coverage import live_coverage
from .shot_path import shot_paths


@dataclass(frozen=True)
class KnownStart:
    """The first frame of a shot.

    Attributes:
        at_source: whether it is the source view; None while the camera path has not been read.
        visible_fraction: the share of it that the footage saw; None while coverage has not been computed.
    """

    at_source: bool | None = None
    visible_fraction: float | None = None


# By scene and by number of the camera path: a panel is drawn at every move of the pointer.
_starts: dict[tuple[int, str, int], bool] = {}


def start_of_shot(blender_scene: bpy.types.Scene, scene_object: bpy.types.Object) -> KnownStart:
    """What is known about the active shot of a scene without reading its camera or asking the backend."""
    shown, shot_path = live_coverage.of(blender_scene).shown, shot_paths.of(blender_scene)
    if shot_path.path is None:
        return KnownStart()
    key = blender_scene.session_uid, scene_object.ex4d_scene.digest, shot_path.number
    if key not in _starts:
        try:
            package = live_coverage.of(blender_scene).open(scene_object)
            sources = package.source_camera()
        except (SceneError, OSError):
            return KnownStart()
        first = shot_path.frame_start - scene_object.ex4d_scene.frame_start
        shown_frame = first if shot_path.source_frames is None else shot_path.source_frames[0]
        source = sources.at([min(max(shown_frame, 0), len(sources) - 1)])
        _starts.clear()
        _starts[key] = start_distance(source, shot_path.path, package.manifest.depth_range) <= AT_SOURCE
    is_current = shown is not None and len(shown.fresh) > 0 and bool(shown.fresh[0])
    return KnownStart(_starts[key], float(shown.seen[0]) if shown is not None and is_current else None)

"""What is known about a shot's first frame: whether it is the source view, and how much of it the footage shows."""

from __future__ import annotations

from dataclasses import dataclass

import bpy

from ex4d_core.cameras import CameraPath
from ex4d_core.lead_in import AT_SOURCE, shows_first_frame, start_distance
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError

from .live_coverage import live_coverage
from .shot_path import shot_paths


@dataclass(frozen=True)
class KnownStart:
    """The first frame of a shot.

    Attributes:
        at_source: whether it is the source view, or shown as it; None while the camera path has not been read.
        visible_fraction: the share of it that the footage saw; None while coverage has not been computed.
    """

    at_source: bool | None = None
    visible_fraction: float | None = None


# By scene, its place in time, and number of the camera path: a panel is drawn at every move of the pointer.
_starts: dict[tuple[int, str, int, int], bool] = {}


def start_of_shot(blender_scene: bpy.types.Scene, scene_object: bpy.types.Object) -> KnownStart:
    """What is known about the active shot of a scene without reading its camera or asking the backend."""
    shown, shot_path = live_coverage.of(blender_scene).shown, shot_paths.of(blender_scene)
    if shot_path.path is None:
        return KnownStart()
    link = scene_object.ex4d_scene
    key = blender_scene.session_uid, link.digest, link.frame_start, shot_path.number
    if key not in _starts:
        try:
            package = live_coverage.of(blender_scene).open(scene_object)
            first = shot_path.frame_start - link.frame_start
            at_source = _is_at_source(
                package, shot_path.path, first if shot_path.source_frames is None else shot_path.source_frames[0]
            )
        except (SceneError, OSError):
            return KnownStart()
        _starts.clear()
        _starts[key] = at_source
    is_current = shown is not None and len(shown.fresh) > 0 and bool(shown.fresh[0])
    return KnownStart(_starts[key], float(shown.seen[0]) if shown is not None and is_current else None)


def _is_at_source(package: Scene, camera: CameraPath, shown_frame: int) -> bool:
    """Whether a camera's first frame is the source view of a footage frame, or shown as it."""
    if shows_first_frame(package.manifest, camera, package.manifest.convention):
        return True
    sources = package.source_camera()
    source = sources.at([min(max(shown_frame, 0), len(sources) - 1)])
    return start_distance(source, camera, package.manifest.depth_range) <= AT_SOURCE

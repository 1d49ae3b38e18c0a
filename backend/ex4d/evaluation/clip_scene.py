"""A clip's scene, the tasks that follow from it, and what is known of a task before any method's result is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ex4d.evaluation.clips import EvaluationClip, Frames, Task
from ex4d.evaluation.errors import EvaluationError
from ex4d.evaluation.protocols import Protocol
from ex4d.media.origin import footage_sha256
from ex4d.pipeline.outputs import render_views
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.source_paths import SourcePaths
from ex4d_core.cameras import CameraPath, invert_rigid
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene, SceneError
from ex4d_core.sources import DepthSettings, depth_layout

# Of the models, the one that comes closest to what a camera sees; see docs/measured/rendering.md.
_SEEN = RenderSettings(occlusion="thickness", clean=False, remember=False)
_SCENES = "scenes"


@dataclass(frozen=True, eq=False)
class ClipInputs:
    """A clip with its scene and its tasks.

    Attributes:
        clip: of the data set.
        scene: its footage with depth; None where depth is not known.
        tasks: what every method owes.
    """

    clip: EvaluationClip
    scene: Scene | None
    tasks: tuple[Task, ...]

    @staticmethod
    def prepare(clip: EvaluationClip, protocol: Protocol, work: Path, device: str) -> ClipInputs:
        """Reconstruct a clip's scene, once in a work folder, and list its tasks.

        Raises:
            Ex4dError: footage, depth or cameras cannot be used.
        """
        scene = None if clip.depth is None else _scene(clip, work / _SCENES, device)
        if scene is not None and clip.camera is not None:
            clip = replace(clip, camera=_in_scene(clip.camera, clip.source_camera, scene))
        return ClipInputs(clip, scene, tuple(protocol.tasks(clip, scene)))


@dataclass(frozen=True, eq=False)
class KnownViews:
    """What is known of a task, at the size and length at which all methods are measured.

    Attributes:
        size: (width, height).
        source: the footage.
        truth: the true view; None where there is none.
        seen: (T, H, W) bool, whether the footage saw what the camera sees; None where it is unknown.
        render: (T, H, W, 3) uint8, the footage's own pixels there; None where depth is unknown.
    """

    size: tuple[int, int]
    source: Frames
    truth: Frames | None
    seen: np.ndarray | None
    render: np.ndarray | None

    @staticmethod
    def of(task: Task, scene: Scene | None, protocol: Protocol, device: str) -> KnownViews:
        """Read and render it.

        Raises:
            Ex4dError: the truth or the masks cannot be read, or do not fit each other.
        """
        clip, camera = task.clip, task.camera
        original = Frames(clip.source if clip.truth is None else clip.truth)
        size = protocol.size_for(original.width, original.height)
        count = protocol.frames or len(Frames(clip.source))
        truth = None if clip.truth is None else Frames(clip.truth, size, count)
        if truth is not None and len(truth) < count:
            raise EvaluationError(f"{clip.name}: the truth has {len(truth)} frames, and the footage {count}")
        seen = None
        if clip.seen is not None:
            seen = np.stack([frame[..., 0] > 127 for frame in Frames(clip.seen, size, count)])
            if len(seen) < count:
                raise EvaluationError(f"{clip.name}: the masks of what was seen have {len(seen)} frames of {count}")
        render = None
        if scene is not None and camera is not None:
            views = render_views(scene, camera.framed(*size), _SEEN, device=device)
            render, seen = views.color, views.mask if seen is None else seen
        return KnownViews(size, Frames(clip.source, size, count), truth, seen, render)


def _scene(clip: EvaluationClip, folder: Path, device: str) -> Scene:
    assert clip.depth is not None
    files = [one for one in (clip.source, clip.depth, clip.source_camera) if one is not None]
    known = [*map(footage_sha256, files), repr(clip.fov_degrees)]
    place = folder / hashlib.sha256("\n".join(known).encode()).hexdigest()[:32]
    try:
        return Scene.open(place)
    except SceneError:
        pass
    fov = None if clip.source_camera is not None else clip.fov_degrees
    depth = DepthSettings(layout=depth_layout(clip.depth))
    settings = ReconstructionSettings(name=clip.name, depth=depth, fov_degrees=fov)
    sources = SourcePaths(clip.source.resolve(), clip.depth.resolve(), clip.source_camera)
    return reconstruct(sources, settings, place, device=device, overwrite=True)


def _in_scene(camera: CameraPath, source_camera: Path | None, scene: Scene) -> CameraPath:
    """A camera of the data set's world in the scene's, whose origin may be another."""
    if source_camera is None:
        return camera
    here, there = scene.source_camera().world_to_camera[0], CameraPath.load(source_camera).world_to_camera[0]
    moved = camera.world_to_camera @ invert_rigid(there[None])[0] @ here
    return replace(camera, world_to_camera=moved)

"""A clip's scene, the tasks that follow from it, and what is known of a task before any method's result is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from filelock import FileLock

from ex4d.evaluation.clips import EvaluationClip, Frames, Task
from ex4d.evaluation.depth_frames import DepthFrames
from ex4d.evaluation.errors import EvaluationError
from ex4d.evaluation.metrics import METRICS
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
        scene = _scene(clip, work / _SCENES, device) if _needs_scene(clip, protocol) else None
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
        rendered: (T, H, W) bool, where `render` has them: a data set's own `seen` may be of other frames, too.
    """

    size: tuple[int, int]
    source: Frames
    truth: Frames | None
    seen: np.ndarray | None
    render: np.ndarray | None
    rendered: np.ndarray | None

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
        render = rendered = None
        if scene is not None and camera is not None:
            views = render_views(scene, camera.framed(*size), _SEEN, device=device)
            render, rendered, seen = views.color, views.mask, views.mask if seen is None else seen
        return KnownViews(size, Frames(clip.source, size, count), truth, seen, render, rendered)


def _needs_scene(clip: EvaluationClip, protocol: Protocol) -> bool:
    """Whether anything that is measured follows from the clip's depth, and not from the data set's own files."""
    measured = any("scene" in METRICS[name].needs for name in protocol.metrics)
    return clip.depth is not None and (bool(protocol.ranges) or clip.seen is None or measured)


def _scene(clip: EvaluationClip, folder: Path, device: str) -> Scene:
    place = folder / _digest(clip)[:32]
    folder.mkdir(parents=True, exist_ok=True)
    # Clips may share a scene, and workers of several devices come to it at the same time.
    with FileLock(f"{place}.lock"):
        try:
            return Scene.open(place)
        except SceneError:
            return _made(clip, place, device)


def _made(clip: EvaluationClip, place: Path, device: str) -> Scene:
    assert clip.depth is not None
    if isinstance(clip.depth, Path):
        return _reconstructed(clip, clip.depth, place, device)
    with TemporaryDirectory(dir=place.parent) as temporary:
        depth = Path(temporary) / "depth.npy"
        clip.depth.write(depth)
        return _reconstructed(clip, depth, place, device)


def _reconstructed(clip: EvaluationClip, depth: Path, place: Path, device: str) -> Scene:
    fov = None if clip.source_camera is not None else clip.fov_degrees
    settings = ReconstructionSettings(name=clip.name, depth=DepthSettings(layout=depth_layout(depth)), fov_degrees=fov)
    sources = SourcePaths(clip.source.resolve(), depth.resolve(), clip.source_camera, clip.moving)
    return reconstruct(sources, settings, place, device=device, overwrite=True)


def _digest(clip: EvaluationClip) -> str:
    """Of all that its scene follows from: clips that differ in their new cameras share one."""
    known = [str(clip.fov_degrees)]
    for one in (clip.source, clip.depth, clip.source_camera, clip.moving):
        known.append("" if one is None else one.digest() if isinstance(one, DepthFrames) else footage_sha256(one))
    return sha256("-".join(known).encode()).hexdigest()


def _in_scene(camera: CameraPath, source_camera: Path | None, scene: Scene) -> CameraPath:
    """A camera of the data set's world in the scene's, whose origin may be another."""
    if source_camera is None:
        return camera
    here, there = scene.source_camera().world_to_camera[0], CameraPath.load(source_camera).world_to_camera[0]
    moved = camera.world_to_camera @ invert_rigid(there[None])[0] @ here
    return replace(camera, world_to_camera=moved)

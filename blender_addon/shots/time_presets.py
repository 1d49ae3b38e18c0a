"""Curves of a shot's time by name: freeze, slow motion, a ramp, reverse, and a freeze with an orbit around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import bpy
import numpy as np

from ex4d_core.cameras import CameraPath
from ex4d_core.pivots import DEFAULT_PIVOT, Pivot
from ex4d_core.trajectories import Trajectory, build_path

from ..cameras.keyframes import animate_with_few_keys, new_camera
from ..scenes.link import collection_for, link_of, open_scene


@dataclass(frozen=True)
class TimeCurve:
    """Keys of a shot's time.

    Attributes:
        keys: (frame, moment), both in Blender frames.
        interpolation: between them, as Blender calls it.
        last: Blender frame at which the shot ends.
    """

    keys: tuple[tuple[float, float], ...]
    interpolation: str
    last: int


@dataclass(frozen=True)
class Span:
    """What a preset starts from, in Blender frames.

    Attributes:
        first, last: of the shot.
        footage_first, footage_last: of the footage.
        moment: the current frame.
    """

    first: int
    last: int
    footage_first: int
    footage_last: int
    moment: int

    @property
    def shown(self) -> int:
        """The moment, within shot and footage."""
        return min(max(self.moment, self.first, self.footage_first), self.last, self.footage_last)


def freeze(span: Span) -> TimeCurve:
    """Hold the current moment for the whole shot."""
    return TimeCurve(((span.first, span.shown),), "CONSTANT", span.last)


def slow_motion(span: Span, speed: float) -> TimeCurve:
    """An even speed from the shot's first frame on, for as long as the shot lasts."""
    ends_at = span.first + speed * (span.last - span.first)
    return TimeCurve(((span.first, span.first), (span.last, ends_at)), "LINEAR", span.last)


def ramp(span: Span, speed: float) -> TimeCurve:
    """Full speed, slowed down around the current moment, and full speed again, with smooth changes."""
    length = span.last - span.first
    third = length / 3
    around = min(max(span.moment - span.first, third), 2 * third) - third / 2
    frames = (0.0, around, around + third, float(length))
    moments = (0.0, around, around + speed * third, around + speed * third + length - around - third)
    keys = tuple((span.first + frame, span.first + moment) for frame, moment in zip(frames, moments, strict=True))
    return TimeCurve(keys, "BEZIER", span.last)


def reverse(span: Span) -> TimeCurve:
    """Backwards, from the shot's last moment that was filmed."""
    last = min(span.last, span.footage_last)
    return TimeCurve(((span.first, last), (span.last, last - (span.last - span.first))), "LINEAR", span.last)


def freeze_within(span: Span, hold: int) -> TimeCurve:
    """Play to the current moment, hold it for some frames, and play on: bullet time. The shot gets longer by them."""
    moment = span.shown
    keys = ((span.first, span.first), (moment, moment), (moment + hold, moment), (span.last + hold, span.last))
    return TimeCurve(tuple(dict.fromkeys(keys)), "LINEAR", span.last + hold)


def orbiting_camera(
    scene_object: bpy.types.Object,
    span: Span,
    hold: int,
    shown: Sequence[int],
    degrees: float,
    pivot: Pivot = DEFAULT_PIVOT,
) -> bpy.types.Object:
    """A camera that follows the source camera, and orbits the pivot while time stands still.

    After an orbit of less than a whole turn it keeps its angle to the source camera.

    Args:
        scene_object: the imported scene.
        span: of the shot before it became longer.
        hold: for how many frames time stands still.
        shown: footage frames, from 0, of each frame of the longer shot.
        degrees: around the pivot; negative ones to the other side.
        pivot: as in the frame that is held.

    Raises:
        RequestError: the pivot is not in front of the source camera in that frame.
        SceneError: the scene package is missing or changed.
    """
    package = open_scene(scene_object)
    source, manifest = package.source_camera().at(shown), package.manifest
    orbit = Trajectory("orbit", degrees, easing="ease_in_out")
    size, point = (manifest.width, manifest.height), pivot.in_view(package, shown[span.shown - span.first])
    turns = build_path(orbit, hold + 1, source.intrinsics[0], *size, point).world_to_camera
    places = np.clip(np.arange(len(shown)) - (span.shown - span.first), 0, hold)
    path: CameraPath = replace(source, world_to_camera=turns[places] @ source.world_to_camera)
    camera = new_camera("Camera freeze", scene_object, collection_for(scene_object))
    animate_with_few_keys(camera, path, span.first)
    return camera


def span_of(scene_object: bpy.types.Object, first: int, last: int, moment: int) -> Span:
    """A shot from ``first`` to ``last`` of an imported scene, at the current frame."""
    link = link_of(scene_object)
    return Span(first, last, link.frame_start, link.frame_start + link.frames - 1, moment)

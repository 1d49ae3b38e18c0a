"""Coverage of the active shot, kept up to date: edits make it stale, ticks read the camera path again and ask.

Only the frames whose camera has moved are asked for; the others keep their values.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace

import bpy
import numpy as np
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.messages import Coverage, GetCoverage
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError
from ex4d_core.shot import ShotRequest

from ..cameras.sampling import sample_camera
from ..live.query import LiveQuery, add_query
from ..scenes.link import is_scene_object
from ..scheduler import LIVE_SECONDS, scheduler
from ..shots.objects import shot_objects
from ..shots.properties import active_shot
from ..shots.source_time import is_driven, source_frames_of, time_signature
from ..takes.requests import render_settings, shot_range
from .path import is_keyframed_only, path_in_slices

# Below this visible fraction most of a frame is generated.
LITTLE_KNOWN = 0.5
# Beyond this view angle, surfaces that the footage saw edge-on fill much of the frame.
FAR_ASIDE_DEGREES = 60.0
# Cameras this close see the same: in scene units and in pixels.
_SAME_POSE, _SAME_INTRINSICS = 1e-6, 1e-3
# Settings of the render that change what the camera sees.
_RENDER_SETTINGS = (
    *("resolution_x", "resolution_y", "resolution_percentage", "pixel_aspect_x", "pixel_aspect_y"),
    *("frame_map_old", "frame_map_new"),
)
# Of each tick, for evaluating curves; the rest of the budget is for asking.
_SLICE_SECONDS = LIVE_SECONDS / 2


@dataclass(frozen=True)
class ShownCoverage:
    """What is known of a shot.

    Attributes:
        frame_start: Blender frame of the first value.
        seen: (T,) visible fraction of each frame.
        view_angle: (T,) degrees from the source camera.
        fresh: (T,) bool, false where the camera has moved since and the answer is on its way.
    """

    frame_start: int
    seen: np.ndarray
    view_angle: np.ndarray
    fresh: np.ndarray

    @property
    def warning(self) -> str:
        """Where little is visible, for people; "" if nowhere."""
        little = np.flatnonzero(self.seen < LITTLE_KNOWN)
        if len(little):
            text = iface_("Less than {fraction} visible from frame {frame}: mostly generated")
            return text.format(fraction=f"{LITTLE_KNOWN:.0%}", frame=self.frame_start + little[0])
        aside = np.flatnonzero(self.view_angle > FAR_ASIDE_DEGREES)
        if len(aside):
            text = iface_("View angle above {angle}° from frame {frame}")
            return text.format(angle=f"{FAR_ASIDE_DEGREES:.0f}", frame=self.frame_start + aside[0])
        return ""


class LiveCoverage(LiveQuery[Coverage]):
    """Coverage of the active shot.

    Attributes:
        shown: what is known, None before the first answer.
        stale: whether something changed since the camera path was last read.
        answered: the shot that `shown` is about, each frame as it was when it was answered.
        asked: the shot of the newest question, with all of its frames.
        asked_frames: those of them that the question is about.
    """

    settings = "ex4d_coverage"
    interval = 0.3  # while keyframes are dragged

    def reset(self) -> None:
        """As in `LiveQuery`."""
        super().reset()
        self.shown: ShownCoverage | None = None
        self.stale = True
        self.answered: ShotRequest | None = None
        self.asked: ShotRequest | None = None
        self.asked_frames = slice(0)
        self._current: ShotRequest | None = None  # as the camera was read last
        self._reading: Generator[None, None, CameraPath] | None = None
        self._signature: tuple[object, ...] = ()
        self._frame_start = 0
        self._first_frame = 0
        self._source_frames: tuple[int, ...] | None = None

    def refresh(self, context: bpy.types.Context) -> None:
        """Read the camera of any rig by changing frames, and ask.

        Raises:
            SceneError, CameraError, RequestError: there is no shot that could be asked about.
            NotConnectedError: the preferences allow no connection.
        """
        scene_object, camera = shot_objects(context)
        if scene_object is None or camera is None:
            raise RequestError("the shot has no scene or no camera; import a scene and add a camera move")
        package = self._begin(context.scene, scene_object)
        self._ask_about(package, sample_camera(camera, scene_object, *shot_range(context.scene, scene_object)))

    def follow(self, blender_scene: bpy.types.Scene) -> None:
        """Read the camera path on, or again if something has changed."""
        if self._reading is not None:
            self._read_on(self._reading)
            scheduler.tick_soon()
            return
        scene_object, camera = shot_objects(bpy.context) if self.may_ask() else (None, None)
        if scene_object is None or camera is None:
            return
        render, frames = blender_scene.render, shot_range(blender_scene, scene_object)
        signature = (
            scene_object.ex4d_scene.digest,
            camera.name_full,
            frames,
            time_signature(active_shot(blender_scene)),
            *(getattr(render, name) for name in _RENDER_SETTINGS),
        )
        if signature != self._signature:
            self._signature, self.stale = signature, True
        if not self.stale:
            return
        self.stale = False
        if not is_keyframed_only(camera, scene_object) or is_driven(active_shot(blender_scene)):
            self.report("This camera has a rig: press Refresh after changes")
            return
        try:
            self._begin(blender_scene, scene_object)
            self._reading = path_in_slices(camera, scene_object, *frames)
        except SceneError as error:
            self.report(str(error))

    def received(self, answer: Coverage) -> None:
        """Show the new values between those that are known; the camera may have moved on meanwhile."""
        seen, angle = np.array(answer.seen), np.array(answer.view_angle)
        if self.answered is not None and self.shown is not None:
            seen = _with(self.shown.seen, self.asked_frames, seen)
            angle = _with(self.shown.view_angle, self.asked_frames, angle)
        # What was not asked for had not moved.
        self.answered = self.asked
        self.shown = ShownCoverage(self._frame_start, seen, angle, np.ones(len(seen), dtype=bool))
        if self._package is not None and self._current is not None:
            self._ask_for_unknown_frames(self._package, self._current)

    def failed(self) -> None:
        """Read and ask again, at the pace of edits."""
        self.stale = True

    def report(self, problem: str) -> None:
        """Show a problem, in the timelines too."""
        super().report(problem)
        for window in bpy.context.window_manager.windows:
            for area in window.screen.areas:
                if area.type in ("DOPESHEET_EDITOR", "GRAPH_EDITOR"):
                    area.tag_redraw()

    def _begin(self, blender_scene: bpy.types.Scene, scene_object: bpy.types.Object) -> Scene:
        package = self.open(scene_object)
        self.note_try()
        self._frame_start, frame_end = shot_range(blender_scene, scene_object)
        self._first_frame = self._frame_start - scene_object.ex4d_scene.frame_start
        shot = active_shot(blender_scene)
        self._source_frames = source_frames_of(shot, scene_object, self._frame_start, frame_end)
        return package

    def _read_on(self, reading: Generator[None, None, CameraPath]) -> None:
        deadline = time.perf_counter() + _SLICE_SECONDS
        try:
            while time.perf_counter() < deadline:
                next(reading)
        except StopIteration as end:
            self._reading = None
            try:
                if self._package is not None:
                    self._ask_about(self._package, end.value)
            except RequestError as error:
                self.report(str(error))
        except (CameraError, ReferenceError) as error:  # the camera was deleted meanwhile, or is not a perspective one
            self._reading = None
            self.report(str(error))

    def _ask_about(self, package: Scene, path: CameraPath) -> None:
        shown = self._source_frames
        if shown is None and self._first_frame < 0:
            raise RequestError("the shot starts before the footage; move its first frame")
        first = self._first_frame if shown is None else 0
        request = ShotRequest(package.digest, path, first, render_settings(package), source_frames=shown)
        request.require_footage(package.manifest.frames)
        self._current = request
        if self.asked is not None and not _same_shot(self.asked, request):
            self.drop()  # the backend drops what it was at, for the newer question
        self._ask_for_unknown_frames(package, request)

    def _ask_for_unknown_frames(self, package: Scene, request: ShotRequest) -> None:
        """Ask for the frames that are not known as the camera is now; one question at a time, so that answers come."""
        moved = self._unknown_frames(request)
        if len(moved) and not self.waiting:
            self.asked = request
            # With keys that are dragged, that is the stretch between their neighbours.
            start, stop = int(moved[0]), int(moved[-1]) + 1
            self.asked_frames = slice(start, stop)
            self.ask(package, GetCoverage(request.part(start, stop).to_wire()))
        self.report("")

    def _unknown_frames(self, request: ShotRequest) -> np.ndarray:
        """Indices of the frames whose values are not known; those that are shown all the same are not fresh now."""
        frames = np.arange(len(request.camera))
        if self.shown is None or self.answered is None or not _same_shot(self.answered, request):
            if self.shown is not None:
                self.shown = replace(self.shown, fresh=np.zeros(len(self.shown.seen), dtype=bool))
            self.answered = None
            return frames
        moved = _moved(self.answered, request)
        self.shown = replace(self.shown, fresh=~np.isin(frames, moved))
        return moved


live_coverage = LiveCoverage()


def _with(values: np.ndarray, part: slice, newer: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[part] = newer
    return values


def _same_shot(one: ShotRequest, other: ShotRequest) -> bool:
    """Whether two questions are about as many frames of the same scene, in images of one size."""
    first, second = (
        (request.scene, len(request.camera), request.camera.width, request.camera.height) for request in (one, other)
    )
    return first == second


def _moved(one: ShotRequest, other: ShotRequest) -> np.ndarray:
    """Indices of the frames that show another moment, or whose camera differs by more than Blender's own rounding."""
    before, now = one.camera, other.camera
    pose = np.abs(before.world_to_camera - now.world_to_camera).max(axis=(1, 2)) > _SAME_POSE
    intrinsics = np.abs(before.intrinsics - now.intrinsics).max(axis=(1, 2)) > _SAME_INTRINSICS
    return np.flatnonzero(pose | intrinsics | (np.array(one.footage_frames) != np.array(other.footage_frames)))


@bpy.app.handlers.persistent
def _after_update(_: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
    for update in depsgraph.updates:
        changed = update.id
        is_ours = isinstance(changed, bpy.types.Object) and (changed.type == "CAMERA" or is_scene_object(changed))
        moved = is_ours and update.is_updated_transform
        if moved or isinstance(changed, (bpy.types.Action, bpy.types.Camera)):
            live_coverage.stale = True


HANDLERS = (("depsgraph_update_post", _after_update),)


def register() -> None:
    """Follow the artist's edits."""
    add_query(live_coverage)

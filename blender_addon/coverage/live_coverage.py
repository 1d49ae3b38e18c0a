"""Coverage of the active shot, kept up to date: when its camera path has changed, ticks ask about it.

Only the frames whose camera has moved are asked for; the others keep their values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import bpy
import numpy as np
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.errors import RequestError
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError
from ex4d_core.shot import ShotRequest
from ex4d_core.view_messages import Coverage, GetCoverage

from ..live.each_scene import OfEachScene, areas_of
from ..live.query import LiveQuery, add_query
from ..shots.objects import shot_objects
from ..takes.requests import render_settings
from .shot_path import SAME_INTRINSICS, SAME_POSE, ShotPath, shot_paths

# Below this visible fraction most of a frame is generated.
LITTLE_KNOWN = 0.5
# Beyond this view angle, surfaces that the footage saw edge-on fill much of the frame.
FAR_ASIDE_DEGREES = 60.0


@dataclass(frozen=True)
class ShownCoverage:
    """What is known of a shot.

    Attributes:
        frame_start: Blender frame of the first value.
        seen: (T,) visible fraction of each frame.
        remembered: (T,) fraction that only other frames of the footage saw; 0 without the clip's memory.
        view_angle: (T,) degrees from the source camera.
        fresh: (T,) bool, false where the camera has moved since and the answer is on its way.
    """

    frame_start: int
    seen: np.ndarray
    remembered: np.ndarray
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
    """Coverage of a Blender scene's active shot.

    Attributes:
        shown: what is known, None before the first answer.
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
        self.answered: ShotRequest | None = None
        self.asked: ShotRequest | None = None
        self.asked_frames = slice(0, 0)
        self._current: ShotRequest | None = None  # as the camera was read last
        # Number of the camera path, occlusion and memory that were asked about last.
        self._about: tuple[int, str, str] | None = None
        self._frame_start = 0

    def refresh(self, context: bpy.types.Context) -> None:
        """Read the camera of any rig by changing frames, and ask.

        Raises:
            SceneError, CameraError, RequestError: there is no shot that could be asked about.
            NotConnectedError: the preferences allow no connection.
        """
        scene_object, camera = shot_objects(context)
        if scene_object is None or camera is None:
            raise RequestError("the shot has no scene or no camera; import a scene and add a camera move")
        shot_path = shot_paths.of(context.scene)
        shot_path.sample(context)
        self._ask_about(scene_object, shot_path)
        self._about = _about(shot_path, context.scene)

    def follow(self, blender_scene: bpy.types.Scene) -> None:
        """Ask about the camera path if it is another one than before."""
        shot_path = shot_paths.of(blender_scene)
        if shot_path.problem:
            if shot_path.problem != self.problem:
                self.report(shot_path.problem)
            return
        about = _about(shot_path, blender_scene)
        if shot_path.path is None or about == self._about or not self.may_ask():
            return
        scene_object, _ = shot_objects(bpy.context)
        if scene_object is None:
            return
        self._about = about
        try:
            self._ask_about(scene_object, shot_path)
        except (SceneError, RequestError) as error:
            self.report(str(error))

    def received(self, answer: Coverage) -> None:
        """Show the new values between those that are known; the camera may have moved on meanwhile."""
        seen, angle = np.array(answer.seen), np.array(answer.view_angle)
        frames = self.asked_frames.stop - self.asked_frames.start
        remembered = np.array(answer.remembered or np.zeros(frames))  # older backends do not tell it
        if {len(seen), len(angle), len(remembered)} != {frames}:
            text = iface_("the backend tells the coverage of {count} frames, not {frames}; update it")
            self.report(text.format(count=len(seen), frames=frames))
            return
        if self.answered is not None and self.shown is not None:
            seen = _with(self.shown.seen, self.asked_frames, seen)
            angle = _with(self.shown.view_angle, self.asked_frames, angle)
            remembered = _with(self.shown.remembered, self.asked_frames, remembered)
        # What was not asked for had not moved.
        self.answered = self.asked
        self.shown = ShownCoverage(self._frame_start, seen, remembered, angle, np.ones(len(seen), dtype=bool))
        if self._package is not None and self._current is not None:
            self._ask_for_unknown_frames(self._package, self._current)

    def failed(self) -> None:
        """Ask again, at the pace of edits."""
        self._about = None

    def report(self, problem: str) -> None:
        """Show a problem, in timelines and viewports too."""
        super().report(problem)
        for area in areas_of(bpy.context.scene, {"VIEW_3D", "DOPESHEET_EDITOR", "GRAPH_EDITOR"}):
            area.tag_redraw()

    def _ask_about(self, scene_object: bpy.types.Object, shot_path: ShotPath) -> None:
        assert shot_path.path is not None  # checked by the callers
        package, frame_start = self.open(scene_object), shot_path.frame_start
        self.note_try()
        first_frame, shown = frame_start - scene_object.ex4d_scene.frame_start, shot_path.source_frames
        if shown is None and first_frame < 0:
            raise RequestError("the shot starts before the footage; move its first frame")
        shot = bpy.context.scene.ex4d_shot
        render = render_settings(package, shot.occlusion, memory=shot.memory)
        first_frame = first_frame if shown is None else 0
        request = ShotRequest(package.digest, shot_path.path, first_frame, render, source_frames=shown)
        request.require_footage(package.manifest.frames)
        self._current, self._frame_start = request, frame_start
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


live_coverage = OfEachScene(LiveCoverage)


def _about(shot_path: ShotPath, blender_scene: bpy.types.Scene) -> tuple[int, str, str]:
    shot = blender_scene.ex4d_shot
    return shot_path.number, shot.occlusion, shot.memory


def _with(values: np.ndarray, part: slice, newer: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[part] = newer
    return values


def _same_shot(one: ShotRequest, other: ShotRequest) -> bool:
    """Whether two questions are about as many frames of the same scene, in images of one size, rendered alike."""
    first, second = (
        (request.scene, request.render, len(request.camera), request.camera.size) for request in (one, other)
    )
    return first == second


def _moved(one: ShotRequest, other: ShotRequest) -> np.ndarray:
    """Indices of the frames that show another moment, or whose camera differs by more than Blender's own rounding."""
    before, now = one.camera, other.camera
    pose = np.abs(before.world_to_camera - now.world_to_camera).max(axis=(1, 2)) > SAME_POSE
    intrinsics = np.abs(before.intrinsics - now.intrinsics).max(axis=(1, 2)) > SAME_INTRINSICS
    return np.flatnonzero(pose | intrinsics | (np.array(one.footage_frames) != np.array(other.footage_frames)))


def register() -> None:
    """Follow the artist's edits."""
    add_query(live_coverage)

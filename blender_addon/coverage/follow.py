"""Coverage of the current shot, kept fresh: edits make it stale, ticks rebuild the camera path and ask the backend.

What is known lives in `shown`, and not in the .blend: it is asked for again in a moment.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace

import bpy
import numpy as np
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.client import Task
from ex4d_core.messages import Coverage, GetCoverage
from ex4d_core.scene import Scene, SceneError
from ex4d_core.shot import RenderSettings, RequestError, ShotRequest
from ex4d_core.transfers import ask_about

from ..cameras.sampling import sample_camera
from ..connection.preferences import chosen_licence
from ..connection.session import session
from ..scenes.link import is_scene_object, open_scene
from ..shots.objects import shot_objects
from ..takes.shots import shot_range
from .path import is_keyframed_only, path_in_slices

# Below this share of a frame seen, most of the picture is invented.
LITTLE_KNOWN = 0.5
# From here on aside, surfaces that the footage saw edge-on make up much of the picture.
FAR_ASIDE_DEGREES = 60.0
# The backend is asked at most this often while keyframes are dragged.
ASK_SECONDS = 0.3
# Cameras this close see the same: in scene units and in pixels.
_SAME_POSE, _SAME_LENS = 1e-6, 1e-3
# Of each tick, for evaluating curves.
_SLICE_SECONDS = 0.001


@dataclass(frozen=True)
class ShownCoverage:
    """What is known of a shot.

    Attributes:
        frame_start: Blender frame of the first value.
        seen: (T,) share of each frame that the footage saw.
        view_angle: (T,) degrees from the source camera.
        fresh: (T,) bool, false where the camera has moved since and the answer is under way.
    """

    camera: str
    frame_start: int
    seen: np.ndarray
    view_angle: np.ndarray
    fresh: np.ndarray

    @property
    def warning(self) -> str:
        """Where little is known, for people; "" where all is well."""
        little = np.flatnonzero(self.seen < LITTLE_KNOWN)
        if len(little):
            text = iface_("Less than {share} seen from frame {frame} on: mostly invented")
            return text.format(share=f"{LITTLE_KNOWN:.0%}", frame=self.frame_start + little[0])
        aside = np.flatnonzero(self.view_angle > FAR_ASIDE_DEGREES)
        if len(aside):
            text = iface_("More than {angle}° aside from frame {frame} on")
            return text.format(angle=f"{FAR_ASIDE_DEGREES:.0f}", frame=self.frame_start + aside[0])
        return ""


@dataclass
class _Work:
    """Attributes:
    stale: whether something changed since the path was last read.
    reading: the path that is being read, or None.
    wanted: the shot as it was read last.
    asked: the shot of the newest question, all of its frames.
    asked_frames: those of them that the question is about.
    answered: what `shown` is about; each frame as it was when it was answered.
    """

    stale: bool = True
    signature: tuple = ()
    reading: Generator[None, None, CameraPath] | None = None
    begun: float = 0.0
    frame_start: int = 0
    first_frame: int = 0
    camera: str = ""
    package: Scene | None = None
    wanted: ShotRequest | None = None
    asked: ShotRequest | None = None
    asked_frames: slice | None = None
    answered: ShotRequest | None = None
    task: Task[Coverage] | None = None


shown: ShownCoverage | None = None
problem = ""
_work = _Work()


def refresh(context: bpy.types.Context) -> None:
    """Read the camera of any rig by changing frames, and ask.

    Raises:
        SceneError, CameraError, RequestError: there is no shot that could be asked about.
        NotConnectedError: the preferences allow no connection.
    """
    scene_object, camera = shot_objects(context)
    if scene_object is None or camera is None:
        raise RequestError("the shot has no scene or no camera; import a scene and add a camera move")
    _begin(context.scene, scene_object, camera)
    _ask(sample_camera(camera, scene_object, *shot_range(context.scene, scene_object)))


def follow_all() -> None:
    """One step of whatever is due; the session calls it once per tick."""
    _take_answer()
    scene = bpy.context.scene
    if scene is None or not scene.ex4d_coverage.live or not session().connected:
        return
    if _work.reading is not None:
        _read_on()
        session().hurry()
        return
    if time.monotonic() - _work.begun < ASK_SECONDS:
        return
    scene_object, camera = shot_objects(bpy.context)
    if scene_object is None or camera is None:
        return
    render = scene.render
    signature = (
        scene_object.ex4d_scene.digest,
        camera.name_full,
        shot_range(scene, scene_object),
        render.resolution_x,
        render.resolution_y,
        render.resolution_percentage,
        render.pixel_aspect_x,
        render.pixel_aspect_y,
        render.frame_map_old,
        render.frame_map_new,
    )
    if signature != _work.signature:
        _work.signature, _work.stale = signature, True
    if not _work.stale:
        return
    _work.stale = False
    if not is_keyframed_only(camera, scene_object):
        _tell("This camera has a rig: press Refresh after changes")
        return
    try:
        _begin(scene, scene_object, camera)
        _work.reading = path_in_slices(camera, scene_object, *shot_range(scene, scene_object))
    except SceneError as error:
        _tell(str(error))


def _begin(scene: bpy.types.Scene, scene_object: bpy.types.Object, camera: bpy.types.Object) -> None:
    if _work.package is None or _work.package.digest != scene_object.ex4d_scene.digest:
        _work.package = open_scene(scene_object)
    _work.begun = time.monotonic()
    _work.camera = camera.name
    _work.frame_start = shot_range(scene, scene_object)[0]
    _work.first_frame = _work.frame_start - scene_object.ex4d_scene.frame_start


def _read_on() -> None:
    deadline = time.perf_counter() + _SLICE_SECONDS
    try:
        while time.perf_counter() < deadline:
            next(_work.reading)
    except StopIteration as end:
        _work.reading = None
        try:
            _ask(end.value)
        except RequestError as error:
            _tell(str(error))
    except (CameraError, ReferenceError) as error:  # the camera was deleted meanwhile, or is no perspective one
        _work.reading = None
        _tell(str(error))


def _ask(path: CameraPath) -> None:
    package = _work.package
    if _work.first_frame < 0:
        raise RequestError("the shot starts before the footage; move its first frame")
    settings = RenderSettings(convention=package.manifest.convention, licence=chosen_licence())
    request = ShotRequest(package.digest, path, _work.first_frame, settings)
    request.require_footage(package.manifest.frames)
    _work.wanted = request
    if _work.task is not None and not _same_shot(_work.asked, request):
        session().stop(_work.task)  # the backend drops what it was at, for the newer question
        _work.task = None
    _ask_for_what_is_missing()


def _ask_for_what_is_missing() -> None:
    """Ask for the frames that are not known as the camera is now; one question at a time, so that answers do arrive."""
    moved = _frames_to_ask(_work.wanted)
    if len(moved) and _work.task is None:
        _work.asked = _work.wanted
        # With keys that are dragged, that is the stretch between their neighbours.
        _work.asked_frames = slice(int(moved[0]), int(moved[-1]) + 1)
        part = replace(
            _work.asked,
            camera=_work.asked.camera.frames(_work.asked_frames.start, _work.asked_frames.stop),
            first_frame=_work.asked.first_frame + _work.asked_frames.start,
        )
        _work.task = session().start(ask_about(_work.package, GetCoverage(part.to_wire())))
    _tell("")


def _frames_to_ask(request: ShotRequest) -> np.ndarray:
    """Indices of the frames whose values are not known; those that are shown all the same are not fresh any more."""
    global shown
    if shown is None or _work.answered is None or not _same_shot(_work.answered, request):
        if shown is not None:
            shown = replace(shown, fresh=np.zeros(len(shown.seen), dtype=bool))
        _work.answered = None
        return np.arange(len(request.camera))
    moved = _moved(_work.answered, request)
    fresh = np.ones(len(request.camera), dtype=bool)
    fresh[moved] = False
    shown = replace(shown, fresh=fresh)
    return moved


def _take_answer() -> None:
    global shown
    task = _work.task
    if task is None or not task.done:
        return
    _work.task = None
    if task.error is not None:
        _work.stale = True  # asked again, at the pace of edits
        _tell(str(task.error))
        return
    seen, angle = np.array(task.result.seen), np.array(task.result.view_angle)
    if _work.answered is not None:
        seen, angle = _with(shown.seen, _work.asked_frames, seen), _with(shown.view_angle, _work.asked_frames, angle)
    # What was not asked for had not moved.
    _work.answered = _work.asked
    shown = ShownCoverage(_work.camera, _work.frame_start, seen, angle, np.ones(len(seen), dtype=bool))
    _ask_for_what_is_missing()  # the camera may have moved on meanwhile


def _with(values: np.ndarray, part: slice, newer: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[part] = newer
    return values


def _same_shot(one: ShotRequest, other: ShotRequest) -> bool:
    """Whether two questions are about the same frames of the same scene, in pictures of one size."""
    return (one.scene, one.first_frame, len(one.camera), one.camera.width, one.camera.height) == (
        other.scene,
        other.first_frame,
        len(other.camera),
        other.camera.width,
        other.camera.height,
    )


def _moved(one: ShotRequest, other: ShotRequest) -> np.ndarray:
    """Indices of the frames in which the camera of a shot differs, by more than Blender's own rounding."""
    before, now = one.camera, other.camera
    pose = np.abs(before.world_to_camera - now.world_to_camera).max(axis=(1, 2)) > _SAME_POSE
    lens = np.abs(before.intrinsics - now.intrinsics).max(axis=(1, 2)) > _SAME_LENS
    return np.flatnonzero(pose | lens)


def _redraw_timelines() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in ("DOPESHEET_EDITOR", "GRAPH_EDITOR"):
                area.tag_redraw()


def _tell(text: str) -> None:
    global problem
    problem = text
    session().redraw()
    _redraw_timelines()


@bpy.app.handlers.persistent
def _after_update(_: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
    for update in depsgraph.updates:
        changed = update.id
        is_ours = isinstance(changed, bpy.types.Object) and (changed.type == "CAMERA" or is_scene_object(changed))
        moved = is_ours and update.is_updated_transform
        if moved or isinstance(changed, (bpy.types.Action, bpy.types.Camera)):
            _work.stale = True


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    if _work.task is not None:
        session().stop(_work.task)  # the answer would be about another file
    _forget()


def _forget() -> None:
    global shown, problem, _work
    shown, problem, _work = None, "", _Work()


def register() -> None:
    _forget()
    session().followers.append(follow_all)
    bpy.app.handlers.depsgraph_update_post.append(_after_update)
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    bpy.app.handlers.load_post.remove(_after_load)
    bpy.app.handlers.depsgraph_update_post.remove(_after_update)
    session().followers.remove(follow_all)

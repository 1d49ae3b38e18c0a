"""The backend's view of the current frame, in an image datablock: on request, or following the artist.

Following means that each tick looks whether the camera or the frame has changed, and asks for the newest view only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import bpy

from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.client import Task
from ex4d_core.messages import GetView, View
from ex4d_core.scene import Scene, SceneError
from ex4d_core.shot import PreviewSettings, RenderSettings, RequestError, ShotRequest
from ex4d_core.transfers import ask_about

from ..cameras.optics import render_size, require_even_time
from ..cameras.sampling import camera_now
from ..connection.preferences import chosen_licence
from ..connection.session import session
from ..scenes.link import open_scene
from ..shots.objects import shot_objects
from .pictures import show_picture

IMAGE = "EX-4D View"
# Views are asked for at most this often: each one makes Blender draw the image anew.
ASK_SECONDS = 0.2
# Larger pictures are made smaller by the backend: quick to make, to send and to show.
MAX_SIDE = 1024


@dataclass
class _Work:
    """Attributes:
    asked: what the newest question was about.
    """

    package: Scene | None = None
    asked: tuple = ()
    asked_at: float = 0.0
    task: Task[View] | None = None


seen: float | None = None
problem = ""
_work = _Work()


def current_request(context: bpy.types.Context) -> tuple[Scene, ShotRequest]:
    """The shot's camera as it stands now, at the current frame, whatever moves it.

    Raises:
        SceneError, CameraError, RequestError: there is nothing to look at; the text says why.
    """
    scene = context.scene
    scene_object, camera = shot_objects(context)
    if scene_object is None or camera is None:
        raise RequestError("there is no scene or no camera yet; import a scene and add a camera move")
    if _work.package is None or _work.package.digest != scene_object.ex4d_scene.digest:
        _work.package = open_scene(scene_object)
    package, frame = _work.package, scene.frame_current - scene_object.ex4d_scene.frame_start
    if not 0 <= frame < package.manifest.frames:
        raise RequestError(f"frame {scene.frame_current} lies outside the footage; go to a frame that it has")
    require_even_time(scene.render)
    pose, lens = camera_now(camera, scene_object)
    width, height = render_size(scene.render)
    path = CameraPath(pose[None], lens[None], width, height)
    scale = MAX_SIDE / max(width, height)
    if scale < 1.0:
        path = path.resized(max(1, round(width * scale)), max(1, round(height * scale)))
    shot = scene.ex4d_shot
    color = tuple(round(255 * value) for value in shot.hole_color)
    request = ShotRequest(
        package.digest,
        path,
        frame,
        RenderSettings(convention=package.manifest.convention, licence=chosen_licence()),
        preview=PreviewSettings(shot.holes, color),
    )
    return package, request


def ask_for_view(context: bpy.types.Context) -> None:
    """Ask for the current frame; the image is there some ticks later.

    Raises:
        SceneError, CameraError, RequestError: see `current_request`.
        NotConnectedError: the preferences allow no connection.
    """
    package, request = current_request(context)
    if _work.task is not None:
        session().stop(_work.task)
    _work.asked, _work.asked_at = _identity(request), time.monotonic()
    _work.task = session().start(ask_about(package, GetView(request.to_wire())))


def follow_all() -> None:
    """Show what has arrived and ask for what has changed; the session calls it once per tick."""
    _take_answer()
    scene = bpy.context.scene
    if scene is None or not scene.ex4d_view.live or not session().connected or _work.task is not None:
        return
    if time.monotonic() - _work.asked_at < ASK_SECONDS:
        return
    try:
        if _identity(current_request(bpy.context)[1]) != _work.asked:
            ask_for_view(bpy.context)
    except (SceneError, CameraError, RequestError) as error:
        _work.asked_at = time.monotonic()
        _tell(str(error))


def view_image() -> bpy.types.Image | None:
    """The image that shows the view, if there has been one."""
    return bpy.data.images.get(IMAGE)


def _identity(request: ShotRequest) -> tuple:
    """Equal for questions that have the same answer."""
    path = request.camera
    return (
        request.scene,
        request.first_frame,
        path.width,
        path.height,
        path.world_to_camera.tobytes(),
        path.intrinsics.tobytes(),
        request.preview,
    )


def _take_answer() -> None:
    global seen
    task = _work.task
    if task is None or not task.done:
        return
    _work.task = None
    if task.error is not None:
        _work.asked = ()
        _tell(str(task.error))
        return
    seen = task.result.seen
    show_picture(IMAGE, task.result.payload)
    _tell("")


def _tell(text: str) -> None:
    global problem
    problem = text
    session().redraw()


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    if _work.task is not None:
        session().stop(_work.task)  # the answer would be about another file
    _forget()


def _forget() -> None:
    global seen, problem, _work
    seen, problem, _work = None, "", _Work()


def register() -> None:
    _forget()
    session().followers.append(follow_all)
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    bpy.app.handlers.load_post.remove(_after_load)
    session().followers.remove(follow_all)

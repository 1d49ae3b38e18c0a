"""The backend's view of the current frame, in an image datablock: on request, or with every change."""

from __future__ import annotations

from typing import Any

import bpy

from ex4d_core.cameras import CameraError
from ex4d_core.errors import RequestError
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError
from ex4d_core.shot import PreviewSettings, ShotRequest
from ex4d_core.view_messages import GetView, View

from ..cameras.optics import require_even_time
from ..cameras.sampling import current_camera
from ..live.query import LiveQuery, add_query
from ..shots.objects import shot_objects
from ..shots.source_time import source_frame_now
from ..takes.requests import render_settings
from .images import show_image

IMAGE = "EX-4D View"
# Larger images are reduced by the backend: quick to render, to send and to show.
MAX_SIDE = 1024


class LiveView(LiveQuery[View]):
    """The view of the current frame.

    Attributes:
        visible: fraction of the newest view that the footage shows; None before the first.
        remembered: fraction that it shows from other frames.
    """

    settings = "ex4d_view"
    interval = 0.2  # each view makes Blender draw the image again

    def reset(self) -> None:
        """As in `LiveQuery`."""
        super().reset()
        self.visible: float | None = None
        self.remembered = 0.0
        self._asked: dict[str, Any] = {}

    def ask_now(self, context: bpy.types.Context) -> None:
        """Ask for the current frame; the image is there some ticks later.

        Raises:
            SceneError, CameraError, RequestError: see `current_request`.
            NotConnectedError: the preferences allow no connection.
        """
        self._ask(*self.current_request(context))

    def follow(self, blender_scene: bpy.types.Scene) -> None:
        """Ask for the current frame if it, the camera or the settings are others than before."""
        if self.waiting or not self.may_ask():
            return
        try:
            package, request = self.current_request(bpy.context)
            if request.to_wire() != self._asked:
                self._ask(package, request)
        except (SceneError, CameraError, RequestError) as error:
            self.note_try()
            self.report(str(error))

    def received(self, answer: View) -> None:
        """Show the image."""
        self.visible, self.remembered = answer.seen, answer.remembered
        show_image(IMAGE, answer.payload)
        self.report("")

    def failed(self) -> None:
        """Ask again."""
        self._asked = {}

    def current_request(self, context: bpy.types.Context) -> tuple[Scene, ShotRequest]:
        """The shot's camera as it stands now, at the current frame, whatever moves it.

        Raises:
            SceneError, CameraError, RequestError: there is nothing to show; the text says why.
        """
        scene = context.scene
        scene_object, camera = shot_objects(context)
        if scene_object is None or camera is None:
            raise RequestError("there is no scene or camera yet; import a scene and add a camera move")
        shot = scene.ex4d_shot
        package, frame = self.open(scene_object), source_frame_now(shot, scene_object, scene.frame_current)
        if not 0 <= frame < package.manifest.frames:
            raise RequestError(f"frame {scene.frame_current} is outside the footage; go to one of its frames")
        require_even_time(scene.render)
        path = current_camera(camera, scene_object)
        scale = MAX_SIDE / max(path.width, path.height)
        if scale < 1.0:
            path = path.resized(max(1, round(path.width * scale)), max(1, round(path.height * scale)))
        red, green, blue = (round(255 * value) for value in shot.hole_color)
        preview = PreviewSettings(shot.holes, (red, green, blue))
        render = render_settings(package, shot.occlusion, memory=shot.memory)
        return package, ShotRequest(package.digest, path, frame, render, preview=preview)

    def _ask(self, package: Scene, request: ShotRequest) -> None:
        self._asked = request.to_wire()
        self.note_try()
        self.ask(package, GetView(self._asked))


live_view = LiveView()


def view_image() -> bpy.types.Image | None:
    """The image that shows the view, if there has been one."""
    return bpy.data.images.get(IMAGE)


def register() -> None:
    """Follow the artist."""
    add_query(live_view)

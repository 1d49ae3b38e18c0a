"""A generated draft of the active shot, made again by the backend while the artist moves the camera.

Each draft is a small job of the engine wan. While one is generated, the newest camera waits here; one that still waits
in the backend's queue is withdrawn for it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import bpy

from ex4d_core.cameras import CameraError
from ex4d_core.errors import RequestError
from ex4d_core.job_status import JobEvent, JobStatus
from ex4d_core.live_draft import draft_places, live_draft
from ex4d_core.remote_job import JobState
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError
from ex4d_core.shot import ShotRequest

from ..connection.preferences import preferences
from ..connection.session import session
from ..coverage.shot_path import ShotPath, shot_paths
from ..live.query import LiveQuery, add_query
from ..scheduler import scheduler
from ..shots.final_settings import FINAL_ENGINE, final_settings, final_unavailable
from ..shots.objects import shot_objects
from ..takes.requests import render_settings
from .images import show_image

IMAGE = "EX-4D Live Draft"
_PRESET = "live"


class _DraftJob(RemoteTake):
    """A take of which only the frames are of interest."""

    def path_for(self, event: JobEvent) -> Path | None:
        """As in `RemoteTake`, for frames."""
        return super().path_for(event) if event.kind == "frame" else None


class LiveDraft(LiveQuery[JobStatus]):
    """The newest draft.

    Attributes:
        frames: PNG files' contents, of the newest draft.
        size: width and height of its frames, pixels.
    """

    settings = "ex4d_draft"
    interval = 0.2

    def reset(self) -> None:
        """As in `LiveQuery`."""
        super().reset()
        self.frames: list[bytes] = []
        self.size = (0, 0)
        self._blender_frames: list[int] = []
        self._shown: bytes | None = None
        self._about: object = None
        self._job: _DraftJob | None = None
        self._asked_frames: list[int] = []

    def follow(self, blender_scene: bpy.types.Scene) -> None:
        """Show the draft's frame that is nearest to the current one; ask for another draft if the shot has changed."""
        self._show_nearest(blender_scene.frame_current)
        path = shot_paths.of(blender_scene)
        if path.path is None or path.problem:
            if path.problem != self.problem:
                self.report(path.problem)
            return
        if reason := _unavailable():
            self._about = None  # so that a draft comes once the backend has what it lacks
            if reason != self.problem:
                self.report(reason)
            return
        final = blender_scene.ex4d_shot.final
        about = path.number, final.prompt, final.negative_prompt, final.seed, blender_scene.ex4d_shot.occlusion
        if about == self._about or not self.may_ask():
            return
        if self._job is not None and self.waiting:
            if self._job.state is not JobState.QUEUED:
                return  # it ends in a moment
            self._withdraw(self._job)
        self.note_try()
        self._about = about
        try:
            self._ask(blender_scene, path)
        except (SceneError, CameraError, RequestError, OSError) as error:
            self.report(str(error))

    def received(self, answer: JobStatus) -> None:
        """Keep the draft's frames."""
        job, self._job = self._job, None
        if job is None:
            return
        if answer.state == "done" and len(job.frames) == len(self._asked_frames):
            self.frames = [job.frames[index].read_bytes() for index in sorted(job.frames)]
            self.size, self._blender_frames, self._shown = job.request.camera.size, self._asked_frames, None
            self.report("")
            self._show_nearest(bpy.context.scene.frame_current)
        elif answer.state != "cancelled":
            self.report(answer.reason)
        shutil.rmtree(job.folder, ignore_errors=True)

    def failed(self) -> None:
        """Ask again, at the pace of edits."""
        self._about = None

    def _ask(self, blender_scene: bpy.types.Scene, path: ShotPath) -> None:
        scene_object, _ = shot_objects(bpy.context)
        if scene_object is None or path.path is None:
            return
        package = self.open(scene_object)
        request = live_draft(self._request(blender_scene, scene_object, package, path))
        request.require_footage(package.manifest.frames)
        self._asked_frames = [path.frame_start + place for place in draft_places(len(path.path))]
        folder = Path(tempfile.mkdtemp(prefix="ex4d_draft_", dir=bpy.app.tempdir))
        self._job = _DraftJob(folder, request, package)
        self._task = session().start(self._job.conversation())
        scheduler.tick_soon()

    def _request(
        self, blender_scene: bpy.types.Scene, scene_object: bpy.types.Object, package: Scene, path: ShotPath
    ) -> ShotRequest:
        """The final take that this is a draft of."""
        shot, camera = blender_scene.ex4d_shot, path.path
        assert camera is not None  # checked by the caller
        first = path.frame_start - scene_object.ex4d_scene.frame_start if path.source_frames is None else 0
        if first < 0:
            raise RequestError("the shot starts before the footage; move its first frame")
        return ShotRequest(
            package.digest,
            camera,
            first,
            render_settings(package, shot.occlusion, FINAL_ENGINE, shot.memory),
            engine=FINAL_ENGINE,
            wan=final_settings(shot.final),
            source_frames=path.source_frames,
        )

    def _withdraw(self, job: _DraftJob) -> None:
        """Have the backend drop a draft of an older camera."""
        self.drop()
        self._job = None
        session().start(job.cancel_conversation())
        shutil.rmtree(job.folder, ignore_errors=True)

    def _show_nearest(self, frame: int) -> None:
        if not self.frames:
            return
        distances = [abs(frame - other) for other in self._blender_frames]
        image = self.frames[distances.index(min(distances))]
        if image is not self._shown:
            self._shown = image
            show_image(IMAGE, image)


live_drafts = LiveDraft()


def _unavailable() -> str:
    """Why the backend generates no drafts; "" if it does."""
    chosen = preferences()
    return final_unavailable(session().server, _PRESET, chosen is not None and chosen.licence == "RESEARCH")


def draft_image() -> bpy.types.Image:
    """The image that shows the draft; black before the first one."""
    return bpy.data.images.get(IMAGE) or bpy.data.images.new(IMAGE, 512, 288)


def register() -> None:
    """Follow the artist."""
    add_query(live_drafts)

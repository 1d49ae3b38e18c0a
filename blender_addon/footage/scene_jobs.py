"""Reconstructions as followed jobs: send, resume, and import the scene when it has arrived."""

from __future__ import annotations

import bpy

from ex4d_core.reconstruction import ReconstructionPlan
from ex4d_core.remote_job import JobState
from ex4d_core.remote_scene import RemoteScene
from ex4d_core.scene_manifest import SceneError

from ..blender_types import Context, ops
from ..jobs.notices import note_end
from ..jobs.records import add_record, records_of, resumed_fields
from ..jobs.tracker import FollowedJob, tracker
from ..paths import from_blend
from ..scenes.importing import import_scene, select_alone
from ..scenes.link import link_of, scene_objects
from ..scheduler import scheduler
from ..undo_steps import add_undo_step
from .properties import RECONSTRUCTIONS, EX4D_Reconstruction
from .sources import new_scene_folder, plan_from_text, plan_to_text


class FollowedScene(FollowedJob[EX4D_Reconstruction]):
    """A reconstruction that is being followed, or was until its end.

    Attributes:
        imported: its scene has been imported.
    """

    collection = RECONSTRUCTIONS
    finished = (JobState.FAILED, JobState.CANCELLED, JobState.IMPORTED)

    def __init__(self, job: RemoteScene, record: EX4D_Reconstruction):
        """Follow the reconstruction of a record."""
        super().__init__(job, record.id_data)
        self.imported = False

    @classmethod
    def resumed(cls, record: EX4D_Reconstruction) -> FollowedScene | None:
        """See `FollowedJob`."""
        if record.state == JobState.DONE:
            scheduler.run_when_idle(import_finished)
            return None
        plan = None if record.job or record.cancelling else plan_from_text(record.plan)
        return cls(RemoteScene(plan=plan, **resumed_fields(record)), record)

    @classmethod
    def content(cls, record: EX4D_Reconstruction) -> bytes:
        """See `FollowedJob`."""
        return record.plan.encode("utf-8", errors="surrogatepass")

    @classmethod
    def open_result(cls, context: Context, record: EX4D_Reconstruction) -> None:
        """See `FollowedJob`."""
        folder = from_blend(record.folder)
        imported = next((one for one in scene_objects() if from_blend(link_of(one).folder) == folder), None)
        if record.state == JobState.IMPORTED and imported is not None:
            select_alone(context, imported)
            ops.ex4d.look_through_source()
        super().open_result(context, record)

    def settle(self) -> bool:
        """Have the scene imported; its record says "done" until then."""
        if self.job.state is JobState.DONE and not self.imported:
            scheduler.run_when_idle(import_finished)
        return True

    def restore(self, record: EX4D_Reconstruction) -> None:
        """See `FollowedJob`; a scene is not imported twice unless the artist asks for it."""
        if self.imported:
            record.state, record.reason = JobState.STOPPED, "its import was undone; Resume imports it again"
        else:
            super().restore(record)


def start_reconstruction(plan: ReconstructionPlan, blender_scene: bpy.types.Scene) -> EX4D_Reconstruction:
    """Send footage and depth to the backend and follow the job; works while no backend answers, too.

    Raises:
        OSError: the folder for scenes cannot be created.
    """
    job = RemoteScene(new_scene_folder(plan.settings.name), plan)
    record: EX4D_Reconstruction = add_record(blender_scene, RECONSTRUCTIONS, plan.settings.name, job)
    record.plan = plan_to_text(plan)
    FollowedScene.seal(record)
    tracker.send(FollowedScene(job, record))
    return record


def import_finished() -> None:
    """Import every scene that has arrived completely, of those that the artist wants."""
    for blender_scene, record in records_of(RECONSTRUCTIONS):
        if record.state == JobState.DONE and tracker.is_known(record):
            _import(blender_scene, record)


def _import(blender_scene: bpy.types.Scene, record: EX4D_Reconstruction) -> None:
    try:
        with bpy.context.temp_override(scene=blender_scene, view_layer=blender_scene.view_layers[0]):
            imported = import_scene(from_blend(record.folder))
    except SceneError as error:
        record.state, record.reason = JobState.STOPPED, str(error)
        note_end(RECONSTRUCTIONS, record, record.label)
        return
    record.state, record.progress = JobState.IMPORTED, 1.0
    followed = tracker.followed.get(record.key)
    if isinstance(followed, FollowedScene):
        followed.imported = True
    blender_scene.ex4d_shot.scene_object = imported
    note_end(RECONSTRUCTIONS, record, record.label)
    add_undo_step("Import EX-4D Scene")


def register() -> None:
    """Let the tracker follow reconstructions."""
    tracker.kinds.append(FollowedScene)

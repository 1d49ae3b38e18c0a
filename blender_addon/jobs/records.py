"""What a .blend keeps of a job, and how its records are found again.

Takes and reconstructions are listed in collections of the Blender scene (``Scene.ex4d_takes``,
``Scene.ex4d_reconstructions``); their property groups derive from `JobRecord`. The property names are those of the
first release, so that its files open with their jobs.
"""

from __future__ import annotations

from typing import Any

import bpy

from ex4d_core.errors import RequestError
from ex4d_core.remote_job import JobState, RemoteJob

from ..paths import PATH_OPTIONS, from_blend, to_blend


class JobRecord:
    """Properties of one listed job; the tracker keeps them up to date. ``state`` is a `JobState`."""

    label: bpy.props.StringProperty(name="Label", description="Name of the take or scene")
    key: bpy.props.StringProperty(description="Client's identifier of the submission")
    job: bpy.props.StringProperty(description="Backend's identifier of the job")
    last_event: bpy.props.IntProperty(description="Number of the last event that was handled completely")
    folder: bpy.props.StringProperty(
        name="Folder", description="Folder of the results", subtype="DIR_PATH", options=PATH_OPTIONS
    )
    state: bpy.props.StringProperty(description="State of the job", default=JobState.SENDING.value)
    stage: bpy.props.StringProperty(description="Current stage of the job")
    progress: bpy.props.FloatProperty(description="Progress of the stage, from 0 to 1", min=0.0, max=1.0)
    done: bpy.props.IntProperty(description="Completed steps or frames of the stage", options={"SKIP_SAVE"})
    total: bpy.props.IntProperty(description="Steps or frames of the stage", options={"SKIP_SAVE"})
    queue_position: bpy.props.IntProperty(description="Number of jobs ahead in the queue", options={"SKIP_SAVE"})
    eta_seconds: bpy.props.IntProperty(
        description="ETA of the stage in seconds; -1 if unknown", default=-1, options={"SKIP_SAVE"}
    )
    reason: bpy.props.StringProperty(description="Why the job failed or stopped")
    cancelling: bpy.props.BoolProperty(description="Whether the backend must still be told that the job is cancelled")
    seal: bpy.props.StringProperty(description="Shows on which computer the job was started; see jobs.origin")


# What is the same in every copy of a record.
SHARED = (
    *("job", "last_event", "state", "stage", "progress", "done", "total"),
    *("queue_position", "eta_seconds", "reason", "cancelling"),
)


def own_scenes() -> list[bpy.types.Scene]:
    """The Blender scenes of the open file; linked ones belong to their own file, which follows their jobs."""
    return [scene for scene in bpy.data.scenes if scene.library is None]


def records_of(collection: str) -> list[tuple[bpy.types.Scene, Any]]:
    """All records of a kind in the open file, each with the Blender scene that lists it."""
    return [(scene, record) for scene in own_scenes() for record in getattr(scene, collection)]


def find_copies(collection: str, key: str) -> list[tuple[bpy.types.Scene, Any]]:
    """Every record of a job: a duplicated Blender scene has a copy of each."""
    return [found for found in records_of(collection) if found[1].key == key]


def find_record(collection: str, key: str, shown: bpy.types.Scene | None = None) -> tuple[bpy.types.Scene, Any] | None:
    """One record of a job, and the Blender scene that lists it; None when the open file has none.

    Args:
        collection: which list of the Blender scenes to search.
        key: of the job.
        shown: of several such scenes, the one that is meant.
    """
    found = find_copies(collection, key)
    return next((one for one in found if one[0] == shown), found[0] if found else None)


def add_record(blender_scene: bpy.types.Scene, collection: str, label: str, job: RemoteJob) -> Any:
    """List a job that is about to be sent."""
    record = getattr(blender_scene, collection).add()
    record.label = record.name = label
    record.key, record.folder = job.key, to_blend(job.folder)
    return record


def resumed_fields(record: JobRecord) -> dict[str, Any]:
    """The fields of a `RemoteJob` that resume it where the record says it was; as far as is known it was submitted.

    Raises:
        RequestError: the record's key is not one, and would become part of a path.
    """
    if not record.key.isalnum():
        raise RequestError(
            f"the job's key {record.key[:40]!r} is damaged; remove this from the list, and start it again"
        )
    names = ("key", "job", "last_event", "cancelling")
    return {"folder": from_blend(record.folder), "submitted": True, **{name: getattr(record, name) for name in names}}


def set_changed(owner: bpy.types.bpy_struct, name: str, value: object) -> None:
    """Set a property only if it changes: writing one tells all of Blender."""
    known = getattr(owner, name)
    # Blender keeps 32 bits of a number.
    same = abs(known - value) < 1e-6 if isinstance(value, float) else known == value
    if not same:
        setattr(owner, name, value)


def home_of(uid: int) -> bpy.types.Scene | None:
    """The Blender scene with a ``session_uid``, which undo and a new name leave as it is; None if it is gone."""
    return next((scene for scene in own_scenes() if scene.session_uid == uid), None)

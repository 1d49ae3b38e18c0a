"""What operators on a listed job have in common, whatever its kind."""

from __future__ import annotations

from typing import Any, ClassVar

import bpy

from ..connection.session import session
from ..errors import reports_errors
from .records import find_record
from .tracker import tracker


class OnJob:
    """An operator on the job whose key it is given."""

    collection: ClassVar[str]

    key: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def find(self, context: bpy.types.Context) -> tuple[bpy.types.Scene, Any] | None:
        """The job's record and the Blender scene that lists it, or None."""
        return find_record(self.collection, self.key, context.scene)

    def work(self, blender_scene: bpy.types.Scene, record: Any) -> None:
        """What the operator does."""
        raise NotImplementedError

    @reports_errors
    def execute(self: Any, context: bpy.types.Context) -> set[str]:
        found = self.find(context)
        if found is None:
            self.report({"WARNING"}, "This job is no longer in the file")
            return {"CANCELLED"}
        self.work(*found)
        session().redraw()
        return {"FINISHED"}


class CancelsJob(OnJob):
    """Cancels the job."""

    def work(self, blender_scene: bpy.types.Scene, record: Any) -> None:
        tracker.cancel(record)


class ResumesJob(OnJob):
    """Resumes the job."""

    def work(self, blender_scene: bpy.types.Scene, record: Any) -> None:
        tracker.resume(record)


class ForgetsJob(OnJob):
    """Takes the job off the list."""

    bl_options = {"UNDO"}

    def work(self, blender_scene: bpy.types.Scene, record: Any) -> None:
        tracker.forget(blender_scene, record)

"""What operators on a listed job have in common, whatever its kind."""

from __future__ import annotations

from typing import Any, ClassVar

import bpy

from ..connection.operators import EX4D_OT_copy_text
from ..connection.panel import wrapped
from ..connection.session import session
from ..errors import reports_errors
from .records import find_record
from .tracker import tracker

_POPUP_LETTERS = 70


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


class EX4D_OT_show_reason(bpy.types.Operator):
    """Show the whole message."""

    bl_idname = "ex4d.show_reason"
    bl_label = "Show Message"

    reason: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        show_reason(self.reason)
        return {"FINISHED"}


def show_reason(reason: str) -> None:
    """Show a long message below the mouse, and a button that copies it; the artist has just pressed for it."""
    if bpy.app.background or not reason:
        return

    def draw(menu: Any, context: bpy.types.Context) -> None:
        for line in wrapped(reason, _POPUP_LETTERS):
            menu.layout.label(text=line, translate=False)
        menu.layout.operator(EX4D_OT_copy_text.bl_idname, icon="COPYDOWN").text = reason

    bpy.context.window_manager.popup_menu(draw, title="EX-4D", icon="INFO")


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


CLASSES = (EX4D_OT_show_reason,)

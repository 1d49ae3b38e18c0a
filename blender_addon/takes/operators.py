"""Operators that send takes, and work on listed ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.shot import EngineName
from ex4d_core.wan_settings import WanSettings

from ..blender_types import current_context
from ..connection.preferences import preferences
from ..connection.session import session
from ..errors import reports_errors
from ..jobs.operators import CancelsJob, OnJob, ResumesJob
from ..jobs.records import records_of
from ..projects.asking import AsksForProjectFolder
from ..sequencer.edit_scenes import edit_scene_of, strip_in_file
from ..sequencer.strips import StripError
from ..shots.camera_mismatch import camera_mismatch
from ..shots.final_settings import FINAL_ENGINE, final_settings, final_unavailable, settings_of_takes
from ..shots.objects import NeedsShot
from ..shots.properties import EX4D_Shot, active_shot, key_of
from ..views.images import open_image
from .properties import TAKES, EX4D_Take, active_take, newest_take
from .restore import restore_take
from .results import show_result
from .shot_requests import request_of_shot
from .take_jobs import ESTIMATE_IMAGE, forget_take, place_take, retry_take, send_take
from .versions import show_version


class _SendsTake(AsksForProjectFolder, NeedsShot):
    """An operator that sends the active shot to one of the backend's engines."""

    engine: ClassVar[EngineName]

    def settings(self, shot: EX4D_Shot) -> list[WanSettings]:
        """Of the generator, for each take that is sent."""
        return [final_settings(shot.final)]

    # With an undo step Blender also asks to save the file, which would otherwise not know the take.
    bl_options = {"UNDO"}

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        self.use_project_folder()
        blender_scene, shot = context.scene, active_shot(context.scene)
        scene, request, frame_start = request_of_shot(context, self.engine)
        if mismatch := camera_mismatch(context):
            self.report({"WARNING"}, mismatch.text)
        for wan in self.settings(shot):
            send_take(scene, replace(request, wan=wan), frame_start, blender_scene, key_of(shot))
        edit_scene_of(blender_scene)  # now, so that it is part of this undo step
        return {"FINISHED"}


class EX4D_OT_send_take(_SendsTake, bpy.types.Operator):
    """Render the shot on the backend in seconds; frames appear in the sequencer as they arrive."""

    bl_idname = "ex4d.send_take"
    bl_label = "Preview"
    engine = "preview"


class EX4D_OT_send_final(_SendsTake, bpy.types.Operator):
    """Generate the shot on the backend, with areas that the footage does not show; takes minutes."""

    bl_idname = "ex4d.send_final"
    bl_label = "Final"
    engine = FINAL_ENGINE

    def settings(self, shot: EX4D_Shot) -> list[WanSettings]:
        """As many variants as the artist wants."""
        return settings_of_takes(shot.final)

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        chosen = preferences()
        research = chosen is not None and chosen.licence == "RESEARCH"
        reason = final_unavailable(session().server, active_shot(context.scene).final.preset, research)
        if reason:
            cls.poll_message_set(iface_(reason))
            return False
        return super().poll(context)


class _OnTake(OnJob):
    """An operator on the take whose key it is given, or on the one that is marked in the list."""

    collection = TAKES

    @classmethod
    def poll(cls: Any, context: bpy.types.Context) -> bool:
        if not context.scene.ex4d_takes:
            cls.poll_message_set(iface_("There are no takes in this scene yet; press Preview"))
            return False
        return True

    def find(self, context: bpy.types.Context) -> tuple[bpy.types.Scene, EX4D_Take] | None:
        """The marked take, without a key."""
        marked = active_take(context.scene)
        return super().find(context) if self.key or marked is None else (context.scene, marked)


class EX4D_OT_cancel_take(_OnTake, CancelsJob, bpy.types.Operator):
    """Stop generating this take; frames that have arrived stay."""

    bl_idname = "ex4d.cancel_take"
    bl_label = "Cancel Take"


class EX4D_OT_resume_take(_OnTake, ResumesJob, bpy.types.Operator):
    """Try again to send this take, or to fetch its frames."""

    bl_idname = "ex4d.resume_take"
    bl_label = "Resume Take"


class EX4D_OT_retry_take(_OnTake, bpy.types.Operator):
    """Send the same request again as a new job; its frames replace the old ones."""

    bl_idname = "ex4d.retry_take"
    bl_label = "Retry Take"
    bl_options = {"UNDO"}

    def work(self, blender_scene: bpy.types.Scene, record: EX4D_Take) -> None:
        retry_take(record)


class EX4D_OT_forget_take(_OnTake, bpy.types.Operator):
    """Remove this take from the list; its strip and files stay."""

    bl_idname = "ex4d.forget_take"
    bl_label = "Remove Take From List"
    bl_options = {"UNDO"}

    def work(self, blender_scene: bpy.types.Scene, record: EX4D_Take) -> None:
        forget_take(blender_scene, record)


class EX4D_OT_show_take(_OnTake, bpy.types.Operator):
    """Show this take in the sequencer, and mute the other takes of its shot."""

    bl_idname = "ex4d.show_take"
    bl_label = "Show This Version"
    bl_options = {"UNDO"}

    def work(self, blender_scene: bpy.types.Scene, record: EX4D_Take) -> None:
        if strip_in_file(record.key) is None:
            raise StripError("this take has no strip in the sequencer; press Put in Sequencer")
        show_version(record)


class EX4D_OT_show_result(_OnTake, bpy.types.Operator):
    """Show the newest take of the shot, or the frames that have arrived, in a sequencer preview or an Image Editor."""

    bl_idname = "ex4d.show_result"
    bl_label = "Show Result"

    @classmethod
    def poll(cls: Any, context: bpy.types.Context) -> bool:
        if newest_take(context.scene) is None and not context.scene.ex4d_takes:
            cls.poll_message_set(iface_("This shot has no take yet; press Preview"))
            return False
        return True

    def work(self, blender_scene: bpy.types.Scene, record: EX4D_Take) -> None:
        show_result(current_context(), record)


class EX4D_OT_place_take(_OnTake, bpy.types.Operator):
    """Add the movie of this take, or the frames that are there, to the sequencer again."""

    bl_idname = "ex4d.place_take"
    bl_label = "Put in Sequencer"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls: Any, context: bpy.types.Context) -> bool:
        # The sequencer's menu offers takes of all scenes: the edit scene itself has none.
        if not any(records_of(TAKES)):
            cls.poll_message_set(iface_("There are no takes in this file yet; press Preview"))
            return False
        return True

    def work(self, blender_scene: bpy.types.Scene, record: EX4D_Take) -> None:
        place_take(record)


class EX4D_OT_restore_take(_OnTake, bpy.types.Operator):
    """Restore the settings of the shot for this take, with a new camera on the same path."""

    bl_idname = "ex4d.restore_take"
    bl_label = "Use These Settings"
    bl_options = {"UNDO"}

    def work(self, blender_scene: bpy.types.Scene, record: EX4D_Take) -> None:
        note = restore_take(blender_scene, record)
        if note:
            self.report({"WARNING"}, note)


class EX4D_OT_watch_take(bpy.types.Operator):
    """Show the image that is forming in an Image Editor: one that is open, or a new window."""

    bl_idname = "ex4d.watch_take"
    bl_label = "Watch"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if ESTIMATE_IMAGE not in bpy.data.images:
            cls.poll_message_set(iface_("There is no image yet; the first one appears after the first step of a final"))
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        open_image(context, bpy.data.images[ESTIMATE_IMAGE])
        return {"FINISHED"}


CLASSES = (
    EX4D_OT_send_take,
    EX4D_OT_send_final,
    EX4D_OT_cancel_take,
    EX4D_OT_resume_take,
    EX4D_OT_retry_take,
    EX4D_OT_forget_take,
    EX4D_OT_show_take,
    EX4D_OT_show_result,
    EX4D_OT_place_take,
    EX4D_OT_restore_take,
    EX4D_OT_watch_take,
)

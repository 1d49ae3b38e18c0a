"""Operators on takes."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.messages import FINAL_STATES
from ex4d_core.shot import PreviewSettings, WanSettings

from ..connection.preferences import preferences
from ..connection.session import session
from ..errors import reports_errors
from ..sequencer.strips import StripError, find_strip
from ..shots.final import FINAL_ENGINE, final_settings, variants, why_no_final
from ..shots.objects import NeedsShot, shot_objects
from ..shots.properties import EX4D_Shot, active_shot, key_of
from .follow import cancel_take, forget_take, is_followed, place_take, resume_take, retry_take, send_take
from .properties import EX4D_Take, active_take, find_take
from .restore import restore_take
from .shots import build_request, shot_range
from .showing import STOPPED, show_version


class _SendsTake(NeedsShot):
    """An operator that sends the active shot to one of the backend's engines."""

    engine: ClassVar[str]

    def settings(self, shot: EX4D_Shot) -> list[WanSettings]:
        """Of the generator, for each take that is sent."""
        return [final_settings(shot.final)]

    # An undo step also tells Blender to ask for saving, without which the file would know nothing of the take.
    bl_options: ClassVar[set[str]] = {"UNDO"}

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        blender_scene = context.scene
        scene_object, camera = shot_objects(context)
        shot = active_shot(blender_scene)
        frame_start, frame_end = shot_range(blender_scene, scene_object)
        color = tuple(round(255 * value) for value in shot.hole_color)
        scene, request = build_request(
            scene_object,
            camera,
            frame_start,
            frame_end,
            preview=PreviewSettings(shot.holes, color),
            engine=self.engine,
            label=shot.label,
        )
        for wan in self.settings(shot):
            send_take(scene, replace(request, wan=wan), frame_start, blender_scene, key_of(shot))
        workspace = context.workspace
        # From Blender 5.0 on the sequencer shows a scene of its own choice, and at first none.
        if workspace is not None and getattr(workspace, "sequencer_scene", blender_scene) is None:
            workspace.sequencer_scene = blender_scene
        return {"FINISHED"}


class EX4D_OT_send_take(_SendsTake, bpy.types.Operator):
    bl_idname = "ex4d.send_take"
    bl_label = "Preview"
    bl_description = "Have the backend show the shot in seconds; its frames appear in the sequencer as they are made"
    engine = "preview"


class EX4D_OT_send_final(_SendsTake, bpy.types.Operator):
    bl_idname = "ex4d.send_final"
    bl_label = "Final"
    bl_description = "Have the backend make the shot whole, inventing what the footage did not see; takes minutes"
    engine = FINAL_ENGINE

    def settings(self, shot: EX4D_Shot) -> list[WanSettings]:
        return variants(shot.final)

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        chosen = preferences()
        research = chosen is not None and chosen.licence == "RESEARCH"
        server = session().client.server if session().connected else None
        reason = why_no_final(server, active_shot(context.scene).final.preset, research)
        if reason:
            cls.poll_message_set(iface_(reason))
            return False
        return super().poll(context)


class _OnTake:
    """An operator on the take whose key it is given, or on the one that the list has marked."""

    key: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not context.scene.ex4d_takes:
            cls.poll_message_set(iface_("There are no takes in this scene yet; press Preview"))
            return False
        return True

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        marked = active_take(context.scene)
        found = find_take(self.key, context.scene) if self.key or marked is None else (context.scene, marked)
        if found is None:
            self.report({"WARNING"}, "This take is not in the file any more")
            return {"CANCELLED"}
        self.work(context, *found)
        session().redraw()
        return {"FINISHED"}


class EX4D_OT_cancel_take(_OnTake, bpy.types.Operator):
    bl_idname = "ex4d.cancel_take"
    bl_label = "Cancel Take"
    bl_description = "Stop making this take; frames that have arrived stay"

    def work(self, context: bpy.types.Context, blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
        cancel_take(entry)


class EX4D_OT_resume_take(_OnTake, bpy.types.Operator):
    bl_idname = "ex4d.resume_take"
    bl_label = "Go On With Take"
    bl_description = "Try again to send this take, or to fetch its frames"

    def work(self, context: bpy.types.Context, blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
        resume_take(entry)


class EX4D_OT_retry_take(_OnTake, bpy.types.Operator):
    bl_idname = "ex4d.retry_take"
    bl_label = "Make Take Again"
    bl_description = "Send the same request once more, as a new job; its pictures take the place of the old ones"
    bl_options: ClassVar[set[str]] = {"UNDO"}

    def work(self, context: bpy.types.Context, blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
        retry_take(entry)


class EX4D_OT_forget_take(_OnTake, bpy.types.Operator):
    bl_idname = "ex4d.forget_take"
    bl_label = "Remove Take From List"
    bl_description = "Take this out of the list; its strip and its files stay"
    bl_options: ClassVar[set[str]] = {"UNDO"}

    def work(self, context: bpy.types.Context, blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
        forget_take(blender_scene, entry)


class EX4D_OT_show_take(_OnTake, bpy.types.Operator):
    bl_idname = "ex4d.show_take"
    bl_label = "Show This Version"
    bl_description = "Let this take be seen in the sequencer, and mute the other takes of its shot"
    bl_options: ClassVar[set[str]] = {"UNDO"}

    def work(self, context: bpy.types.Context, blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
        if find_strip(blender_scene, entry.key) is None:
            raise StripError("this take has no strip in the sequencer; Put in Sequencer makes one")
        show_version(blender_scene, entry)


class EX4D_OT_place_take(_OnTake, bpy.types.Operator):
    bl_idname = "ex4d.place_take"
    bl_label = "Put in Sequencer"
    bl_description = "Put this take's movie, or the frames that are there, into the sequencer again"
    bl_options: ClassVar[set[str]] = {"UNDO"}

    def work(self, context: bpy.types.Context, blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
        place_take(entry)


class EX4D_OT_restore_take(_OnTake, bpy.types.Operator):
    bl_idname = "ex4d.restore_take"
    bl_label = "Use These Settings"
    bl_description = "Set the shot as it was for this take, with a new camera that moves as the take's did"
    bl_options: ClassVar[set[str]] = {"UNDO"}

    def work(self, context: bpy.types.Context, blender_scene: bpy.types.Scene, entry: EX4D_Take) -> None:
        note = restore_take(blender_scene, entry)
        if note:
            self.report({"WARNING"}, note)


CLASSES = (
    EX4D_OT_send_take,
    EX4D_OT_send_final,
    EX4D_OT_cancel_take,
    EX4D_OT_resume_take,
    EX4D_OT_retry_take,
    EX4D_OT_forget_take,
    EX4D_OT_show_take,
    EX4D_OT_place_take,
    EX4D_OT_restore_take,
)


def can_cancel(entry: EX4D_Take) -> bool:
    return is_followed(entry) and entry.state not in FINAL_STATES


def can_resume(entry: EX4D_Take) -> bool:
    return entry.state == STOPPED


def can_retry(entry: EX4D_Take) -> bool:
    return entry.state in ("failed", "cancelled", STOPPED)

"""Operators on takes."""

from __future__ import annotations

import bpy

from ex4d_core.cameras import CameraError
from ex4d_core.messages import FINAL_STATES
from ex4d_core.scene import SceneError
from ex4d_core.shot import PreviewSettings, RequestError

from ..connection.session import NotConnectedError
from ..scenes.link import active_scene_object, is_scene_object
from .follow import STOPPED, cancel_take, forget_take, is_followed, resume_take, send_take
from .properties import EX4D_Take, find_take
from .shots import build_request, shot_range


class EX4D_OT_send_take(bpy.types.Operator):
    bl_idname = "ex4d.send_take"
    bl_label = "Preview"
    bl_description = "Send the shot to the backend; its frames appear in the sequencer while they are made"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if _scene_object(context) is None:
            cls.poll_message_set("Select an imported EX-4D scene, or import one first")
            return False
        if _camera(context) is None:
            cls.poll_message_set("The shot has no camera; add a camera move or choose one")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        blender_scene, shot = context.scene, context.scene.ex4d_shot
        scene_object = _scene_object(context)
        frame_start, frame_end = shot_range(blender_scene, scene_object)
        color = tuple(round(255 * value) for value in shot.hole_color)
        try:
            scene, request = build_request(
                scene_object,
                _camera(context),
                frame_start,
                frame_end,
                preview=PreviewSettings(shot.holes, color),
                label=shot.label,
            )
            send_take(scene, request, frame_start, blender_scene)
        except (SceneError, CameraError, RequestError, OSError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        workspace = context.workspace
        # From Blender 5.0 on the sequencer shows a scene of its own choice, and at first none.
        if workspace is not None and getattr(workspace, "sequencer_scene", blender_scene) is None:
            workspace.sequencer_scene = blender_scene
        return {"FINISHED"}


class _OnTake:
    """An operator on the take whose key it is given."""

    key: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def found(self) -> tuple[bpy.types.Scene, EX4D_Take] | None:
        found = find_take(self.key)
        if found is None:
            self.report({"WARNING"}, "This take is not in the file any more")
        return found


class EX4D_OT_cancel_take(_OnTake, bpy.types.Operator):
    bl_idname = "ex4d.cancel_take"
    bl_label = "Cancel Take"
    bl_description = "Stop making this take; frames that have arrived stay"

    def execute(self, context: bpy.types.Context) -> set[str]:
        found = self.found()
        if found is None:
            return {"CANCELLED"}
        try:
            cancel_take(found[1])
        except NotConnectedError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class EX4D_OT_resume_take(_OnTake, bpy.types.Operator):
    bl_idname = "ex4d.resume_take"
    bl_label = "Go On With Take"
    bl_description = "Try again to send this take, or to fetch its frames"

    def execute(self, context: bpy.types.Context) -> set[str]:
        found = self.found()
        if found is None:
            return {"CANCELLED"}
        resume_take(found[1])
        return {"FINISHED"}


class EX4D_OT_forget_take(_OnTake, bpy.types.Operator):
    bl_idname = "ex4d.forget_take"
    bl_label = "Remove Take From List"
    bl_description = "Take this out of the list; its strip and its files stay"

    def execute(self, context: bpy.types.Context) -> set[str]:
        found = self.found()
        if found is None:
            return {"CANCELLED"}
        forget_take(*found)
        return {"FINISHED"}


CLASSES = (EX4D_OT_send_take, EX4D_OT_cancel_take, EX4D_OT_resume_take, EX4D_OT_forget_take)


def can_cancel(entry: EX4D_Take) -> bool:
    return is_followed(entry) and entry.state not in FINAL_STATES


def can_resume(entry: EX4D_Take) -> bool:
    return entry.state == STOPPED


def _scene_object(context: bpy.types.Context) -> bpy.types.Object | None:
    chosen = context.scene.ex4d_shot.scene_object
    return chosen if is_scene_object(chosen) else active_scene_object(context)


def _camera(context: bpy.types.Context) -> bpy.types.Object | None:
    return context.scene.ex4d_shot.camera or context.scene.camera

"""Where the artist looks through another camera than the active shot takes: what is said, and the ways out."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import Context, Operator
from ..cameras.cuts import camera_markers, cuts_by_markers
from ..connection.panel import draw_text
from ..takes.requests import shot_range
from .markers import EX4D_OT_shots_from_markers
from .objects import has_own_camera, shot_objects
from .properties import active_shot, listed_shot


@dataclass(frozen=True)
class CameraMismatch:
    """A difference between what is looked through, or played, and what is taken.

    Attributes:
        text: which camera is taken instead of which, for people.
        looked: the camera that is looked through, if it is another one than is taken.
        taken: the camera that is taken.
        by_markers: whether markers switch cameras within the shot, which keeps to one.
    """

    text: str
    looked: bpy.types.Object | None = None
    taken: bpy.types.Object | None = None
    by_markers: bool = False


def viewed_camera(context: Context) -> bpy.types.Object | None:
    """The camera of this viewport: its local camera if it has one, else the scene's active camera."""
    space = context.space_data
    if isinstance(space, bpy.types.SpaceView3D) and space.use_local_camera:
        return space.camera
    return context.scene.camera


def camera_mismatch(context: Context) -> CameraMismatch | None:
    """How the active shot's camera differs from what is looked through; None if it does not."""
    shot, (scene_object, taken), looked = active_shot(context.scene), shot_objects(context), viewed_camera(context)
    if shot.camera is not None and not shot.use_active_camera and not has_own_camera(context):
        if taken is None:
            text = iface_("{chosen} is not in this scene; choose another camera")
            return CameraMismatch(text.format(chosen=shot.camera.name))
        text = iface_("{chosen} is not in this scene; takes use the active camera {camera}")
        return CameraMismatch(text.format(chosen=shot.camera.name, camera=taken.name), None, taken)
    if taken is None:
        return None
    if scene_object is not None and has_own_camera(context):
        cuts = cuts_by_markers(context.scene, *shot_range(context.scene, scene_object))
        other = next((cut for cut in cuts if cut.camera != taken and camera_markers(context.scene)), None)
        if other is not None:
            text = iface_("Markers switch to {camera} at frame {frame}; takes use {taken} throughout")
            text = text.format(camera=other.camera.name, frame=other.frame_start, taken=taken.name)
            return CameraMismatch(text, looked if looked != taken else None, taken, by_markers=True)
    if looked is None or looked == taken:
        return None
    text = iface_("You look through {looked}; takes use {taken}").format(looked=looked.name, taken=taken.name)
    return CameraMismatch(text, looked, taken)


def draw_camera_mismatch(layout: bpy.types.UILayout, context: Context) -> None:
    """Say what is taken instead of what is looked through, with a button for each way out."""
    mismatch = camera_mismatch(context)
    if mismatch is None:
        return
    draw_text(layout, mismatch.text, context, "ERROR")
    column = layout.column(align=True)
    if mismatch.looked is not None and mismatch.taken is not None:
        # The text above names both cameras, whose names may be long.
        column.operator(EX4D_OT_look_through_shot.bl_idname, text="Look Through Shot", icon="VIEW_CAMERA")
        column.operator(EX4D_OT_shoot_view.bl_idname, text="Shoot This View", icon="CAMERA_DATA")
    if mismatch.by_markers:
        column.operator(EX4D_OT_shots_from_markers.bl_idname, icon="MARKER")
        column.operator(EX4D_OT_follow_active_camera.bl_idname, icon="LINKED")


class EX4D_OT_look_through_shot(Operator):
    """Look through the camera that the active shot takes: make it the active camera, and show its view here."""

    bl_idname = "ex4d.look_through_shot"
    bl_label = "Look Through Shot's Camera"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if shot_objects(context)[1] is None:
            cls.poll_message_set(iface_("The shot has no camera; add a camera move, or choose a camera"))
            return False
        return True

    def execute(self, context: Context) -> set[str]:
        context.scene.camera = shot_objects(context)[1]
        space = context.space_data
        if isinstance(space, bpy.types.SpaceView3D):
            space.use_local_camera = False
            if space.region_3d is not None:
                space.region_3d.view_perspective = "CAMERA"
        return {"FINISHED"}


class EX4D_OT_shoot_view(Operator):
    """Let the active shot take the camera that you look through."""

    bl_idname = "ex4d.shoot_view"
    bl_label = "Shoot the Camera in View"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if viewed_camera(context) is None:
            cls.poll_message_set(iface_("There is no active camera; add one, or choose one in the scene's properties"))
            return False
        return True

    def execute(self, context: Context) -> set[str]:
        looked, shot = viewed_camera(context), active_shot(context.scene)
        if shot.use_active_camera:
            context.scene.camera = looked
        else:
            listed_shot(context.scene).camera = looked
        return {"FINISHED"}


class EX4D_OT_follow_active_camera(Operator):
    """Let the active shot follow the scene's active camera, and cut where markers switch cameras."""

    bl_idname = "ex4d.follow_active_camera"
    bl_label = "Follow Active Camera"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> set[str]:
        listed_shot(context.scene).use_active_camera = True
        return {"FINISHED"}


CLASSES = (EX4D_OT_look_through_shot, EX4D_OT_shoot_view, EX4D_OT_follow_active_camera)

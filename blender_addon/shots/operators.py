"""Operators on the list of shots."""

from __future__ import annotations

from typing import ClassVar

import bpy
from bpy.app.translations import pgettext_iface as iface_

from .properties import active_shot, add_shot, free_label, listed_shot


class EX4D_OT_add_shot(bpy.types.Operator):
    bl_idname = "ex4d.add_shot"
    bl_label = "Add Shot"
    bl_description = (
        "Add a shot with the settings of the active one, to be shot with the selected camera if there is one"
    )
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        if not context.scene.ex4d_shots and active_shot(context.scene).camera is not None:
            listed_shot(context.scene)  # what was set up so far is the first
        chosen = context.object
        add_shot(context.scene, chosen if chosen is not None and chosen.type == "CAMERA" else None)
        return {"FINISHED"}


class _OnShots:
    """An operator that needs a list to work on."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not context.scene.ex4d_shots:
            cls.poll_message_set(iface_("There are no shots in this scene yet; add one"))
            return False
        return True


class EX4D_OT_remove_shot(_OnShots, bpy.types.Operator):
    bl_idname = "ex4d.remove_shot"
    bl_label = "Remove Shot"
    bl_description = "Take the active shot off the list; its camera and its takes stay"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = context.scene
        index = min(max(scene.ex4d_shot_index, 0), len(scene.ex4d_shots) - 1)
        scene.ex4d_shots.remove(index)
        scene.ex4d_shot_index = max(0, min(index, len(scene.ex4d_shots) - 1))
        return {"FINISHED"}


class EX4D_OT_duplicate_shot(_OnShots, bpy.types.Operator):
    bl_idname = "ex4d.duplicate_shot"
    bl_label = "Duplicate Shot"
    bl_description = "Add a shot like the active one, with the same camera"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        before = active_shot(context.scene)
        label, camera = before.label, before.camera
        shot = add_shot(context.scene, camera)
        shot.label = free_label(context.scene, label, besides=shot)
        return {"FINISHED"}


class EX4D_OT_move_shot(_OnShots, bpy.types.Operator):
    bl_idname = "ex4d.move_shot"
    bl_label = "Move Shot"
    bl_description = "Move the active shot up or down the list"
    bl_options: ClassVar[set[str]] = {"REGISTER", "UNDO"}

    direction: bpy.props.EnumProperty(
        name="Direction", description="Which way", items=(("UP", "Up", "Up"), ("DOWN", "Down", "Down"))
    )

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = context.scene
        target = scene.ex4d_shot_index + (-1 if self.direction == "UP" else 1)
        if not 0 <= target < len(scene.ex4d_shots):
            return {"CANCELLED"}
        scene.ex4d_shots.move(scene.ex4d_shot_index, target)
        scene.ex4d_shot_index = target
        return {"FINISHED"}


CLASSES = (EX4D_OT_add_shot, EX4D_OT_remove_shot, EX4D_OT_duplicate_shot, EX4D_OT_move_shot)

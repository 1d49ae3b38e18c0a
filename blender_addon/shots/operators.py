"""Operators on the list of shots."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import Context, Operator, OperatorMixin
from .properties import active_shot, add_shot, free_label, listed_shot
from .source_time import rename_animation


class EX4D_OT_add_shot(Operator):
    """Add a shot with the settings of the active shot, and the active object if it is a camera."""

    bl_idname = "ex4d.add_shot"
    bl_label = "Add Shot"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> set[str]:
        if not context.scene.ex4d_shots and active_shot(context.scene).camera is not None:
            listed_shot(context.scene)  # the shot that was set up so far is the first
        chosen = context.object
        add_shot(context.scene, chosen if chosen is not None and chosen.type == "CAMERA" else None)
        return {"FINISHED"}


class _OnShots(OperatorMixin):
    """An operator that needs a shot in the list."""

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not context.scene.ex4d_shots:
            cls.poll_message_set(iface_("No shots in this scene; add one"))
            return False
        return True


class EX4D_OT_remove_shot(_OnShots, Operator):
    """Remove the active shot from the list, but keep its camera and takes."""

    bl_idname = "ex4d.remove_shot"
    bl_label = "Remove Shot"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> set[str]:
        scene = context.scene
        index = min(max(scene.ex4d_shot_index, 0), len(scene.ex4d_shots) - 1)
        later = {f"ex4d_shots[{one}]": f"ex4d_shots[{one - 1}]" for one in range(index + 1, len(scene.ex4d_shots))}
        rename_animation(scene, {f"ex4d_shots[{index}]": None, **later})
        scene.ex4d_shots.remove(index)
        scene.ex4d_shot_index = max(0, min(index, len(scene.ex4d_shots) - 1))
        return {"FINISHED"}


class EX4D_OT_duplicate_shot(_OnShots, Operator):
    """Duplicate the active shot, with the same camera."""

    bl_idname = "ex4d.duplicate_shot"
    bl_label = "Duplicate Shot"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> set[str]:
        original = active_shot(context.scene)
        label, camera, follows = original.label, original.camera, original.use_active_camera
        shot = add_shot(context.scene, camera)
        shot.use_active_camera = follows
        shot.label = free_label(context.scene, label, besides=shot)
        return {"FINISHED"}


class EX4D_OT_move_shot(_OnShots, Operator):
    """Move the active shot up or down in the list."""

    bl_idname = "ex4d.move_shot"
    bl_label = "Move Shot"
    bl_options = {"REGISTER", "UNDO"}

    direction: bpy.props.EnumProperty(
        name="Direction", description="Direction to move the shot in", items=(("UP", "Up", ""), ("DOWN", "Down", ""))
    )

    def execute(self, context: Context) -> set[str]:
        scene = context.scene
        target = scene.ex4d_shot_index + (-1 if self.direction == "UP" else 1)
        if not 0 <= target < len(scene.ex4d_shots):
            return {"CANCELLED"}
        here, there = (f"ex4d_shots[{place}]" for place in (scene.ex4d_shot_index, target))
        rename_animation(scene, {here: there, there: here})
        scene.ex4d_shots.move(scene.ex4d_shot_index, target)
        scene.ex4d_shot_index = target
        return {"FINISHED"}


CLASSES = (EX4D_OT_add_shot, EX4D_OT_remove_shot, EX4D_OT_duplicate_shot, EX4D_OT_move_shot)

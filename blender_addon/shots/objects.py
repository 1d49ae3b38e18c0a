"""Finds the imported scene and the camera of the active shot."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import Context, OperatorMixin
from ..scenes.link import NO_SCENE, active_scene_object, is_scene_object
from .properties import active_shot


def shot_objects(context: Context) -> tuple[bpy.types.Object | None, bpy.types.Object | None]:
    """Scene object and camera of the active shot, or else the active scene object and the scene's active camera.

    A pointer keeps a deleted object, which is then in no Blender scene.
    """
    shot, objects = active_shot(context.scene), context.scene.objects
    scene_object, camera = shot.scene_object, shot.camera
    if not is_scene_object(scene_object) or scene_object.name not in objects:
        scene_object = active_scene_object(context)
    if camera is None or camera.name not in objects:
        camera = context.scene.camera
    return scene_object, camera


def note_on_camera(context: Context) -> str:
    """A note if takes do not use the active shot's camera, because it is not in the Blender scene; else ""."""
    chosen, camera = active_shot(context.scene).camera, shot_objects(context)[1]
    if chosen is None or chosen == camera:
        return ""
    if camera is None:
        return iface_("{chosen} is not in this scene; choose another camera").format(chosen=chosen.name)
    text = iface_("{chosen} is not in this scene; takes use the active camera {camera}")
    return text.format(chosen=chosen.name, camera=camera.name)


class NeedsShot(OperatorMixin):
    """An operator that is disabled, and says why, without an imported scene or a camera."""

    @classmethod
    def poll(cls, context: Context) -> bool:
        scene_object, camera = shot_objects(context)
        if scene_object is None:
            cls.poll_message_set(iface_(NO_SCENE))
        elif camera is None:
            cls.poll_message_set(iface_("The shot has no camera; add a camera move, or choose a camera"))
        return scene_object is not None and camera is not None

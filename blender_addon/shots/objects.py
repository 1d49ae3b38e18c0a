"""The imported scene and the camera that the active shot is about; operators that need both are greyed out without."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..scenes.link import NO_SCENE, active_scene_object, is_scene_object
from .properties import active_shot


def shot_objects(context: bpy.types.Context) -> tuple[bpy.types.Object | None, bpy.types.Object | None]:
    """Scene object and camera of the active shot: those chosen, or else those that the artist means.

    An object that was deleted is still pointed to, but is in no Blender scene any more.
    """
    shot, objects = active_shot(context.scene), context.scene.objects
    scene_object, camera = shot.scene_object, shot.camera
    if not is_scene_object(scene_object) or scene_object.name not in objects:
        scene_object = active_scene_object(context)
    if camera is None or camera.name not in objects:
        camera = context.scene.camera
    return scene_object, camera


def note_on_camera(context: bpy.types.Context) -> str:
    """What to know where takes are not made with the camera that the active shot names; "" where they are."""
    chosen, camera = active_shot(context.scene).camera, shot_objects(context)[1]
    if chosen is None or chosen == camera:
        return ""
    if camera is None:
        return iface_("{chosen} is not in this scene; choose another camera").format(chosen=chosen.name)
    text = iface_("{chosen} is not in this scene; takes are made with its active camera, {camera}")
    return text.format(chosen=chosen.name, camera=camera.name)


class NeedsShot:
    """For operators: they say what is missing while there is no scene or no camera to shoot with."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        scene_object, camera = shot_objects(context)
        if scene_object is None:
            cls.poll_message_set(iface_(NO_SCENE))
        elif camera is None:
            cls.poll_message_set(iface_("The shot has no camera; add a camera move or choose one"))
        return scene_object is not None and camera is not None

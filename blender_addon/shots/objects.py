"""Finds the imported scene and the cameras of the active shot."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import Context, OperatorMixin
from ..cameras.cuts import Cut, cuts_by_markers
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
    if shot.use_active_camera or camera is None or camera.name not in objects:
        camera = context.scene.camera
    return scene_object, camera


def shot_cuts(context: Context, frame_start: int, frame_end: int) -> list[Cut]:
    """The cameras of the active shot's frames: its own throughout, or the active ones, as markers switch them.

    Args:
        context: of the Blender scene.
        frame_start: the shot's first frame.
        frame_end: its last frame, included.

    Returns:
        At least one cut, but for a shot without any camera.
    """
    if has_own_camera(context):
        camera, by_markers = active_shot(context.scene).camera, []
    else:
        camera, by_markers = context.scene.camera, cuts_by_markers(context.scene, frame_start, frame_end)
    return by_markers or ([] if camera is None else [Cut(camera, frame_start, frame_end)])


def has_own_camera(context: Context) -> bool:
    """Whether the active shot has a camera of its own in the Blender scene, and does not follow the active one."""
    shot = active_shot(context.scene)
    return not shot.use_active_camera and shot.camera is not None and shot.camera.name in context.scene.objects


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

"""Keeps the footage behind the source camera in place while the render format changes, so that it can be compared.

The source camera crops, or shows more, as its sensor fits the format: its background image has to be cropped or
letterboxed in the same way, and not to be stretched to the frame.
"""

from __future__ import annotations

import bpy

from ..blender_types import BlenderScene, current_context
from ..busy import reason_to_wait
from ..cameras.keyframes import camera_data
from ..cameras.optics import frame_size
from ..scheduler import scheduler
from .link import images_of, is_scene_object, link_of

# Reading the format and comparing a few numbers takes some microseconds.
_FOLLOW_SECONDS = 0.0002

# The Blender scene and its format when the backgrounds were last brought up to date.
_known: tuple[object, ...] = ()


def frame_method(camera: bpy.types.Camera, format_aspect: float, footage_aspect: float) -> str:
    """How a background image of the footage keeps the place at which a camera filmed it.

    Args:
        camera: whose field of view spans the frame's width, as source cameras are made, or its height.
        format_aspect: width by height of the render format, with its pixel aspect.
        footage_aspect: the same of the footage.

    Returns:
        "CROP" where the image has to fill the frame and exceed it, "FIT" where it has to lie within.
    """
    wider = format_aspect > footage_aspect
    return "CROP" if wider == (camera.sensor_fit != "VERTICAL") else "FIT"


def update_backgrounds(blender_scene: BlenderScene) -> None:
    """Crop the backgrounds of all source cameras in a Blender scene as its render format crops their view."""
    render = blender_scene.render
    width, height = frame_size(render)
    format_aspect = width * render.pixel_aspect_x / (height * render.pixel_aspect_y)
    for one in blender_scene.objects:
        if not is_scene_object(one):
            continue
        link, camera = link_of(one), link_of(one).source_camera
        if camera is None or camera.type != "CAMERA" or camera.library is not None or not all(link.size):
            continue
        footage_aspect = link.size[0] * link.pixel_aspect[0] / (link.size[1] * link.pixel_aspect[1])
        method = frame_method(camera_data(camera), format_aspect, footage_aspect)
        for background in camera_data(camera).background_images:
            if background.image is not None and background.image in images_of(one):
                # Blender does not know the shape of a movie's pixels.
                background.image.display_aspect = link.pixel_aspect
                if background.frame_method != method:
                    background.frame_method = method


def _follow() -> None:
    global _known
    blender_scene = current_context().scene
    if (now := _format_of(blender_scene)) != _known and not reason_to_wait():
        _known = now
        update_backgrounds(blender_scene)


def _format_of(blender_scene: BlenderScene) -> tuple[object, ...]:
    render = blender_scene.render
    return blender_scene.session_uid, *frame_size(render), render.pixel_aspect_x, render.pixel_aspect_y


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    global _known
    _known = ()


HANDLERS = (("load_post", _after_load),)


def register() -> None:
    """Look at the format in every tick."""
    _after_load()
    scheduler.every_tick(_follow, _FOLLOW_SECONDS)

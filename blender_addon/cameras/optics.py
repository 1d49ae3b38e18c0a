"""Reads and writes Blender's camera and render settings as the `BlenderLens` that `ex4d_core.cameras` converts."""

from __future__ import annotations

import bpy

from ex4d_core.blender_cameras import BlenderLens
from ex4d_core.cameras import CameraError

from ..blender_types import enum_items


def render_size(render: bpy.types.RenderSettings) -> tuple[int, int]:
    """Width and height in pixels of Blender's renders; it rounds the resolution percentage down."""
    percentage = render.resolution_percentage
    return render.resolution_x * percentage // 100, render.resolution_y * percentage // 100


def require_even_time(render: bpy.types.RenderSettings) -> None:
    """Check that a frame in Blender is a frame of the footage.

    Raises:
        CameraError: the scene stretches time.
    """
    if render.frame_map_old != render.frame_map_new:
        raise CameraError(
            f"Time Stretching is {render.frame_map_old} to {render.frame_map_new}, which would move camera and footage "
            "apart; set Old and New to the same value (Output > Frame Range)"
        )


def read_lens(camera: bpy.types.Camera, render: bpy.types.RenderSettings) -> BlenderLens:
    """The optics of (evaluated) camera data, seen through a render format.

    Raises:
        CameraError: the camera is not a perspective one.
    """
    if camera.type != "PERSP":
        kind = enum_items(camera, "type")[camera.type].name.lower()
        raise CameraError(
            f"the camera {camera.name!r} is {kind}, but EX-4D renders perspective cameras only; "
            "set Type to Perspective in the camera's Lens settings"
        )
    width, height = render_size(render)
    return BlenderLens(
        lens=camera.lens,
        sensor_width=camera.sensor_width,
        sensor_height=camera.sensor_height,
        sensor_fit=camera.sensor_fit,
        shift_x=camera.shift_x,
        shift_y=camera.shift_y,
        width=width,
        height=height,
        pixel_aspect_x=render.pixel_aspect_x,
        pixel_aspect_y=render.pixel_aspect_y,
    )


def write_sensor(camera: bpy.types.Camera, optics: BlenderLens) -> None:
    """Set what is constant while a lens zooms: sensor and fit."""
    camera.type = "PERSP"
    camera.sensor_fit = optics.sensor_fit
    camera.sensor_width = optics.sensor_width
    camera.sensor_height = optics.sensor_height

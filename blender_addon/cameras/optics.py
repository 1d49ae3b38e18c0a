"""Reads and writes Blender's camera and render settings as the `BlenderLens` that `ex4d_core.cameras` converts."""

from __future__ import annotations

import bpy
import numpy as np

from ex4d_core.blender_cameras import BlenderLens
from ex4d_core.cameras import CameraError

from ..blender_types import enum_items


def render_size(render: bpy.types.RenderSettings) -> tuple[int, int]:
    """Width and height in pixels of Blender's renders: of the whole frame, or of the region that it is cropped to."""
    _, _, width, height = render_region(render)
    return width, height


def frame_size(render: bpy.types.RenderSettings) -> tuple[int, int]:
    """Width and height in pixels of the camera's whole frame; Blender rounds the resolution percentage down."""
    percentage = render.resolution_percentage
    return render.resolution_x * percentage // 100, render.resolution_y * percentage // 100


def render_region(render: bpy.types.RenderSettings) -> tuple[int, int, int, int]:
    """Left, top, width and height in pixels of what Blender's renders have of the camera's frame.

    Left and top are counted from the frame's upper left corner. Blender rounds the region's edges down, in 32 bits.
    """
    width, height = frame_size(render)
    if not (render.use_border and render.use_crop_to_border):
        return 0, 0, width, height
    left, right = (_pixels(edge, width) for edge in (render.border_min_x, render.border_max_x))
    bottom, top = (_pixels(edge, height) for edge in (render.border_min_y, render.border_max_y))
    return left, height - top, max(1, right - left), max(1, top - bottom)


def _pixels(edge: float, size: int) -> int:
    return int(np.float32(edge) * np.float32(size))


def crop_intrinsics(intrinsics: np.ndarray, render: bpy.types.RenderSettings) -> np.ndarray:
    """(..., 3, 3) intrinsics of the camera's frame, as those of what Blender's renders have of it."""
    left, top, _, _ = render_region(render)
    return intrinsics - np.array([[0.0, 0.0, left], [0.0, 0.0, top], [0.0, 0.0, 0.0]])


def require_rendered_frame(render: bpy.types.RenderSettings) -> None:
    """Check that Blender would render all of the image.

    Raises:
        CameraError: it would leave areas outside of a region empty.
    """
    edges = render.border_min_x, render.border_min_y, render.border_max_x, render.border_max_y
    if render.use_border and not render.use_crop_to_border and edges != (0.0, 0.0, 1.0, 1.0):
        raise CameraError(
            "Render Region is on and Crop to Render Region is off, but EX-4D renders no images with empty areas; "
            "switch Render Region off, or Crop to Render Region on (Output > Format)"
        )


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
    """The optics of (evaluated) camera data, seen through the whole frame of a render format.

    Raises:
        CameraError: the camera is not a perspective one.
    """
    if camera.type != "PERSP":
        kind = enum_items(camera, "type")[camera.type].name.lower()
        raise CameraError(
            f"the camera {camera.name!r} is {kind}, but EX-4D renders perspective cameras only; "
            "set Type to Perspective in the camera's Lens settings"
        )
    width, height = frame_size(render)
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

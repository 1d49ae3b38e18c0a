"""Fits the camera's frame into what a viewport's sidebar and toolbar leave free; Frame Camera does not mind them."""

from __future__ import annotations

import math

import bpy

from ..blender_types import BlenderScene
from ..cameras.keyframes import camera_data

# Share of the free part that the frame fills.
_FILLED = 0.94


def fit_camera_frame(area: bpy.types.Area, blender_scene: BlenderScene) -> bool:
    """Let a camera view show the whole frame beside the sidebar.

    Args:
        area: a 3D viewport that is drawn, with the scene's camera in view.
        blender_scene: of the camera.

    Returns:
        Whether that was possible: not before Blender has drawn the viewport once, nor without a camera.
    """
    space, camera = area.spaces.active, blender_scene.camera
    regions = {one.type: one for one in area.regions}
    window = regions["WINDOW"]
    if not isinstance(space, bpy.types.SpaceView3D) or space.region_3d is None or camera is None:
        return False
    left, right = (_covered(regions.get(kind), window) for kind in ("TOOLS", "UI"))
    if space.show_region_ui and not right and regions["UI"].width <= 1:
        return False  # it is about to open
    top = sum(one.height for one in area.regions if one.type in ("HEADER", "TOOL_HEADER") and one.height > 1)
    free = window.width - left - right, window.height - top
    if min(free) < 1 or not isinstance(camera.data, bpy.types.Camera):
        return False
    factor = _FILLED * _largest_factor(free, (window.width, window.height), camera, blender_scene)
    view = space.region_3d
    # Blender's own curve from zoom to size: ((sqrt(2) + zoom / 50) / 2) ** 2.
    view.view_camera_zoom = 50 * (2 * math.sqrt(factor) - math.sqrt(2))
    view.view_camera_offset = (right - left) / (4 * factor * window.width), top / (4 * factor * window.height)
    return True


def _covered(region: bpy.types.Region | None, window: bpy.types.Region) -> int:
    """Pixels of the viewport's width that a region lies over; 0 where Blender puts regions beside each other."""
    if region is None or region.width <= 1:
        return 0
    end, end_of_window = region.x + region.width, window.x + window.width
    return region.width if window.x <= region.x and end <= end_of_window else 0


def _largest_factor(
    free: tuple[int, int], size: tuple[int, int], camera: bpy.types.Object, blender_scene: BlenderScene
) -> float:
    """How large the frame can be in a free part of the viewport, relative to the side that the camera's sensor fits."""
    render = blender_scene.render
    frame = (
        render.resolution_x * render.pixel_aspect_x,
        render.resolution_y * render.pixel_aspect_y,
    )
    fit = camera_data(camera).sensor_fit
    fitted_frame = {"HORIZONTAL": frame[0], "VERTICAL": frame[1]}.get(fit, max(frame))
    fitted_size = {"HORIZONTAL": size[0], "VERTICAL": size[1]}.get(fit, max(size))
    # With a factor of 1 the fitted side of the frame has the length of the viewport's.
    return min(room / (side / fitted_frame * fitted_size) for room, side in zip(free, frame, strict=True))

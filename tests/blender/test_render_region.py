"""Render regions, and the comparison with the footage under other formats: as Blender's own camera has them."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view

from blender_addon.cameras.optics import frame_size, render_region, render_size
from blender_addon.cameras.sampling import current_camera, sample_camera
from blender_addon.coverage.path import path_in_slices
from blender_addon.scenes.comparison import frame_method
from blender_addon.scenes.importing import import_scene
from blender_addon.takes.requests import build_request
from ex4d_core.cameras import CameraError

from .conftest import tick_round


def set_region(left: float, bottom: float, right: float, top: float, crop: bool = True) -> None:
    render = bpy.context.scene.render
    render.use_border, render.use_crop_to_border = True, crop
    render.border_min_x, render.border_max_x = left, right
    render.border_min_y, render.border_max_y = bottom, top


def test_a_cropped_region_is_what_the_take_has(shot):
    scene = bpy.context.scene
    camera, first = scene.ex4d_shot.camera, scene.frame_start
    scene.frame_set(first)
    whole = current_camera(camera, shot)
    set_region(0.25, 0.5, 0.8, 1.0)
    assert frame_size(scene.render) == (48, 32) == (whole.width, whole.height)
    left, top, width, height = render_region(scene.render)
    assert (left, top, width, height) == (12, 0, 26, 16) and render_size(scene.render) == (26, 16)
    cropped = current_camera(camera, shot)
    assert (cropped.width, cropped.height) == (26, 16)

    # A point of Blender's world lands on the same pixel, counted from the region's corner.
    point = shot.matrix_world @ shot.data.vertices[700].co
    x, y, _ = world_to_camera_view(scene, camera, point)
    seen = np.array(cropped.world_to_camera[0])[:3] @ np.array([*shot.matrix_world.inverted() @ point, 1.0])
    pixel = np.array(cropped.intrinsics[0]) @ seen
    assert pixel[:2] / pixel[2] == pytest.approx([x * 48 - left, (1 - y) * 32 - top], abs=1e-3)

    _, request = build_request(shot, camera, 11, 19)
    assert (request.camera.width, request.camera.height) == (26, 16)
    steps = path_in_slices(camera, shot, 11, 19)
    with pytest.raises(StopIteration) as ended:
        while True:
            next(steps)
    assert np.allclose(request.camera.intrinsics, ended.value.value.intrinsics)
    assert np.allclose(request.camera.intrinsics, sample_camera(camera, shot, 11, 19).intrinsics)


def test_a_region_that_is_not_cropped_to_is_refused_in_words(shot):
    set_region(0.25, 0.25, 0.75, 0.75, crop=False)
    with pytest.raises(CameraError, match="Crop to Render Region"):
        build_request(shot, bpy.context.scene.ex4d_shot.camera, 11, 19)
    with pytest.raises(RuntimeError, match="Output > Format"):
        bpy.ops.ex4d.send_take()
    set_region(0.0, 0.0, 1.0, 1.0, crop=False)
    build_request(shot, bpy.context.scene.ex4d_shot.camera, 11, 19)


def background_of(imported: bpy.types.Object) -> bpy.types.CameraBackgroundImage:
    (background,) = imported.ex4d_scene.source_camera.data.background_images
    return background


def drawn_size(method: str, frame: float, image: float) -> tuple[float, float]:
    """Width and height of a background image in a frame of height 1, as Blender draws it."""
    fills = (image > frame) if method == "CROP" else (image < frame)
    return (image, 1.0) if fills else (frame, frame / image)


@pytest.mark.parametrize("fit", ["HORIZONTAL", "VERTICAL"])
def test_the_footage_behind_the_source_camera_stays_in_place(card_scene, fit):
    imported = import_scene(card_scene)
    scene, camera = bpy.context.scene, imported.ex4d_scene.source_camera
    assert camera.data.sensor_fit == "HORIZONTAL"
    camera.data.sensor_fit = fit
    for resolution in ((48, 32), (48, 20), (32, 32), (20, 40)):
        scene.render.resolution_x, scene.render.resolution_y = resolution
        tick_round()
        tick_round()
        frame = resolution[0] / resolution[1]
        width, height = drawn_size(background_of(imported).frame_method, frame, 48 / 32)
        # The side that the sensor fits shows all of the footage, whatever the format.
        assert (width / frame if fit == "HORIZONTAL" else height) == pytest.approx(1.0), resolution


def test_backgrounds_follow_the_pixel_aspect_too(card_scene):
    imported = import_scene(card_scene)
    bpy.context.scene.render.pixel_aspect_x = 2.0  # 96 by 32
    tick_round()
    tick_round()
    assert background_of(imported).frame_method == "CROP"
    assert frame_method(imported.ex4d_scene.source_camera.data, 1.0, 1.5) == "FIT"

"""`ex4d_core.cameras` against Blender itself: the same points land on the same pixels."""

from __future__ import annotations

import bpy
import mathutils
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view

from blender_addon.cameras.optics import read_lens, render_size, write_sensor
from ex4d_core.blender_cameras import (
    BLENDER_FROM_SCENE,
    blender_from_intrinsics,
    blender_from_world_to_camera,
    intrinsics_from_blender,
    world_to_camera_from_blender,
)
from ex4d_core.cameras import intrinsics_matrix

POINTS = np.array([[0.3, 4.0, 0.2], [-1.0, 5.0, 1.5], [1.4, 3.0, -0.8], [0.0, 2.0, 0.0], [2.0, 9.0, 3.0]])

FORMATS = {
    "landscape": (640, 360, 100, 1.0, 1.0),
    "portrait": (360, 640, 100, 1.0, 1.0),
    "square": (512, 512, 100, 1.0, 1.0),
    "scaled down": (1001, 563, 37, 1.0, 1.0),
    "wide pixels": (720, 576, 100, 1.4587, 1.0),
    "tall pixels": (720, 480, 50, 1.0, 1.25),
    "wide pixels turn the fit": (500, 600, 100, 1.5, 1.0),
    "tall pixels turn the fit": (600, 500, 100, 1.0, 1.5),
}


@pytest.fixture
def camera() -> bpy.types.Object:
    data = bpy.data.cameras.new("camera")
    camera = bpy.data.objects.new("camera", data)
    bpy.context.scene.collection.objects.link(camera)
    camera.location = (0.4, -1.0, 0.3)
    camera.rotation_euler = (1.45, 0.1, 0.2)
    data.lens, data.sensor_width, data.sensor_height = 31.0, 36.0, 21.0
    return camera


def set_format(width: int, height: int, percentage: int, aspect_x: float, aspect_y: float) -> None:
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = width, height, percentage
    render.pixel_aspect_x, render.pixel_aspect_y = aspect_x, aspect_y


def our_pixels(camera: bpy.types.Object, points: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of points in Blender's world, y down, by our own conversion."""
    bpy.context.view_layer.update()
    world_to_camera = world_to_camera_from_blender(np.array(camera.matrix_world)[None])[0]
    in_scene = points @ np.linalg.inv(BLENDER_FROM_SCENE)[:3, :3].T
    in_camera = in_scene @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    intrinsics = intrinsics_from_blender(read_lens(camera.data, bpy.context.scene.render))
    on_plane = in_camera @ intrinsics.T
    return on_plane[:, :2] / on_plane[:, 2:]


def pixels_by_projection_matrix(camera: bpy.types.Object, points: np.ndarray) -> np.ndarray:
    """(N, 2) pixels by the matrix that Blender's own renderers use."""
    render = bpy.context.scene.render
    width, height = render_size(render)
    projection = camera.calc_matrix_camera(
        bpy.context.evaluated_depsgraph_get(),
        x=width,
        y=height,
        scale_x=render.pixel_aspect_x,
        scale_y=render.pixel_aspect_y,
    )
    clip = np.array(projection @ camera.matrix_world.inverted(), dtype=np.float64)
    homogeneous = np.c_[points, np.ones(len(points))] @ clip.T
    ndc = homogeneous[:, :2] / homogeneous[:, 3:]
    return np.stack([(ndc[:, 0] + 1) / 2 * width, (1 - ndc[:, 1]) / 2 * height], axis=1)


@pytest.mark.parametrize("sensor_fit", ["AUTO", "HORIZONTAL", "VERTICAL"])
@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.15, -0.08)], ids=["centred", "shifted"])
def test_points_land_where_blenders_projection_puts_them(camera, sensor_fit, format_name, shift):
    set_format(*FORMATS[format_name])
    camera.data.sensor_fit = sensor_fit
    camera.data.shift_x, camera.data.shift_y = shift

    ours = our_pixels(camera, POINTS)

    np.testing.assert_allclose(ours, pixels_by_projection_matrix(camera, POINTS), atol=2e-3)


@pytest.mark.parametrize("sensor_fit", ["AUTO", "HORIZONTAL", "VERTICAL"])
@pytest.mark.parametrize("format_name", ["landscape", "portrait", "square", "scaled down"])
def test_points_land_where_world_to_camera_view_puts_them(camera, sensor_fit, format_name):
    set_format(*FORMATS[format_name])
    camera.data.sensor_fit = sensor_fit
    camera.data.shift_x, camera.data.shift_y = 0.1, 0.05
    width, height = render_size(bpy.context.scene.render)

    ours = our_pixels(camera, POINTS)

    views = [world_to_camera_view(bpy.context.scene, camera, mathutils.Vector(point)) for point in POINTS]
    # It knows nothing of the rounding of a scaled resolution, which moves pixels by less than one.
    tolerance = 2e-3 if format_name != "scaled down" else 1.0
    np.testing.assert_allclose(ours, [(view.x * width, (1 - view.y) * height) for view in views], atol=tolerance)


@pytest.mark.parametrize(
    "intrinsics",
    [
        intrinsics_matrix(500, 500, 320, 180),
        intrinsics_matrix(500, 500, 300, 200),
        intrinsics_matrix(500, 620, 310, 170),
        intrinsics_matrix(620, 500, 310, 170),
    ],
    ids=["centred", "off-centre", "tall pixels", "wide pixels"],
)
def test_a_lens_made_from_intrinsics_sees_the_same(camera, intrinsics):
    optics = blender_from_intrinsics(intrinsics, 640, 360)
    set_format(640, 360, 100, optics.pixel_aspect_x, optics.pixel_aspect_y)
    write_sensor(camera.data, optics)
    camera.data.lens, camera.data.shift_x, camera.data.shift_y = optics.lens, optics.shift_x, optics.shift_y

    read_back = intrinsics_from_blender(read_lens(camera.data, bpy.context.scene.render))

    np.testing.assert_allclose(read_back, intrinsics, atol=1e-3)
    np.testing.assert_allclose(our_pixels(camera, POINTS), pixels_by_projection_matrix(camera, POINTS), atol=2e-3)


def test_poses_go_to_blender_and_back(camera):
    bpy.context.view_layer.update()
    moved = np.array(mathutils.Matrix.LocRotScale((3, 1, -2), mathutils.Euler((0.3, 0.2, 1.0)), (2, 2, 2)))
    for scene_matrix in (BLENDER_FROM_SCENE, moved @ BLENDER_FROM_SCENE):
        world_to_camera = world_to_camera_from_blender(np.array(camera.matrix_world)[None], scene_matrix)
        back = blender_from_world_to_camera(world_to_camera, scene_matrix)
        np.testing.assert_allclose(back[0], np.array(camera.matrix_world), atol=1e-6)


def test_the_identity_camera_stands_at_the_origin_and_looks_away_from_the_viewer():
    matrix = blender_from_world_to_camera(np.eye(4)[None])[0]
    np.testing.assert_allclose(matrix[:3, :3] @ [0, 0, -1], [0, 1, 0], atol=1e-12)  # a Blender camera looks along -z
    np.testing.assert_allclose(matrix[:3, :3] @ [0, 1, 0], [0, 0, 1], atol=1e-12)  # its y axis is up
    np.testing.assert_allclose(matrix[:3, 3], 0, atol=1e-12)

"""What a request says of a camera is what Blender's own camera does: the same points in the same pixels, to 1e-6.

Every rig that an artist may build is read back from the request as it is kept beside the take, and compared with the
matrices by which Blender itself would render that frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import bpy
import numpy as np
import pytest
from mathutils import Matrix

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.takes.requests import build_request, load_request, save_request
from ex4d_core.trajectories import Trajectory

FIRST, LAST = 11, 19
# In the scene's own axes (x right, y down, z forward), where the subject is.
POINTS = np.array([[0.0, 0.0, 2.0], [0.7, -0.4, 3.0], [-0.9, 0.3, 4.0], [0.2, 0.6, 1.5]])


def keyframes(camera: bpy.types.Object) -> None:
    for frame, location, angle in (
        (11, (0.1, -2.0, 0.3), 1.5),
        (14, (-0.4, -1.7, 0.2), 1.6),
        (19, (0.6, -2.4, 0.5), 1.4),
    ):
        camera.location, camera.rotation_euler = location, (angle, 0.05 * frame, 0.3 * (angle - 1.5))
        camera.keyframe_insert("location", frame=frame)
        camera.keyframe_insert("rotation_euler", frame=frame)


def quaternion_keyframes(camera: bpy.types.Object) -> None:
    camera.rotation_mode = "QUATERNION"
    for frame, turned in ((11, (0.7, 0.71, 0.0, 0.02)), (19, (0.72, 0.69, 0.04, -0.03))):
        camera.rotation_quaternion = turned
        camera.keyframe_insert("rotation_quaternion", frame=frame)


def constraints(camera: bpy.types.Object) -> None:
    aim = empty("aim")
    for frame, location in ((11, (0.0, 3.0, 0.0)), (19, (1.0, 3.0, 0.5))):
        aim.location = location
        aim.keyframe_insert("location", frame=frame)
    track = camera.constraints.new("TRACK_TO")
    track.target, track.track_axis, track.up_axis = aim, "TRACK_NEGATIVE_Z", "UP_Y"
    limit = camera.constraints.new("LIMIT_LOCATION")
    limit.use_min_z, limit.min_z = True, 0.45


def drivers(camera: bpy.types.Object) -> None:
    camera.driver_add("location", 0).driver.expression = "frame * 0.01"
    camera.driver_add("rotation_euler", 2).driver.expression = "sin(frame / 7) / 5"
    camera.data.driver_add("lens").driver.expression = "30 + frame"


def animated_lens_and_shift(camera: bpy.types.Object) -> None:
    for frame, lens, x, y in ((11, 24.0, 0.0, 0.1), (15, 35.5, 0.13, -0.05), (19, 85.0, -0.2, 0.0)):
        camera.data.lens, camera.data.shift_x, camera.data.shift_y = lens, x, y
        for name in ("lens", "shift_x", "shift_y"):
            camera.data.keyframe_insert(name, frame=frame)


def non_square_pixels(camera: bpy.types.Object) -> None:
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y, render.pixel_aspect_x, render.pixel_aspect_y = 96, 72, 1.0, 1.4587
    camera.data.sensor_fit, camera.data.shift_x = "VERTICAL", 0.07


def tall_picture(camera: bpy.types.Object) -> None:
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = 90, 160, 50
    render.pixel_aspect_x, render.pixel_aspect_y = 1.25, 1.0
    camera.data.shift_y = -0.11


def scaled_parents(camera: bpy.types.Object) -> None:
    crane, head = empty("crane"), empty("head")
    head.parent, camera.parent = crane, head
    crane.scale, head.scale = (2.5, 2.5, 2.5), (0.3, 0.3, 0.3)
    for frame, turned in ((11, 0.0), (19, 0.4)):
        crane.rotation_euler.z, head.location.y = turned, turned
        crane.keyframe_insert("rotation_euler", frame=frame)
        head.keyframe_insert("location", frame=frame)


def moved_scene(camera: bpy.types.Object) -> None:
    keyframes(camera)
    scene_object = next(one for one in bpy.data.objects if one.ex4d_scene.digest)
    scene_object.location, scene_object.scale = (0.3, 0.1, -0.2), (1.5, 1.5, 1.5)


def preset(camera: bpy.types.Object) -> None:
    scene_object = next(one for one in bpy.data.objects if one.ex4d_scene.digest)
    made = camera_from_preset(scene_object, Trajectory("dolly_zoom"))
    camera.animation_data_create().action = made.animation_data.action
    camera.data = made.data
    camera.rotation_mode = made.rotation_mode
    if hasattr(camera.animation_data, "action_slot"):
        camera.animation_data.action_slot = made.animation_data.action_slot


@pytest.mark.parametrize(
    "rig",
    [
        keyframes,
        quaternion_keyframes,
        constraints,
        drivers,
        animated_lens_and_shift,
        non_square_pixels,
        tall_picture,
        scaled_parents,
        moved_scene,
        preset,
    ],
    ids=lambda rig: rig.__name__,
)
def test_a_request_says_what_blenders_camera_does(card_scene, tmp_path, rig: Callable[[bpy.types.Object], None]):
    scene_object = import_scene(card_scene, ImportSettings(frame_start=FIRST))
    camera = bpy.data.objects.new("own", bpy.data.cameras.new("own"))
    bpy.context.scene.collection.objects.link(camera)
    camera.location, camera.rotation_euler = (0.0, -2.0, 0.3), (math.radians(90), 0, 0)
    rig(camera)

    _, request = build_request(scene_object, camera, FIRST, LAST)
    save_request(tmp_path, request)
    path = load_request(tmp_path).camera

    assert len(path) == LAST - FIRST + 1
    for index, (seen, lens) in enumerate(blenders_own(camera, scene_object, path.width, path.height)):
        ours = path.world_to_camera[index] @ np.column_stack([POINTS, np.ones(len(POINTS))]).T
        np.testing.assert_allclose(ours[:3].T, seen, atol=1e-6 * np.abs(seen).max())
        np.testing.assert_allclose(path.intrinsics[index], lens, rtol=1e-6, atol=1e-6 * path.width)


def blenders_own(
    camera: bpy.types.Object, scene_object: bpy.types.Object, width: int, height: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each frame the points before the camera (N, 3), and the lens (3, 3), from Blender's evaluated matrices."""
    scene = bpy.context.scene
    aspect = {"scale_x": scene.render.pixel_aspect_x, "scale_y": scene.render.pixel_aspect_y}
    for frame in range(FIRST, LAST + 1):
        scene.frame_set(frame)
        depsgraph = bpy.context.evaluated_depsgraph_get()
        evaluated, placed = camera.evaluated_get(depsgraph), scene_object.evaluated_get(depsgraph)
        location, rotation, _ = evaluated.matrix_world.decompose()
        pose = np.array(Matrix.LocRotScale(location, rotation, None), dtype=np.float64)
        world = np.array(placed.matrix_world, dtype=np.float64)
        points = np.linalg.inv(pose) @ world @ np.column_stack([POINTS, np.ones(len(POINTS))]).T
        unit = np.cbrt(np.linalg.det(world[:3, :3]))
        projection = np.array(evaluated.calc_matrix_camera(depsgraph, x=width, y=height, **aspect), dtype=np.float64)
        lens = np.array(
            [
                [projection[0, 0] * width / 2, 0, (1 - projection[0, 2]) * width / 2],
                [0, projection[1, 1] * height / 2, (1 + projection[1, 2]) * height / 2],
                [0, 0, 1],
            ]
        )
        yield (points[:3] * [[1], [-1], [-1]]).T / unit, lens


def empty(name: str) -> bpy.types.Object:
    made = bpy.data.objects.new(name, None)
    bpy.context.scene.collection.objects.link(made)
    return made

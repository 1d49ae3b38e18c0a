"""Blender's Stereoscopy in takes: the eyes that Blender renders, read from its cameras, and strips that show both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.cameras.cuts import Cut
from blender_addon.sequencer.strip_api import strips_in
from blender_addon.sequencer.strips import find_strip, grow_image_strip
from blender_addon.takes.requests import build_request
from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.shot import ShotRequest
from ex4d_core.stereo import StereoSettings

from .strip_files import TAKE
from .taking import edit_scene, send, strip_of, take, tick_until_over

FIRST, LAST = 11, 19


@pytest.fixture
def render() -> bpy.types.RenderSettings:
    settings = bpy.context.scene.render
    settings.use_multiview, settings.views_format = True, "STEREO_3D"
    return settings


@pytest.fixture
def camera(shot) -> bpy.types.Object:
    return bpy.data.objects["arc"]


def request_of(shot, camera, cuts=(), **others) -> ShotRequest:
    return build_request(shot, camera, FIRST, LAST, cuts=cuts, **others)[1]


def test_a_scene_without_stereoscopy_is_taken_with_one_eye(shot, camera, render):
    render.use_multiview = False
    assert not request_of(shot, camera).stereo.is_on
    render.use_multiview, render.views_format = True, "MULTIVIEW"
    assert not request_of(shot, camera).stereo.is_on


def test_keyframed_distances_are_read_on_every_frame_in_units_of_the_imported_scene(shot, camera, render):
    shot.scale = (2.0, 2.0, 2.0)
    stereo = camera.data.stereo
    stereo.pivot, stereo.interocular_distance = "CENTER", 0.1
    for frame, distance in ((FIRST, 2.0), (LAST, 6.0)):
        stereo.convergence_distance = distance
        stereo.keyframe_insert("convergence_distance", frame=frame)
    made = request_of(shot, camera).stereo
    assert (made.layout, made.pivot_eye) == ("side-by-side", "center")
    assert made.interaxial == pytest.approx((0.05,)) and len(made.convergence) == 9
    assert (made.convergence[0], made.convergence[-1]) == pytest.approx((1.0, 3.0))
    assert np.all(np.diff(made.convergence) > 0)
    assert bpy.context.scene.frame_current not in range(FIRST + 1, LAST + 1)


def test_parallel_eyes_converge_nowhere_and_eyes_that_turn_inwards_are_refused(shot, camera, render):
    camera.data.stereo.convergence_mode = "PARALLEL"
    made = request_of(shot, camera).stereo
    assert (made.interaxial, made.convergence, made.pivot_eye) == (pytest.approx((0.065,)), None, "left")
    camera.data.stereo.convergence_mode = "TOE"
    with pytest.raises(CameraError, match="Off-Axis"):
        request_of(shot, camera)


def test_each_camera_of_a_shot_has_distances_of_its_own_but_one_pivot(shot, camera, render):
    other = camera.copy()
    other.data = camera.data.copy()
    bpy.context.collection.objects.link(other)
    other.data.stereo.interocular_distance = 0.2
    cuts = [Cut(camera, FIRST, 14), Cut(other, 15, LAST)]
    assert request_of(shot, camera, cuts).stereo.interaxial == pytest.approx([0.065] * 4 + [0.2] * 5)
    other.data.stereo.pivot = "RIGHT"
    with pytest.raises(CameraError, match="pivot"):
        request_of(shot, camera, cuts)


def test_a_final_is_refused_with_the_way_out(shot, camera, render):
    with pytest.raises(RequestError, match="turn stereo off"):
        request_of(shot, camera, engine="wan")


@pytest.mark.parametrize("pivot", ["LEFT", "CENTER"])
def test_eyes_see_what_blenders_own_see(shot, camera, render, pivot, tmp_path):
    """A small ball, rendered by Cycles for both eyes."""
    stereo = camera.data.stereo
    stereo.pivot, stereo.interocular_distance, stereo.convergence_distance = pivot, 0.4, 3.0
    camera.data.shift_x = 0.05
    render.resolution_x, render.resolution_y, render.resolution_percentage = 160, 90, 100
    scene = bpy.context.scene
    scene.frame_set(FIRST)
    place = np.array(camera.matrix_world) @ [0.1, -0.2, -1.6, 1.0]
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.06, location=place[:3])
    ball = bpy.context.object
    for one in scene.objects:
        one.hide_render = one not in (ball, camera)
    scene.camera, scene.render.engine, scene.cycles.samples = camera, "CYCLES", 4
    scene.cycles.use_denoising = False
    render.filepath, render.image_settings.file_format = str(tmp_path / "eye"), "PNG"
    render.image_settings.views_format, render.image_settings.color_mode = "INDIVIDUAL", "RGBA"
    render.film_transparent = True
    bpy.ops.render.render(write_still=True)
    made = request_of(shot, camera)
    point = np.linalg.inv(np.array(shot.matrix_world)) @ place
    for eye, name in zip(made.stereo.eyes(made.camera), "LR", strict=True):
        np.testing.assert_allclose(centre_of_ball(tmp_path / f"eye_{name}.png"), shown(eye, point), atol=0.5)


def centre_of_ball(path: Path) -> tuple[float, float]:
    """Column and row of what is not transparent in an image, in pixels from the top left corner."""
    image = bpy.data.images.load(str(path))
    width, height = image.size
    rows, columns = np.nonzero(np.array(image.pixels[:]).reshape(height, width, 4)[::-1, :, 3] > 0.5)
    assert len(rows) > 10
    return columns.mean() + 0.5, rows.mean() + 0.5


def shown(eye: CameraPath, point: np.ndarray) -> np.ndarray:
    """Pixel in which an eye's first frame shows a point of the imported scene."""
    image = eye.intrinsics[0] @ (eye.world_to_camera[0] @ point)[:3]
    return image[:2] / image[2]


def both_eyes(folder: Path) -> dict[int, Path]:
    """Images of 32x8 whose left half is red, and whose right half is blue."""
    pixels = np.zeros((8, 32, 4), np.float32)
    pixels[..., 3], pixels[:, :16, 0], pixels[:, 16:, 2] = 1, 1, 1
    image = bpy.data.images.new("both", 32, 8)
    image.pixels.foreach_set(pixels.ravel())
    files = {index: folder / f"frame_{index:05d}.png" for index in range(2)}
    for path in files.values():
        image.filepath_raw, image.file_format = str(path), "PNG"
        image.save()
    return files


def test_a_strip_shows_each_eye_its_own_half(tmp_path):
    scene = bpy.context.scene
    stereo_take = replace(TAKE, request={"stereo": StereoSettings("side-by-side").to_wire()}, frame_start=1)
    grow_image_strip(scene, stereo_take, both_eyes(tmp_path))
    settings = scene.render
    assert settings.use_multiview, "or Blender would show both halves beside each other"
    settings.resolution_x, settings.resolution_y, settings.resolution_percentage = 16, 8, 100
    settings.filepath, settings.image_settings.file_format = str(tmp_path / "shown"), "PNG"
    settings.image_settings.views_format, scene.view_settings.view_transform = "INDIVIDUAL", "Standard"
    scene.frame_set(1)
    bpy.ops.render.render(write_still=True)
    for name, color in (("L", (1, 0, 0)), ("R", (0, 0, 1))):
        pixels = np.array(bpy.data.images.load(str(tmp_path / f"shown_{name}.png")).pixels[:]).reshape(8, 16, 4)
        strongest = pixels[..., :3] / pixels[..., :3].max()
        np.testing.assert_allclose(strongest, np.broadcast_to(color, (8, 16, 3)), atol=0.02)


def test_a_strip_of_one_eye_stays_what_it_was(tmp_path):
    grow_image_strip(bpy.context.scene, TAKE, both_eyes(tmp_path))
    strip = find_strip(bpy.context.scene, TAKE.key)
    assert not strip.use_multiview and not bpy.context.scene.render.use_multiview


def test_a_stereo_shot_comes_back_as_a_strip_of_both_eyes(connected, shot, camera, render, tmp_path):
    camera.data.stereo.pivot = "CENTER"
    entry = send()
    tick_until_over()
    assert take().state == "done", take().reason
    strip = strip_of(entry)
    assert (strip.type, strip.use_multiview, strip.views_format) == ("MOVIE", True, "STEREO_3D")
    assert strip.stereo_3d_format.display_mode == "SIDEBYSIDE" and edit_scene().render.use_multiview
    assert len(strips_in(strip.parent_meta())) == 1
    image = bpy.data.images.load(str(Path(bpy.path.abspath(entry.folder)) / "frame_00000.png"))
    assert tuple(image.size) == (96, 32)

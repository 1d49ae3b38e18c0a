"""Camera moves come with few keys, which animators can go on with, and stay where they were asked to be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import bpy
import mathutils
import numpy as np
import pytest

from blender_addon.cameras.keyframe_reduction import reduce_keyframes
from blender_addon.cameras.keyframes import animate_with_few_keys, bake_path, curves_of, new_camera
from blender_addon.cameras.presets import camera_from_preset
from blender_addon.cameras.sampling import sample_camera
from blender_addon.scenes.importing import import_scene
from ex4d_core.blender_cameras import BLENDER_FROM_SCENE
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.trajectories import Trajectory, build_path

DISTANCE = 3.0
SIDE = 1000  # pixels, and the focal length
# Around a subject at DISTANCE, in front of it and behind it.
POINTS = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (0.7 * DISTANCE, DISTANCE, 2 * DISTANCE)])


@pytest.fixture
def holder() -> bpy.types.Object:
    """An object that stands as imported scenes do, in a scene of SIDE x SIDE pixels."""
    holder = bpy.data.objects.new("holder", None)
    holder.matrix_world = mathutils.Matrix(BLENDER_FROM_SCENE)
    bpy.context.scene.collection.objects.link(holder)
    render = bpy.context.scene.render
    render.resolution_x = render.resolution_y = SIDE
    return holder


def path_of(preset: str, easing: str = "linear", frames: int = 49, elevation: float = 0.0) -> CameraPath:
    lens = intrinsics_matrix(SIDE, SIDE, SIDE / 2, SIDE / 2)
    return build_path(Trajectory(preset, elevation=elevation, easing=easing), frames, lens, SIDE, SIDE, DISTANCE)


def pixels(path: CameraPath) -> np.ndarray:
    """(T, N, 2) where POINTS are seen."""
    seen = np.einsum("tij,nj->tni", path.world_to_camera[:, :3, :3], POINTS) + path.world_to_camera[:, None, :3, 3]
    seen = np.einsum("tij,tnj->tni", path.intrinsics, seen)
    return seen[..., :2] / seen[..., 2:]


def moved(holder: bpy.types.Object, path: CameraPath, frame_start: int = 1) -> bpy.types.Object:
    camera = new_camera("move", holder, bpy.context.scene.collection)
    animate_with_few_keys(camera, path, frame_start)
    return camera


def key_frames(camera: bpy.types.Object) -> dict[str, list[tuple[float, ...]]]:
    """The frames of each curve's keys, by property."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for curve in (*curves_of(camera), *curves_of(camera.data)):
        found.setdefault(curve.data_path, []).append(tuple(key.co.x for key in curve.keyframe_points))
    return found


@pytest.mark.parametrize("easing", ["linear", "ease_in", "ease_in_out"])
@pytest.mark.parametrize(
    ("preset", "most", "most_eased"),
    [("30", 5, 15), ("-60", 9, 19), ("90", 11, 23), ("orbit", 13, 17), ("crane", 5, 9), ("zoom_in", 5, 17)],
)
def test_a_move_has_few_keys_and_is_a_hundredth_of_a_pixel_from_the_one_asked_for(
    holder, preset, most, most_eased, easing
):
    asked = path_of(preset, easing, elevation=10.0 if preset == "orbit" else 0.0)
    camera = moved(holder, asked)
    # All curves have their keys on the same frames, but those that move evenly.
    frames = {one for curves in key_frames(camera).values() for one in curves} - {(1.0, 49.0)}
    assert len(frames) == 1
    (at,) = frames
    assert (at[0], at[-1]) == (1.0, 49.0)
    assert len(at) <= (most if easing == "linear" else most_eased)
    aside = np.linalg.norm(pixels(sample_camera(camera, holder, 1, 49)) - pixels(asked), axis=-1)
    assert aside.max() < 0.013 and aside.mean() < 0.003
    # The first frame is the footage's own view.
    assert aside[0].max() < 5e-4


def test_what_moves_evenly_has_two_keys_and_what_stands_still_has_none(holder):
    truck = key_frames(moved(holder, path_of("truck")))
    assert truck == {"location": [(1.0, 49.0)] * 3}
    # Half of a dolly zoom is even, and eased moves of this kind are cubics of time, which two Bezier keys are.
    assert key_frames(moved(holder, path_of("dolly_zoom", "ease_in_out"))) == {
        "location": [(1.0, 49.0)] * 3,
        "lens": [(1.0, 49.0)],
    }


def test_between_frames_it_goes_on_as_smoothly_as_the_path(holder):
    """Where motion blur looks."""
    camera = moved(holder, path_of("60"))
    twice_as_often = path_of("60", frames=97)
    fine = new_camera("fine", holder, bpy.context.scene.collection)
    bake_path(fine, twice_as_often, 1)
    for ours, theirs in zip(curves_of(camera), curves_of(fine), strict=True):
        for index in range(97):
            assert ours.evaluate(1 + index / 2) == pytest.approx(theirs.evaluate(1 + index), abs=2e-5)


def test_handles_are_aligned_and_reach_a_third_of_the_way(holder):
    for curve in curves_of(moved(holder, path_of("30", "ease_in_out"))):
        keys = list(curve.keyframe_points)
        assert {(key.handle_left_type, key.handle_right_type) for key in keys} == {("ALIGNED", "ALIGNED")}
        for key, following in pairwise(keys):
            third = (following.co.x - key.co.x) / 3
            assert key.handle_right.x == pytest.approx(key.co.x + third, abs=1e-4)
            assert following.handle_left.x == pytest.approx(following.co.x - third, abs=1e-4)


def test_a_path_that_few_keys_cannot_follow_has_one_on_every_frame(holder):
    arc = path_of("30")
    shaken = arc.world_to_camera.copy()
    shaken[:, :3, 3] += np.random.default_rng(4).normal(0.0, 0.01, (49, 3))
    restless = replace(arc, world_to_camera=shaken)
    camera = moved(holder, restless)
    assert key_frames(camera)["location"] == [tuple(range(1, 50))] * 3
    aside = np.linalg.norm(pixels(sample_camera(camera, holder, 1, 49)) - pixels(restless), axis=-1)
    assert aside.max() < 1e-3


def test_far_along_the_timeline_it_is_as_exact(holder):
    """Handles lie on 32-bit frames, of which there are 128 to a frame at an hour's end; keys on whole ones."""
    for preset, easing in (("30", "linear"), ("60", "ease_in_out"), ("-120", "linear")):
        asked = path_of(preset, easing)
        camera = moved(holder, asked, frame_start=90_000)
        seen = sample_camera(camera, holder, 90_000, 90_048)
        assert np.linalg.norm(pixels(seen) - pixels(asked), axis=-1).max() < 0.013


def test_what_was_filmed_keeps_every_frame(holder):
    camera = new_camera("filmed", holder, bpy.context.scene.collection)
    bake_path(camera, path_of("30"), 1)
    assert key_frames(camera)["location"] == [tuple(range(1, 50))] * 3


def test_a_move_of_few_frames_that_would_have_keys_on_most_has_them_on_all(card_scene):
    camera = camera_from_preset(import_scene(card_scene), Trajectory("60"))
    assert key_frames(camera)["location"] == [tuple(range(1, 10))] * 3


def test_keys_lie_on_the_curves_and_there_are_more_where_these_bend_more():
    time = np.linspace(0.0, 1.0, 101)
    values = np.stack([np.where(time < 0.5, time, time + (time - 0.5) ** 2 * np.sin(20 * time)), time], axis=1)
    keys = reduce_keyframes(values, np.array([1e-4, 1e-4]))
    assert keys.at[0] == 0 and keys.at[-1] == 100 and len(keys.at) < 30
    assert (keys.at < 45).sum() < (keys.at > 55).sum()
    np.testing.assert_allclose(keys.slopes[:, 1], 0.01, atol=1e-6)


def test_two_frames_need_two_keys_and_cannot_have_fewer_than_half():
    assert reduce_keyframes(np.array([[0.0], [1.0]]), np.array([1e-6])) is None
    straight = reduce_keyframes(np.arange(4.0)[:, None], np.array([1e-6]))
    np.testing.assert_allclose(straight.slopes, 1.0)

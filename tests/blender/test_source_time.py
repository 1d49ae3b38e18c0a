"""A shot's time as a curve: the viewport shows its moments, and takes, coverage and views obey it."""

from __future__ import annotations

import bpy
import mathutils
import numpy as np
import pytest

from blender_addon.cameras.keyframes import curves_of
from blender_addon.cameras.moves import move_of
from blender_addon.cameras.operators import time_of_move
from blender_addon.cameras.sampling import sample_camera
from blender_addon.cameras.viewport_moves import camera_to_view
from blender_addon.coverage.live_coverage import live_coverage
from blender_addon.paths import from_blend
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.scenes.link import open_scene
from blender_addon.scenes.material import SOURCE_EYE
from blender_addon.scenes.mesh import mesh_data, positions_of_frame
from blender_addon.shots.properties import active_shot, add_shot
from blender_addon.shots.source_time import set_source_frames, set_time_keys, source_frames_of
from blender_addon.takes.requests import load_request, shot_range
from blender_addon.views.live_view import live_view
from ex4d_core.source_frames import to_text

from .taking import send
from .test_import_scene import render_frame

FIRST, LAST = 11, 19


def positions_now(imported: bpy.types.Object) -> np.ndarray:
    evaluated = imported.evaluated_get(bpy.context.evaluated_depsgraph_get())
    mesh = evaluated.to_mesh()
    values = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", values)
    evaluated.to_mesh_clear()
    return values


def shown_in_viewport(imported: bpy.types.Object, frame: int) -> tuple[int, int]:
    """The footage frames, from 0, of mesh and texture as Blender evaluates them on a frame."""
    bpy.context.scene.frame_set(frame)
    package, vertices = open_scene(imported), len(mesh_data(imported).vertices)
    now = positions_now(imported)
    (mesh,) = (k for k in range(9) if np.allclose(now, positions_of_frame(package, k, vertices), atol=1e-6))
    material = imported.material_slots[0].material.evaluated_get(bpy.context.evaluated_depsgraph_get())
    user = material.node_tree.nodes["Footage"].image_user
    played = min(max(frame - user.frame_start + 1, 0), user.frame_duration)  # Blender's BKE_image_user_frame_get
    return mesh, played + user.frame_offset - 1


def shot_time(imported: bpy.types.Object) -> str:
    scene = bpy.context.scene
    return to_text(source_frames_of(active_shot(scene), imported, *shot_range(scene, imported)))


@pytest.fixture
def moving(moving_scene) -> bpy.types.Object:
    return import_scene(moving_scene, ImportSettings(frame_start=FIRST))


def test_mesh_and_texture_follow_the_curve_and_the_curve_alone(moving):
    assert shown_in_viewport(moving, 14) == (3, 3)
    shot = active_shot(bpy.context.scene)
    set_time_keys(shot, [(FIRST, 17.0), (15, 17.0), (LAST, 9.0)])  # freeze, then backwards past the first frame
    expected = {11: 6, 13: 6, 15: 6, 16: 4, 17: 2, 18: 0, 19: 0, 25: 0, 3: 6}
    assert {frame: shown_in_viewport(moving, frame) for frame in expected} == {f: (k, k) for f, k in expected.items()}
    assert source_frames_of(shot, moving, 11, 19) == (6, 6, 6, 6, 6, 4, 2, 0, 0)
    shot.use_source_frame = False
    assert shown_in_viewport(moving, 14) == (3, 3)


def test_blenders_own_renders_show_the_moment(card_scene, tmp_path):
    imported = import_scene(card_scene, ImportSettings(frame_start=FIRST))
    bpy.context.scene.camera = imported.ex4d_scene.source_camera
    early, late = (render_frame(frame, tmp_path / "render.png") for frame in (12, 18))
    set_time_keys(active_shot(bpy.context.scene), [(FIRST, 18.0)])
    frozen = render_frame(12, tmp_path / "render.png")
    assert np.abs(frozen - late).mean() < 0.5 and np.abs(early - late).mean() > 5


def test_half_frames_go_to_the_later_one_in_viewport_and_take(moving):
    shot = active_shot(bpy.context.scene)
    set_time_keys(shot, [(FIRST, FIRST), (LAST, FIRST + 4.0)])
    taken = source_frames_of(shot, moving, FIRST, LAST)
    assert taken == (0, 1, 1, 2, 2, 3, 3, 4, 4)
    assert tuple(shown_in_viewport(moving, frame)[0] for frame in range(FIRST, LAST + 1)) == taken


def test_the_source_eye_is_where_the_camera_was_at_the_moment(moving):
    def eye(frame: int) -> list[float]:
        bpy.context.scene.frame_set(frame)
        return list(moving.evaluated_get(bpy.context.evaluated_depsgraph_get())[SOURCE_EYE])

    filmed = {frame: eye(frame) for frame in (12, 15, 18)}
    assert filmed[12] != filmed[18]
    set_time_keys(active_shot(bpy.context.scene), [(FIRST, 18.0), (16, 18.2), (17, 12.3)], "CONSTANT")
    assert eye(15) == pytest.approx(filmed[18]) and eye(18) == pytest.approx(filmed[12])
    active_shot(bpy.context.scene).use_source_frame = False
    assert eye(15) == pytest.approx(filmed[15])


def test_a_still_value_and_a_driver_are_time_too(moving):
    shot = active_shot(bpy.context.scene)
    shot.source_frame = 15.4
    shot.use_source_frame = True
    assert shown_in_viewport(moving, 12) == (4, 4) and source_frames_of(shot, moving, 11, 13) == (4, 4, 4)
    shot.driver_add("source_frame").driver.expression = "frame + 2"
    bpy.context.scene.frame_set(12)
    assert source_frames_of(shot, moving, 11, 13) == (2, 3, 4) and bpy.context.scene.frame_current == 12


def test_each_shot_keeps_its_own_time_wherever_it_is_in_the_list(moving):
    scene = bpy.context.scene
    set_time_keys(active_shot(scene), [(FIRST, 13.0), (LAST, 12.0)])
    bpy.ops.ex4d.add_camera(preset="orbit")  # lists the shot
    first = shot_time(moving)
    add_shot(scene, active_shot(scene).camera).label = "copy"
    assert shot_time(moving) == first
    set_time_keys(active_shot(scene), [(FIRST, 17.0)])
    assert shot_time(moving) == "6*9" and shown_in_viewport(moving, 14)[0] == 6
    scene.ex4d_shot_index = 0
    assert shot_time(moving) == first and shown_in_viewport(moving, LAST)[0] == 1
    bpy.ops.ex4d.move_shot(direction="DOWN")
    assert active_shot(scene).label != "copy" and shot_time(moving) == first
    scene.ex4d_shot_index = 0
    assert shot_time(moving) == "6*9" and shown_in_viewport(moving, 14)[0] == 6
    bpy.ops.ex4d.remove_shot()
    assert shot_time(moving) == first and shown_in_viewport(moving, LAST)[0] == 1
    bpy.ops.ex4d.remove_shot()
    assert not active_shot(scene).use_source_frame and shown_in_viewport(moving, 14) == (3, 3)


@pytest.mark.parametrize(
    ("preset", "options", "shown"),
    [
        ("FREEZE", {}, "3*9"),
        ("SLOW", {"speed": 0.5}, "0-1,1-2,2-3,3-4,4"),
        ("REVERSE", {}, "8-0"),
        ("FREEZE_ORBIT", {"hold": 4}, "0-3,3*4,4-8"),
    ],
)
def test_presets_are_curves_to_edit(moving, preset, options, shown):
    bpy.context.scene.frame_set(14)
    assert bpy.ops.ex4d.retime_shot(preset=preset, **options) == {"FINISHED"}
    assert shot_time(moving) == shown


def test_a_ramp_is_slow_around_the_moment_and_fast_at_its_ends(moving):
    bpy.context.scene.frame_set(15)
    bpy.ops.ex4d.retime_shot(preset="RAMP", speed=0.1)
    frames = source_frames_of(active_shot(bpy.context.scene), moving, FIRST, LAST)
    assert frames[0] == 0 and list(frames) == sorted(frames) and frames[3] == frames[5] and frames[-1] - frames[-2] == 1


def test_freeze_and_orbit_starts_and_stands_where_the_source_camera_was(moving):
    scene = bpy.context.scene
    scene.frame_set(14)
    bpy.ops.ex4d.retime_shot(preset="FREEZE_ORBIT", hold=4, degrees=40.0)
    shot, source = active_shot(scene), open_scene(moving).source_camera()
    assert (shot.frame_start, shot.frame_end, scene.camera) == (11, 23, shot.camera)
    path = sample_camera(shot.camera, moving, 11, 23)
    np.testing.assert_allclose(path.world_to_camera[:4], source.world_to_camera[:4], atol=1e-5)
    turned = path.world_to_camera[7] @ np.linalg.inv(source.world_to_camera[3])
    later = path.world_to_camera[12] @ np.linalg.inv(source.world_to_camera[8])
    assert np.degrees(np.arccos((np.trace(turned[:3, :3]) - 1) / 2)) == pytest.approx(40, abs=0.01)
    np.testing.assert_allclose(later, turned, atol=1e-4)


def test_moves_of_a_retimed_shot_start_at_its_first_moment_and_last_as_long_as_it_does(moving):
    scene = bpy.context.scene
    scene.frame_set(14)
    bpy.ops.ex4d.retime_shot(preset="FREEZE")
    scene.frame_end = 30
    assert bpy.ops.ex4d.add_camera(preset="truck", use_amount=True, amount=0.5) == {"FINISHED"}
    frozen = open_scene(moving).source_camera().at((3,) * 20)
    camera = active_shot(scene).camera
    path = sample_camera(camera, moving, 11, 30)
    np.testing.assert_allclose(path.world_to_camera[0], frozen.world_to_camera[0], atol=1e-5)
    np.testing.assert_allclose(path.intrinsics[0], frozen.intrinsics[0], rtol=1e-5)
    steps = np.linalg.norm(np.diff(path.camera_to_world[:, :3, 3], axis=0), axis=1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)
    assert source_frames_of(active_shot(scene), moving, 11, 30) == (3,) * 20, "the new shot has the time of the old one"

    move_of(camera).amount = 0.25
    assert not move_of(camera).problem
    shorter = sample_camera(camera, moving, 11, 30)
    np.testing.assert_allclose(shorter.world_to_camera[0], frozen.world_to_camera[0], atol=1e-5)
    ends = [one.camera_to_world[-1, :3, 3] - one.camera_to_world[0, :3, 3] for one in (path, shorter)]
    np.testing.assert_allclose(ends[1], ends[0] / 2, rtol=1e-3, atol=1e-6)

    assert bpy.ops.ex4d.save_move(asset_name="frozen") == {"FINISHED"}
    assert bpy.ops.ex4d.add_asset_camera(action="frozen") == {"FINISHED"}
    again = sample_camera(active_shot(scene).camera, moving, 11, 30)
    np.testing.assert_allclose(again.world_to_camera, shorter.world_to_camera, atol=1e-4)


def test_a_move_to_a_view_ends_with_the_retimed_shot(moving):
    scene = bpy.context.scene
    set_time_keys(active_shot(scene), [(11, 19.0), (30, 11.0)])
    scene.frame_end = 30
    view = moving.matrix_world @ mathutils.Matrix.Translation((0.2, 0.0, 0.0))
    camera = camera_to_view(moving, view, **time_of_move(bpy.context, moving))
    path = sample_camera(camera, moving, 11, 30)
    source = open_scene(moving).source_camera()
    np.testing.assert_allclose(path.world_to_camera[0], source.world_to_camera[8], atol=1e-5)
    assert tuple(curves_of(camera)[0].range()) == (11.0, 30.0)


def test_a_take_is_asked_for_with_the_curve_and_gives_it_back(shot):
    scene = bpy.context.scene
    set_time_keys(active_shot(scene), [(FIRST, 13.0), (13, 13.0), (LAST, 19.0)])
    scene.frame_end = 24  # past the footage, whose last frame then stands still
    entry = send()
    assert load_request(from_blend(entry.folder)).source_frames == (2, 2, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8)
    assert (entry.frame_start, entry.frames) == (FIRST, 14)
    active_shot(scene).use_source_frame = False
    bpy.ops.ex4d.restore_take(key=entry.key)
    assert shot_time(shot) == "2*3,3-8,8*5"


def test_an_ordinary_take_is_asked_for_as_before(shot):
    request = load_request(from_blend(send().folder))
    assert request.first_frame == 0 and "source_frames" not in request.to_wire()


def test_views_and_coverage_are_about_the_moments_of_the_curve(shot):
    scene = bpy.context.scene
    coverage = live_coverage.of(scene)
    coverage.refresh(bpy.context)
    assert list(coverage.asked.footage_frames) == list(range(9))
    set_source_frames(active_shot(scene), shot, FIRST, (5,) * 9)
    scene.frame_set(40)  # outside the footage, which a frozen moment does not mind
    assert live_view.current_request(bpy.context)[1].first_frame == 5
    active_shot(scene).use_range, active_shot(scene).frame_end = True, LAST
    active_shot(scene).frame_start = FIRST
    coverage.drop()
    coverage.refresh(bpy.context)
    assert coverage.asked.source_frames == (5,) * 9

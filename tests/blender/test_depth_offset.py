"""The depth offset of an imported scene: shown at once in the viewport, found from angles, applied as a new scene."""

from __future__ import annotations

from pathlib import Path

import bpy
import mathutils
import numpy as np
import pytest

from blender_addon.footage.depth_offset import EX4D_OT_pick_corner, EX4D_OT_pick_vertical, _PicksAngle
from blender_addon.footage.sources import plan_of
from blender_addon.scenes.depth_preview import MODIFIER, shown_mapping
from blender_addon.scenes.importing import import_scene
from blender_addon.scenes.link import open_scene
from ex4d_core.scene import Scene
from ex4d_core.scene_remap import remap_scene

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"


@pytest.fixture(autouse=True)
def saved_file(tmp_path, blender) -> None:
    """New scenes are put beside a saved file."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))


def shown_depth(scene_object: bpy.types.Object, package: Scene, index: int) -> np.ndarray:
    """(H, W) of the mesh as Blender shows it on the current frame, along the axis of the source camera's frame."""
    seen = scene_object.evaluated_get(bpy.context.evaluated_depsgraph_get())
    positions = np.empty(3 * len(seen.data.vertices), dtype=np.float32)
    seen.data.vertices.foreach_get("co", positions)
    pose = package.source_camera().world_to_camera[index]
    manifest = package.manifest
    z = positions.reshape(-1, 3) @ pose[2, :3] + pose[2, 3]
    return z.reshape(manifest.height + 2, manifest.width + 2)[1:-1, 1:-1]


@pytest.mark.parametrize("kind", ["card_scene", "moving_scene"])
def test_the_slider_moves_the_mesh_at_once_in_every_frame(kind, request):
    folder = request.getfixturevalue(kind)
    imported, package = import_scene(folder), Scene.open(folder)
    fields, own = imported.ex4d_depth, package.manifest.mapping
    fields.offset = 0.4
    for frame in (1, 6):
        bpy.context.scene.frame_set(frame)
        depth = np.array(package.depth()[frame - 1], dtype=np.float64)
        expected = own.changed(0.4).depth(own.disparity(depth))
        assert shown_depth(imported, package, frame - 1) == pytest.approx(expected, rel=1e-4)
    fields.far_limit = 1.5
    bpy.context.view_layer.update()
    assert shown_depth(imported, package, 5).max() == pytest.approx(1.5 * own.nearest, rel=1e-4)
    fields.offset, fields.far_limit = 0.0, 0.0
    bpy.context.view_layer.update()
    assert MODIFIER not in imported.modifiers and not bpy.data.node_groups, "nothing is left of it"
    assert shown_depth(imported, package, 5) == pytest.approx(np.array(package.depth()[5]), rel=1e-5)


def test_applying_makes_a_new_scene_in_the_same_place(card_scene):
    imported, old = import_scene(card_scene), Scene.open(card_scene)
    bpy.ops.ex4d.set_scale(method="FACTOR", factor=2.0)
    assert not bpy.ops.ex4d.apply_depth.poll(), "there is nothing to apply"
    imported.ex4d_depth.offset = -0.2
    bpy.context.view_layer.update()
    shown = shown_depth(imported, old, 0)
    assert bpy.ops.ex4d.apply_depth() == {"FINISHED"}
    bpy.context.view_layer.update()
    made = bpy.context.view_layer.objects.active
    package = open_scene(made)
    assert made is not imported and made.matrix_world == imported.matrix_world
    assert package.manifest.depth_mapping.offset == pytest.approx(-0.2, abs=1e-6)
    assert made.ex4d_depth.offset == pytest.approx(-0.2, abs=1e-6) and MODIFIER not in made.modifiers
    assert np.array(package.depth()[0]) == pytest.approx(shown, rel=1e-4)
    assert shown_depth(made, package, 0) == pytest.approx(shown, rel=1e-4)
    assert bpy.context.scene.ex4d_shot.scene_object == made, "takes show it from now on"
    assert imported.hide_get() and MODIFIER not in imported.modifiers
    assert Scene.open(card_scene).digest == old.digest and open_scene(imported).digest == old.digest


def test_applying_is_undone_as_one_step(card_scene):
    imported = import_scene(card_scene)
    name = imported.name
    imported.ex4d_depth.offset = -0.2
    bpy.ops.ed.undo_push(message="offset")
    assert bpy.ops.ex4d.apply_depth() == {"FINISHED"}
    bpy.ops.ed.undo_push(message="applied")
    bpy.ops.ed.undo()
    (left,) = [one for one in bpy.data.objects if one.ex4d_scene.digest]
    assert left.name == name and not left.hide_get() and MODIFIER in left.modifiers
    assert left.ex4d_depth.offset == pytest.approx(-0.2)


def test_applying_twice_is_as_good_as_once(card_scene, tmp_path):
    """An offset is that of the estimate, whatever the scene has gone through; only the far limit loses something."""
    package = Scene.open(card_scene)
    own = package.manifest.mapping
    once = remap_scene(package, tmp_path / "once", own.changed(0.3))
    twice = remap_scene(once, tmp_path / "twice", once.manifest.mapping.changed(-0.1))
    direct = remap_scene(package, tmp_path / "direct", own.changed(-0.1))
    assert np.array(twice.depth()) == pytest.approx(np.array(direct.depth()), rel=1e-5)


class _Picked:
    """What a picking operator has when the last point was clicked, without its window."""

    def __init__(self, kind: type, points: np.ndarray):
        self.kind, self.picked, self.reports = kind, points, []
        self.bl_label = kind.bl_label

    def offset(self, *given):
        return self.kind.offset(self, *given)

    def report(self, level: set[str], text: str) -> None:
        self.reports.append((level, text))


@pytest.fixture(scope="session")
def floor_scene(write_scene, tmp_path_factory) -> Path:
    """9 frames, 96x64, of a floor before a wall, from a camera that is held at an angle 1.5 units above it."""
    return write_scene(tmp_path_factory.mktemp("scenes") / "floor", "9", "96", "64", "floor")


# As write_scene.py has them.
FLOOR_NORMAL = np.array([0.1, -0.95, -0.3]) / np.linalg.norm([0.1, -0.95, -0.3])
FLOOR_BELOW = 1.5


@pytest.fixture
def warped(floor_scene, tmp_path) -> bpy.types.Object:
    """The floor as an estimate shows it whose offset is wrong by -0.2; 0 is right."""
    package = Scene.open(floor_scene)
    remap_scene(package, tmp_path / "warped", package.manifest.mapping.changed(-0.2))
    imported = import_scene(tmp_path / "warped")
    assert imported.ex4d_depth.offset == pytest.approx(-0.2)
    return imported


def on_screen(scene_object: bpy.types.Object, true: np.ndarray) -> list[mathutils.Vector]:
    """Points of the true scene (N, 3) where the warped one shows them, in Blender's world."""
    shown = shown_mapping(scene_object, open_scene(scene_object).manifest.mapping)
    z = shown.depth(shown.changed(0.0).disparity(true[:, 2])).astype(float)
    return [scene_object.matrix_world @ mathutils.Vector(point) for point in true * (z / true[:, 2])[:, None]]


def use(kind: type, points: list) -> _Picked:
    picked = _Picked(kind, points)
    picked.result = _PicksAngle.use(picked, bpy.context)
    return picked


SIDE = np.cross(FLOOR_NORMAL, [0.5, 0.1, 1.0]) / np.linalg.norm(np.cross(FLOOR_NORMAL, [0.5, 0.1, 1.0]))
AWAY = np.cross(SIDE, FLOOR_NORMAL)
ON_FLOOR = -FLOOR_NORMAL * FLOOR_BELOW + 2.2 * AWAY


@pytest.mark.parametrize("slider", [-0.2, 0.3])
def test_a_square_corner_on_the_ground_tells_the_offset(warped, slider):
    """Whatever the slider shows when the corner is clicked."""
    warped.ex4d_depth.offset = slider
    corner = np.array([ON_FLOOR, ON_FLOOR + 0.5 * SIDE, ON_FLOOR + 0.8 * AWAY])
    picked = use(EX4D_OT_pick_corner, on_screen(warped, corner))
    assert picked.result == {"FINISHED"}, picked.reports
    assert warped.ex4d_depth.offset == pytest.approx(0.0, abs=0.01)


def test_something_upright_on_the_ground_tells_the_offset(warped):
    bpy.ops.ex4d.set_scale(method="FACTOR", factor=3.0)
    bpy.context.view_layer.update()
    edge = np.array([ON_FLOOR, ON_FLOOR + 0.7 * FLOOR_NORMAL])
    picked = use(EX4D_OT_pick_vertical, on_screen(warped, edge))
    assert picked.result == {"FINISHED"}, picked.reports
    assert warped.ex4d_depth.offset == pytest.approx(0.0, abs=0.02)


def test_a_corner_that_faces_the_camera_tells_nothing(warped):
    corner = np.array([[0.0, 0.0, 3.0], [1.0, 0.0, 3.0], [0.0, 0.5, 3.0]])
    picked = use(EX4D_OT_pick_corner, on_screen(warped, corner))
    assert picked.result == {"CANCELLED"} and "hardly changes" in picked.reports[0][1]
    assert warped.ex4d_depth.offset == pytest.approx(-0.2), "it stays as it was"


def test_an_offset_in_the_panel_is_sent_and_none_is_left_out(tmp_path):
    settings = bpy.context.scene.ex4d_footage
    settings.footage, settings.depth = str(SAMPLE / "footage.mp4"), str(SAMPLE / "depth.npz")
    plain = plan_of(settings, bpy.context.scene).settings.to_wire()["depth"]
    assert not {"offset", "far_limit", "camera_fit"} & set(plain), "which older backends refuse"
    settings.use_offset, settings.offset, settings.far_limit, settings.camera_fit = True, 0.2, 40.0, False
    depth = plan_of(settings, bpy.context.scene).settings.depth
    assert (depth.offset, depth.far_limit, depth.camera_fit) == (0.2, 40.0, False)

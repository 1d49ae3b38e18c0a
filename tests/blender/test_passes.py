"""Passes for compositing: EXR files of a shot from a real backend, and the compositor's node that reads them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.jobs.tracker import can_retry
from blender_addon.passes.nodes import compositing_tree
from blender_addon.scenes.importing import ImportSettings, import_scene
from ex4d_core.trajectories import Trajectory

from .conftest import backend_environment, fresh_blender, tick_round, tick_until
from .taking import send, take, tick_until_over

FRAMES, WIDTH, HEIGHT = 4, 48, 32
FIRST = 11


@pytest.fixture(scope="module")
def deep_package(backend_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "ramp"
    script = Path(__file__).with_name("write_deep_scene.py")
    command = [backend_python, str(script), str(folder), str(FRAMES), str(WIDTH), str(HEIGHT)]
    subprocess.run(command, check=True, env=backend_environment())
    return folder


@pytest.fixture
def deep_shot(deep_package: Path, tmp_path: Path) -> bpy.types.Object:
    """A saved file with a scene of half floats at frame 11, and a camera on an arc."""
    package = Path(shutil.copytree(deep_package, tmp_path / "scenes" / "ramp"))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    imported = import_scene(package, ImportSettings(frame_start=FIRST))
    camera_from_preset(imported, Trajectory("20"), name="arc")
    scene = bpy.context.scene
    scene.ex4d_shot.camera, scene.ex4d_shot.label = bpy.data.objects["arc"], "arc"
    scene.frame_start, scene.frame_end = FIRST, FIRST + FRAMES - 1
    scene.render.resolution_x, scene.render.resolution_y = WIDTH, HEIGHT
    scene.render.resolution_percentage = 100
    return imported


def make_passes() -> bpy.types.PropertyGroup:
    assert bpy.ops.ex4d.send_passes() == {"FINISHED"}
    record = bpy.context.scene.ex4d_passes[-1]
    tick_until(lambda: record.state in ("done", "failed", "stopped"), "the passes")
    assert record.state == "done", record.reason
    return record


def group_node() -> bpy.types.Node:
    return next(one for one in compositing_tree(bpy.context.scene).nodes if one.bl_idname == "CompositorNodeGroup")


def composited(frame: int, output: str, tmp_path: Path) -> np.ndarray:
    """(H, W, 4) float32, top row first: what the compositor makes of an output of the group node in a frame."""
    scene = bpy.context.scene
    tree = compositing_tree(scene)
    for node in [one for one in tree.nodes if one.bl_idname == "CompositorNodeRLayers"]:
        tree.nodes.remove(node)  # Blender then renders nothing itself
    end = next(one for one in tree.nodes if one.bl_idname in ("CompositorNodeComposite", "NodeGroupOutput"))
    tree.links.new(group_node().outputs[output], end.inputs[0])
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.image_settings.color_depth, scene.render.image_settings.color_mode = "32", "RGBA"
    scene.render.filepath = str(tmp_path / f"composited {output}.exr")
    scene.frame_set(frame)
    bpy.ops.render.render(write_still=True)
    return pixels(Path(scene.render.filepath), "Linear Rec.709")


def pixels(path: Path, space: str) -> np.ndarray:
    """(H, W, 4) float32, top row first, linear for EXR files and as stored for others."""
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = space
    values = np.empty(len(image.pixels), np.float32)
    image.pixels.foreach_get(values)
    width, height = image.size
    bpy.data.images.remove(image)
    return values.reshape(height, width, 4)[::-1]


def linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def test_a_take_lies_under_its_own_passes_pixel_for_pixel(connected, deep_shot, tmp_path) -> None:
    send()
    tick_until_over()
    record = make_passes()
    folder = Path(bpy.path.abspath(record.folder))
    assert sorted(path.name for path in folder.glob("*.exr")) == [f"arc_v001.{1001 + one}.exr" for one in range(FRAMES)]
    assert folder.parent == Path(bpy.path.abspath(take().folder)).parent

    frame = FIRST + 2
    over, passes = composited(frame, "Image", tmp_path), composited(frame, "Passes", tmp_path)
    shown = composited(frame, "Take", tmp_path)
    taken = pixels(Path(bpy.path.abspath(take().folder)) / "frame_00002.png", "Non-Color")
    np.testing.assert_allclose(shown[..., :3], linear(taken[..., :3]), atol=2e-5)
    alpha = passes[..., 3:]
    seen, unseen = alpha[..., 0] == 1, alpha[..., 0] == 0
    assert seen.sum() > 0.5 * seen.size and unseen.any()
    np.testing.assert_array_equal(over[seen][:, :3], passes[seen][:, :3])
    np.testing.assert_allclose(over[unseen][:, :3], shown[unseen][:, :3], atol=1e-6)
    np.testing.assert_allclose(over[..., :3], passes[..., :3] + (1 - alpha) * shown[..., :3], atol=2e-6)
    # Half floats and the take's 8 bits are the same picture, to 8 bits: the next row has 8 of these more.
    assert (passes[seen][:, :3] < linear(taken[seen][:, :3] + 2 / 255)).all()
    assert (passes[seen][:, :3] > linear(taken[seen][:, :3] - 2 / 255)).all()
    depth = composited(frame, "Depth", tmp_path)[..., 0]
    assert 1.2 < depth[HEIGHT // 2, WIDTH // 2] < 1.8 and 3.5 < depth[2, WIDTH // 2] < 5.0


def test_nodes_leave_the_artists_own_alone_and_are_updated_in_place(connected, deep_shot) -> None:
    tree = compositing_tree(bpy.context.scene)
    blur = tree.nodes.new("CompositorNodeBlur")
    blur.name = "hers"
    links = [(one.from_node.name, one.to_node.name) for one in tree.links]
    make_passes()
    first = group_node()
    tree.links.new(first.outputs["Passes"], blur.inputs[0])
    make_passes()
    assert [one.name for one in tree.nodes if one.bl_idname == "CompositorNodeGroup"] == [first.name]
    assert "arc" in first.name
    image = first.node_tree.nodes["EX-4D Passes"].image
    assert Path(bpy.path.abspath(image.filepath)).name == "arc_v002.1001.exr"
    now = [(one.from_node.name, one.to_node.name) for one in tree.links]
    assert now == [*links, (first.name, "hers")]


def test_undo_does_not_lose_passes_and_their_node_can_be_added_again(connected, deep_shot) -> None:
    bpy.ops.ed.undo_push(message="long before")
    bpy.ops.ed.undo_push(message="before")
    assert bpy.ops.ex4d.send_passes() == {"FINISHED"}
    key = bpy.context.scene.ex4d_passes[-1].key
    tick_round()
    bpy.data.objects.new("something", None)
    bpy.ops.ed.undo_push(message="something else")
    bpy.ops.ed.undo()
    tick_until(lambda: len(bpy.context.scene.ex4d_passes) == 1, "the passes to be listed again")
    tick_until(lambda: bpy.context.scene.ex4d_passes[0].state == "done", "the passes")
    tree = compositing_tree(bpy.context.scene)
    tree.nodes.remove(group_node())
    assert bpy.ops.ex4d.place_passes(key=key) == {"FINISHED"}
    assert group_node().node_tree.nodes["EX-4D Passes"].frame_start == FIRST


def test_deleted_files_are_named_and_deleting_spares_the_artists(connected, deep_shot) -> None:
    record = make_passes()
    folder = Path(bpy.path.abspath(record.folder))
    (folder / "notes.txt").write_text("hers")
    (folder / "arc_v001.1002.exr").unlink()
    with pytest.raises(RuntimeError, match=r"arc_v001\.1002\.exr is missing"):
        bpy.ops.ex4d.place_passes(key=record.key)
    assert bpy.ops.ex4d.delete_passes_files(key=record.key) == {"FINISHED"}
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert not bpy.context.scene.ex4d_passes


def test_interrupted_passes_resume_when_the_file_is_opened_again(connected, deep_shot) -> None:
    assert bpy.ops.ex4d.send_passes() == {"FINISHED"}
    tick_until(lambda: bpy.context.scene.ex4d_passes[-1].job != "", "the job")
    blend = bpy.data.filepath
    bpy.ops.wm.save_mainfile()
    fresh_blender()  # as if Blender had been closed
    bpy.context.preferences.addons["blender_addon"].preferences.address = connected.address
    bpy.ops.wm.open_mainfile(filepath=blend)
    tick_until(lambda: bpy.context.scene.ex4d_passes[-1].state == "done", "the passes")
    assert group_node()


def test_cancelled_passes_are_retried_as_another_job_into_their_own_files(connected, deep_shot) -> None:
    assert bpy.ops.ex4d.send_passes() == {"FINISHED"}
    record = bpy.context.scene.ex4d_passes[-1]
    with pytest.raises(RuntimeError, match="under way; cancel them first"):
        bpy.ops.ex4d.retry_passes(key=record.key)
    assert bpy.ops.ex4d.cancel_passes(key=record.key) == {"FINISHED"}
    assert record.state == "cancelled" and can_retry(record)
    before, folder = record.key, record.folder
    assert bpy.ops.ex4d.retry_passes(key=before) == {"FINISHED"}
    tick_until(lambda: bpy.context.scene.ex4d_passes[0].state in ("done", "failed", "stopped"), "the passes")
    (record,) = bpy.context.scene.ex4d_passes
    assert (record.state, record.folder, record.version) == ("done", folder, 1) and record.key != before
    assert len(list(Path(bpy.path.abspath(folder)).glob("arc_v001.*.exr"))) == FRAMES
    assert group_node().node_tree.nodes["EX-4D Passes"].frame_duration == FRAMES


def test_passes_and_takes_of_a_scene_with_stereoscopy_have_both_eyes(connected, deep_shot) -> None:
    render = bpy.context.scene.render
    render.use_multiview, render.views_format = True, "STEREO_3D"
    bpy.context.scene.ex4d_shot.use_exr = True
    send()
    tick_until_over()
    assert take().state == "done", take().reason
    make_passes()
    inside = group_node().node_tree.nodes
    assert tuple(inside["EX-4D Passes"].image.size) == tuple(inside["EX-4D Take"].image.size) == (2 * WIDTH, HEIGHT)


def test_scenes_of_8_bits_have_no_passes(shot) -> None:
    from blender_addon.passes.panel import EX4D_PT_passes

    assert not EX4D_PT_passes.poll(bpy.context)
    with pytest.raises(RuntimeError, match="8 bits"):
        bpy.ops.ex4d.send_passes()


def test_a_color_space_that_blender_lacks_is_refused_before_anything_is_sent(deep_shot) -> None:
    bpy.context.scene.ex4d_shot.output_space = "Linear of nobody"
    with pytest.raises(RuntimeError, match="Linear of nobody"):
        bpy.ops.ex4d.send_passes()
    assert not bpy.context.scene.ex4d_passes


def test_a_take_in_exr_lies_under_its_own_passes_bit_for_bit_and_delete_files_knows_it(
    connected, deep_shot, tmp_path
) -> None:
    send()
    tick_until_over()
    record = make_passes()
    inside = group_node().node_tree.nodes
    assert inside["EX-4D Take"].image.filepath.endswith("frame_00000.png")
    bpy.context.scene.ex4d_shot.use_exr = True
    send()
    tick_until_over()
    newest = bpy.context.scene.ex4d_takes[-1]
    assert newest.state == "done", newest.reason
    folder = Path(bpy.path.abspath(newest.folder))
    assert sorted(path.name for path in folder.glob("*.exr")) == [f"arc_v001.{1001 + one}.exr" for one in range(FRAMES)]
    # The passes that are there get the newer take, in half floats.
    assert bpy.ops.ex4d.place_passes(key=record.key) == {"FINISHED"}
    below = inside["EX-4D Take"]
    assert Path(bpy.path.abspath(below.image.filepath)) == folder / "arc_v001.1001.exr"
    assert (below.frame_start, below.frame_duration, below.frame_offset) == (FIRST, FRAMES, 1000)
    frame = FIRST + 2
    over, passes, shown = (composited(frame, name, tmp_path)[..., :3] for name in ("Image", "Passes", "Take"))
    alpha = composited(frame, "Alpha", tmp_path)[..., 0]
    seen, unseen = alpha == 1, alpha == 0
    assert seen.sum() > 0.5 * seen.size and unseen.any()
    np.testing.assert_array_equal(shown[seen], passes[seen])
    np.testing.assert_array_equal(over[seen], shown[seen])
    np.testing.assert_array_equal(over[unseen], shown[unseen])
    assert np.array_equal(shown, shown.astype(np.float16)) and len(np.unique(shown)) > 1000, "8 bits have 256 steps"
    assert bpy.ops.ex4d.delete_take_files(key=newest.key) == {"FINISHED"}
    assert not folder.exists()


def test_no_take_with_marked_holes_lies_under_passes(connected, deep_shot) -> None:
    bpy.context.scene.ex4d_shot.holes = "mark"
    send()
    tick_until_over()
    assert take().state == "done", take().reason
    record = make_passes()
    assert "EX-4D Take" not in group_node().node_tree.nodes
    bpy.context.scene.ex4d_shot.holes = "fill"
    send()
    tick_until_over()
    assert bpy.ops.ex4d.place_passes(key=record.key) == {"FINISHED"}
    assert "EX-4D Take" in group_node().node_tree.nodes

"""A scene package becomes an animated, textured object with its source camera, on the right frames."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from blender_addon.scenes.color_space import display_color_space
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.scenes.link import active_scene_object, open_scene
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError


def evaluated_positions(target: bpy.types.Object, frame: int) -> np.ndarray:
    """(V, 3) float32 vertex positions in the object's own axes, as Blender has them on a frame."""
    bpy.context.scene.frame_set(frame)
    mesh = target.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    positions = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    mesh.vertices.foreach_get("co", positions)
    return positions.reshape(-1, 3)


def unprojected(scene: Scene, frame: int) -> np.ndarray:
    """(H, W, 3) scene positions of every pixel's centre."""
    camera, depth = scene.source_camera(), scene.depth()[frame].astype(np.float64)
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.intrinsics[frame]).T
    in_camera = rays * depth[..., None]
    to_world = camera.camera_to_world[frame]
    return in_camera @ to_world[:3, :3].T + to_world[:3, 3]


def render_frame(frame: int, target: Path) -> np.ndarray:
    """(H, W, 3) the image that Blender renders on a frame, through the view transform, 0 to 255."""
    blender_scene = bpy.context.scene
    blender_scene.render.engine = "CYCLES"
    blender_scene.cycles.samples = 4
    blender_scene.cycles.use_denoising = False
    blender_scene.cycles.pixel_filter_type = "BOX"
    blender_scene.render.dither_intensity = 0
    blender_scene.render.filepath = str(target)
    blender_scene.frame_set(frame)
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(target), check_existing=False)
    pixels = np.empty(image.size[0] * image.size[1] * 4, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    rgba = pixels.reshape(image.size[1], image.size[0], 4)[::-1]
    bpy.data.images.remove(image)
    return 255 * rgba[..., :3]


@pytest.mark.parametrize("package", ["card_scene", "moving_scene"])
def test_every_frame_is_the_unprojected_depth(package, request):
    scene = Scene.open(request.getfixturevalue(package))
    imported = import_scene(request.getfixturevalue(package), ImportSettings(frame_start=101))

    for frame in (0, 4, 8):
        grid = evaluated_positions(imported, 101 + frame).reshape(34, 50, 3)  # the image and a ring around it
        np.testing.assert_allclose(grid[1:-1, 1:-1], unprojected(scene, frame), atol=1e-5)


def test_the_object_turns_the_scene_upright(card_scene):
    imported = import_scene(card_scene)
    grid = (evaluated_positions(imported, 1) @ np.array(imported.matrix_world)[:3, :3].T).reshape(34, 50, 3)
    assert (grid[1, :, 2] > 0).all() and (grid[-2, :, 2] < 0).all()  # the image's upper rows are up
    assert (grid[1:-1, 1:-1, 1] > 1.9).all()  # ahead of the camera, along Blender's y
    assert grid[5, -2, 0] > 0 > grid[5, 1, 0]


def test_the_mesh_is_valid_flat_and_maps_pixels_to_texels(card_scene):
    imported = import_scene(card_scene)
    mesh = imported.data
    assert mesh.normals_domain == "FACE"
    assert not mesh.validate(verbose=True), "Blender had to repair the mesh"
    vertices = np.empty(len(mesh.loops), dtype=np.int32)
    mesh.loops.foreach_get("vertex_index", vertices)
    uvs = np.empty(2 * len(mesh.loops), dtype=np.float32)
    mesh.uv_layers["UVMap"].uv.foreach_get("vector", uvs)
    first_pixel = np.flatnonzero(vertices == 51)[0]  # row 1, column 1 of 50 columns
    np.testing.assert_allclose(uvs.reshape(-1, 2)[first_pixel], [0.5 / 48, 1 - 0.5 / 32], atol=1e-6)


@pytest.mark.parametrize("package", ["card_scene", "moving_scene"])
def test_the_source_camera_sees_the_footage_of_its_frame(package, request, tmp_path):
    folder = request.getfixturevalue(package)
    footage = Scene.open(folder).color()
    import_scene(folder, ImportSettings(frame_start=11))

    for frame in (0, 3, 8):
        rendered = render_frame(11 + frame, tmp_path / "render.png")
        errors = [np.median(np.abs(rendered - one)) for one in footage]
        assert int(np.argmin(errors)) == frame
        assert errors[frame] < 3


def test_from_the_source_camera_nothing_shows_as_unseen(card_scene, tmp_path):
    imported = import_scene(card_scene)

    def rendered(frame: int, unseen: tuple[float, float, float]) -> np.ndarray:
        imported.ex4d_scene.unseen_color = unseen
        return render_frame(frame, tmp_path / "render.png")[1:-1, 1:-1]  # the frustum's walls touch its edge

    for frame in (1, 5):
        assert np.abs(rendered(frame, (0, 1, 0)) - rendered(frame, (0, 0, 0))).max() < 2, f"frame {frame}"


@pytest.mark.parametrize("view_transform", ["Standard", "AgX", "Filmic"])
def test_the_view_transform_does_not_change_the_footage(card_scene, tmp_path, view_transform):
    bpy.context.scene.view_settings.view_transform = view_transform
    import_scene(card_scene, ImportSettings(set_up_scene=True, standard_view=False))
    rendered = render_frame(1, tmp_path / "render.png")
    assert np.median(np.abs(rendered - Scene.open(card_scene).color()[0])) < 3


def test_a_view_transform_without_an_inverse_gets_srgb(card_scene):
    bpy.context.scene.view_settings.view_transform = "Raw"
    image = bpy.data.images.new("any", 1, 1)
    assert display_color_space(bpy.context.scene, image) == "sRGB"


def test_footage_is_tagged_anew_when_the_view_transform_changes(card_scene):
    bpy.context.scene.view_settings.view_transform = "AgX"
    import_scene(card_scene, ImportSettings(set_up_scene=True, standard_view=False))
    image = next(image for image in bpy.data.images if image.source == "MOVIE")
    assert image.colorspace_settings.name == "AgX Base sRGB"

    bpy.context.scene.view_settings.view_transform = "Standard"
    bpy.ops.ex4d.match_view()

    assert image.colorspace_settings.name == "sRGB"


@pytest.mark.parametrize("package", ["card_scene", "moving_scene"])
def test_stretched_faces_show_in_the_unseen_colour_from_the_side(package, request, tmp_path):
    imported = import_scene(request.getfixturevalue(package))
    source = imported.ex4d_scene.source_camera
    imported.ex4d_scene.unseen_color = (0.0, 1.0, 0.0)
    bpy.context.scene.view_settings.view_transform = "Standard"

    def green_share(frame: int) -> float:
        rendered = render_frame(frame, tmp_path / "render.png")
        return float((np.abs(rendered - (0, 255, 0)).max(axis=-1) < 12).mean())

    for frame in (1, 9):
        source.delta_location = (0, 0, 0)
        from_source = green_share(frame)
        source.delta_location = (0.6, 0, 0)
        assert green_share(frame) > from_source + 0.05, f"frame {frame}"


def test_frame_range_rate_resolution_and_camera_come_from_the_footage(card_scene):
    imported = import_scene(card_scene, ImportSettings(frame_start=101))
    blender_scene = bpy.context.scene
    assert (blender_scene.frame_start, blender_scene.frame_end) == (101, 109)
    assert Fraction(blender_scene.render.fps / blender_scene.render.fps_base) == 24
    assert (blender_scene.render.resolution_x, blender_scene.render.resolution_y) == (48, 32)
    assert blender_scene.view_settings.view_transform == "Standard"
    assert blender_scene.camera == imported.ex4d_scene.source_camera
    assert imported.users_collection[0].name == "card and wall"


def test_a_second_scene_leaves_the_blender_scene_as_it_is(card_scene, moving_scene):
    first = import_scene(card_scene)
    bpy.context.scene.frame_end, bpy.context.scene.view_settings.view_transform = 500, "AgX"
    second = import_scene(moving_scene)
    assert bpy.context.scene.frame_end == 500
    assert bpy.context.scene.view_settings.view_transform == "AgX"
    assert bpy.context.scene.camera == first.ex4d_scene.source_camera
    assert second.users_collection[0] != first.users_collection[0]


def test_a_renamed_object_in_a_reopened_file_still_knows_its_package(card_scene, tmp_path):
    imported = import_scene(card_scene)
    imported.name, imported.data.name = "garden", "other"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert open_scene(bpy.data.objects["garden"]).digest == Scene.open(card_scene).digest


def test_paths_are_relative_in_a_saved_file_and_move_along(card_scene, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(card_scene, project / "scenes" / "card")
    bpy.ops.wm.save_as_mainfile(filepath=str(project / "shot.blend"))
    imported = import_scene(project / "scenes" / "card")
    movie = next(image for image in bpy.data.images if image.source == "MOVIE")
    assert imported.ex4d_scene.folder == "//scenes/card"
    assert imported.modifiers[0].filepath == "//scenes/card/mesh.pc2"
    assert movie.filepath == "//scenes/card/footage.mp4"
    bpy.ops.wm.save_mainfile()

    project.rename(tmp_path / "moved")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "moved" / "shot.blend"))

    assert open_scene(bpy.data.objects["card and wall"]).manifest.frames == 9


def test_a_file_saved_elsewhere_still_finds_its_package(card_scene, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other" / "deep").mkdir(parents=True)
    shutil.copytree(card_scene, tmp_path / "scenes" / "card")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "one" / "shot.blend"))
    import_scene(tmp_path / "scenes" / "card")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "other" / "deep" / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "other" / "deep" / "shot.blend"))
    assert bpy.data.objects["card and wall"].ex4d_scene.folder == "//../../scenes/card"
    assert open_scene(bpy.data.objects["card and wall"]).manifest.frames == 9

    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "one" / "copy.blend"), copy=True)
    assert bpy.data.objects["card and wall"].ex4d_scene.folder == "//../../scenes/card"
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "one" / "copy.blend"))
    assert bpy.data.objects["card and wall"].ex4d_scene.folder == "//../scenes/card"


def test_a_folder_that_is_no_scene_is_refused_and_nothing_is_added(tmp_path):
    with pytest.raises(SceneError, match=r"not a scene folder"):
        import_scene(tmp_path)
    with pytest.raises(RuntimeError, match="not a scene folder"):
        bpy.ops.ex4d.import_scene(filepath=str(tmp_path / "manifest.json"))
    assert not bpy.data.objects and not bpy.data.meshes


def test_positions_of_another_mesh_are_refused(card_scene, tmp_path):
    folder = Path(shutil.copytree(card_scene, tmp_path / "card"))
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "mesh.pc2").read_bytes()
    shortened = data[:28] + (5).to_bytes(4, "little") + data[32 : 32 + 5 * 1700 * 12]
    manifest["files"]["positions"]["size"] = len(shortened)
    (folder / "mesh.pc2").write_bytes(shortened)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SceneError, match="holds 5 frames of 1700 points, the scene has 9 of 1700"):
        import_scene(folder)
    assert not bpy.data.objects and not bpy.data.meshes


def test_positions_that_a_package_lacks_are_written_at_import(card_scene, tmp_path):
    """They move with the package, whose digest they do not change."""
    folder = tmp_path / "without"
    shutil.copytree(card_scene, folder)
    (folder / "mesh.pc2").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["positions"]
    (folder / "manifest.json").write_text(json.dumps(manifest))

    imported, whole = import_scene(folder), import_scene(card_scene)
    np.testing.assert_allclose(evaluated_positions(imported, 5), evaluated_positions(whole, 5), rtol=1e-5)
    assert (folder / "mesh.pc2").stat().st_size == (card_scene / "mesh.pc2").stat().st_size
    assert open_scene(imported).digest == Scene.open(folder).digest


def test_importing_ends_the_editing_of_something_else(card_scene):
    edited = bpy.data.objects.new("edited", bpy.data.meshes.new("edited"))
    bpy.context.scene.collection.objects.link(edited)
    bpy.context.view_layer.objects.active = edited
    bpy.ops.object.mode_set(mode="EDIT")
    assert bpy.ops.ex4d.import_scene(filepath=str(card_scene / "manifest.json")) == {"FINISHED"}
    assert (edited.mode, bpy.context.mode) == ("OBJECT", "OBJECT")
    assert bpy.context.view_layer.objects.active.ex4d_scene.frames == 9


def test_a_timer_knows_the_scene_that_the_artist_means(card_scene, moving_scene):
    import_scene(card_scene)
    second = import_scene(moving_scene)
    bpy.context.view_layer.objects.active = second
    # All that a timer's context is sure to have; ``context.object`` comes with a window.
    in_timer = SimpleNamespace(scene=bpy.context.scene, view_layer=bpy.context.view_layer)
    assert active_scene_object(in_timer) == second


def test_the_import_operator_selects_what_it_imported(card_scene):
    assert bpy.ops.ex4d.import_scene(filepath=str(card_scene / "manifest.json")) == {"FINISHED"}
    assert bpy.context.view_layer.objects.active.ex4d_scene.frames == 9

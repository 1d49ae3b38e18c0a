"""The first look at an imported scene: footage through the source camera in every viewport, and nothing in the way."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from blender_addon.scenes.enclosing import enclosing_objects
from blender_addon.scenes.gpu_meshes import border_of
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.scenes.viewports import viewports
from blender_addon.scheduler import scheduler

from .conftest import fresh_blender, tick_round


def open_factory_file() -> None:
    """Blender's start-up file, with all of its workspaces and the default cube."""
    bpy.ops.wm.read_factory_settings(use_empty=False)
    import addon_utils

    addon_utils.enable("blender_addon", default_set=True)


def spaces() -> list[bpy.types.SpaceView3D]:
    return [area.spaces.active for screen in bpy.data.screens for area in screen.areas if area.type == "VIEW_3D"]


def shows_footage(space: bpy.types.SpaceView3D) -> bool:
    shading = space.shading
    return (shading.light, shading.color_type) == ("FLAT", "TEXTURE") and shading.type != "WIREFRAME"


def cube(size: float, location: tuple[float, float, float]) -> bpy.types.Object:
    bpy.ops.mesh.primitive_cube_add(size=size, location=location)
    return bpy.context.object


def test_every_workspace_looks_through_the_source_camera_at_footage(card_scene):
    open_factory_file()
    assert len(spaces()) > 3
    spaces()[0].shading.type = "WIREFRAME"
    imported = import_scene(card_scene)
    assert bpy.context.scene.camera == imported.ex4d_scene.source_camera
    assert all(shows_footage(space) for space in spaces())
    assert {space.region_3d.view_perspective for space in spaces()} == {"CAMERA"}


def test_a_scene_that_is_not_set_up_for_leaves_viewports_and_camera_alone(card_scene, moving_scene):
    open_factory_file()
    before = [(space.shading.light, space.region_3d.view_perspective) for space in spaces()]
    camera = bpy.context.scene.camera
    import_scene(card_scene, ImportSettings(set_up_scene=False))
    assert [(space.shading.light, space.region_3d.view_perspective) for space in spaces()] == before
    assert bpy.context.scene.camera == camera
    assert bpy.ops.ex4d.look_through_source() == {"FINISHED"}
    assert bpy.context.scene.camera.name.startswith("card and wall source")


def test_a_scene_without_any_camera_gets_the_source_camera(card_scene):
    imported = import_scene(card_scene, ImportSettings(set_up_scene=False))
    assert bpy.context.scene.camera == imported.ex4d_scene.source_camera


def add_again(space: bpy.types.SpaceView3D) -> None:
    """Let a viewport be one that was not there in the last tick, with a new workspace."""
    viewports.known = {one for one in viewports.known if one[1] != space.as_pointer()}
    viewports.screens -= 1


def test_a_new_viewport_in_a_screen_that_is_shown_follows(card_scene):
    open_factory_file()
    import_scene(card_scene)
    tick_round()
    areas = bpy.context.window_manager.windows[0].screen.areas
    changed = next(area for area in areas if area.type == "PROPERTIES")
    changed.type = "VIEW_3D"
    changed.spaces.active.region_3d.view_distance = 123.0
    assert not shows_footage(changed.spaces.active)
    tick_round()
    assert shows_footage(changed.spaces.active)


def test_a_new_workspace_follows_before_it_is_shown(card_scene):
    open_factory_file()
    import_scene(card_scene)
    tick_round()
    before = [space.as_pointer() for space in spaces()]
    layout = next(one for one in bpy.data.workspaces if one == bpy.context.window.workspace)
    with bpy.context.temp_override(window=bpy.context.window_manager.windows[0], workspace=layout):
        assert bpy.ops.workspace.duplicate() == {"FINISHED"}
    new = [space for space in spaces() if space.as_pointer() not in before]
    assert new
    for space in new:
        space.shading.light, space.region_3d.view_distance = "STUDIO", 123.0
    tick_round()
    assert all(shows_footage(space) for space in new)


def test_new_viewports_follow_and_copies_stay_as_their_original(card_scene):
    open_factory_file()
    tick_round()
    import_scene(card_scene)
    tick_round()
    first, other, *_ = spaces()
    for space in (first, other):  # what a viewport has that Blender has just made
        space.shading.light, space.region_3d.view_perspective = "STUDIO", "PERSP"
    other.region_3d.view_distance = 123.0
    add_again(other)
    tick_round()
    assert shows_footage(other) and other.region_3d.view_perspective == "CAMERA"
    assert first.region_3d.view_perspective == "PERSP", "the artist's own choice in a viewport that was there"

    second = spaces()[2]
    for name in ("view_location", "view_rotation", "view_distance", "view_perspective"):
        setattr(second.region_3d, name, getattr(first.region_3d, name))
    second.shading.type, second.shading.light = first.shading.type, "STUDIO"
    second.shading.color_type, second.lens, second.clip_end = first.shading.color_type, first.lens, first.clip_end
    add_again(second)
    tick_round()
    assert second.region_3d.view_perspective == "PERSP", "a copy of the first"

    bpy.context.scene.ex4d_viewports = False
    add_again(first)
    tick_round()
    assert first.region_3d.view_perspective == "PERSP", "switched off"


def test_viewports_of_an_opened_file_stay_as_they_were_saved(card_scene, tmp_path):
    open_factory_file()
    import_scene(card_scene)
    for space in spaces():
        space.region_3d.view_perspective = "ORTHO"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    tick_round()
    assert {space.region_3d.view_perspective for space in spaces()} == {"ORTHO"}


def test_the_mesh_is_selected_and_active_unless_something_is_edited(card_scene, moving_scene):
    other = cube(1.0, (9, 9, 9))
    imported = import_scene(card_scene)
    assert bpy.context.view_layer.objects.active == imported and imported.select_get() and not other.select_get()
    bpy.context.view_layer.objects.active = other
    bpy.ops.object.mode_set(mode="EDIT")
    import_scene(moving_scene)
    assert bpy.context.view_layer.objects.active == other and other.mode == "EDIT"


def test_the_untouched_default_cube_is_hidden_and_can_be_shown(card_scene):
    open_factory_file()
    imported = import_scene(card_scene)
    assert bpy.data.objects["Cube"].hide_get() and not enclosing_objects(bpy.context, imported)
    assert bpy.ops.ex4d.show_hidden() == {"FINISHED"}
    assert not bpy.data.objects["Cube"].hide_get()
    assert enclosing_objects(bpy.context, imported) == [bpy.data.objects["Cube"]]


def test_what_encloses_the_source_camera_is_found_and_hidden(card_scene):
    imported = import_scene(card_scene)
    around, aside = cube(3.0, (0.2, 0, 0)), cube(1.0, (2, 0, 0))
    bowl = cube(5.0, (0, 0, 0))  # open on one side: the camera sees out of it
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="DESELECT")
    bpy.ops.object.mode_set(mode="OBJECT")
    bowl.data.polygons[0].select = True
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.delete(type="FACE")
    bpy.ops.object.mode_set(mode="OBJECT")
    bpy.context.view_layer.objects.active = imported
    bpy.context.view_layer.update()
    assert enclosing_objects(bpy.context, imported) == [around]
    assert bpy.ops.ex4d.hide_enclosing() == {"FINISHED"}
    assert around.hide_get() and not aside.hide_get() and not enclosing_objects(bpy.context, imported)


@pytest.mark.parametrize("frame", [1, 400])
def test_the_frame_shows_footage(card_scene, frame):
    bpy.context.scene.frame_set(frame)
    import_scene(card_scene)
    assert 1 <= bpy.context.scene.frame_current <= 9


def test_cameras_see_all_depth_whatever_its_unit(write_scene, card_scene):
    imported = import_scene(card_scene)
    source = imported.ex4d_scene.source_camera.data
    assert source.clip_start < 0.11 and source.clip_end >= 15.0
    assert source.display_size == pytest.approx(0.2), (
        "a tenth of the smallest depth: its lines stay out of other cameras' views"
    )
    source.clip_end = 5000.0
    bpy.ops.ex4d.add_camera(preset="30")
    assert bpy.context.scene.camera.data.clip_end == 5000.0
    assert bpy.context.scene.camera.data.display_size == source.display_size


def test_the_mesh_is_the_image_alone_and_its_border_a_line_around_it(card_scene):
    mesh = import_scene(card_scene).data
    assert len(mesh.polygons) == 2 * 47 * 31 and len(mesh.materials) == 1
    corners = np.empty(3 * len(mesh.polygons), dtype=np.int32)
    mesh.attributes[".corner_vert"].data.foreach_get("value", corners)
    grid = np.arange(34 * 50).reshape(34, 50)[1:-1, 1:-1]  # the image in the ring around it
    assert set(corners) == set(grid.ravel())
    outermost = {*grid[0], *grid[-1], *grid[:, 0], *grid[:, -1]}
    lines = border_of(corners.reshape(-1, 3))
    assert set(lines.ravel()) == outermost and len(lines) == len(outermost)


def test_a_closed_mesh_of_version_0_1_has_no_border():
    tetrahedron = np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]], dtype=np.int32)
    assert border_of(tetrahedron).shape == (0, 2)
    assert border_of(tetrahedron[1:]).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_unseen_areas_fade_only_far_aside(card_scene, tmp_path):
    """Along a camera's moves they are opaque; from the side they let through what is behind."""
    from .test_import_scene import render_frame

    imported = import_scene(card_scene)
    imported.ex4d_scene.unseen_color = (0.0, 1.0, 0.0)
    bpy.context.scene.world = bpy.data.worlds.new("black")
    camera = bpy.data.objects.new("aside", bpy.data.cameras.new("aside"))
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.camera = camera
    camera.data.lens = 100.0

    def green(angle: float) -> float:
        camera.location = (4.0 * np.sin(angle), 3.0 - 3.0 * np.cos(angle), 0.0)
        camera.rotation_euler = (np.pi / 2, 0.0, angle)
        image = render_frame(1, tmp_path / "aside.png")
        return float((image[..., 1] - np.maximum(image[..., 0], image[..., 2]) > 200).mean())

    assert green(np.radians(30)) > 0.01
    assert green(np.radians(95)) < 0.001


def test_looking_for_new_viewports_takes_a_fraction_of_a_tick():
    open_factory_file()
    works = [work for work in scheduler._work if work.run == viewports.follow]
    assert [work.budget for work in works] == [0.0005]


def test_a_file_without_scenes_is_left_alone():
    fresh_blender()
    tick_round()
    assert not bpy.context.scene.ex4d_viewports

"""The first session: from a dropped video in Blender's start-up file to two versions of a take in a saved project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bpy
import mathutils
from blender_window import (
    FINISHED,
    Walk,
    areas,
    is_connected,
    key,
    main_window,
    module,
    move_mouse,
    press,
    region,
    scroll_sidebar,
    tab_is_shown,
    until,
    viewport,
)
from bpy_extras.view3d_utils import location_3d_to_region_2d

# From above and aside, as after a drag with the middle mouse button.
ASIDE = mathutils.Euler((1.15, 0.0, 0.75)).to_quaternion()


def first_hour(walk: Walk, address: str, footage: Path, documents: Path, blend: Path) -> Iterator[float]:
    """All steps, in the order of the work."""
    yield from start_up(walk, address)
    yield from drop(walk, footage)
    yield from reconstruct(walk, documents)
    yield from look_around(walk)
    yield from move(walk)
    yield from coverage(walk)
    yield from preview(walk)
    yield from show_result(walk)
    yield from second_version(walk)
    yield from save(walk, blend)


def start_up(walk: Walk, address: str) -> Iterator[float]:
    """Blender as it comes out of the box: cube, camera and light, and a sidebar that is closed."""
    assert sorted(one.name for one in bpy.data.objects) == ["Camera", "Cube", "Light"]
    assert not bpy.data.filepath
    assert not viewport().show_region_ui
    bpy.context.preferences.addons[module("connection.preferences").ADDON_PACKAGE].preferences.address = address
    bpy.ops.wm.save_userpref()
    yield from until(is_connected)
    yield from walk.picture("01_start")


def drop(walk: Walk, footage: Path) -> Iterator[float]:
    """The operator that a drop from a file manager calls; newer Blenders ask what the file is to be."""
    move_mouse(0.4, 0.5)
    yield 0.3
    files = [{"name": footage.name}]
    if press(bpy.ops.wm.drop_import_file, directory=f"{footage.parent}/", files=files) != {"FINISHED"}:
        yield from walk.picture("02_drop_menu")
        key("U")  # the underlined letter of Use as EX-4D Footage
    yield from until(tab_is_shown)
    settings = bpy.context.scene.ex4d_footage
    assert Path(bpy.path.abspath(settings.footage)) == footage
    assert settings.depth_from == "FILES", "the depth beside the footage was not found"
    assert bpy.data.objects["Cube"].visible_get(), "a drop changes nothing in the scene"
    yield from walk.picture("02_dropped")


def reconstruct(walk: Walk, documents: Path) -> Iterator[float]:
    """Asked once for a project folder; the footage then fills every viewport, and the cube is out of the way."""
    scene = bpy.context.scene
    move_mouse(0.5, 0.5)
    yield 0.3
    assert press(bpy.ops.ex4d.reconstruct) == {"RUNNING_MODAL"}
    assert not scene.ex4d_reconstructions, "nothing is written before the answer"
    yield from walk.picture("03_project_folder")
    key("RET")
    yield from until(lambda: scene.ex4d_reconstructions)
    record = scene.ex4d_reconstructions[0]
    assert Path(bpy.path.abspath(record.folder)).parent.parent == documents / "EX-4D"
    yield 1.0
    walk.picture_now("04_reconstructing")
    yield from until(lambda: record.state in ("imported", *FINISHED[1:]))
    assert (record.state, record.reason) == ("imported", "")
    assert (scene.render.fps, scene.frame_start, scene.frame_end) == (24, 1, 49)
    assert (scene.render.resolution_x, scene.render.resolution_y) == (512, 512)
    mesh = scene.ex4d_shot.scene_object
    assert mesh.select_get()
    assert bpy.context.view_layer.objects.active == mesh
    assert scene.camera == mesh.ex4d_scene.source_camera
    assert bpy.data.objects["Cube"].hide_get(), "the cube encloses the camera"
    assert {"Camera", "Light"} <= {one.name for one in scene.objects}, "her camera and light stay"
    for screen in bpy.data.screens:
        for area in screen.areas:
            if area.type == "VIEW_3D":
                assert area.spaces.active.region_3d.view_perspective == "CAMERA", screen.name
    yield from walk.picture("05_scene")
    walk.result["magenta"] = {"source": walk.magenta("05_scene")}


def look_around(walk: Walk) -> Iterator[float]:
    """From aside the mesh reads as footage in space; the view through the camera is one key away."""
    view = viewport().region_3d
    view.view_perspective, view.view_rotation = "PERSP", ASIDE
    press(bpy.ops.view3d.view_selected)
    yield from walk.picture("06_aside")
    walk.result["magenta"]["aside"] = walk.magenta("06_aside")
    # 2.3 % with the garden behind the ghosts in front of them, 0.7 % where ghosts hide it.
    assert walk.green("06_aside") > 0.015, "stretched faces hide the garden"
    press(bpy.ops.view3d.view_camera)
    yield from until(lambda: view.view_perspective == "CAMERA")


def move(walk: Walk) -> Iterator[float]:
    """A move is a camera that is looked through, selected and active, and a shot that is named after it."""
    scene = bpy.context.scene
    source = scene.camera
    press(bpy.ops.ex4d.add_camera, preset="orbit")
    camera = scene.ex4d_shot.camera
    assert camera != source
    assert scene.camera == bpy.context.view_layer.objects.active == camera
    assert camera.select_get()
    assert camera.animation_data.action is not None
    scene.frame_set((scene.frame_start + scene.frame_end) // 2)
    yield from walk.picture("07_move")


def coverage(walk: Walk) -> Iterator[float]:
    """How much of each frame was seen, along the timeline and on the path."""
    scene = bpy.context.scene
    scene.ex4d_coverage.live = True
    live = module("coverage.live_coverage").live_coverage.of(scene)
    yield from until(lambda: live.shown is not None and live.shown.fresh.all())
    yield from walk.picture("08_coverage")
    walk.result["magenta"]["move"] = walk.magenta("08_coverage")
    view = viewport().region_3d
    view.view_perspective, view.view_rotation = "PERSP", ASIDE
    press(bpy.ops.view3d.view_all)
    yield from walk.picture("09_path")
    press(bpy.ops.view3d.view_camera)
    yield 0.5


def preview(walk: Walk) -> Iterator[float]:
    """The status bar tells of it; no question this time, and what F12 renders stays as it is."""
    scene = bpy.context.scene
    assert press(bpy.ops.ex4d.send_take) == {"FINISHED"}
    take = scene.ex4d_takes[0]
    scroll_sidebar(1400)
    yield from until(lambda: take.progress > 0.2 or take.state in FINISHED)
    walk.picture_now("10_running")
    yield from until(lambda: take.state in FINISHED)
    assert (take.state, take.reason) == ("done", "")
    assert module("jobs.notices").notices(), "the end is seen with the sidebar closed"
    assert not module("sequencer.edit_scenes").has_pictures(scene)
    assert scene.ex4d_edit_scene.name == "EX-4D Edit"
    yield from walk.picture("11_ready")


def show_result(walk: Walk) -> Iterator[float]:
    """Without a sequencer in sight in an Image Editor; in the workspace EX-4D in the sequencer's preview."""
    windows = bpy.context.window_manager.windows
    press(bpy.ops.ex4d.show_result)
    yield from walk.picture("12_result_image")
    editor = next(area for one in windows for area in one.screen.areas if area.type == "IMAGE_EDITOR")
    assert Path(bpy.path.abspath(editor.spaces.active.image.filepath)).name == "take.mp4"
    if len(windows) > 1:
        with bpy.context.temp_override(window=windows[-1]):
            bpy.ops.wm.window_close()
    yield 0.5
    press(bpy.ops.ex4d.open_workspace)
    yield from until(lambda: main_window().workspace.name == "EX-4D" and areas("VIEW_3D"))
    yield from until(tab_is_shown)
    press(bpy.ops.ex4d.show_result)
    yield 1.0
    assert len(windows) == 1, "there is an editor for it in this window"
    yield 1.0
    frame, free = camera_frame(areas("VIEW_3D")[0])
    assert min(frame[0]) >= 0 and max(frame[0]) <= free[0], (frame, free)
    assert min(frame[1]) >= 0 and max(frame[1]) <= free[1], (frame, free)
    yield from walk.picture("13_workspace")


def camera_frame(area: bpy.types.Area) -> tuple[list[tuple[float, ...]], tuple[int, int]]:
    """The x and the y of the corners of the camera's frame in a viewport, and the size that its sidebar leaves free."""
    window, sidebar = region(area), region(area, "UI")
    scene, camera = bpy.context.scene, bpy.context.scene.camera
    corners = [camera.matrix_world @ one for one in camera.data.view_frame(scene=scene)]
    seen = [location_3d_to_region_2d(window, area.spaces.active.region_3d, one) for one in corners]
    return list(zip(*(one[:] for one in seen), strict=True)), (sidebar.x - window.x, window.height)


def second_version(walk: Walk) -> Iterator[float]:
    """Another amount, another take of the same shot: two versions on one channel, one of them shown."""
    scene = bpy.context.scene
    press(bpy.ops.ex4d.send_take)
    takes = scene.ex4d_takes
    assert [take.version for take in takes] == [1, 2]
    yield from until(lambda: takes[1].state in FINISHED)
    assert (takes[1].state, takes[1].reason) == ("done", "")
    strips = module("sequencer.edit_scenes")
    yield from until(lambda: strips.strip_in_file(takes[1].key).type == "MOVIE")
    assert strips.strip_in_file(takes[0].key).mute
    assert not strips.strip_in_file(takes[1].key).mute
    scroll_sidebar(1800)
    yield from walk.picture("14_versions")
    press(bpy.ops.ex4d.show_take, key=takes[0].key)
    assert not strips.strip_in_file(takes[0].key).mute
    press(bpy.ops.ex4d.show_take, key=takes[1].key)


def save(walk: Walk, blend: Path) -> Iterator[float]:
    """The first save offers to bring scenes and takes beside the file."""
    scene = bpy.context.scene
    move_mouse(0.5, 0.5)
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    yield 1.0
    yield from walk.picture("15_move_into_project")
    key("RET")
    folders = [scene.ex4d_reconstructions[0].folder, *(take.folder for take in scene.ex4d_takes)]
    yield from until(lambda: (blend.parent / "scenes").is_dir() and not bpy.data.is_dirty)
    folders = [scene.ex4d_reconstructions[0].folder, *(take.folder for take in scene.ex4d_takes)]
    assert all(one.startswith("//") for one in folders), folders
    yield from walk.picture("16_saved")

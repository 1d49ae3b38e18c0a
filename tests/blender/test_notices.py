"""Progress and ends of jobs in the status bar, a way from there to the result, and the result itself in an editor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest

from blender_addon.connection import sidebar
from blender_addon.footage.operators import EX4D_OT_pick_footage
from blender_addon.footage.properties import RECONSTRUCTIONS
from blender_addon.jobs.notices import note_end, notices
from blender_addon.jobs.status_bar import status_text
from blender_addon.paths import from_blend
from blender_addon.sequencer.edit_scenes import strip_in_file, workspaces_choose_scenes
from blender_addon.takes.properties import TAKES, newest_take
from blender_addon.takes.results import sequencer_preview, show_result
from blender_addon.takes.workspace import WORKSPACE, add_workspace, editors_of
from ex4d_core.errors import RequestError
from ex4d_core.take_files import frame_file_name

from .taking import send, take, tick_until_over

# A whole image of one pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cfc0f01f0005000"
    "1ff56c72f0d0000000049454e44ae426082"
)


def window() -> bpy.types.Window:
    return bpy.context.window_manager.windows[0]


def area_of(kind: str) -> bpy.types.Area:
    return next(one for one in window().screen.areas if one.type == kind)


@pytest.fixture
def factory_windows() -> None:
    """The start-up file with its editors; the add-on is enabled again in it."""
    bpy.ops.wm.read_factory_settings(use_empty=False)
    import addon_utils

    addon_utils.enable("blender_addon", default_set=True)


def test_the_status_bar_shows_reconstructions_and_takes(shot):
    scene = bpy.context.scene
    assert status_text() == ("", 0.0)
    record = send()
    record.progress = 0.5
    text, progress = status_text()
    assert "arc v1" in text and progress == 0.5
    scene.ex4d_footage.footage = str(Path(__file__).parents[1] / "data" / "sample" / "footage.mp4")
    scene.ex4d_footage.depth = str(Path(__file__).parents[1] / "data" / "sample" / "depth.npz")
    assert bpy.ops.ex4d.reconstruct() == {"FINISHED"}
    assert "(+1)" in status_text()[0]
    bpy.ops.ex4d.cancel_take(key=record.key)
    assert "footage" in status_text()[0], "the reconstruction is left"
    assert not notices(), "what the artist cancels needs no notice"


def test_a_take_that_ends_leaves_a_notice_that_leads_to_it(factory_windows, connected, shot):
    area_of("PROPERTIES").type = "IMAGE_EDITOR"
    send()
    tick_until_over()
    (notice,) = notices()
    assert (notice.collection, notice.key, notice.failed) == (TAKES, take().key, False)
    assert "arc v1" in notice.text
    assert bpy.ops.ex4d.open_notice(key=notice.key) == {"FINISHED"}
    assert not notices()
    assert newest_take(bpy.context.scene) == take()
    strip = strip_in_file(take().key)
    scene = strip.id_data
    assert area_of("IMAGE_EDITOR").spaces.active.image.source == "MOVIE"
    assert strip.type == "MOVIE" and not strip.mute and scene in bpy.data.scenes[:]


def test_a_failure_names_the_reason_and_leads_to_the_tab(shot):
    record = bpy.context.scene.ex4d_takes.add()
    record.key, record.label, record.state, record.reason = "abc", "arc", "failed", "no room on the disk " * 20
    note_end(TAKES, record, "arc v1")
    record.state, record.reason = "stopped", "the backend is gone"
    note_end(TAKES, record, "arc v1")
    (notice,) = notices()
    assert notice.failed and "the backend is gone" in notice.text
    assert bpy.ops.ex4d.open_notice(key="abc") == {"FINISHED"}
    assert bpy.ops.ex4d.open_notice(key="abc") == {"CANCELLED"}

    record.state, record.reason = "failed", "no room on the disk " * 20
    note_end(TAKES, record, "arc v1")
    assert len(notices()[0].text) < 120, "a status bar is one line"
    assert bpy.ops.ex4d.dismiss_notice(key="abc") == {"FINISHED"} and not notices()


def test_an_imported_scene_is_looked_at(shot):
    record = bpy.context.scene.ex4d_reconstructions.add()
    record.key, record.label, record.state = "abc", "card", "imported"
    record.folder = shot.ex4d_scene.folder
    note_end(RECONSTRUCTIONS, record, "card")
    bpy.context.scene.camera, bpy.context.view_layer.objects.active = None, None
    assert bpy.ops.ex4d.open_notice(key="abc") == {"FINISHED"}
    assert bpy.context.scene.camera == shot.ex4d_scene.source_camera
    assert bpy.context.view_layer.objects.active == shot


def test_a_notice_is_about_the_open_file(shot):
    record = bpy.context.scene.ex4d_takes.add()
    record.key, record.state = "abc", "done"
    note_end(TAKES, record, "arc v1")
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    assert not notices()


def test_a_dropped_video_opens_the_sidebar(factory_windows, tmp_path):
    viewport = area_of("VIEW_3D")
    viewport.spaces.active.show_region_ui = False
    (tmp_path / "clip.mp4").write_bytes(b"")
    dropped = SimpleNamespace(filepath=str(tmp_path / "clip.mp4"), execute=lambda context: {"FINISHED"})
    with bpy.context.temp_override(window=window(), area=viewport):
        # Blender does not invoke operators in the background.
        assert EX4D_OT_pick_footage.invoke(dropped, bpy.context, None) == {"FINISHED"}
    assert [area for area, _ in sidebar._waiting] == [viewport], "its tab is chosen once it is drawn"
    for _ in range(sidebar._TRIES):
        sidebar._choose_tabs()
    assert not sidebar._waiting, "or not at all, where nothing is drawn"


def test_a_take_without_frames_has_no_result_yet(shot):
    send()
    with pytest.raises(RequestError, match="no frames"):
        show_result(bpy.context, take())
    with pytest.raises(RuntimeError, match="no frames"):
        bpy.ops.ex4d.show_result()


def test_frames_of_a_take_open_in_an_image_editor(factory_windows, shot):
    area_of("PROPERTIES").type = "IMAGE_EDITOR"
    send()
    frame = from_blend(take().folder) / frame_file_name(0)
    frame.write_bytes(PIXEL)
    assert bpy.ops.ex4d.show_result() == {"FINISHED"}
    space = area_of("IMAGE_EDITOR").spaces.active
    assert Path(bpy.path.abspath(space.image.filepath)) == frame and space.image.source == "SEQUENCE"
    assert (space.image_user.frame_start, space.image_user.frame_duration) == (11, 9)
    image = space.image
    assert image.name == "arc v1"
    space.image = None
    bpy.ops.ex4d.show_result()
    assert space.image == image, "the same again, although it is in use"


def test_a_sequencer_with_a_preview_is_preferred(factory_windows):
    scene = bpy.context.scene
    assert sequencer_preview(bpy.context, scene) is None
    large, small = area_of("VIEW_3D"), area_of("OUTLINER")
    large.type = small.type = "SEQUENCE_EDITOR"
    large.spaces.active.view_type, small.spaces.active.view_type = "SEQUENCER", "PREVIEW"
    assert sequencer_preview(bpy.context, scene)[1] == small
    other = bpy.data.scenes.new("edit")
    assert (sequencer_preview(bpy.context, other) is not None) == workspaces_choose_scenes()
    assert workspaces_choose_scenes() == (bpy.app.version >= (5, 0, 0))


def test_the_workspace_has_camera_view_preview_timeline_and_keys(factory_windows):
    workspace = add_workspace(window())
    assert workspace.name == WORKSPACE
    screen = workspace.screens[0]
    editors = {area: area.ui_type for area in screen.areas} | editors_of(screen)
    kinds = list(editors.values())
    assert {"VIEW_3D", "DOPESHEET"} <= set(kinds)
    views = [area.spaces.active.view_type for area, kind in editors.items() if kind == "SEQUENCE_EDITOR"]
    if workspaces_choose_scenes():
        assert sorted(views) == ["PREVIEW", "SEQUENCER"]
    else:  # a sequencer would show the scene of the window, which has no takes
        assert not views and {"IMAGE_EDITOR", "FCURVES"} <= set(kinds)
    assert len(bpy.data.scenes) == 1, "the template brings nothing else"


def test_the_newest_take_of_the_shot_is_one_press_away(shot):
    assert newest_take(SimpleNamespace(ex4d_shot=SimpleNamespace(key=""), ex4d_takes=[])) is None
    assert not bpy.ops.ex4d.show_result.poll()
    first, second = send().key, send().key
    assert first != second and newest_take(bpy.context.scene).key == second

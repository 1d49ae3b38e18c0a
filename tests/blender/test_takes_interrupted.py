"""Files are closed, undone, deleted and run out of room during a take: nothing is lost, and no traceback comes."""

from __future__ import annotations

import shutil

import bpy
import pytest

from blender_addon.connection.session import session
from blender_addon.paths import from_blend
from blender_addon.sequencer.movies import find_opened
from blender_addon.takes import take_jobs
from blender_addon.takes.requests import build_request
from blender_addon.takes.take_jobs import send_take

from .conftest import fresh_blender, tick_round, tick_until
from .taking import edit_scene, is_followed, muted, remove_strip, send, shown_strips, strip_of, take, tick_until_over


@pytest.mark.parametrize("moment", ["sending", "accepted", "first frame"])
def test_a_saved_and_reopened_file_gets_its_take(connected, shot, tmp_path, moment):
    entry = send()
    if moment != "sending":
        met = (lambda: entry.job != "") if moment == "accepted" else (lambda: strip_of(entry) is not None)
        tick_until(met, moment)
    key = entry.key
    bpy.ops.wm.save_mainfile()
    fresh_blender()  # as if Blender had been closed
    bpy.context.preferences.addons["blender_addon"].preferences.address = connected.address

    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert take().key == key and is_followed(take())
    tick_until_over()

    assert (take().state, take().reason) == ("done", "")
    assert (strip_of(take()).type, len(shown_strips())) == ("MOVIE", 1)
    assert sorted(path.name for path in (tmp_path / "takes").iterdir()) == ["arc_1"]


def test_a_renamed_camera_scene_and_object_do_not_matter_to_a_running_take(connected, shot):
    entry = send()
    shot.name, bpy.data.objects["arc"].name, bpy.context.scene.name = "a", "b", "c"
    bpy.data.objects.remove(shot)
    tick_until_over()
    assert (entry.state, strip_of(entry).type) == ("done", "MOVIE")


def test_undo_does_not_lose_a_take(connected, shot):
    bpy.ops.ed.undo_push(message="long before")
    bpy.ops.ed.undo_push(message="before")
    key = send().key
    of_shot, take().version = take().shot, 3
    tick_round()
    bpy.data.objects.new("something", None)
    bpy.ops.ed.undo_push(message="something else")
    bpy.ops.ed.undo()
    assert not bpy.context.scene.ex4d_takes
    tick_until(lambda: len(bpy.context.scene.ex4d_takes) == 1, "the take to be listed again")
    assert of_shot and (take().shot, take().version) == (of_shot, 3)
    tick_until_over()
    bpy.ops.ed.undo()
    tick_until(lambda: len(bpy.context.scene.ex4d_takes) == 1, "the finished take to be listed again")
    tick_until_over()
    assert (take().key, take().state, strip_of(take()).type) == (key, "done", "MOVIE")


def test_sending_and_removing_a_take_are_undo_steps_of_their_own(connected, shot):
    """Undo would else take back what was done before; and without a step Blender would not ask for saving the file."""
    bpy.ops.ed.undo_push(message="long before")
    bpy.data.objects.new("something", None)
    bpy.ops.ed.undo_push(message="something")
    assert bpy.ops.ex4d.send_take("EXEC_DEFAULT", True) == {"FINISHED"}
    key = take().key
    bpy.ops.ed.undo()
    assert "something" in bpy.data.objects
    tick_until(lambda: len(bpy.context.scene.ex4d_takes) == 1, "the take to be listed again")
    tick_until_over()
    bpy.ops.ed.undo_push(message="a finished take")
    assert bpy.ops.ex4d.forget_take("EXEC_DEFAULT", True, key=key) == {"FINISHED"}
    bpy.ops.ed.undo()
    assert (take().key, take().state, strip_of(take()).type) == (key, "done", "MOVIE")


def test_undoing_a_retry_lists_the_take_once(connected, shot):
    key = send().key
    tick_until(lambda: strip_of(take()) is not None, "the first frame")
    bpy.ops.ex4d.cancel_take(key=key)
    tick_until_over()
    bpy.ops.ed.undo_push(message="before")
    assert bpy.ops.ex4d.retry_take("EXEC_DEFAULT", True, key=key) == {"FINISHED"}
    again = take().key
    assert again != key
    bpy.ops.ed.undo()
    assert take().key == key
    tick_until(lambda: take().key == again, "the new job to be shown")
    tick_until_over()
    assert [one.state for one in bpy.context.scene.ex4d_takes] == ["done"]
    assert [one.type for one in shown_strips()] == ["MOVIE"]


def opened_movie(blender_scene: bpy.types.Scene, entry: bpy.types.PropertyGroup) -> bool:
    """Whether the movie has been opened, and is not the take's strip yet."""
    return find_opened(blender_scene.ex4d_edit_scene, entry.key) is not None


def test_the_movie_comes_in_steps_that_share_their_ticks_with_nothing(connected, shot):
    blender_scene, entry, seen = bpy.context.scene, send(), []

    def over() -> bool:
        strips = [(one.type, one.mute, one.channel) for one in shown_strips()]
        if strips and (not seen or strips != seen[-1]):
            seen.append(strips)
        assert is_followed(entry) or entry.state == "done"
        return entry.state == "done"

    tick_until(over, "the take")
    assert [("IMAGE", False, 1), ("MOVIE", True, 2)] in seen, "the movie was opened beside what is shown"
    assert seen[-1] == [("MOVIE", False, 1)]
    assert not opened_movie(blender_scene, entry)


def test_nothing_is_inserted_while_a_render_or_a_modal_operator_runs(connected, shot, monkeypatch):
    entry, waits = send(), "Waits for the end of: Render"
    monkeypatch.setattr(take_jobs, "reason_to_wait", lambda: waits)
    tick_until((from_blend(entry.folder) / "take.mp4").is_file, "all that is made")
    for _ in range(10):
        tick_round()
    assert is_followed(entry) and not shown_strips()
    waits = ""
    tick_until_over()
    assert entry.state == "done" and [one.type for one in shown_strips()] == ["MOVIE"]


def test_frames_of_a_take_that_was_cancelled_during_a_render_are_shown_after_it(connected, shot, monkeypatch):
    entry, waits = send(), "Waits for the end of: Render"
    monkeypatch.setattr(take_jobs, "reason_to_wait", lambda: waits)
    tick_until((from_blend(entry.folder) / "frame_00000.png").is_file, "the first frame")
    bpy.ops.ex4d.cancel_take(key=entry.key)
    for _ in range(10):
        tick_round()
    assert not shown_strips()
    waits = ""
    tick_until_over()
    tick_until(lambda: not is_followed(entry), "its end")
    assert strip_of(entry) is not None


def test_a_strip_is_not_replaced_while_the_artist_drags_strips(connected, shot, monkeypatch):
    entry, dragging = send(), False
    # Without a window nothing can be dragged.
    monkeypatch.setattr(take_jobs, "reason_to_wait", lambda: "Move" if dragging else "")
    arrived = from_blend(entry.folder) / "take.mp4"
    tick_until(lambda: strip_of(entry) is not None, "the first frame")
    dragging = True
    known = len(strip_of(entry).elements)
    tick_until(arrived.is_file, "all that is made")
    for _ in range(10):
        tick_round()
    assert is_followed(entry) and [(one.type, len(one.elements)) for one in shown_strips()] == [("IMAGE", known)]
    dragging = False
    tick_until(lambda: opened_movie(bpy.context.scene, entry), "the movie to be opened")
    dragging = True
    for _ in range(10):
        tick_round()
    assert is_followed(entry) and strip_of(entry).type == "IMAGE"
    dragging = False
    tick_until_over()
    assert entry.state == "done" and [one.type for one in shown_strips()] == ["MOVIE"]


def test_a_file_reopened_between_two_steps_gets_its_movie(connected, shot, tmp_path):
    entry = send()
    tick_until(lambda: opened_movie(bpy.context.scene, entry), "the movie to be opened")
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    bpy.context.preferences.addons["blender_addon"].preferences.address = connected.address
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert opened_movie(bpy.context.scene, take()) and is_followed(take())
    tick_until_over()
    assert [one.type for one in shown_strips()] == ["MOVIE"]
    assert not opened_movie(bpy.context.scene, take())


def test_undo_between_two_steps_does_not_lose_the_movie(connected, shot):
    key = send().key
    tick_until(lambda: strip_of(take()) is not None, "the first frame")
    bpy.ops.ed.undo_push(message="before")
    bpy.data.objects.new("something", None)
    bpy.ops.ed.undo_push(message="something")
    tick_until(lambda: opened_movie(bpy.context.scene, take()), "the movie to be opened")
    bpy.ops.ed.undo()
    assert not opened_movie(bpy.context.scene, take())
    tick_until_over()
    assert (take().key, take().state) == (key, "done")
    assert [one.type for one in shown_strips()] == ["MOVIE"]


@pytest.mark.parametrize("deleted", ["the scene", "the strip", "the opened movie"])
def test_what_is_deleted_between_two_steps_does_no_harm(connected, shot, tmp_path, deleted):
    main, entry = bpy.context.scene, send()
    tick_until(lambda: opened_movie(main, entry), "the movie to be opened")
    if deleted == "the scene":
        bpy.data.scenes.new("other")
        bpy.data.scenes.remove(main)
        tick_until(lambda: not session().busy, "the take to be over")
        assert (tmp_path / "takes" / "arc_1" / "take.mp4").is_file()
        return
    remove_strip(strip_of(entry) if deleted == "the strip" else find_opened(edit_scene(), entry.key))
    tick_until_over()
    if deleted == "the strip":
        assert (entry.state, len(shown_strips())) == ("done", 0)
        assert "strip was removed" in entry.reason
        assert bpy.ops.ex4d.place_take(key=entry.key) == {"FINISHED"}
    assert [one.type for one in shown_strips()] == ["MOVIE"]


def test_a_strip_that_the_artist_removed_stays_away_after_undo(connected, shot):
    entry = send()
    tick_until_over()
    remove_strip(strip_of(entry))
    bpy.ops.ed.undo_push(message="strip removed")
    bpy.data.objects.new("something", None)
    bpy.ops.ed.undo_push(message="something else")
    bpy.ops.ed.undo()
    for _ in range(3):
        tick_round()
    assert take().state == "done" and strip_of(take()) is None


def test_a_take_in_a_file_saved_elsewhere_is_found_again(connected, shot, tmp_path):
    send()
    tick_until(lambda: take().job != "", "the job to be accepted")
    (tmp_path / "elsewhere").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "elsewhere" / "shot.blend"))
    fresh_blender()
    bpy.context.preferences.addons["blender_addon"].preferences.address = connected.address
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "elsewhere" / "shot.blend"))
    assert take().folder == "//../takes/arc_1"
    tick_until_over()
    assert take().state == "done"


def test_a_take_whose_folder_was_deleted_says_so(connected, shot, tmp_path):
    entry = send()
    tick_until(lambda: entry.job != "", "the job to be accepted")
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    shutil.rmtree(tmp_path / "takes")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert take().state == "stopped"
    assert str(tmp_path / "takes" / "arc_1") in take().reason


def test_a_job_that_the_backend_does_not_know_says_so_and_can_be_tried_again(connected, shot, tmp_path):
    entry = send()
    tick_until_over()
    entry.job, entry.state, entry.last_event = "0" * 32, "running", 0
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    tick_until_over()
    assert take().state == "stopped" and take().reason
    assert bpy.ops.ex4d.resume_take(key=take().key) == {"FINISHED"}
    assert is_followed(take())


@pytest.mark.parametrize("moment", ["accepted", "first frame"])
def test_a_full_disk_stops_the_take_and_it_resumes_when_there_is_room(connected, shot, tmp_path, moment):
    resource = pytest.importorskip("resource", reason="this system limits no file sizes")
    entry = send()
    tick_until((lambda: entry.job != "") if moment == "accepted" else (lambda: strip_of(entry) is not None), moment)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        tick_until_over()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert entry.state == "stopped" and f"into {tmp_path / 'takes' / 'arc_1'}" in entry.reason
    assert "free space" in entry.reason
    assert bpy.ops.ex4d.resume_take(key=entry.key) == {"FINISHED"}
    tick_until_over()
    assert (entry.state, entry.reason, strip_of(entry).type) == ("done", "", "MOVIE")


@pytest.mark.parametrize("deleted", ["objects", "cameras", "meshes", "images"])
def test_what_a_running_take_was_made_of_may_be_deleted(connected, shot, deleted):
    entry = send()
    for one in list(getattr(bpy.data, deleted)):
        getattr(bpy.data, deleted).remove(one)
    tick_until_over()
    assert (entry.state, entry.reason, strip_of(entry).type) == ("done", "", "MOVIE")


def test_a_take_whose_scene_was_deleted_cannot_be_retried_and_says_why(shot):
    entry = send()
    bpy.ops.ex4d.cancel_take(key=entry.key)
    bpy.data.objects.remove(shot)
    with pytest.raises(RuntimeError, match="is no longer in the file; import it again"):
        bpy.ops.ex4d.retry_take(key=entry.key)
    with pytest.raises(RuntimeError, match="is no longer in the file; import it again"):
        bpy.ops.ex4d.restore_take(key=entry.key)


def test_footage_that_is_gone_when_the_file_is_reopened_is_named(shot, tmp_path):
    send()
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    shutil.rmtree(tmp_path / "scenes")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert take().state == "stopped"
    assert "is missing" in take().reason and str(tmp_path / "scenes" / "card") in take().reason
    with pytest.raises(RuntimeError, match="is missing"):
        bpy.ops.ex4d.send_take()


def test_takes_operators_can_be_undone(connected, shot):
    """Blender's own undo, as Ctrl Z: the file goes back, what has happened on the backend and on disk stays."""
    entry, cameras = send(), len(bpy.data.cameras)
    tick_until_over()
    key = entry.key
    undone(lambda: bpy.ops.ex4d.restore_take(key=key))
    assert len(bpy.data.cameras) == cameras and bpy.context.scene.ex4d_shot.camera == bpy.data.objects["arc"]
    remove_strip(strip_of(take()))
    undone(lambda: bpy.ops.ex4d.place_take(key=key))
    assert strip_of(take()) is None and take().state == "done"
    assert bpy.ops.ex4d.place_take(key=key) == {"FINISHED"}
    send()
    tick_until_over()
    undone(lambda: bpy.ops.ex4d.show_take(key=key))
    assert muted()[key], "the newer version is seen again"
    undone(lambda: bpy.ops.ex4d.forget_take(key=key))
    assert [one.state for one in bpy.context.scene.ex4d_takes] == ["done", "done"]


def test_a_running_take_that_was_taken_off_the_list_and_put_back_continues(connected, shot):
    entry = send()
    tick_until(lambda: entry.job != "", "the job to be accepted")
    undone(lambda: bpy.ops.ex4d.forget_take(key=entry.key))
    tick_until_over()
    assert (take().state, strip_of(take()).type) == ("done", "MOVIE")


def undone(work) -> None:
    """Do something and undo it, with the ticks that come after."""
    bpy.ops.ed.undo_push(message="before")
    assert work() == {"FINISHED"}
    bpy.ops.ed.undo_push(message="work")
    bpy.ops.ed.undo()
    for _ in range(3):
        tick_round()


def test_a_strip_removed_during_the_job_stays_away_until_it_is_asked_for(connected, shot):
    entry = send()
    tick_until(lambda: strip_of(entry) is not None, "the first frame")
    remove_strip(strip_of(entry))
    tick_until_over()
    assert entry.state == "done" and strip_of(entry) is None
    assert bpy.ops.ex4d.place_take(key=entry.key) == {"FINISHED"}
    assert strip_of(entry).type == "MOVIE"


def test_a_blender_scene_duplicated_during_the_job_has_the_take_in_both(connected, shot, tmp_path):
    first = bpy.context.scene
    key = send().key
    tick_until(lambda: strip_of(take()) is not None, "the first frame")
    bpy.ops.scene.new(type="FULL_COPY")
    copy = bpy.context.scene
    assert copy != first and copy.ex4d_takes[0].key == key
    bpy.ops.scene.new(type="FULL_COPY")
    assert bpy.ops.ex4d.forget_take(key=key) == {"FINISHED"} and is_followed(first.ex4d_takes[0])
    tick_until(lambda: first.ex4d_takes[0].state == "done", "the take")
    assert (copy.ex4d_takes[0].state, copy.ex4d_takes[0].progress) == ("done", 1.0)
    assert first.ex4d_edit_scene == copy.ex4d_edit_scene and [one.type for one in shown_strips()] == ["MOVIE"]
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert sorted(len(scene.ex4d_takes) for scene in bpy.data.scenes) == [0, 0, 1, 1]
    assert not any(is_followed(entry) for scene in bpy.data.scenes for entry in scene.ex4d_takes)


def test_undo_knows_a_final_from_a_preview(shot):
    package, request = build_request(shot, bpy.data.objects["arc"], 11, 19, engine="wan")
    bpy.ops.ed.undo_push(message="before")
    bpy.data.objects.new("something", None)
    send_take(package, request, 11, bpy.context.scene)
    bpy.ops.ed.undo_push(message="something")
    bpy.ops.ed.undo()
    assert not bpy.context.scene.ex4d_takes
    tick_round()
    assert (take().engine, take().state) == ("wan", "sending")


def test_undo_does_not_bring_the_take_of_a_deleted_scene_into_another(connected, shot, tmp_path):
    main, folder = bpy.context.scene, tmp_path / "takes" / "arc_1"
    send()
    other = bpy.data.scenes.new("other")
    bpy.context.window.scene = other
    bpy.data.scenes.remove(main)
    bpy.ops.ed.undo_push(message="scene deleted")
    bpy.data.objects.new("something", None)
    bpy.ops.ed.undo_push(message="something")
    bpy.ops.ed.undo()
    tick_until(lambda: (folder / "take.mp4").is_file() and not session().busy, "the movie")
    assert not any(len(scene.ex4d_takes) for scene in bpy.data.scenes)


def test_a_scene_deleted_during_the_job_does_no_harm(connected, shot, tmp_path):
    main = bpy.context.scene
    entry = send()
    other = bpy.data.scenes.new("other")
    tick_until(lambda: entry.job != "", "the job to be accepted")
    bpy.data.scenes.remove(main)
    tick_until(lambda: not session().busy, "the job to be over")
    assert bpy.context.scene == other and not other.ex4d_takes
    assert (tmp_path / "takes" / "arc_1" / "take.mp4").is_file()

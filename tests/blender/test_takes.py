"""A shot goes to a real backend process and comes back as a strip, whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.cameras.sampling import sample_camera
from blender_addon.connection.session import session
from blender_addon.scenes.importing import ImportSettings, import_scene
from blender_addon.sequencer.movies import find_opened
from blender_addon.sequencer.strips import find_strip, strips_of
from blender_addon.takes import follow
from blender_addon.takes.follow import is_followed
from blender_addon.takes.operators import can_cancel
from blender_addon.takes.pace import Pace
from blender_addon.takes.panel import progress_text
from ex4d_core.cameras import CameraPath
from ex4d_core.client import Client
from ex4d_core.messages import JobStatus, ListJobs
from ex4d_core.trajectories import Trajectory

from .conftest import backend_process, free_address, fresh_blender, tick_until


@pytest.fixture
def shot(card_scene, tmp_path) -> bpy.types.Object:
    """A saved file with the card's scene at frame 11 and a camera on an arc; the scene is new to the backend."""
    package = Path(shutil.copytree(card_scene, tmp_path / "scenes" / "card"))
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["name"] = f"card {uuid.uuid4().hex[:6]}"
    (package / "manifest.json").write_text(json.dumps(manifest))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    imported = import_scene(package, ImportSettings(frame_start=11))
    camera_from_preset(imported, Trajectory("30"), name="arc")
    bpy.context.scene.ex4d_shot.camera = bpy.data.objects["arc"]
    bpy.context.scene.ex4d_shot.label = "arc"
    return imported


def send() -> bpy.types.PropertyGroup:
    assert bpy.ops.ex4d.send_take() == {"FINISHED"}
    return take()


def take() -> bpy.types.PropertyGroup:
    """The newest take of the open file."""
    return bpy.context.scene.ex4d_takes[-1]


def strip_of(entry: bpy.types.PropertyGroup) -> bpy.types.Strip | None:
    return find_strip(bpy.context.scene, entry.key)


def tick_until_over(seconds: float = 60.0) -> None:
    tick_until(lambda: take().state in ("done", "failed", "cancelled", "stopped"), "the take", seconds)


def test_a_shot_becomes_a_movie_strip(connected, shot, tmp_path):
    sampled = sample_camera(bpy.data.objects["arc"], shot, 11, 19)
    entry = send()
    lengths = []

    def over() -> bool:
        strip = strip_of(entry)
        lengths.append((strip.type, strip.frame_final_duration) if strip else None)
        return entry.state == "done"

    tick_until(over, "the take")

    folder = tmp_path / "takes" / "arc_1"
    assert entry.folder == "//takes/arc_1"
    assert sorted(path.name for path in folder.glob("frame_*.png")) == [f"frame_{index:05d}.png" for index in range(9)]
    strip = strip_of(entry)
    assert (strip.type, strip.frame_final_start, strip.frame_final_end) == ("MOVIE", 11, 20)
    assert (strip.name, strip.filepath, len(strips_of(bpy.context.scene))) == ("arc", "//takes/arc_1/take.mp4", 1)
    grown = [length for length in lengths if length and length[0] == "IMAGE"]
    assert grown == sorted(grown) and grown[0][1] < 9, "the strip was there before the take was whole"
    request = json.loads(strip["ex4d_request"])
    assert request["label"] == "arc" and request["camera"] == {"frames": 9, "width": 48, "height": 32}
    made = CameraPath.load(folder / "camera.npz")
    np.testing.assert_allclose(made.world_to_camera, sampled.world_to_camera, atol=1e-6)
    assert entry.progress == 1.0 and not is_followed(entry)


def test_the_longest_tick_is_known(connected, shot):
    session().longest_tick = 0.0
    send()
    tick_until_over()
    assert 0.0 < session().last_tick <= session().longest_tick


def test_two_takes_lie_above_each_other(connected, shot):
    first = send().key
    second = send().key
    tick_until(lambda: all(one.state == "done" for one in bpy.context.scene.ex4d_takes), "both takes")
    channels = [find_strip(bpy.context.scene, key).channel for key in (first, second)]
    assert sorted(channels) == [1, 2]
    assert [one.folder for one in bpy.context.scene.ex4d_takes] == ["//takes/arc_1", "//takes/arc_2"]


def test_part_of_the_footage_can_be_shot_with_holes_marked(connected, shot, tmp_path):
    settings = bpy.context.scene.ex4d_shot
    settings.use_range, settings.frame_start, settings.frame_end = True, 14, 16
    settings.holes, settings.hole_color = "mark", (0.0, 1.0, 0.0)
    entry = send()
    tick_until_over()
    strip = strip_of(entry)
    assert (strip.frame_final_start, strip.frame_final_end) == (14, 17)
    request = json.loads(strip["ex4d_request"])
    assert request["first_frame"] == 3
    assert request["preview"] == {"holes": "mark", "hole_color": [0, 255, 0]}


def test_a_shot_sent_without_a_backend_is_made_when_one_comes_up(backend_python, shot, tmp_path):
    address = free_address()
    bpy.context.preferences.addons["blender_addon"].preferences.address = address
    entry = send()
    for _ in range(3):
        session().tick()
    assert entry.state == "sending" and strip_of(entry) is None
    with backend_process(backend_python, address, tmp_path / "backend"):
        tick_until_over()
    assert (entry.state, strip_of(entry).type) == ("done", "MOVIE")


def test_a_killed_backend_is_waited_for(backend_python, shot, tmp_path):
    address = free_address()
    bpy.context.preferences.addons["blender_addon"].preferences.address = address
    with backend_process(backend_python, address, tmp_path / "backend") as running:
        entry = send()
        tick_until(lambda: entry.job != "", "the job to be accepted")
        running.kill()
        running.start()
        tick_until_over()
        assert (entry.state, strip_of(entry).type) == ("done", "MOVIE")


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
    assert (strip_of(take()).type, len(strips_of(bpy.context.scene))) == ("MOVIE", 1)
    assert sorted(path.name for path in (tmp_path / "takes").iterdir()) == ["arc_1"]


def test_a_take_goes_on_while_another_file_is_open(connected, shot, tmp_path):
    entry = send()
    key, folder = entry.key, tmp_path / "takes" / "arc_1"
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "other.blend"))
    bpy.context.scene.ex4d_takes.clear()
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "other.blend"))
    tick_until(lambda: (folder / "take.mp4").exists() and not session().busy, "the movie")
    assert not bpy.context.scene.ex4d_takes

    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    tick_until_over()
    assert take().key == key and strip_of(take()).type == "MOVIE"


def test_a_renamed_camera_scene_and_object_do_not_matter_to_a_running_take(connected, shot):
    entry = send()
    shot.name, bpy.data.objects["arc"].name, bpy.context.scene.name = "a", "b", "c"
    bpy.data.objects.remove(shot)
    tick_until_over()
    assert (entry.state, strip_of(entry).type) == ("done", "MOVIE")


def test_a_cancelled_take_ends_at_once_and_keeps_its_frames(connected, shot):
    entry = send()
    tick_until(lambda: entry.job != "", "the job to be accepted")
    bpy.ops.ex4d.cancel_take(key=entry.key)
    tick_until_over()
    assert entry.state in ("cancelled", "done")  # done, if it was quicker
    assert not is_followed(entry)


def test_a_take_cancelled_before_it_was_sent_never_reaches_the_backend(shot):
    entry = send()
    bpy.ops.ex4d.cancel_take(key=entry.key)
    assert (entry.state, is_followed(entry), session().busy) == ("cancelled", False, False)


@pytest.mark.parametrize("closed", [False, True], ids=["Blender stays open", "Blender is closed meanwhile"])
def test_a_take_cancelled_while_its_backend_is_away_is_cancelled_there_too(backend_python, shot, tmp_path, closed):
    """The backend took the job, and was gone before it could say so: only the key of the submission is known."""
    address = free_address()
    bpy.context.preferences.addons["blender_addon"].preferences.address = address
    with backend_process(backend_python, address, tmp_path / "backend") as running:
        entry = send()
        submission = follow._following[entry.key].take
        tick_until(lambda: submission.submitted, "the submission")
        job = jobs_of(address, lambda jobs: len(jobs) == 1)[0].job  # and no tick here
        running.kill()
        assert submission.job == ""
        assert bpy.ops.ex4d.cancel_take(key=entry.key) == {"FINISHED"}
        assert (entry.state, entry.cancelling, can_cancel(entry)) == ("cancelled", True, False)
        if closed:
            bpy.ops.wm.save_mainfile()
            fresh_blender()
            bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
            bpy.context.preferences.addons["blender_addon"].preferences.address = address
        running.start()
        tick_until(lambda: not take().cancelling, "the backend to be told")
        assert [(one.job, one.state) for one in jobs_of(address)] == [(job, "cancelled")]
        assert take().state == "cancelled" and not is_followed(take())


def jobs_of(address: str, met=lambda jobs: True) -> list[JobStatus]:
    """What a backend says of its jobs to another client, as soon as that meets a condition."""
    client = Client(address)
    try:
        while not met(jobs := client.ask(ListJobs(), timeout=60).jobs):
            pass
    finally:
        client.close()
    return jobs


def test_a_take_can_be_taken_off_the_list(connected, shot):
    entry = send()
    tick_until_over()
    key = entry.key
    bpy.ops.ex4d.forget_take(key=key)
    assert not bpy.context.scene.ex4d_takes
    assert find_strip(bpy.context.scene, key).type == "MOVIE"
    with pytest.raises(RuntimeError, match="There are no takes in this scene yet"):
        bpy.ops.ex4d.forget_take(key=key)


def test_undo_does_not_lose_a_take(connected, shot):
    bpy.ops.ed.undo_push(message="long before")
    bpy.ops.ed.undo_push(message="before")
    key = send().key
    bpy.data.objects.new("something", None)
    bpy.ops.ed.undo_push(message="something else")
    bpy.ops.ed.undo()
    assert not bpy.context.scene.ex4d_takes
    tick_until(lambda: len(bpy.context.scene.ex4d_takes) == 1, "the take to be listed again")
    tick_until_over()
    bpy.ops.ed.undo()
    tick_until(lambda: len(bpy.context.scene.ex4d_takes) == 1, "the finished take to be listed again")
    tick_until_over()
    assert (take().key, take().state, strip_of(take()).type) == (key, "done", "MOVIE")


def opened_movie(blender_scene: bpy.types.Scene, entry: bpy.types.PropertyGroup) -> bool:
    """Whether the movie has been opened, and is not the take's strip yet."""
    return find_opened(blender_scene, entry.key) is not None


def test_the_movie_comes_in_steps_that_share_their_ticks_with_nothing(connected, shot):
    blender_scene, entry, seen = bpy.context.scene, send(), []

    def over() -> bool:
        strips = [(one.type, one.mute, one.channel) for one in strips_of(blender_scene)]
        if strips and (not seen or strips != seen[-1]):
            seen.append(strips)
        assert is_followed(entry) or entry.state == "done"
        return entry.state == "done"

    tick_until(over, "the take")
    assert [("IMAGE", False, 1), ("MOVIE", True, 2)] in seen, "the movie was opened beside what is shown"
    assert seen[-1] == [("MOVIE", False, 1)]
    assert not opened_movie(blender_scene, entry)


def test_a_file_reopened_between_two_steps_gets_its_movie(connected, shot, tmp_path):
    entry = send()
    tick_until(lambda: opened_movie(bpy.context.scene, entry), "the movie to be opened")
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    bpy.context.preferences.addons["blender_addon"].preferences.address = connected.address
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert opened_movie(bpy.context.scene, take()) and is_followed(take())
    tick_until_over()
    assert [one.type for one in strips_of(bpy.context.scene)] == ["MOVIE"]
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
    assert [one.type for one in strips_of(bpy.context.scene)] == ["MOVIE"]


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
    strips_of(main).remove(strip_of(entry) if deleted == "the strip" else find_opened(main, entry.key))
    tick_until_over()
    if deleted == "the strip":
        assert (entry.state, len(strips_of(main))) == ("done", 0)
        assert entry.reason == "its strip was removed, so it stays away; Put in Sequencer brings it back"
        assert bpy.ops.ex4d.place_take(key=entry.key) == {"FINISHED"}
    assert [one.type for one in strips_of(main)] == ["MOVIE"]


def test_a_strip_that_the_artist_removed_stays_away_after_undo(connected, shot):
    entry = send()
    tick_until_over()
    strips_of(bpy.context.scene).remove(strip_of(entry))
    bpy.ops.ed.undo_push(message="strip removed")
    bpy.data.objects.new("something", None)
    bpy.ops.ed.undo_push(message="something else")
    bpy.ops.ed.undo()
    for _ in range(3):
        session().tick()
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


def test_an_unsaved_file_keeps_its_takes_in_the_preferences_folder(connected, card_scene, tmp_path):
    imported = import_scene(card_scene)
    bpy.context.scene.ex4d_shot.label = "first try / blue"
    assert bpy.context.scene.camera == imported.ex4d_scene.source_camera
    entry = send()
    tick_until_over()
    assert entry.state == "done"
    assert (tmp_path / "unsaved takes" / "first_try_blue_1" / "take.mp4").is_file()


def test_a_take_whose_folder_was_deleted_says_so(connected, shot, tmp_path):
    entry = send()
    tick_until(lambda: entry.job != "", "the job to be accepted")
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    shutil.rmtree(tmp_path / "takes")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert take().state == "stopped"
    assert "which says what the take was to be" in take().reason


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


def test_a_scene_package_that_is_gone_is_named(shot, tmp_path):
    shutil.rmtree(tmp_path / "scenes")
    with pytest.raises(RuntimeError, match=r"is not a scene folder"):
        bpy.ops.ex4d.send_take()
    assert not bpy.context.scene.ex4d_takes


def test_a_shot_outside_the_footage_is_refused(shot):
    settings = bpy.context.scene.ex4d_shot
    settings.use_range, settings.frame_start, settings.frame_end = True, 5, 12
    with pytest.raises(RuntimeError, match="leave the footage, which lies at frames 11 to 19"):
        bpy.ops.ex4d.send_take()
    bpy.data.objects["arc"].data.type = "PANO"
    settings.use_range = False
    with pytest.raises(RuntimeError, match="is panoramic"):
        bpy.ops.ex4d.send_take()


def test_a_second_take_is_a_version_and_is_seen_instead_of_the_first(connected, shot):
    first = send().key
    tick_until_over()
    second = send().key
    tick_until_over()
    takes = {one.key: one for one in bpy.context.scene.ex4d_takes}
    assert (takes[first].version, takes[second].version) == (1, 2)
    assert takes[first].shot == takes[second].shot == bpy.context.scene.ex4d_shot.key
    assert muted() == {first: True, second: False}
    assert bpy.ops.ex4d.show_take(key=first) == {"FINISHED"}
    assert muted() == {first: False, second: True}


def test_takes_of_another_shot_are_left_alone(connected, shot):
    first = send().key
    tick_until_over()
    bpy.ops.ex4d.add_camera(preset="truck", new_shot=True)
    assert [one.label for one in bpy.context.scene.ex4d_shots] == ["arc", "truck"]
    second = send().key
    tick_until_over()
    assert (take().label, take().version) == ("truck", 1)
    assert muted() == {first: False, second: False}


def muted() -> dict[str, bool]:
    return {one.key: strip_of(one).mute for one in bpy.context.scene.ex4d_takes}


def test_a_cancelled_take_can_be_made_again_in_its_own_place(connected, shot, tmp_path):
    entry = send()
    bpy.ops.ex4d.cancel_take(key=entry.key)
    assert entry.state == "cancelled"
    before = entry.key
    assert bpy.ops.ex4d.retry_take(key=entry.key) == {"FINISHED"}
    tick_until_over()
    assert (take().state, strip_of(take()).type, len(bpy.context.scene.ex4d_takes)) == ("done", "MOVIE", 1)
    assert take().key != before  # another job for the backend
    assert sorted(path.name for path in (tmp_path / "takes").iterdir()) == ["arc_1"]


def test_a_takes_settings_and_camera_come_back(connected, shot):
    settings = bpy.context.scene.ex4d_shot
    settings.use_range, settings.frame_start, settings.frame_end = True, 12, 17
    settings.holes, settings.hole_color = "mark", (0.0, 1.0, 0.0)
    sampled = sample_camera(settings.camera, shot, 12, 17)
    entry = send()
    tick_until_over()
    settings.label, settings.holes, settings.use_range = "other", "fill", False
    bpy.data.objects.remove(bpy.data.objects["arc"])
    cameras = set(bpy.data.objects)

    assert bpy.ops.ex4d.restore_take(key=entry.key) == {"FINISHED"}

    settings = bpy.context.scene.ex4d_shot
    assert settings.camera not in cameras and bpy.context.scene.camera == settings.camera
    assert (settings.label, settings.holes, settings.use_range) == ("arc", "mark", True)
    assert (settings.frame_start, settings.frame_end) == (12, 17)
    again = sample_camera(settings.camera, shot, 12, 17)
    np.testing.assert_allclose(again.world_to_camera, sampled.world_to_camera, atol=1e-5)
    np.testing.assert_allclose(again.intrinsics, sampled.intrinsics, rtol=1e-5)


def test_a_take_waiting_behind_another_says_so(connected, shot):
    send()
    second = send()
    positions = set()

    def over() -> bool:
        positions.add((second.state, progress_text(second)))
        return all(one.state == "done" for one in bpy.context.scene.ex4d_takes)

    tick_until(over, "both takes")
    assert ("queued", "next in the queue") in positions or any("%" in text for _, text in positions)


@pytest.mark.parametrize("moment", ["accepted", "first frame"])
def test_a_full_disk_stops_the_take_and_room_lets_it_go_on(connected, shot, tmp_path, moment):
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
    assert "make room there" in entry.reason
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


def test_a_take_whose_scene_was_deleted_cannot_be_made_again_and_says_why(shot):
    entry = send()
    bpy.ops.ex4d.cancel_take(key=entry.key)
    bpy.data.objects.remove(shot)
    with pytest.raises(RuntimeError, match="is not in the file any more; import it again"):
        bpy.ops.ex4d.retry_take(key=entry.key)
    with pytest.raises(RuntimeError, match="is not in the file any more; import it again"):
        bpy.ops.ex4d.restore_take(key=entry.key)


def test_footage_that_is_gone_when_the_file_is_reopened_is_named(shot, tmp_path):
    send()
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    shutil.rmtree(tmp_path / "scenes")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert take().state == "stopped"
    assert "is not a scene folder" in take().reason and str(tmp_path / "scenes" / "card") in take().reason
    with pytest.raises(RuntimeError, match="is not a scene folder"):
        bpy.ops.ex4d.send_take()


def test_takes_operators_can_be_undone(connected, shot):
    """Blender's own undo, as Ctrl Z: the file goes back, what has happened on the backend and on disk stays."""
    entry, cameras = send(), len(bpy.data.cameras)
    tick_until_over()
    key = entry.key
    undone(lambda: bpy.ops.ex4d.restore_take(key=key))
    assert len(bpy.data.cameras) == cameras and bpy.context.scene.ex4d_shot.camera == bpy.data.objects["arc"]
    strips_of(bpy.context.scene).remove(strip_of(take()))
    undone(lambda: bpy.ops.ex4d.place_take(key=key))
    assert strip_of(take()) is None and take().state == "done"
    assert bpy.ops.ex4d.place_take(key=key) == {"FINISHED"}
    send()
    tick_until_over()
    undone(lambda: bpy.ops.ex4d.show_take(key=key))
    assert muted()[key], "the newer version is seen again"
    undone(lambda: bpy.ops.ex4d.forget_take(key=key))
    assert [one.state for one in bpy.context.scene.ex4d_takes] == ["done", "done"]


def test_a_running_take_that_was_taken_off_the_list_and_put_back_goes_on(connected, shot):
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
        session().tick()


def test_a_strip_removed_during_the_job_stays_away_until_it_is_asked_for(connected, shot):
    entry = send()
    tick_until(lambda: strip_of(entry) is not None, "the first frame")
    strips_of(bpy.context.scene).remove(strip_of(entry))
    tick_until_over()
    assert entry.state == "done" and strip_of(entry) is None
    assert bpy.ops.ex4d.place_take(key=entry.key) == {"FINISHED"}
    assert strip_of(entry).type == "MOVIE"


def test_a_scene_deleted_during_the_job_does_no_harm(connected, shot, tmp_path):
    main = bpy.context.scene
    entry = send()
    other = bpy.data.scenes.new("other")
    tick_until(lambda: entry.job != "", "the job to be accepted")
    bpy.data.scenes.remove(main)
    tick_until(lambda: not session().busy, "the job to be over")
    assert bpy.context.scene == other and not other.ex4d_takes
    assert (tmp_path / "takes" / "arc_1" / "take.mp4").is_file()


def test_the_take_goes_to_the_scene_it_was_sent_from(connected, shot):
    main = bpy.context.scene
    key = send().key
    other = bpy.data.scenes.new("other")
    bpy.context.window.scene = other
    tick_until(lambda: main.ex4d_takes[0].state == "done", "the take")
    assert find_strip(main, key).type == "MOVIE" and find_strip(other, key) is None


def test_a_deleted_camera_is_not_shot_with(shot):
    bpy.data.objects.remove(bpy.data.objects["arc"])
    bpy.context.scene.camera = None
    with pytest.raises(RuntimeError, match="The shot has no camera; add a camera move or choose one"):
        bpy.ops.ex4d.send_take()


def test_a_folder_that_cannot_be_written_is_named(shot, tmp_path):
    (tmp_path / "takes").write_text("a file, where the folder of takes should be")
    with pytest.raises(RuntimeError, match=r"takes"):
        bpy.ops.ex4d.send_take()
    assert not bpy.context.scene.ex4d_takes


def test_two_blenders_share_a_backend(connected, shot, tmp_path):
    """Each gets its own take, and the other's job is in its way only in the queue."""
    script = Path(__file__).with_name("second_blender.py")
    folder = tmp_path / "second"
    folder.mkdir()
    second = subprocess.Popen(
        [sys.executable, str(script), connected.address, str(tmp_path / "scenes" / "card"), str(folder)],
        env={**os.environ, "PYTHONPATH": str(script.parents[2])},
    )
    try:
        entry = send()
        tick_until_over()
        tick_until(lambda: second.poll() is not None, "the other Blender")
    finally:
        second.kill()
    assert second.returncode == 0 and (folder / "takes" / "second_1" / "take.mp4").is_file()
    assert (entry.state, len(bpy.context.scene.ex4d_takes)) == ("done", 1)
    assert [path.name for path in (tmp_path / "takes").iterdir()] == ["arc_1"]


def test_seconds_left_follow_from_the_pace():
    pace = Pace()
    assert pace.seconds_left(10.0, "render", 0.0) is None
    assert pace.seconds_left(10.5, "render", 0.5) is None  # too early to tell
    assert pace.seconds_left(12.0, "render", 0.5) is None  # no news since
    assert pace.seconds_left(14.0, "render", 0.8) == pytest.approx(1.0)
    assert pace.seconds_left(14.5, "render", 0.8) == pytest.approx(0.5)
    assert pace.seconds_left(15.0, "preview", 0.1) is None  # another step has its own pace


def test_without_scene_or_camera_the_button_says_what_is_missing():
    with pytest.raises(RuntimeError, match="import one first"):
        bpy.ops.ex4d.send_take()

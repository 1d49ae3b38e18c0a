"""A shot goes to a real backend process and comes back as a strip, whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.cameras.sampling import sample_camera
from blender_addon.connection.session import session
from blender_addon.errors import failures, forget_failures
from blender_addon.jobs.progress import progress_text, state_text
from blender_addon.jobs.tracker import can_cancel, tracker
from blender_addon.scenes.importing import import_scene
from blender_addon.sequencer.edit_scenes import strip_in_file
from blender_addon.sequencer.strip_api import end_of, length_of, start_of
from blender_addon.shots.final_settings import final_settings
from ex4d_core.cameras import CameraPath
from ex4d_core.client import Client
from ex4d_core.job_status import JobStatus
from ex4d_core.messages import ListJobs
from ex4d_core.wan_settings import wan_preset

from .conftest import backend_process, free_address, fresh_blender, tick_round, tick_until
from .taking import is_followed, muted, send, shown_strips, strip_of, take, tick_until_over


def test_a_shot_becomes_a_movie_strip(connected, shot, tmp_path):
    sampled = sample_camera(bpy.data.objects["arc"], shot, 11, 19)
    entry = send()
    lengths = []

    def over() -> bool:
        strip = strip_of(entry)
        lengths.append((strip.type, length_of(strip)) if strip else None)
        return entry.state == "done"

    tick_until(over, "the take")

    folder = tmp_path / "takes" / "arc_1"
    assert entry.folder == "//takes/arc_1"
    assert sorted(path.name for path in folder.glob("frame_*.png")) == [f"frame_{index:05d}.png" for index in range(9)]
    strip = strip_of(entry)
    assert (strip.type, start_of(strip), end_of(strip)) == ("MOVIE", 11, 20)
    assert (strip.name, strip.filepath, len(shown_strips())) == ("arc v1", "//takes/arc_1/take.mp4", 1)
    grown = [length for length in lengths if length and length[0] == "IMAGE"]
    assert grown == sorted(grown) and grown[0][1] < 9, "the strip was there before the take was whole"
    request = json.loads(strip["ex4d_request"])
    assert request["label"] == "arc" and request["camera"] == {"frames": 9, "width": 48, "height": 32}
    made = CameraPath.load(folder / "camera.npz")
    np.testing.assert_allclose(made.world_to_camera, sampled.world_to_camera, atol=1e-6)
    assert entry.progress == 1.0 and not is_followed(entry)


def test_two_takes_lie_above_each_other(connected, shot):
    first = send().key
    second = send().key
    tick_until(lambda: all(one.state == "done" for one in bpy.context.scene.ex4d_takes), "both takes")
    channels = [strip_in_file(key).channel for key in (first, second)]
    assert sorted(channels) == [1, 2]
    assert [one.folder for one in bpy.context.scene.ex4d_takes] == ["//takes/arc_1", "//takes/arc_2"]


def test_a_take_that_fails_inside_the_add_on_stops_no_other(connected, shot, capsys):
    first, second = send().key, send().key
    tracker.followed[first].job.advance = None  # as no code of ours leaves it
    tick_until(lambda: take().state == "done", "the second take")
    assert (take().key, strip_of(take()).type) == (second, "MOVIE")
    assert capsys.readouterr().err.count("Traceback") == len(failures()) == 1
    forget_failures()


def test_part_of_the_footage_can_be_shot_with_holes_marked(connected, shot, tmp_path):
    settings = bpy.context.scene.ex4d_shot
    settings.use_range, settings.frame_start, settings.frame_end = True, 14, 16
    settings.holes, settings.hole_color = "mark", (0.0, 1.0, 0.0)
    entry = send()
    tick_until_over()
    strip = strip_of(entry)
    assert (start_of(strip), end_of(strip)) == (14, 17)
    request = json.loads(strip["ex4d_request"])
    assert request["first_frame"] == 3
    assert request["preview"] == {"holes": "mark", "hole_color": [0, 255, 0]}


def test_a_shot_sent_without_a_backend_is_generated_when_one_comes_up(backend_python, shot, tmp_path):
    address = free_address()
    bpy.context.preferences.addons["blender_addon"].preferences.address = address
    entry = send()
    for _ in range(3):
        tick_round()
    assert entry.state == "sending" and strip_of(entry) is None
    with backend_process(backend_python, address, tmp_path / "backend"):
        tick_until_over()
    assert (entry.state, strip_of(entry).type) == ("done", "MOVIE")


def test_a_killed_backend_is_waited_for(backend_python, shot, tmp_path):
    address = free_address()
    bpy.context.preferences.addons["blender_addon"].preferences.address = address
    with backend_process(backend_python, address, tmp_path / "backend") as running:
        entry = send()
        tick_until(lambda: entry.state == "running", "the job to run")
        running.kill()
        tick_until(lambda: not session().connected, "the backend is missed")
        assert (entry.state, state_text(entry)) == ("running", "waiting")
        assert progress_text(entry) == f"waiting for the backend {entry.progress:.0%}"
        running.start()
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
    # Large frames, so that the job is not done before this Blender has found its backend again.
    bpy.context.scene.render.resolution_x = bpy.context.scene.render.resolution_y = 4096
    with backend_process(backend_python, address, tmp_path / "backend") as running:
        entry = send()
        submission = tracker.followed[entry.key].job
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
    assert strip_in_file(key).type == "MOVIE"
    with pytest.raises(RuntimeError, match="There are no takes in this scene yet"):
        bpy.ops.ex4d.forget_take(key=key)


def test_an_unsaved_file_keeps_its_takes_in_the_project_folder(connected, card_scene, tmp_path):
    imported = import_scene(card_scene)
    bpy.context.scene.ex4d_shot.label = "first try / blue"
    assert bpy.context.scene.camera == imported.ex4d_scene.source_camera
    entry = send()
    tick_until_over()
    assert entry.state == "done"
    assert (tmp_path / "unsaved takes" / "takes" / "first_try_blue_1" / "take.mp4").is_file()


def test_a_scene_package_that_is_gone_is_named(shot, tmp_path):
    shutil.rmtree(tmp_path / "scenes")
    with pytest.raises(RuntimeError, match=r"is missing: .* Relink Scene"):
        bpy.ops.ex4d.send_take()
    assert not bpy.context.scene.ex4d_takes


def test_a_shot_outside_the_footage_is_refused(shot):
    settings = bpy.context.scene.ex4d_shot
    settings.use_range, settings.frame_start, settings.frame_end = True, 5, 12
    with pytest.raises(RuntimeError, match="frames 11 to 19"):
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
    bpy.ops.ex4d.add_camera(preset="truck")
    assert [one.label for one in bpy.context.scene.ex4d_shots] == ["arc", "truck"]
    second = send().key
    tick_until_over()
    assert (take().label, take().version) == ("truck", 1)
    assert muted() == {first: False, second: False}


def test_a_cancelled_take_can_be_retried_in_its_own_place(connected, shot, tmp_path):
    entry = send()
    bpy.ops.ex4d.cancel_take(key=entry.key)
    assert entry.state == "cancelled"
    before = entry.key
    assert bpy.ops.ex4d.retry_take(key=entry.key) == {"FINISHED"}
    tick_until_over()
    assert (take().state, strip_of(take()).type, len(bpy.context.scene.ex4d_takes)) == ("done", "MOVIE", 1)
    assert take().key != before  # another job for the backend
    assert sorted(path.name for path in (tmp_path / "takes").iterdir()) == ["arc_1"]


def test_a_take_under_way_is_not_retried(shot):
    entry = send()
    with pytest.raises(RuntimeError, match="is under way; cancel it first"):
        bpy.ops.ex4d.retry_take(key=entry.key)
    assert is_followed(entry) and entry.state == "sending"


def test_a_takes_settings_and_camera_come_back(connected, shot):
    settings = bpy.context.scene.ex4d_shot
    settings.use_range, settings.frame_start, settings.frame_end = True, 12, 17
    settings.holes, settings.hole_color = "mark", (0.0, 1.0, 0.0)
    settings.final.prompt, settings.final.seed = "rain", 7
    sampled = sample_camera(settings.camera, shot, 12, 17)
    entry = send()
    tick_until_over()
    settings.label, settings.holes, settings.use_range = "other", "fill", False
    settings.final.preset, settings.final.prompt, settings.final.seed = "quality", "snow", 8
    bpy.data.objects.remove(bpy.data.objects["arc"])
    cameras = set(bpy.data.objects)

    assert bpy.ops.ex4d.restore_take(key=entry.key) == {"FINISHED"}

    settings = bpy.context.scene.ex4d_shot
    assert settings.camera not in cameras and bpy.context.scene.camera == settings.camera
    assert (settings.label, settings.holes, settings.use_range) == ("arc", "mark", True)
    assert (settings.frame_start, settings.frame_end) == (12, 17)
    # A preview has words and seed of finals alone.
    assert final_settings(settings.final) == wan_preset("quality", prompt="rain", seed=7)
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


def test_the_take_goes_to_the_scene_it_was_sent_from(connected, shot):
    main = bpy.context.scene
    key = send().key
    other = bpy.data.scenes.new("other")
    bpy.context.window.scene = other
    tick_until(lambda: main.ex4d_takes[0].state == "done", "the take")
    assert strip_in_file(key).type == "MOVIE" and strip_in_file(key).id_data == main.ex4d_edit_scene
    assert other.sequence_editor is None and other.ex4d_edit_scene is None


def test_a_deleted_camera_is_not_shot_with(shot):
    bpy.data.objects.remove(bpy.data.objects["arc"])
    bpy.context.scene.camera = None
    with pytest.raises(RuntimeError, match="The shot has no camera"):
        bpy.ops.ex4d.send_take()


def test_a_folder_that_cannot_be_written_is_named(shot, tmp_path):
    (tmp_path / "takes").write_text("a file, where the folder of takes should be")
    with pytest.raises(RuntimeError, match=r"takes/arc_1: .*check the path"):
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


@pytest.mark.parametrize(
    ("state", "stage", "engine", "text"),
    [
        ("running", "", "wan", "starting"),
        ("running", "load weights", "wan", "loading weights 16%"),
        ("running", "warm up", "wan", "warming up"),
        ("running", "encode", "wan", "encoding 16%"),
        ("running", "denoise", "wan", "step 4 of 25"),
        ("running", "denoise (fp8), part 12 of 40", "wan", "step 4 of 25 (fp8)"),
        ("running", "wan, part 3 of 15", "wan", "frame 4 of 25"),
        ("running", "wan", "wan", "frame 4 of 25"),
        ("running", "preview", "preview", "frame 4 of 25"),
        ("sending", "", "preview", "sending 16%"),
        ("fetching", "", "preview", "fetching 16%"),
    ],
)
def test_progress_is_shown_in_an_artists_words(connected, state, stage, engine, text):
    entry = bpy.context.scene.ex4d_takes.add()
    tick_until(lambda: session().connected, "the connection")
    entry.state, entry.stage, entry.engine = state, stage, engine
    entry.done, entry.total, entry.progress, entry.eta_seconds = 4, 25, 0.16, -1
    assert progress_text(entry, engine) == text
    entry.eta_seconds = 90
    assert progress_text(entry, engine) == f"{text}, 2 min left"


def test_without_scene_or_camera_the_button_says_what_is_missing():
    with pytest.raises(RuntimeError, match="import one first"):
        bpy.ops.ex4d.send_take()

"""Opening a .blend that was made on another computer does nothing by itself; one's own files go on as before."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import bpy
import pytest

from blender_addon.connection.session import session
from blender_addon.coverage.live_coverage import live_coverage
from blender_addon.footage.scene_jobs import import_finished
from blender_addon.jobs.progress import paused_text, state_icon, state_text
from blender_addon.jobs.tracker import can_resume, is_paused, tracker
from blender_addon.live.query import LiveQuery
from blender_addon.paths import from_blend
from blender_addon.scenes.link import scene_objects
from blender_addon.takes.requests import load_request, save_request
from blender_addon.views.live_view import live_view
from ex4d_core.job_status import JobStatus
from ex4d_core.messages import ListJobs

from .conftest import fresh_blender, tick_round, tick_until
from .taking import is_followed, send, strip_of, take, tick_until_over

NOWHERE = "tcp://127.0.0.1:1"


def use(address: str) -> None:
    bpy.context.preferences.addons["blender_addon"].preferences.address = address


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """From now on, this is another computer."""
    return lambda: monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another computer"))


def reopen(blend: Path, address: str) -> None:
    """Save the file, close Blender, and open it in another one."""
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    use(address)
    bpy.ops.wm.open_mainfile(filepath=str(blend))


def jobs_of_backend() -> list[JobStatus]:
    """The backend's jobs, once everything that was asked before has been answered."""
    tick_until(lambda: session().connected, "the backend")
    for _ in range(5):
        tick_round()
    task = session().start(_ask(ListJobs()))
    tick_until(lambda: task.done, "the list of jobs")
    return task.outcome().jobs


def _ask(message):
    return (yield message)


@pytest.fixture
def unsent(shot) -> str:
    """A take that no backend has had yet; its key."""
    use(NOWHERE)
    return send().key


def test_a_strangers_take_waits_for_the_artist(backend, unsent, elsewhere, tmp_path):
    key = unsent
    elsewhere()
    reopen(tmp_path / "shot.blend", backend.address)
    before = len(jobs_of_backend())
    assert not session().busy and len(jobs_of_backend()) == before
    assert (take().key, take().state, is_followed(take())) == (key, "sending", False)
    assert is_paused(take()) and can_resume(take())
    assert (state_text(take()), state_icon(take())) == ("paused", "PAUSE")
    text = paused_text(take())
    assert "not started on this computer" in text and str(tmp_path / "takes" / "arc_1") in text

    assert bpy.ops.ex4d.resume_take(key=key) == {"FINISHED"}
    assert not is_paused(take()) and not paused_text(take()) and is_followed(take())
    # It is the artist's own from now on.
    reopen(tmp_path / "shot.blend", backend.address)
    assert is_followed(take())
    tick_until_over()
    assert (take().state, strip_of(take()).type) == ("done", "MOVIE")


def test_a_strangers_running_or_cancelled_job_is_left_alone(connected, shot, elsewhere, tmp_path):
    entry = send()
    tick_until(lambda: entry.job != "", "the job to be accepted")
    second = send()
    second.state, second.cancelling = "cancelled", True
    elsewhere()
    reopen(tmp_path / "shot.blend", connected.address)
    before = sorted(path.name for path in (tmp_path / "takes" / "arc_1").iterdir())
    tick_until(lambda: session().connected, "the backend")
    for _ in range(5):
        tick_round()
    assert not any(is_followed(one) for one in bpy.context.scene.ex4d_takes)
    assert sorted(path.name for path in (tmp_path / "takes" / "arc_1").iterdir()) == before


def test_a_paused_take_stays_paused_after_undo_revert_and_a_duplicated_scene(backend, unsent, elsewhere, tmp_path):
    elsewhere()
    reopen(tmp_path / "shot.blend", backend.address)
    bpy.ops.ed.undo_push(message="before")
    bpy.data.objects.new("something", None)
    bpy.ops.ed.undo_push(message="something")
    bpy.ops.ed.undo()
    tick_round()
    assert is_paused(take()) and not is_followed(take())
    bpy.ops.scene.new(type="FULL_COPY")
    bpy.ops.ed.undo_push(message="copied")
    bpy.data.objects.new("something else", None)
    bpy.ops.ed.undo_push(message="something else")
    bpy.ops.ed.undo()
    tick_round()
    assert not any(is_followed(one) for scene in bpy.data.scenes for one in scene.ex4d_takes)
    assert bpy.ops.ex4d.resume_take(key=take().key) == {"FINISHED"}
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.revert_mainfile()
    assert not tracker.paused and is_followed(take()), "every copy of the record knows"
    tick_until_over()


def test_ones_own_files_go_on_wherever_they_are_saved_or_copied(backend, unsent, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "elsewhere" / "other name.blend"))
    fresh_blender()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "elsewhere" / "other name.blend"))
    assert is_followed(take())
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    fresh_blender()
    moved = tmp_path / "moved project"
    moved.mkdir()
    for name in ("shot.blend", "takes", "scenes"):
        shutil.move(tmp_path / name, moved / name)
    use(backend.address)
    bpy.ops.wm.open_mainfile(filepath=str(moved / "shot.blend"))
    assert is_followed(take())
    tick_until_over()
    assert (take().state, (moved / "takes" / "arc_1" / "take.mp4").is_file()) == ("done", True)


def another_request(entry) -> None:
    folder = from_blend(entry.folder)
    request = load_request(folder)
    save_request(folder, type(request)(**{**request.__dict__, "label": "another"}))


def another_folder(entry) -> None:
    folder = from_blend(entry.folder)
    shutil.copytree(folder, folder.with_name("hers"))
    entry.folder = str(folder.with_name("hers"))


@pytest.mark.parametrize("change", [another_request, another_folder, lambda entry: setattr(entry, "key", "0" * 32)])
def test_a_job_that_somebody_changed_on_its_way_back_waits_for_the_artist(backend, unsent, tmp_path, change):
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert is_followed(take())
    tracker.abandon(take().key)
    change(take())
    reopen(tmp_path / "shot.blend", backend.address)
    assert is_paused(take()) and not is_followed(take())


@pytest.mark.skipif(os.name == "nt", reason="links need rights of their own on Windows")
@pytest.mark.parametrize("planted", ["folder", "partial file"])
def test_no_link_in_a_strangers_folder_is_followed(backend, unsent, elsewhere, tmp_path, planted):
    mine, folder = tmp_path / "mine", tmp_path / "takes" / "arc_1"
    mine.mkdir()
    (mine / "film.txt").write_text("hers")
    if planted == "folder":
        shutil.move(folder / "request.msgpack", mine)
        folder.rmdir()
        folder.symlink_to(mine, target_is_directory=True)
    else:
        (folder / "frame_00000.png.partial").symlink_to(mine / "film.txt")
    before = sorted(path.name for path in mine.iterdir())
    elsewhere()
    reopen(tmp_path / "shot.blend", backend.address)
    assert bpy.ops.ex4d.resume_take(key=take().key) == {"FINISHED"}
    tick_until_over()
    assert take().state == "stopped" and "link" in take().reason and str(folder) in take().reason
    assert (mine / "film.txt").read_text() == "hers" and sorted(path.name for path in mine.iterdir()) == before


def test_a_key_never_becomes_a_path(backend, unsent, elsewhere, tmp_path):
    take().key = "/../../x"
    elsewhere()
    reopen(tmp_path / "shot.blend", backend.address)
    assert bpy.ops.ex4d.resume_take(key=take().key) == {"FINISHED"}
    assert take().state == "stopped" and "'/../../x' is damaged" in take().reason


@pytest.fixture
def reconstruction(card_scene, tmp_path) -> None:
    """A reconstruction whose scene has arrived, in a file that was closed before it was imported."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    shutil.copytree(card_scene, tmp_path / "scenes" / "card_1")
    record = bpy.context.scene.ex4d_reconstructions.add()
    record.label, record.key, record.folder, record.state = "card", "ab" * 16, "//scenes/card_1", "done"
    record.plan = json.dumps({"footage": []})


def test_a_strangers_finished_scene_is_imported_when_the_artist_wants_it(reconstruction, tmp_path):
    reopen(tmp_path / "film.blend", NOWHERE)
    for _ in range(3):
        tick_round()
    import_finished()
    (record,) = bpy.context.scene.ex4d_reconstructions
    assert (record.state, len(scene_objects()), is_paused(record)) == ("done", 0, True)
    assert bpy.ops.ex4d.resume_reconstruction(key=record.key) == {"FINISHED"}
    tick_until(lambda: record.state == "imported", "the scene")
    assert len(scene_objects()) == 1


def test_a_plan_that_somebody_changed_sends_nothing(reconstruction, tmp_path):
    (record,) = bpy.context.scene.ex4d_reconstructions
    record.state = "sending"
    assert bpy.ops.ex4d.resume_reconstruction(key=record.key) == {"FINISHED"}
    record.state = "sending"
    secret = tmp_path / "id_rsa.mp4"
    secret.write_text("hers")
    record.plan = json.dumps({"footage": [str(secret)]})
    reopen(tmp_path / "film.blend", NOWHERE)
    (record,) = bpy.context.scene.ex4d_reconstructions
    assert is_paused(record) and not is_followed(record)


@pytest.mark.parametrize("settings", ["ex4d_coverage", "ex4d_view"])
def test_a_question_that_a_stranger_switched_on_is_not_asked(backend, shot, elsewhere, tmp_path, settings):
    def query() -> LiveQuery:
        return live_coverage.of(bpy.context.scene) if settings == "ex4d_coverage" else live_view

    def answered() -> bool:
        return query().shown is not None if settings == "ex4d_coverage" else bool(live_view.visible)

    bpy.context.scene.frame_current = 11
    getattr(bpy.context.scene, settings).live = True
    reopen(tmp_path / "shot.blend", backend.address)
    tick_until(answered, "one's own file is answered at once")
    elsewhere()
    reopen(tmp_path / "shot.blend", backend.address)
    tick_until(lambda: session().connected, "the backend")
    for _ in range(10):
        tick_round()
    assert getattr(bpy.context.scene, settings).live and not query().waiting and not answered()
    assert "switch it off and on" in query().problem
    getattr(bpy.context.scene, settings).live = False
    getattr(bpy.context.scene, settings).live = True
    tick_until(answered, "the answer")
    assert query().problem == ""


def test_the_secret_is_the_users_alone_and_two_blenders_share_it(tmp_path, shot):
    send()
    secret = tmp_path / "this computer" / "ex4d" / "origin.key"
    assert len(secret.read_bytes()) == 32
    assert os.name == "nt" or secret.stat().st_mode & 0o777 == 0o600
    assert secret.read_bytes() not in (tmp_path / "shot.blend").read_bytes()


def test_without_a_place_for_the_secret_files_are_known_until_blender_ends(unsent, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "a file"))
    send()
    reopen(tmp_path / "shot.blend", NOWHERE)
    assert [is_followed(one) for one in bpy.context.scene.ex4d_takes] == [False, True]

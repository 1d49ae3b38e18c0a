"""Disks lose content: a damaged blob is found before a job uses it, and comes again; a damaged row harms no other."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from ex4d.service import blob_store
from ex4d.service.blob_store import BlobStore
from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore
from ex4d.service.stored_inputs import DamagedInputError, StoredInput, verify_inputs
from ex4d.service.uploads import Uploads
from ex4d_core.client import Client, RequestRefused
from ex4d_core.messages import BlobStatus, Error, GetEvents, ListJobs, Submit
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene_manifest import RENDER_FILES


def flip_a_bit(path):
    """As a failing disk does: other content, of the same size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    """As a power cut does on a file system without a journal."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def take(client, scene, shot, folder):
    remote = RemoteTake(folder, request=shot(), scene=scene)
    return client.run(remote.conversation(), timeout=240)


@pytest.fixture
def client(service):
    client = Client(service.address)
    yield client
    client.close()


@pytest.mark.parametrize("part", ["depth", "manifest"])
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, empty])
def test_a_damaged_scene_comes_again(service, client, scene, shot, tmp_path, damage, part):
    assert take(client, scene, shot, tmp_path / "first").state == "done"
    blobs = BlobStore(service.data)
    sha256 = scene.digest if part == "manifest" else scene.manifest.files[part].sha256
    damage(blobs.path(sha256))
    status = take(client, scene, shot, tmp_path / "second")
    if (damage, part) == (flip_a_bit, "depth"):  # which only reading all of it finds, in the worker
        assert status.state == "failed"
        assert "the depth of scene 'gradient'" in status.reason and "start the job again" in status.reason
        assert client.ask(BlobStatus([sha256])).received == [0], "so that it is sent again"
        status = take(client, scene, shot, tmp_path / "third")
    assert status.state == "done"
    assert blobs.verify(sha256)


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, empty])
def test_a_damaged_result_is_noticed_and_the_user_is_told_to_submit_again(
    service, client, scene, shot, tmp_path, damage
):
    first = RemoteTake(tmp_path / "first", request=shot(), scene=scene)
    assert client.run(first.conversation(), timeout=240).state == "done"
    blobs = BlobStore(service.data)
    events = client.ask(GetEvents(first.job, 0, 0.0)).events
    result = next(event for event in events if event.kind == "frame" and event.index == 2)
    damage(blobs.path(result.sha256))
    again = RemoteTake(tmp_path / "again", request=shot(), scene=scene, key=first.key, job=first.job)
    with pytest.raises(RequestRefused, match=r"damaged on the backend's disk.*submit the job again") as refused:
        client.run(again.conversation(), timeout=240)
    assert refused.value.code == "unknown-blob" and blobs.size(result.sha256) is None
    assert take(client, scene, shot, tmp_path / "third").state == "done", "submitted again, it is as good as new"


def test_a_result_that_the_disk_cannot_read_is_one_too(tmp_path, monkeypatch):
    store = BlobStore(tmp_path)
    (store.partial / "new").write_bytes(b"frame")
    sha256, _ = store.add_file(store.partial / "new")
    monkeypatch.setattr(blob_store, "_piece", lambda file: None)
    assert store.verify(sha256), "not read again while it seems unchanged"
    store.distrust(sha256)
    assert not store.verify(sha256) and store.was_damaged(sha256)


def test_a_manifest_that_lies_about_a_size_is_still_refused_and_costs_no_blob(service, wire, scene, shot):
    """The client's mistake: the scene's files are as they were sent."""
    wire.upload_scene(scene)
    right = scene.manifest.files["depth"].size
    forged = scene.manifest_bytes.replace(f'"size": {right}'.encode(), f'"size": {right + 1}'.encode())
    assert forged != scene.manifest_bytes
    values = {**shot().to_wire(), "scene": wire.upload(forged)}
    reply = wire.ask(Submit("lying", values))
    assert isinstance(reply, Error) and reply.code == "bad-request", reply
    received = wire.ask(BlobStatus([scene.manifest.files[part].sha256 for part in RENDER_FILES])).received
    assert received == [-1] * len(RENDER_FILES)


def stored(blobs, data):
    path = blobs.partial / "new"
    path.write_bytes(data)
    return blobs.add_file(path)[0]


def test_inputs_are_named_when_they_are_damaged_and_read_once_while_they_stay(tmp_path):
    blobs = BlobStore(tmp_path)
    good, bad = stored(blobs, b"good" * 1000), stored(blobs, b"bad" * 1000)
    flip_a_bit(blobs.path(bad))
    inputs = [StoredInput(good, 4000, "'a.png'"), StoredInput(bad, 3000, "'b.png'"), StoredInput("ab" * 32, 1, "'c'")]
    with pytest.raises(DamagedInputError, match=r"'b\.png', 'c': damaged"):
        verify_inputs(blobs, inputs, lambda *progress: None)
    assert blobs.size(bad) is None and blobs.size(good) == 4000
    other = BlobStore(tmp_path)  # of another process
    assert not other.is_verified(good)
    assert other.verify(good) and other.is_verified(good)
    other.touch(good)
    assert other.is_verified(good), "a use is no change"
    flip_a_bit(other.path(good))
    assert not other.is_verified(good) and not other.verify(good)


def test_the_same_result_made_again_replaces_a_damaged_one(tmp_path):
    blobs = BlobStore(tmp_path)
    sha256 = stored(blobs, b"a frame of a take")
    flip_a_bit(blobs.path(sha256))
    assert stored(blobs, b"a frame of a take") == sha256
    assert blobs.read(sha256, 0, 100) == b"a frame of a take"


def test_an_upload_whose_blob_is_complete_is_not_cut_short_at_the_next_start(tmp_path):
    """A check of a disk without a journal may leave both names of one file after a power cut."""
    blobs = BlobStore(tmp_path)
    sha256 = stored(blobs, b"footage" * 100_000)
    os.link(blobs.path(sha256), blobs.partial / sha256)
    with closing(Inbox()) as inbox:
        uploads = Uploads(BlobStore(tmp_path), inbox, 0)
        assert uploads.received(sha256) == -1
    assert blobs.size(sha256) == 700_000 and not any(blobs.partial.iterdir())


@pytest.fixture
def store(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def damage_row(store, job, column, value):
    store._db.execute(f"UPDATE jobs SET {column} = {value} WHERE id = ?", (job,))


@pytest.mark.parametrize("column", ["label", "stage", "reason", "scene", "engine"])
def test_a_text_that_is_not_utf8_does_not_break_lists(store, shot, column):
    good, damaged = (store.submit(key, shot("a label"), []) for key in ("good", "damaged"))
    damage_row(store, damaged, column, "CAST(x'61ff62' AS TEXT)")
    newest, oldest = store.jobs()
    assert (newest.job, oldest.job, oldest.label) == (damaged, good, "a label")
    assert store.status(damaged).job == damaged
    assert [one.job for one in store.details()] == [damaged, good]
    if column == "label":
        assert newest.label == "a\ufffdb"


def test_numbers_that_are_none_do_not_break_lists(store, shot):
    job = store.submit("key", shot(), [])
    damage_row(store, job, "done", "'many'")
    damage_row(store, job, "label", "x'616263'")
    assert (store.status(job).done, store.status(job).label) == (0, "abc")


@pytest.mark.parametrize("request_row", ["x'c1'", "x'81a0'", "x'93010203'", "x''", "'text'", "42"])
def test_a_damaged_request_costs_its_own_job_only(store, shot, request_row):
    damaged, good = store.submit("damaged", shot(), []), store.submit("good", shot(), [])
    damage_row(store, damaged, "request", request_row)
    assert store.claim("worker").job == good
    assert store.status(damaged).state == "failed" and "submit it again" in store.status(damaged).reason
    assert len(store.details()) == 2


def test_a_service_lists_and_works_on_with_damaged_rows(start_service, connect, scene, shot, tmp_path):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    waiting = [wire.submit(shot(f"wait {tmp_path / 'go'}")), wire.submit(shot()), wire.submit(shot())]
    wire.wait_for_half(waiting[0])
    with closing(sqlite3.connect(service.data / "jobs.sqlite", isolation_level=None)) as database:
        database.execute("UPDATE jobs SET request = x'c1', label = CAST(x'ff' AS TEXT) WHERE id = ?", (waiting[1],))
    (tmp_path / "go").touch()
    states = [wire.finish(job)[0].state for job in waiting]
    assert states == ["done", "failed", "done"]
    assert len(wire.ask(ListJobs()).jobs) == 3
    shutil.rmtree(service.data / "blobs")  # and nothing claims to have what is gone
    assert wire.ask(BlobStatus([scene.digest])).received == [0]

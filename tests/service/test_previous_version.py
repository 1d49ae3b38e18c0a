"""Data of the previous version: its job database opens, its jobs are listed, fetched and run, its scene is rendered."""

from __future__ import annotations

import hashlib
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.media import probe
from ex4d.service.job_migrations import SCHEMA_VERSION
from ex4d.service.job_store import JobStore
from ex4d_core.cameras import CameraPath
from ex4d_core.client import Client
from ex4d_core.messages import DescribeJobs, ListJobs
from ex4d_core.remote_scene import RemoteScene
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import FILE_NAMES, OPTIONAL_RENDER_FILES, FootageOrigin
from ex4d_core.shot import ShotRequest
from ex4d_core.take_files import ALL_TAKE_FILES, TAKE_FILES

DATA = Path(__file__).resolve().parents[1] / "data" / "previous_version"
NEW_COLUMNS = {"started", "device", "digest", "bytes", "downs", "room", "ended", "owner", "priority"}
FINISHED, TAKE, RECONSTRUCTION = "335440d074035f46", "e8e96383fa7aced7", "3b7a8f222b51d405"


@pytest.fixture
def client(start_service, tmp_path):
    """Of today's service, on a copy of the old data folder."""
    with tarfile.open(DATA / "service.tar.gz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    service = start_service(data=tmp_path / "old", runner="ex4d.pipeline.take:generate_take", keep_days=1e6)
    client = Client(service.address)
    yield client
    client.close()


def test_old_jobs_are_listed_fetched_and_run_to_the_end(client, tmp_path):
    listed = client.ask(ListJobs(), timeout=120).jobs
    assert [(one.job, one.engine, one.label) for one in listed] == [
        (RECONSTRUCTION, "reconstruction", "queued reconstruction"),
        (TAKE, "preview", "queued take"),
        (FINISHED, "preview", "finished take"),
    ]
    assert (listed[2].state, listed[2].events, listed[2].attempt) == ("done", 12, 1)
    described = client.ask(DescribeJobs(), timeout=120).jobs[2]
    assert (described.job, described.scene) == (FINISHED, Scene.open(DATA / "scene").digest)
    assert (described.started, described.device) == (0, "") and described.ended >= listed[2].created

    scene = Scene.open(DATA / "scene")
    camera = scene.source_camera()
    finished = RemoteTake(tmp_path / "finished", ShotRequest(scene.digest, camera), job=FINISHED)
    assert client.run(finished.conversation(), timeout=120).state == "done"
    assert sorted(finished.frames) == [0, 1, 2, 3] and set(finished.files) == set(TAKE_FILES)
    assert probe(finished.files["take.mp4"]).frames == 4

    take = RemoteTake(tmp_path / "take", ShotRequest(scene.digest, camera.frames(1, 4), first_frame=1), job=TAKE)
    status = client.run(take.conversation(), timeout=120)
    assert (status.state, status.attempt) == ("done", 1), status.reason
    assert sorted(take.frames) == [0, 1, 2] and set(take.files) == set(ALL_TAKE_FILES)

    remote = RemoteScene(tmp_path / "reconstruction", job=RECONSTRUCTION)
    status = client.run(remote.conversation(), timeout=120)
    assert (status.state, status.attempt) == ("done", 1), status.reason
    new = Scene.open(tmp_path / "reconstruction")
    assert new.manifest.frames == 4
    np.testing.assert_array_equal(new.depth(), scene.depth())


def test_an_old_scene_package_opens_with_all_its_parts_and_renders(tmp_path):
    scene = Scene.open(DATA / "scene")
    assert scene.manifest.name == "post before a wall" and scene.color().shape == (4, 32, 48, 3)
    assert set(scene.manifest.files) == set(FILE_NAMES) - {"deep_color", *OPTIONAL_RENDER_FILES}
    assert all(scene.path(part).stat().st_size == entry.size for part, entry in scene.manifest.files.items())
    assert main(["generate", str(DATA / "scene"), "--preset", "orbit", "-o", str(tmp_path / "take")]) == 0
    assert probe(tmp_path / "take" / "take.mp4").frames == 4
    assert len(CameraPath.load(tmp_path / "take" / "camera.npz")) == 4


def test_the_old_job_database_is_migrated_once_and_a_copy_stays(tmp_path):
    with tarfile.open(DATA / "service.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    path, copy = tmp_path / "jobs.sqlite", tmp_path / "jobs.sqlite.v1"

    def version_and_columns(database: Path) -> tuple[int, set[str]]:
        with closing(sqlite3.connect(database)) as opened:
            (version,) = opened.execute("PRAGMA user_version").fetchone()
            return version, {row[1] for row in opened.execute("PRAGMA table_info(jobs)")}

    before = version_and_columns(path)
    store = JobStore(path)
    jobs = store.jobs()
    store.close()
    assert [one.job for one in jobs] == [RECONSTRUCTION, TAKE, FINISHED]
    assert version_and_columns(path) == (SCHEMA_VERSION, before[1] | NEW_COLUMNS)
    assert version_and_columns(copy) == before == (1, before[1])
    with closing(sqlite3.connect(copy)) as opened:
        assert opened.execute("SELECT count(*) FROM jobs").fetchone() == (3,)

    written = copy.stat().st_mtime_ns
    JobStore(path).close()
    assert copy.stat().st_mtime_ns == written and version_and_columns(path)[0] == SCHEMA_VERSION


def test_jobs_of_version_3_belong_to_the_one_user_that_there_was(tmp_path):
    path = tmp_path / "jobs.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript((DATA / "jobs.v3.sql").read_text(encoding="utf-8"))
    with closing(JobStore(path)) as store:
        listed = store.jobs(owner="")
        assert [(one.label, one.state) for one in listed] == [
            ("queued take", "queued"),
            ("cancelled take", "cancelled"),
            ("finished take", "done"),
        ]
        assert store.jobs(owner="anna") == [] and store.job_of_key("third key") == listed[0].job
        assert [event.kind for event in store.events(listed[2].job, 0)] == ["state", "state", "frame", "state"]
        assert store.needed_blobs() == {"ab" * 32, "ef" * 32}
        claimed = store.claim("worker")
        assert (claimed.job, claimed.owner, claimed.request.label) == (listed[0].job, "", "queued take")
        store.check()
        new = store.submit("third key", claimed.request, [], owner="anna")
        assert store.job_of_key("third key", "anna") == new != claimed.job
        # Two jobs that were forgotten had the numbers 1 and 5.
        assert store._db.execute("SELECT sequence FROM jobs WHERE id = ?", (new,)).fetchone() == (6,)
    assert path.with_name("jobs.sqlite.v3").exists()


def test_an_old_scene_names_its_footage_and_keeps_its_name_on_the_wire():
    data = (DATA / "scene" / "manifest.json").read_bytes()
    scene = Scene.open(DATA / "scene")
    assert scene.manifest.origin == FootageOrigin("clip.mp4")
    assert scene.digest == hashlib.sha256(data).hexdigest()

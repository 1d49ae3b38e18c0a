"""What runs on a node of a cluster: the worker, here in this process, and the cache of the node."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ex4d.machine import MachineSettings
from ex4d.service.blob_store import BlobStore
from ex4d.service.cluster_actor import ClusterWorker
from ex4d.service.cluster_cache import NodeCache
from ex4d.service.cluster_messages import Delivered, JobOrder, Piece, WorkerSettings
from ex4d_core.scene import sha256_of


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """What runs on a node, in this process."""
    monkeypatch.setattr("ex4d.kernels.compile_in_background", lambda device: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    worker = ClusterWorker("cpu")
    worker.start(WorkerSettings("campaigns.runner:perform", MachineSettings().to_json(), 1.0))
    return worker


@pytest.fixture
def order(scene, shot, tmp_path):
    """A job whose inputs are in the service's blobs, and a folder with its mark."""
    blobs, folder = BlobStore(tmp_path / "data"), tmp_path / "data" / "work"
    folder.mkdir()
    (folder / "mark").write_text("mark")
    files = [scene.path(part) for part in scene.manifest.render_files]
    inputs = [blobs.add_file(Path(shutil.copy(path, tmp_path / "one"))) for path in files]
    (tmp_path / "one").write_bytes(scene.manifest_bytes)
    inputs.append(blobs.add_file(tmp_path / "one"))
    request = dict(shot("good").to_wire())
    return JobOrder("job", request, tuple(inputs), str(folder), str(tmp_path / "data"), "mark")


def test_a_node_that_sees_the_services_folder_is_sent_nothing_and_writes_there(worker, order):
    assert worker.begin(order) == []
    events = list(worker.run("job"))
    frames = [one for one in events if isinstance(one, Delivered) and one.kind == "frame"]
    assert [(one.number, one.size) for one in frames] == [(number, -1) for number in range(6)]
    assert (Path(order.folder) / frames[5].name).read_bytes() == b"frame 5 of good"


def test_a_folder_of_the_same_name_that_is_another_is_not_taken_for_the_services(worker, order):
    (Path(order.folder) / "mark").write_text("of another service")
    lacking = worker.begin(order)
    assert sorted(lacking) == sorted(sha256 for sha256, _ in order.inputs)
    for sha256, size in order.inputs:
        data = BlobStore(Path(order.blobs)).read(sha256, 0, size)
        worker.add_piece("job", sha256, 0, data, True)
    events = list(worker.run("job"))
    assert b"".join(one.data for one in events if isinstance(one, Piece)).startswith(b"frame 0 of goodframe 1")
    assert not any((Path(order.folder) / f"{number}.txt").exists() for number in range(6))
    worker.forget("job")
    assert worker.begin(replace(order, name="next")) == [], "it keeps what it was sent"


def test_a_job_that_is_not_wanted_any_more_stops(worker, order):
    worker.begin(order)
    worker.stop("job")
    assert list(worker.run("job")) == []


def test_a_nodes_cache_is_bounded_and_a_job_keeps_what_it_was_given(tmp_path):
    cache = NodeCache(tmp_path / "cache", 2500)
    first = cache.begin_job()
    names = []
    for letter in "abc":
        (tmp_path / letter).write_bytes(letter.encode() * 1000)
        names.append(sha256_of(tmp_path / letter))
        assert first.lacking(((names[-1], 1000),)) == names[-1:]
        first.add(names[-1], 0, letter.encode() * 600)
        first.add(names[-1], 600, letter.encode() * 400)
        first.complete(names[-1])
    inputs = tuple((name, 1000) for name in names)
    assert first.lacking(inputs) == []
    second = cache.begin_job()
    assert second.lacking(inputs) == names[:1], "the oldest went"
    assert second.blobs.path(names[2]).read_bytes() == b"c" * 1000
    first.close()
    assert not (tmp_path / "cache" / "jobs" / first.work.parent.name).exists()


def test_a_damaged_piece_is_noticed(tmp_path):
    job = NodeCache(tmp_path, 1e9).begin_job()
    job.add("0" * 64, 0, b"something else")
    with pytest.raises(OSError, match="arrived with"):
        job.complete("0" * 64)

"""A final of several windows whose worker dies: another one continues behind the last whole window, to the same files.

With small networks of random weights, on the CPU.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from ex4d.machine import MachineSettings
from ex4d.service.blob_store import BlobStore
from ex4d.service.cluster_actor import ClusterWorker
from ex4d.service.cluster_messages import Delivered, JobOrder, Piece, Progressed, WorkerSettings
from ex4d.service.job_store import JobStore
from ex4d.service.kept_finals import drop_kept, kept_final
from ex4d.service.settings import ServiceSettings
from ex4d_core.cameras import CameraPath
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest
from ex4d_core.take_files import REQUEST_FILE
from ex4d_core.wan_settings import wan_preset
from tests.generation.conftest import toy_models

__all__ = ["toy_models"]

# Windows of 5 frames that start from 1 of the one before: 4.
_FRAMES = 17
_WINDOWS = {"window": 5, "overlap": 1, "steps": 2, "precision": "float32", "prompt": "a street"}
_PATIENCE = 240.0


@pytest.fixture
def long_scene(write_small_scene, tmp_path):
    write_small_scene(tmp_path / "long", frames=_FRAMES)
    return Scene.open(tmp_path / "long")


@pytest.fixture
def final(long_scene):
    """A request for a final, the camera of which moves to the side."""
    source = long_scene.source_camera()
    moves = source.world_to_camera.copy()
    moves[:, 0, 3] = np.linspace(0.0, 0.4, _FRAMES)
    camera = CameraPath(moves, source.intrinsics, *source.size)
    wan = wan_preset("ex4d-reference", **_WINDOWS)
    return ShotRequest(long_scene.digest, camera, engine="wan", wan=wan, label="final")


def _results(events) -> dict[tuple[str, str, int], str]:
    """Hashes of all results but the record of when and where they were made, and the images of steps."""
    wanted = (one for one in events if one.kind in ("frame", "file") and one.name != REQUEST_FILE)
    return {(one.kind, one.name, one.index): one.sha256 for one in wanted}


def test_a_final_whose_service_and_worker_are_killed_continues_at_its_window(
    start_service, connect, long_scene, final, toy_models, monkeypatch, tmp_path
):
    monkeypatch.setenv("EX4D_MODELS", str(toy_models))
    service = start_service(runner=ServiceSettings.runner)
    wire = connect(service)
    wire.upload(long_scene.manifest_bytes)
    for part in long_scene.manifest.render_files:
        wire.upload(long_scene.path(part).read_bytes())
    whole, events = wire.finish(wire.submit(final))
    assert (whole.state, whole.attempt) == ("done", 1), whole.reason
    kept = service.data / "kept"
    assert list(kept.iterdir()) == []

    job = wire.submit(final)
    deadline = time.monotonic() + _PATIENCE
    while not any(path.suffix == ".pt" for path in kept.iterdir()):
        assert time.monotonic() < deadline, "no window was kept"
        time.sleep(0.005)
    workers = [psutil.Process(pid) for pid in service.worker_pids()]
    for one in workers:
        one.send_signal(signal.SIGSTOP)
    service.kill()
    for one in workers:
        one.kill()
    assert [path.name.partition("-")[0] for path in kept.iterdir()] == [job]
    service.start()
    wire = connect(service)
    status, again = wire.finish(job)
    assert (status.state, status.attempt) == ("done", 2), status.reason
    assert _results(again) == _results(events)
    service.wait_for_log(f"job {job} is done")
    assert list(kept.iterdir()) == []
    log = (service.data / "logs" / "worker-0-cpu.log").read_text()
    assert f"job {job} continues after " in log


def test_a_node_continues_behind_the_windows_of_another(long_scene, final, toy_models, tmp_path, monkeypatch):
    """It is sent the finished frames and the engine's state, and sends the next state after each window."""
    monkeypatch.setattr("ex4d.kernels.compile_in_background", lambda device: None)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *names, **more: str(tmp_path / "cache"))
    worker = ClusterWorker("cpu")
    worker.start(WorkerSettings(ServiceSettings.runner, MachineSettings(toy_models).to_json(), 1.0))
    blobs = BlobStore(tmp_path / "service")
    parts = [long_scene.path(part).read_bytes() for part in long_scene.manifest.render_files]
    inputs = []
    for data in (long_scene.manifest_bytes, *parts):
        inputs.append(_add(blobs, tmp_path / "one", data))
    state, request = tmp_path / "state.pt", dict(final.to_wire())

    def run(name: str, finished: tuple[tuple[str, int], ...] = ()) -> tuple[dict[int, bytes], list[bytes], set[str]]:
        """Frames, states, and the denoising steps that were told."""
        files = (*inputs, *finished)
        order = JobOrder(name, request, files, "", "", finished=tuple(one for one, _ in finished), state=str(state))
        for sha256 in worker.begin(order):
            worker.add_piece(name, sha256, 0, blobs.path(sha256).read_bytes(), True)
        assert worker.lacks_state(name)
        if state.exists():
            worker.add_state(name, state.read_bytes())
        frames, states, steps, coming = {}, [], set(), None
        for event in worker.run(name):
            if isinstance(event, Delivered):
                coming = event
                if event.kind == "state":
                    states.append(b"")
                elif event.kind == "frame":
                    frames[event.number] = b""
            elif isinstance(event, Piece) and coming.kind == "state":
                states[-1] += event.data
            elif isinstance(event, Piece) and coming.kind == "frame":
                frames[coming.number] += event.data
            elif isinstance(event, Progressed) and event.stage.startswith("denoise"):
                steps.add(event.done)
        worker.forget(name)
        return frames, states, steps

    whole, states, steps = run("whole")
    assert len(whole) == _FRAMES and len(states) == 4 and max(steps) == 8
    state.write_bytes(states[1])  # of two windows, 9 frames
    finished = tuple(_add(blobs, tmp_path / "one", whole[index]) for index in range(10))
    rest, states, steps = run("rest", finished)
    assert sorted(rest) == list(range(10, _FRAMES)) and len(states) == 2
    assert min(steps - {0}) > 4, "the steps of the first two windows were not made again"
    assert all(rest[index] == whole[index] for index in rest)


def _add(blobs: BlobStore, path: Path, data: bytes) -> tuple[str, int]:
    path.write_bytes(data)
    return blobs.add_file(path)


def test_what_is_kept_is_of_unfinished_jobs_of_this_version_and_bounded(tmp_path, final):
    store, blobs = JobStore(tmp_path / "jobs.sqlite"), BlobStore(tmp_path)
    states = []
    for age, key in enumerate("abcd"):
        job = store.submit(key, final, [])
        states.append(kept_final(store, blobs, tmp_path, job, final).state)
        states[-1].write_bytes(bytes(100))
        os.utime(states[-1], (age, age))
    store.cancel(states[1].stem.partition("-")[0])
    other = states[0].with_name(f"{states[0].stem}0.pt")
    other.write_bytes(bytes(100))
    drop_kept(tmp_path, store)
    assert sorted(other.parent.iterdir()) == sorted([states[0], *states[2:]])
    drop_kept(tmp_path, store, most_bytes=250)
    assert sorted(other.parent.iterdir()) == sorted(states[2:]), "the newest stay"
    store.close()


def test_frames_count_up_to_the_first_that_is_missing_or_damaged(tmp_path, final):
    store, blobs = JobStore(tmp_path / "jobs.sqlite"), BlobStore(tmp_path)
    store.submit("a", final, [])
    claim = store.claim("worker")
    hashes = []
    for index in (0, 1, 2, 4):
        sha256, size = _add(blobs, tmp_path / "one", b"frame %d" % index)
        store.add_result(claim, "frame", "", index, sha256, size)
        hashes.append(sha256)
    assert kept_final(store, blobs, tmp_path, claim.job, final).frames == tuple(hashes[:3])
    blobs.path(hashes[1]).write_bytes(b"damaged")
    assert kept_final(store, blobs, tmp_path, claim.job, final).frames == tuple(hashes[:1])
    store.close()

"""A take with the engine wan: from the command line, again from its own files, and from a backend service."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from ex4d.cli.main import main
from ex4d.media.png import read_png
from ex4d.pipeline.take import generate_take
from ex4d.service.blob_store import BlobStore
from ex4d.service.disk_room import DiskRoom
from ex4d.service.job_execution import JobSink
from ex4d.service.job_store import ClaimLost, JobStore
from ex4d_core import __version__
from ex4d_core.cameras import CameraPath
from ex4d_core.client import Client
from ex4d_core.job_status import JobStatus
from ex4d_core.messages import Cancel, GetEvents, Hello, ListJobs, Submit, Welcome
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest
from ex4d_core.stages import StageDetails
from ex4d_core.wan_settings import wan_preset

# Seconds of silence after which a backend must have ended. Only a failing test waits that long.
SILENCE = 240

QUICK = ["--engine", "wan", "--steps", "2", "--precision", "float32", "--prompt", "a wide street", "--device", "cpu"]


@pytest.fixture
def models(toy_models, monkeypatch) -> Path:
    monkeypatch.setenv("EX4D_MODELS", str(toy_models))
    return toy_models


@pytest.fixture
def scene(small_scene) -> Scene:
    return Scene.open(small_scene.folder)


def frames_of(folder: Path) -> np.ndarray:
    return np.array([read_png(path) for path in sorted(folder.glob("frame_*.png"))])


def test_a_take_can_be_made_again_from_its_own_files(models, small_scene, tmp_path, capsys):
    first, again = tmp_path / "first", tmp_path / "again"
    generate = ["generate", str(small_scene.folder)]
    assert main([*generate, *QUICK, "--preset", "10", "--seed", "7", "--label", "雨", "--out", str(first)]) == 0
    request = json.loads((first / "request.json").read_text(encoding="utf-8"))
    assert request["engine"] == "wan" and request["label"] == "雨"
    assert (request["wan"]["seed"], request["wan"]["prompt"]) == (7, "a wide street")
    assert main([*generate, "--again", str(first), "--device", "cpu", "--out", str(again)]) == 0
    assert len(frames_of(first)) == 6 and np.array_equal(frames_of(first), frames_of(again))
    assert read_png(first / "estimate.png").shape == (4, 6, 3)


def request_in(folder: Path) -> dict:
    """Without what may differ between two takes of one request."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    made_by = request.pop("made_by")
    assert made_by["ex4d"] == __version__ and made_by["rasterizer"] == "warp"
    return request


def test_a_take_made_again_may_have_another_seed_preset_or_engine(models, small_scene, tmp_path, capsys):
    generate = ["generate", str(small_scene.folder), "--device", "cpu"]
    first = tmp_path / "first"
    words = ["--frames", "2", "--seed", "7", "--label", "dusk"]
    assert main([*generate, *words, "--prompt", "a wide street", "--out", str(first)]) == 0

    def again(*options: str) -> dict:
        folder = tmp_path / "again"
        assert main([*generate, "--again", str(first), *options, "--out", str(folder), "--overwrite"]) == 0
        return request_in(folder)

    before = request_in(first)
    assert again() == before and before["engine"] == "preview"
    quick = ["--steps", "1", "--precision", "float32"]
    final = again("--engine", "wan", "--seed", "8", *quick)
    assert (final["engine"], final["wan"]["seed"], final["label"]) == ("wan", 8, "dusk")
    assert final["wan"]["prompt"] == "a wide street" and final["camera"] == before["camera"]
    draft = again("--engine", "wan", "--wan-preset", "draft", *quick)["wan"]
    assert (draft["preset"], draft["tea_cache"], draft["seed"], draft["prompt"]) == ("draft", 0.2, 7, "a wide street")

    for options in (["--size", "32x32"], ["--preset", "crane"], ["--holes", "mark"]):
        assert main([*generate, "--again", str(first), *options, "--out", str(tmp_path / "x")]) == 1
        assert f"keeps the take's camera and render, so {options[0]} cannot be given" in capsys.readouterr().err
    assert main(["generate", "--again", str(first)]) == 1
    assert "give a scene folder and --out" in capsys.readouterr().err


def test_a_take_of_another_scene_is_not_made_again(models, small_scene, write_small_scene, tmp_path, capsys):
    first = tmp_path / "first"
    assert main(["generate", str(small_scene.folder), *QUICK, "--frames", "1", "--out", str(first)]) == 0
    other = write_small_scene(tmp_path / "other", seed=5).folder
    assert main(["generate", str(other), "--again", str(first), "--out", str(tmp_path / "x")]) == 1
    assert "another scene" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["0", "-3", "nan", "inf", "much"])
def test_a_limit_that_is_no_number_of_gigabytes_is_refused(limit, capsys):
    with pytest.raises(SystemExit):
        main(["generate", "scene", "--engine", "wan", f"--vram-limit={limit}"])
    assert repr(limit) in capsys.readouterr().err


def test_options_that_cannot_be_are_refused(models, small_scene, tmp_path, capsys):
    command = ["generate", str(small_scene.folder), *QUICK, "--out", str(tmp_path / "take")]
    for more, message in (
        (["--steps", "0"], "from 1 to 200, not 0"),
        (["--lora", "../x"], "../x"),
        (["--lora", "nothing"], "no LoRA 'nothing'"),
        (["--window", "10"], "4n + 1"),
    ):
        try:
            code = main([*command, *more])
        except SystemExit as refused:  # by the parser of the command line
            code = refused.code
        assert code in (1, 2)
        assert message in capsys.readouterr().err


def request_for(scene: Scene, **changes) -> ShotRequest:
    camera = scene.source_camera()
    quick = {"steps": 3, "precision": "float32", "prompt": "a wide street", **changes}
    camera = CameraPath(camera.world_to_camera, camera.intrinsics, camera.width, camera.height)
    return ShotRequest(scene.digest, camera, engine="wan", wan=wan_preset("ex4d-reference", **quick))


@dataclass(frozen=True)
class Backend:
    address: str
    process: psutil.Popen

    def workers(self) -> list[int]:
        return [child.pid for child in self.process.children()]


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def backend(request, models, tmp_path, free_port) -> Iterator[Backend]:
    """A service of its own process with one worker, and models of its own in tmp_path / "models"."""
    if request.param != "cpu" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    own = shutil.copytree(models, tmp_path / "models")
    address = f"tcp://127.0.0.1:{free_port}"
    command = [sys.executable, "-m", "ex4d", "serve", "--address", address, "--data", str(tmp_path / "service")]
    process = psutil.Popen([*command, "--device", request.param, "--models", str(own)], env=dict(os.environ))
    yield Backend(address, process)
    process.terminate()
    process.wait()


def test_a_cancel_before_the_first_step_leaves_the_worker_as_it_is(backend, scene, tmp_path):
    """Loading and what comes before the first step take long on a GPU; to lose them again would take longer."""
    client, other = Client(backend.address), Client(backend.address)
    take = RemoteTake(tmp_path / "cancelled", request_for(scene, steps=200), scene)
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(other.run, take.conversation(), timeout=SILENCE)
        jobs: list[JobStatus] = []
        while not any(job.stage.startswith(("load weights", "warm up", "denoise")) for job in jobs):
            assert not end.done(), end.result()
            jobs = client.ask(ListJobs(), timeout=SILENCE).jobs
        workers = backend.workers()
        assert client.ask(Cancel(jobs[0].job), timeout=SILENCE).status.state == "cancelled"
        assert end.result().state == "cancelled"
    following = RemoteTake(tmp_path / "following", request_for(scene, seed=2), scene)
    assert client.run(following.conversation(), timeout=SILENCE).state == "done"
    assert backend.workers() == workers and len(workers) == 1
    client.close()
    other.close()


def test_a_cancel_reaches_the_engine_inside_a_step(models, scene, tmp_path, monkeypatch):
    """As a worker runs it: a step of a large model on a slow GPU may take minutes."""
    store, blobs = JobStore(tmp_path / "jobs.sqlite"), BlobStore(tmp_path / "data")
    job = store.submit("key", request_for(scene, steps=50), [])
    claim = store.claim("worker")
    assert claim is not None
    stages: list[tuple[str, int]] = []

    def report(*words: str) -> None:
        status = store.status(job)
        assert status is not None
        stages.append((status.stage, status.done))
        if StageDetails.of(status.stage).parts and status.done == 1:
            store.cancel(job)

    seconds = iter(range(1, 1_000_000))
    # Every report is told, however fast the steps are.
    monkeypatch.setattr("ex4d.service.job_execution.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    sink = JobSink(store, blobs, claim, report, DiskRoom(tmp_path, 0))
    (tmp_path / "work").mkdir()
    with pytest.raises(ClaimLost):
        generate_take(scene, claim.request, device="cpu", sink=sink, work_folder=tmp_path / "work")
    last, done = stages[-1]
    assert last.startswith("denoise (float32), part 0 of ") and done == 1, "in the second step, not after it"
    names = [StageDetails.of(stage).name for stage, _ in stages]
    assert names.index("encode") < names.index("warm up", names.index("encode")) < names.index("denoise")
    store.close()


def test_parts_of_fast_steps_are_not_all_written(tmp_path, scene, monkeypatch):
    store, blobs = JobStore(tmp_path / "jobs.sqlite"), BlobStore(tmp_path / "data")
    store.submit("key", request_for(scene), [])
    claim = store.claim("worker")
    assert claim is not None
    told: list[tuple[str, ...]] = []
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("ex4d.service.job_execution.time", clock)
    sink = JobSink(store, blobs, claim, lambda *words: told.append(words), DiskRoom(tmp_path, 0))
    clock.monotonic = lambda: 1.0
    for part in range(10):
        sink.progress(f"denoise (fp8), part {part} of 10", 3, 25)
    assert len(told) == 1
    sink.progress("denoise (fp8), 20 s left", 4, 25)
    assert len(told) == 2, "the end of a step is"
    store.close()


def test_a_running_backend_finds_weights_that_are_fetched(backend, tmp_path):
    """Without a restart; and it reports when they are gone."""
    client, adapter = Client(backend.address), tmp_path / "models" / "EX-4D" / "ex4d.ckpt"

    def welcome_once(ready) -> Welcome:
        while not ready(welcome := client.ask(Hello(), timeout=SILENCE)):
            assert backend.process.is_running()
            time.sleep(0.1)
        return welcome

    assert {"wan fast", "wan upscaler"} <= {*welcome_once(lambda welcome: "wan" in welcome.engines).lacking}
    adapter.rename(tmp_path / "ex4d.ckpt")
    lacking = welcome_once(lambda welcome: "wan" not in welcome.engines).lacking
    assert "wan" in lacking and not any(name.startswith("wan ") for name in lacking)
    (tmp_path / "ex4d.ckpt").rename(adapter)
    assert "wan" not in welcome_once(lambda welcome: "wan" in welcome.engines).lacking
    client.close()


def test_a_backend_sends_estimates_frames_and_the_request(backend, scene, tmp_path):
    client = Client(backend.address)
    take = RemoteTake(tmp_path / "take", request_for(scene), scene)
    status = client.run(take.conversation(), timeout=SILENCE)
    assert (status.state, status.engine) == ("done", "wan"), status.reason
    assert len(take.frames) == 6 and {"request.json", "take.mp4", "camera.npz"} <= set(take.files)
    assert read_png(take.estimate).shape == (4, 6, 3)
    events = client.ask(GetEvents(take.job, 0), timeout=SILENCE).events
    assert [event.index for event in events if event.kind == "estimate"] == [1, 2, 3]

    # Cancelled in the middle: the worker ends it within a step, and runs the next one.
    long = RemoteTake(tmp_path / "long", request_for(scene, steps=200, seed=1), scene)
    long.job = client.ask(Submit(long.key, long.request.to_wire()), timeout=SILENCE).job
    after, kinds = 0, set()
    while "estimate" not in kinds:
        for event in client.ask(GetEvents(long.job, after, 5.0), timeout=SILENCE).events:
            after = event.number
            kinds.add(event.kind)
    assert client.ask(Cancel(long.job), timeout=SILENCE).status.state == "cancelled"
    following = RemoteTake(tmp_path / "following", request_for(scene, seed=2), scene)
    assert client.run(following.conversation(), timeout=SILENCE).state == "done"

    # A failed job has its reason, and the next one is unaffected.
    failing = RemoteTake(tmp_path / "failing", request_for(scene, prompt="street " * 600), scene)
    status = client.run(failing.conversation(), timeout=SILENCE)
    assert status.state == "failed" and "601 tokens" in status.reason
    client.close()

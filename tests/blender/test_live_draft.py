"""A generated draft follows the camera: in an image datablock, marked as a draft, the newest camera first."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.cameras.presets import camera_from_preset
from blender_addon.connection.session import session
from blender_addon.views.live_draft import IMAGE, live_drafts
from ex4d_core.client import Client
from ex4d_core.job_status import JobStatus
from ex4d_core.messages import ListJobs
from ex4d_core.trajectories import Trajectory

from .conftest import Backend, backend_environment, backend_process, free_address, tick_until
from .taking import take


@pytest.fixture(scope="module")
def models(backend_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models of random weights, and what drafts need."""
    models = tmp_path_factory.mktemp("models") / "models"
    write = (
        f"import pathlib as p, bench.random_weights as m; models = p.Path({str(models)!r}); m.write_models(models); "
        "m.write_fast_lora(models); m.write_tiny_decoder(models / 'taew2_1.safetensors')"
    )
    subprocess.run([backend_python, "-c", write], check=True, env=backend_environment())
    return models


@pytest.fixture(scope="module")
def generating_backend(backend_python: str, models: Path, tmp_path_factory) -> Iterator[Backend]:
    """A backend with these models."""
    data = tmp_path_factory.mktemp("backend")
    with backend_process(backend_python, free_address(), data, "--models", str(models)) as running:
        yield running


@pytest.fixture
def generating(generating_backend: Backend, blender: None) -> Backend:
    bpy.context.preferences.addons["blender_addon"].preferences.address = generating_backend.address
    return generating_backend


def pixels() -> np.ndarray:
    image = bpy.data.images[IMAGE]
    return np.array(image.pixels[:]).reshape(*reversed(image.size), 4)


def jobs(backend: Backend) -> list[JobStatus]:
    client = Client(backend.address)
    try:
        return [one for one in client.ask(ListJobs(), timeout=60).jobs if one.label == "live draft"]
    finally:
        client.close()


def test_the_draft_follows_the_camera_and_the_current_frame(generating, shot):
    assert bpy.ops.ex4d.watch_draft.poll()
    bpy.context.scene.ex4d_draft.live = True
    tick_until(lambda: live_drafts.frames, "the first draft")
    assert (len(live_drafts.frames), live_drafts.size) == (9, (48, 32)) and not live_drafts.problem
    first = live_drafts.frames
    bpy.context.scene.frame_set(11)
    tick_until(lambda: not live_drafts.waiting, "a pause")
    start = pixels()
    assert start.shape == (32, 48, 4)
    bpy.context.scene.frame_set(19)
    tick_until(lambda: not np.array_equal(pixels(), start), "another frame of the same draft")
    assert live_drafts.frames is first

    bpy.context.scene.ex4d_shot.camera = camera_from_preset(shot, Trajectory("orbit", 60.0), name="wider")
    tick_until(lambda: live_drafts.frames is not first, "the draft of another camera")
    assert len([image for image in bpy.data.images if image.name.startswith(IMAGE)]) == 1
    assert not bpy.context.scene.ex4d_takes, "drafts are not takes"


def test_a_newer_camera_replaces_the_draft_that_waits(generating, shot):
    """Behind a final that takes long; of several cameras only the newest is generated."""
    final = bpy.context.scene.ex4d_shot.final
    final.steps = 200
    tick_until(lambda: bpy.ops.ex4d.send_final.poll(), "the backend")
    assert bpy.ops.ex4d.send_final() == {"FINISHED"}
    tick_until(lambda: take().state == "running", "the final")
    before = len(jobs(generating))
    bpy.context.scene.ex4d_draft.live = True
    for count, degrees in enumerate((20.0, 40.0, 60.0), start=1):
        camera = camera_from_preset(shot, Trajectory("orbit", degrees), name="moved")
        bpy.context.scene.ex4d_shot.camera = camera
        tick_until(lambda count=count: len(jobs(generating)) == before + count, "its draft")
    states = [job.state for job in jobs(generating)[:3]]
    assert sorted(states) == ["cancelled", "cancelled", "queued"]
    assert bpy.ops.ex4d.cancel_take(key=take().key) == {"FINISHED"}
    tick_until(lambda: live_drafts.frames, "the draft")
    assert sorted(job.state for job in jobs(generating)[:3]) == ["cancelled", "cancelled", "done"]


def test_a_backend_without_the_lora_says_so_and_a_draft_comes_once_it_is_there(generating, models, shot):
    lora = next((models / "loras").iterdir())
    moved = lora.rename(models.parent / lora.name)  # anywhere in the folder of models it would be found
    tick_until(lambda: session().server and "wan live" in session().server.lacking, "the backend to notice")
    bpy.context.scene.ex4d_draft.live = True
    tick_until(lambda: "ex4d models fetch fast" in live_drafts.problem, "the reason")
    assert not live_drafts.frames and not live_drafts.waiting
    moved.rename(lora)
    tick_until(lambda: live_drafts.frames, "the draft")
    assert not live_drafts.problem

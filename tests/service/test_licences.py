"""What a backend's machine is licensed for, whatever a request over the wire asks for."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.media import VideoWriter
from ex4d_core.client import Client
from ex4d_core.messages import Error
from ex4d_core.reconstruction import ReconstructionPlan, ReconstructionSettings
from ex4d_core.remote_scene import RemoteScene
from ex4d_core.render_settings import RenderSettings
from ex4d_core.sources import DepthSettings
from ex4d_core.view_messages import GetView

REFUSED = "depthcrafter may not be used for commercial work"
MISSING = "ex4d models fetch depthcrafter"


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch) -> None:
    """What is allowed gets as far as looking for its weights."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    monkeypatch.setenv("EX4D_MODELS", str(tmp_path / "no weights"))
    monkeypatch.delenv("EX4D_LICENCE", raising=False)


@pytest.fixture
def clip(tmp_path) -> Path:
    with VideoWriter(tmp_path / "clip.mp4", 32, 24, Fraction(25)) as movie:
        for index in range(2):
            movie.write(np.full((24, 32, 3), 40 * index, np.uint8))
    return tmp_path / "clip.mp4"


def why_no_depthcrafter(service, clip: Path, licence: str | None) -> str:
    """The reason for which a reconstruction with DepthCrafter, asked for by name, fails."""
    depth = DepthSettings("estimator", "depthcrafter", licence=licence)
    plan = ReconstructionPlan(ReconstructionSettings("clip", depth), (clip,))
    client = Client(service.address)
    try:
        status = client.run(RemoteScene(clip.parent / "scene", plan).conversation(), timeout=60)
    finally:
        client.close()
    assert status.state == "failed"
    return status.reason


def test_no_request_takes_a_machines_commercial_back(start_service, clip, monkeypatch):
    monkeypatch.setenv("EX4D_LICENCE", "commercial")
    service = start_service()
    for licence in ("research", None, "commercial"):
        assert REFUSED in why_no_depthcrafter(service, clip, licence)


def test_where_the_machine_says_nothing_the_request_must_say_research(start_service, clip):
    service = start_service()
    for licence, reason in ((None, REFUSED), ("commercial", REFUSED), ("research", MISSING)):
        assert reason in why_no_depthcrafter(service, clip, licence)


def test_who_runs_the_machine_may_hold_another_licence(start_service, clip, tmp_path):
    machine = {"models": str(tmp_path), "licence": "commercial", "accepted": ["depthcrafter"]}
    assert MISSING in why_no_depthcrafter(start_service(machine=machine), clip, None)


def test_renders_and_views_rest_on_nothing_that_the_machine_forbids(start_service, connect, scene, shot, monkeypatch):
    monkeypatch.setenv("EX4D_LICENCE", "commercial")
    wire = connect(start_service(runner="ex4d.pipeline.take:generate_take"))
    wire.upload_scene(scene)
    request = replace(shot(), render=RenderSettings("nvdiffrast", licence="research"))
    status, _ = wire.finish(wire.submit(request))
    assert status.state == "failed" and "nvdiffrast may not be used for commercial work" in status.reason
    answer = wire.ask(GetView(replace(request, camera=request.camera.frames(0, 1)).to_wire()))
    assert isinstance(answer, Error) and "nvdiffrast may not be used for commercial work" in answer.text

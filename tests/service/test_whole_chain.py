"""The real thing, small: a scene goes over the wire, the worker renders it with torch and Warp, a take comes back."""

from __future__ import annotations

import json

import pytest

from ex4d_core import __version__
from ex4d_core.client import Client
from ex4d_core.messages import Hello
from ex4d_core.remote_take import RemoteTake
from ex4d_core.take_files import ALL_TAKE_FILES


@pytest.fixture
def make_service(start_service):
    return lambda: start_service(runner="ex4d.pipeline.take:generate_take")


def test_a_client_gets_a_take_from_a_service(make_service, connect, scene, shot, tmp_path):
    service = make_service()
    client = Client(service.address)
    take = RemoteTake(tmp_path / "take", shot("a real one"), scene)
    status = client.run(take.conversation(), timeout=120)
    client.close()

    assert (status.state, status.done, status.total) == ("done", 6, 6), status.reason
    assert sorted(take.frames) == [0, 1, 2, 3, 4, 5]
    assert set(take.files) == set(ALL_TAKE_FILES)
    assert all(path.stat().st_size > 0 for path in [*take.frames.values(), *take.files.values()])

    made_by = json.loads(take.files["request.json"].read_text(encoding="utf-8"))["made_by"]
    assert made_by["ex4d"] == __version__ and made_by["rasterizer"] == "warp" and made_by["device"].startswith("CPU")

    welcome = connect(service).ask(Hello())
    assert "warp" in welcome.rasterizers and "preview" in welcome.engines
    assert welcome.devices[0].startswith("CPU")

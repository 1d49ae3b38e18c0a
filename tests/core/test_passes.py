"""Requests for passes on the wire, and what a client takes from a backend as their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.conversations import UnexpectedReply
from ex4d_core.errors import RequestError
from ex4d_core.job_status import JobEvent
from ex4d_core.output_settings import OutputSettings
from ex4d_core.passes import PassesRequest
from ex4d_core.reconstruction import request_from_wire
from ex4d_core.remote_passes import RemotePasses
from ex4d_core.shot import ShotRequest

SHA = "a" * 64


def request(**output) -> PassesRequest:
    camera = CameraPath(np.eye(4)[None].repeat(2, axis=0), intrinsics_matrix(40, 40, 24, 16), 48, 32)
    settings = OutputSettings(**{"format": "exr", "position": True, **output}).named("arc")
    return PassesRequest(ShotRequest(SHA, camera, output=settings, label="arc"))


def test_passes_come_back_from_the_wire_as_they_were_sent():
    sent = request(motion="both", output_space="ACEScg")
    back = request_from_wire(sent.to_wire())
    assert isinstance(back, PassesRequest)
    assert back.to_wire() == sent.to_wire()
    assert back.files == ("arc_v001.1001.exr", "arc_v001.1002.exr")
    assert (back.engine, back.label, back.scene) == ("passes", "arc", SHA)


@pytest.mark.parametrize("output_format", ["mp4", "prores4444"])
def test_movies_are_no_passes(output_format):
    with pytest.raises(RequestError, match=output_format):
        request(format=output_format, position=False)


@pytest.mark.parametrize("change", [{"shot": None}, {"strange": 1}])
def test_damaged_requests_are_refused(change):
    with pytest.raises(RequestError):
        request_from_wire({**request().to_wire(), **change})


def test_only_announced_names_of_the_request_become_files_and_none_that_is_too_large():
    job = RemotePasses(Path("passes"), request())

    def event(name: str, size: int = 1000) -> JobEvent:
        return JobEvent(1, "file", name, -1, SHA, size)

    assert job.path_for(event("arc_v001.1002.exr")) == Path("passes/arc_v001.1002.exr")
    for strange in ("arc_v001.1003.exr", "../arc_v001.1001.exr", "take.mp4"):
        assert job.path_for(event(strange)) is None
    with pytest.raises(UnexpectedReply, match=r"arc_v001\.1001\.exr"):
        job.path_for(event("arc_v001.1001.exr", 48 * 32 * 200 + 2**20))

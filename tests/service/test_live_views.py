"""Live views: one camera, one frame, at once, while an artist drags a keyframe."""

import os
import signal
from dataclasses import replace

import av
import numpy as np
import pytest

from ex4d.machine import MachineSettings
from ex4d.service.live_view_process import LiveViewRenderer
from ex4d_core.messages import Error, Hello, Welcome
from ex4d_core.shot import PreviewSettings
from ex4d_core.view_messages import GetView, View
from ex4d_core.wire import encode


def image(view: View) -> np.ndarray:
    """(H, W, 3) uint8 of a view's JPEG."""
    decoder = av.CodecContext.create("mjpeg", "r")
    (frame,) = decoder.decode(av.Packet(view.payload))
    return frame.to_ndarray(format="rgb24")


@pytest.fixture
def view_of(shot):
    """A request for a view of frame 1, with that many pixels."""

    def view_of(width: int = 32, height: int = 24, **changes) -> GetView:
        request = shot("view")
        camera = request.camera.frames(1, 2).resized(width, height)
        return GetView(replace(request, camera=camera, first_frame=1, **changes).to_wire())

    return view_of


def test_a_view_from_the_source_camera_is_the_footage(service, wire, scene, view_of):
    wire.upload_scene(scene)
    view = wire.ask(view_of(*scene.color().shape[2:0:-1]))
    assert isinstance(view, View), view
    assert view.seen == 1.0
    shown = image(view)
    assert shown.shape == (view.height, view.width, 3)
    assert np.abs(shown.astype(int) - scene.color()[1]).mean() < 6


def test_unseen_regions_are_marked_as_asked(service, wire, scene, view_of, shot):
    wire.upload_scene(scene)
    far = shot("view").camera.frames(0, 1)
    moved = far.world_to_camera.copy()
    moved[0, :3, 3] = [30.0, 0.0, 0.0]
    request = replace(
        shot("view"), camera=replace(far, world_to_camera=moved), preview=PreviewSettings("mark", (255, 0, 255))
    )
    view = wire.ask(GetView(request.to_wire()))
    assert view.seen < 0.5
    assert (np.abs(image(view).astype(int) - (255, 0, 255)).max(axis=2) < 12).mean() > 0.4


def test_of_many_requests_the_first_and_the_newest_are_served(service, wire, scene, view_of):
    wire.upload_scene(scene)
    wire.ask(view_of())
    with service.live_views_paused():
        asked = [wire.send(view_of()) for _ in range(6)]
        replies = wire.collect(asked[1:-1])
    replies |= wire.collect([asked[0], asked[-1]])
    assert isinstance(replies[asked[0]], View)
    assert isinstance(replies[asked[-1]], View)
    dropped = [replies[one] for one in asked[1:-1]]
    assert all(isinstance(one, Error) and one.code == "superseded" for one in dropped)


def test_the_same_request_again_is_not_a_newer_one(service, wire, scene, view_of):
    wire.upload_scene(scene)
    wire.ask(view_of())
    with service.live_views_paused():
        for _ in range(3):
            wire.socket.send_multipart(encode(view_of(), 77))
        assert isinstance(wire.ask(Hello()), Welcome), "none of them has a reply yet"
    request_id, reply = wire.receive()
    assert request_id == 77 and isinstance(reply, View), reply
    assert isinstance(wire.ask(Hello()), Welcome), "and none has two"


def test_clients_do_not_supersede_each_other(service, connect, scene, view_of):
    wires = [connect(service) for _ in range(3)]
    wires[0].upload_scene(scene)
    for one in wires:
        one.send(view_of(256, 192))
    assert all(isinstance(one.receive()[1], View) for one in wires)


def test_views_are_served_while_a_job_runs(service, wire, scene, shot, view_of, tmp_path):
    wire.upload_scene(scene)
    wire.ask(view_of())
    job = wire.submit(shot(f"wait {tmp_path / 'never'}"))
    wire.wait_for_half(job)
    assert isinstance(wire.ask(view_of()), View)
    assert wire.cancel(job).state == "cancelled"


def test_a_live_view_process_that_dies_is_replaced(start_service, connect, scene, view_of):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    wire.ask(view_of())
    pid = int(service.wait_for_log(r"live view process (\d+) started")[1])
    os.kill(pid, signal.SIGKILL)
    reply = wire.ask(view_of())
    if isinstance(reply, Error):  # it died after it got the request
        assert reply.code == "internal"
        reply = wire.ask(view_of())
    assert isinstance(reply, View)


def test_impossible_requests_get_their_reason(service, wire, scene, shot, view_of):
    wire.upload_scene(scene)
    assert "1 frame, not 6" in wire.ask(GetView(shot("view").to_wire())).text
    unknown = replace(shot("view"), scene="0" * 64, camera=shot("view").camera.frames(0, 1))
    assert wire.ask(GetView(unknown.to_wire())).code == "unknown-scene"
    assert wire.ask(GetView({})).code == "bad-request"


def test_a_bug_is_reported_as_one_and_an_error_of_ours_is_not(tmp_path, view_of):
    renderer = LiveViewRenderer(tmp_path, "cpu", MachineSettings())
    code, text = renderer.result({"user": "", "view": view_of().request})["error"]
    assert code == "bad-request" and "manifest" in text and "internal error" not in text, "the scene is not there"
    code, text = renderer.result({"user": "", "coverage": view_of().request})["error"]
    assert code == "bad-request"
    code, text = renderer.result({})["error"]
    assert code == "internal" and text.startswith("internal error: KeyError") and "report" in text

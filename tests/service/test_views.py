"""One camera, one frame, at once: what an artist sees of the backend while dragging a keyframe."""

import os
import signal
from dataclasses import replace

import av
import numpy as np
import pytest

from ex4d_core.messages import Error, GetView, View
from ex4d_core.shot import PreviewSettings
from ex4d_core.wire import encode


def picture(view: View) -> np.ndarray:
    """(H, W, 3) uint8 of a view's JPEG."""
    decoder = av.CodecContext.create("mjpeg", "r")
    (frame,) = decoder.decode(av.Packet(view.payload))
    return frame.to_ndarray(format="rgb24")


@pytest.fixture
def look(shot):
    """A request for a view of frame 1, with that many pixels."""

    def look(width: int = 32, height: int = 24, **changes) -> GetView:
        request = shot("view")
        camera = request.camera.frames(1, 2).resized(width, height)
        return GetView(replace(request, camera=camera, first_frame=1, **changes).to_wire())

    return look


def test_a_view_from_the_source_camera_is_the_footage(service, wire, scene, look):
    wire.upload_scene(scene)
    view = wire.ask(look(*scene.color().shape[2:0:-1]))
    assert isinstance(view, View), view
    assert view.seen == 1.0
    shown = picture(view)
    assert shown.shape == (view.height, view.width, 3)
    assert np.abs(shown.astype(int) - scene.color()[1]).mean() < 6


def test_unseen_regions_are_marked_as_asked(service, wire, scene, look, shot):
    wire.upload_scene(scene)
    far = shot("view").camera.frames(0, 1)
    moved = far.world_to_camera.copy()
    moved[0, :3, 3] = [30.0, 0.0, 0.0]
    request = replace(
        shot("view"), camera=replace(far, world_to_camera=moved), preview=PreviewSettings("mark", (255, 0, 255))
    )
    view = wire.ask(GetView(request.to_wire()))
    assert view.seen < 0.5
    assert (np.abs(picture(view).astype(int) - (255, 0, 255)).max(axis=2) < 12).mean() > 0.4


def test_of_many_wishes_the_first_and_the_newest_are_served(service, wire, scene, look):
    wire.upload_scene(scene)
    wire.ask(look())
    asked = [wire.send(look(512, 384)) for _ in range(6)]
    replies = dict(wire.receive() for _ in asked)
    assert isinstance(replies[asked[0]], View)
    assert isinstance(replies[asked[-1]], View)
    dropped = [replies[one] for one in asked[1:-1]]
    assert all(isinstance(one, Error) and one.code == "superseded" for one in dropped)


def test_asking_again_for_what_takes_long_is_not_a_newer_wish(service, wire, scene, look):
    wire.upload_scene(scene)
    parts = encode(look(512, 384), 77)
    for _ in range(3):
        wire.socket.send_multipart(parts)
    request_id, reply = wire.receive()
    assert request_id == 77 and isinstance(reply, View), reply


def test_clients_do_not_supersede_each_other(service, connect, scene, look):
    wires = [connect(service) for _ in range(3)]
    wires[0].upload_scene(scene)
    for one in wires:
        one.send(look(256, 192))
    assert all(isinstance(one.receive()[1], View) for one in wires)


def test_views_are_served_while_a_job_runs(service, wire, scene, shot, look, tmp_path):
    wire.upload_scene(scene)
    wire.ask(look())
    job = wire.submit(shot(f"wait {tmp_path / 'never'}"))
    wire.wait_for_half(job)
    assert isinstance(wire.ask(look()), View)
    assert wire.cancel(job).state == "cancelled"


def test_a_viewer_that_dies_is_replaced(start_service, connect, scene, look):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    wire.ask(look())
    pid = int(service.wait_for_log(r"viewer started as process (\d+)")[1])
    os.kill(pid, signal.SIGKILL)
    reply = wire.ask(look())
    if isinstance(reply, Error):  # it died with our wish in its hands
        assert "ask again" in reply.text
        reply = wire.ask(look())
    assert isinstance(reply, View)


def test_impossible_wishes_get_their_reason(service, wire, scene, shot, look):
    wire.upload_scene(scene)
    assert "a camera of 1 frame" in wire.ask(GetView(shot("view").to_wire())).text
    unknown = replace(shot("view"), scene="0" * 64, camera=shot("view").camera.frames(0, 1))
    assert wire.ask(GetView(unknown.to_wire())).code == "unknown-scene"
    assert wire.ask(GetView({})).code == "bad-request"

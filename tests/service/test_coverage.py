"""How much of a shot the footage saw, while the artist still moves the camera."""

from dataclasses import replace

import numpy as np
import pytest

from ex4d.service.coverage_parts import CoverageParts
from ex4d_core.cameras import CameraPath
from ex4d_core.client import Client
from ex4d_core.messages import Error, Hello, Welcome
from ex4d_core.scene_manifest import SceneManifest
from ex4d_core.shot import RequestError
from ex4d_core.transfers import ask_about
from ex4d_core.view_messages import Coverage, GetCoverage, GetView, View
from ex4d_core.wire import encode


@pytest.fixture
def truck(shot, scene):
    """All six frames, the camera ever further to the right."""
    request = shot("coverage")
    poses = request.camera.world_to_camera.copy()
    poses[:, 0, 3] = -0.4 * np.arange(len(poses))
    return replace(request, camera=replace(request.camera, world_to_camera=poses))


def test_coverage_falls_and_the_view_angle_grows_as_the_camera_leaves(wire, scene, truck):
    wire.upload_scene(scene)
    reply = wire.ask(GetCoverage(truck.to_wire()))
    assert isinstance(reply, Coverage), reply
    assert reply.seen[0] == 1.0 and reply.seen == sorted(reply.seen, reverse=True) and reply.seen[-1] < 0.5
    np.testing.assert_allclose(reply.view_angle, np.degrees(np.arctan2(0.4 * np.arange(6), 2.0)), atol=1e-6)


def test_a_long_path_is_computed_in_pieces_and_returned_whole(wire, scene, truck):
    wire.upload_scene(scene)
    alone = [
        wire.ask(GetCoverage(replace(truck, camera=truck.camera.frames(k, k + 1), first_frame=k).to_wire()))
        for k in range(6)
    ]
    together = wire.ask(GetCoverage(truck.to_wire()))
    assert [one.seen[0] for one in alone] == together.seen


def test_frames_in_any_order_are_computed_in_pieces_too(wire, scene, truck):
    wire.upload_scene(scene)
    order = (5, 5, 3, 0, 1, 4) * 2  # more than one piece
    poses = np.tile(truck.camera.world_to_camera, (2, 1, 1))
    camera = CameraPath(poses, truck.camera.intrinsics[0], *truck.camera.size)
    shot = replace(truck, camera=camera, source_frames=order)
    alone = [wire.ask(GetCoverage(shot.part(k, k + 1).to_wire())).seen[0] for k in range(len(order))]
    assert wire.ask(GetCoverage(shot.to_wire())).seen == alone
    beyond = wire.ask(GetCoverage(replace(shot, source_frames=(*order[:-1], 6)).to_wire()))
    assert isinstance(beyond, Error) and beyond.code == "bad-request" and "footage frame 6" in beyond.text


def test_parts_come_from_both_ends_and_the_first_values_count():
    parts = CoverageParts(80)
    assert (parts.take(), parts.take_elsewhere(), parts.take_elsewhere()) == (range(0, 8), range(48, 80), None)

    def values(part: range, value: float) -> dict[str, list[float]]:
        return {name: [value] * len(part) for name in ("seen", "view_angle", "remembered")}

    taken = [range(0, 8), *(parts.take() for _ in range(5))]
    assert taken[-1] == range(40, 48)
    for part in taken:
        parts.put(part.start, values(part, 0.25))
    assert parts.reply() is None
    assert parts.take() == range(48, 56), "what others have not brought is computed here"
    parts.put(48, values(range(48, 80), 0.5))
    parts.put(48, values(range(48, 56), 0.75))
    assert parts.reply().seen == [0.25] * 48 + [0.5] * 32


def test_the_newest_wins_and_views_come_in_between(service, wire, scene, truck):
    wire.upload_scene(scene)
    wire.ask(GetCoverage(truck.to_wire()))
    with service.live_views_paused():
        asked = [wire.send(GetCoverage(truck.to_wire())) for _ in range(5)]
        view = wire.send(GetView(replace(truck, camera=truck.camera.frames(0, 1)).to_wire()))
        dropped = wire.collect(asked[1:-1]).values()
    assert all(isinstance(one, Error) and one.code == "superseded" for one in dropped)
    replies = wire.collect([asked[0], asked[-1], view])
    assert isinstance(replies[view], View) and isinstance(replies[asked[-1]], Coverage)


def test_the_same_request_again_does_not_supersede_itself(service, wire, scene, truck):
    wire.upload_scene(scene)
    question = GetCoverage(truck.to_wire())
    wire.ask(question)
    with service.live_views_paused():
        for _ in range(3):
            wire.socket.send_multipart(encode(question, 77))
        assert isinstance(wire.ask(Hello()), Welcome), "none of them has a reply yet"
    answered, reply = wire.receive()
    assert answered == 77 and isinstance(reply, Coverage)


def test_a_scene_that_is_not_there_is_sent_first(start_service, scene, truck, tmp_path):
    client = Client(start_service().address)
    reply = client.run(ask_about(scene, GetCoverage(truck.to_wire())), timeout=60)
    client.close()
    assert len(reply.seen) == 6


def test_a_camera_that_leaves_the_footage_is_refused(wire, scene, truck):
    wire.upload_scene(scene)
    reply = wire.ask(GetCoverage(replace(truck, first_frame=3).to_wire()))
    assert isinstance(reply, Error) and reply.code == "bad-request" and "footage frame 3" in reply.text
    with pytest.raises(RequestError):
        truck.require_footage(2)


def test_long_paths_of_many_clients_do_not_pile_up(service, connect, scene, truck):
    """Each client may have one request waiting; together they are bounded, and the oldest goes first."""
    frames = 90_000
    wire = connect(service)
    wire.upload_scene(scene)
    entries = {**scene.manifest.__dict__, "frames": frames}
    digest = wire.upload(SceneManifest(**entries).to_json())
    still = CameraPath(np.repeat(truck.camera.world_to_camera[:1], frames, 0), truck.camera.intrinsics[0], 32, 24)
    long = GetCoverage(replace(truck, scene=digest, camera=still).to_wire())
    wire.ask(GetCoverage(truck.to_wire()))
    with service.live_views_paused():
        busy = connect(service)
        busy.send(GetCoverage(truck.to_wire()))
        assert isinstance(busy.ask(Hello()), Welcome)
        clients = [connect(service) for _ in range(5)]
        for one in clients:
            one.send(long)
            assert isinstance(one.ask(Hello()), Welcome), "it has arrived, before that of the next"
        for one in clients[:2]:
            _, reply = one.receive()
            assert isinstance(reply, Error) and reply.code == "superseded"
        assert not any(one.socket.poll(0) for one in clients[2:])
        for one in clients[2:]:  # and nobody waits for the rest
            one.send(GetCoverage(truck.to_wire()))
            assert isinstance(one.receive()[1], Error)

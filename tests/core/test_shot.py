"""Shot requests: complete and exact after the wire, and refused by name when anything is wrong."""

import msgpack
import numpy as np
import pytest

from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.shot import PreviewSettings, RenderSettings, RequestError, ShotRequest
from ex4d_core.trajectories import Trajectory, build_path

CAMERA = build_path(Trajectory("orbit", elevation=10), 5, intrinsics_matrix(40.1, 40, 24, 16), 48, 32, 2.0)


def request(**changes) -> ShotRequest:
    settings = {"scene": "a" * 64, "camera": CAMERA, "first_frame": 2, "label": "Take – 1"}
    return ShotRequest(**{**settings, **changes})


def over_the_wire(values: dict) -> ShotRequest:
    return ShotRequest.from_wire(msgpack.unpackb(msgpack.packb(values)))


def test_a_request_is_the_same_on_the_other_side():
    render = RenderSettings(convention="reference", occlusion="open")
    sent = request(render=render, preview=PreviewSettings("mark", (0, 255, 0)))
    received = over_the_wire(sent.to_wire())
    assert np.array_equal(received.camera.world_to_camera, CAMERA.world_to_camera)
    assert np.array_equal(received.camera.intrinsics, CAMERA.intrinsics)
    assert received.preview == sent.preview and received.render == sent.render
    assert (received.scene, received.first_frame, received.label) == (sent.scene, 2, "Take – 1")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scene", "../../etc/passwd", "SHA-256"),
        ("first_frame", -1, "first_frame"),
        ("first_frame", 1.5, "first_frame"),
        ("engine", "magic", "engine must be one of preview"),
        ("label", "x" * 1000, "label"),
        ("render", {"rasterizer": "gl"}, "rasterizer must be one of"),
        ("render", {"shader": 1}, "no field"),
        ("render", {"occlusion": "closed"}, "occlusion must be one of watertight, open, thickness, not 'closed'"),
        ("render", {"occlusion": None}, "occlusion must be one of"),
        ("render", {"occlusion": "thickness", "convention": "reference"}, "not known to the reference convention"),
        ("render", {"occlusion": "thickness", "rasterizer": "nvdiffrast"}, "use rasterizer warp"),
        ("preview", {"holes": "fill", "hole_color": [0, 0, 300]}, "hole_color"),
        ("preview", 7, "must be a map"),
        ("surprise", 1, "no field"),
        ("camera", None, "camera is missing"),
    ],
)
def test_a_wrong_field_is_named(field, value, message):
    with pytest.raises(RequestError, match=message):
        over_the_wire({**request().to_wire(), field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("frames", 6, "of 6 frames must be 768 bytes"),
        ("frames", 10**9, "from 1 to"),
        ("width", 0, "width"),
        ("height", "32", "height"),
        ("intrinsics", b"", "intrinsics"),
        ("world_to_camera", CAMERA.world_to_camera.tobytes()[:-8] + np.float64(np.nan).tobytes(), "frame 4"),
    ],
)
def test_a_wrong_camera_is_named(field, value, message):
    values = request().to_wire()
    values["camera"] = {**values["camera"], field: value}
    with pytest.raises(RequestError, match=message):
        over_the_wire(values)


def test_a_missing_field_is_named():
    values = request().to_wire()
    del values["scene"]
    with pytest.raises(RequestError, match="scene"):
        over_the_wire(values)


def test_a_shot_must_lie_within_its_footage():
    request().require_footage(7)
    with pytest.raises(RequestError, match="5 frames from footage frame 2 on, but the scene has 6"):
        request().require_footage(6)


def test_giant_pictures_are_refused():
    with pytest.raises(RequestError, match="8192"):
        request(camera=CameraPath(CAMERA.world_to_camera, CAMERA.intrinsics, 10_000, 32))

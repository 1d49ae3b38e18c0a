"""Two eyes of a camera: where they are, what they show where, and settings that do not go together."""

import msgpack
import numpy as np
import pytest

from ex4d_core.cameras import CameraPath, intrinsics_matrix, look_at
from ex4d_core.errors import RequestError
from ex4d_core.render_settings import RenderSettings
from ex4d_core.shot import ShotRequest
from ex4d_core.stereo import StereoSettings, disparity_note

FOCAL = 500.0
EYES = np.array([[0.3, -0.1, -1.0], [0.0, 0.2, -0.8]])
CAMERA = CameraPath(look_at(EYES, np.array([0.0, 0.1, 4.0])), intrinsics_matrix(FOCAL, FOCAL, 160, 90), 320, 180)


def shown(camera: CameraPath, points: np.ndarray) -> np.ndarray:
    """(T, 2) pixels at which each camera shows its own of (T, 3) points of the world."""
    seen = np.einsum("tij,tj->ti", camera.world_to_camera[:, :3, :3], points) + camera.world_to_camera[:, :3, 3]
    image = np.einsum("tij,tj->ti", camera.intrinsics, seen)
    return image[:, :2] / image[:, 2:]


def in_front(x: float, y: float, z: float) -> np.ndarray:
    """(T, 3) points of the world that each camera has at the same place before it."""
    return np.einsum("tij,j->ti", CAMERA.camera_to_world, np.array([x, y, z, 1.0]))[:, :3]


@pytest.mark.parametrize("pivot_eye", ["center", "left", "right"])
def test_both_eyes_show_what_is_at_the_convergence_distance_in_the_same_place(pivot_eye):
    stereo = StereoSettings("side-by-side", (0.065,), (3.0,), pivot_eye)
    left, right = stereo.eyes(CAMERA)
    for x, y in ((0, 0), (0.7, -0.3)):
        points = in_front(x, y, 3.0)
        np.testing.assert_allclose(shown(left, points), shown(right, points), atol=1e-9)
        np.testing.assert_allclose(shown(left, points), shown(CAMERA, points), atol=1e-9)


@pytest.mark.parametrize(("pivot_eye", "places"), [("center", (-0.5, 0.5)), ("left", (0, 1)), ("right", (-1, 0))])
def test_eyes_lie_beside_each_other_and_look_the_same_way(pivot_eye, places):
    for eye, place in zip(StereoSettings("files", (0.1,), None, pivot_eye).eyes(CAMERA), places, strict=True):
        moved = CAMERA.camera_to_world @ [place * 0.1, 0, 0, 1]
        np.testing.assert_allclose(eye.camera_to_world[:, :3, 3], moved[:, :3], atol=1e-12)
        np.testing.assert_array_equal(eye.world_to_camera[:, :3, :3], CAMERA.world_to_camera[:, :3, :3])
        np.testing.assert_array_equal(eye.intrinsics, CAMERA.intrinsics)  # parallel


@pytest.mark.parametrize("depth", [1.2, 2.9, 40.0])
def test_disparity_is_horizontal_and_follows_the_formula_in_each_frame(depth):
    stereo = StereoSettings("side-by-side", (0.06, 0.1), (3.0, 2.0))
    points = in_front(0.2, -0.4, depth)
    apart = np.subtract(*(shown(eye, points) for eye in stereo.eyes(CAMERA)))
    expected = [0.06 * FOCAL * (1 / depth - 1 / 3.0), 0.1 * FOCAL * (1 / depth - 1 / 2.0)]
    np.testing.assert_allclose(apart, np.transpose([expected, [0, 0]]), atol=1e-9)
    assert [stereo.disparity(CAMERA, depth, frame) for frame in (0, 1)] == pytest.approx(expected)


def test_a_shot_for_two_eyes_is_the_same_on_the_other_side_and_one_for_one_eye_as_it_was():
    stereo = StereoSettings("side-by-side", (0.06, 0.07), (3.0,), "left")
    sent = ShotRequest("a" * 64, CAMERA, stereo=stereo)
    received = ShotRequest.from_wire(msgpack.unpackb(msgpack.packb(sent.to_wire())))
    assert received.stereo == stereo and received.frame_size == (640, 180)
    assert received.part(1, 2).stereo == StereoSettings("side-by-side", (0.07,), (3.0,), "left")
    one_eye = ShotRequest("a" * 64, CAMERA)
    assert "stereo" not in one_eye.to_wire() and one_eye.frame_size == (320, 180)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"interaxial": (0.1,)}, "interaxial"),
        ({"layout": "vr180", "convergence": (2.0,)}, "convergence"),
        ({"layout": "files", "vr180_side": 512}, "vr180_side"),
        ({"layout": "files", "interaxial": (-0.1,)}, "interaxial"),
        ({"layout": "files", "interaxial": ()}, "interaxial"),
        ({"layout": "toe-in"}, "layout"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(values, named):
    with pytest.raises(RequestError, match=named):
        StereoSettings(**values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"stereo": StereoSettings("side-by-side", (0.1, 0.2, 0.3))}, "3 values"),
        ({"stereo": StereoSettings("files")}, "two takes"),
        ({"stereo": StereoSettings("side-by-side"), "engine": "wan"}, "wan"),
        ({"stereo": StereoSettings("side-by-side"), "render": RenderSettings(convention="reference")}, "reference"),
        ({"stereo": StereoSettings("side-by-side"), "camera": CAMERA.resized(5000, 400)}, "10000x400"),
    ],
)
def test_shots_that_cannot_be_taken_with_two_eyes_are_refused(values, named):
    with pytest.raises(RequestError, match=named):
        ShotRequest(**{"scene": "a" * 64, "camera": CAMERA, **values})


def test_an_eye_of_vr180_is_as_fine_as_the_camera_in_its_middle():
    side, _ = StereoSettings("vr180").eye_size(CAMERA)
    assert side / np.pi == pytest.approx(FOCAL, abs=1)  # pixels for a radian
    assert StereoSettings("vr180", vr180_side=2048).frame_size(CAMERA) == (4096, 2048)


def test_people_are_told_the_disparity_and_that_a_relative_scale_has_no_metres():
    stereo = StereoSettings("side-by-side", (0.064,), (2.0,))
    told = disparity_note(stereo, CAMERA, (1.0, 8.0), "relative")
    assert "+5.0 %" in told and "-3.8 %" in told and "relative" in told and " 16 of it" in told
    assert "relative" not in disparity_note(stereo, CAMERA, (1.0, 8.0), "metric")

"""Where a final take starts, the hidden frames before it, and the windows it is generated in."""

import numpy as np
import pytest

from ex4d_core.cameras import CameraPath, intrinsics_matrix, look_at
from ex4d_core.errors import RequestError
from ex4d_core.final_sizes import generated_frames, lead_in_cost, window_lengths, with_lead_in, working_size
from ex4d_core.lead_in import lead_in, source_view, start_distance
from ex4d_core.wan_settings import WanSettings, wan_preset

SOURCE = CameraPath(np.repeat(np.eye(4)[None], 30, axis=0), intrinsics_matrix(500, 500, 320, 180), 640, 360)
RANGE = (2.0, 8.0)


def looking_from(eye: tuple[float, float, float], width: int = 640, height: int = 360) -> CameraPath:
    """A camera that looks at (0, 0, 4), as wide as the source camera."""
    matrices = look_at(np.array([eye]), np.array([0.0, 0.0, 4.0]))
    return CameraPath(matrices, SOURCE.intrinsics[0], 640, 360).resized(width, height)


def test_the_source_view_is_where_nothing_moves_whatever_the_size():
    assert start_distance(SOURCE, SOURCE, RANGE) == 0
    assert start_distance(SOURCE, SOURCE.resized(1280, 720), RANGE) < 1e-9
    assert start_distance(SOURCE, SOURCE.resized(512, 512), RANGE) < 1e-9, "squashed as EX-4D squashes it"


def test_near_things_move_most():
    moved = looking_from((0.01, 0, 0))
    assert start_distance(SOURCE, moved, (2.0, 8.0)) > start_distance(SOURCE, moved, (3.9, 4.1)) > 0
    assert start_distance(SOURCE, looking_from((0, 0, 3.0)), RANGE) == np.inf, "something is behind the camera"


def test_another_aspect_cuts_the_footage_and_shows_nothing_beyond_it():
    square = CameraPath(SOURCE.world_to_camera, intrinsics_matrix(700, 700, 256, 256), 512, 512)
    view = source_view(SOURCE, square)
    corners = np.linalg.inv(view.intrinsics[0]) @ np.array([[0, 512, 0, 512], [0, 0, 512, 512], [1, 1, 1, 1]])
    seen = SOURCE.intrinsics[0] @ corners
    assert seen[:2].min() >= -1e-9 and seen[0].max() <= 640 and seen[1].max() == pytest.approx(360)
    assert view.intrinsics[0, 0, 0] == pytest.approx(view.intrinsics[0, 1, 1])


def test_a_lead_in_to_an_orbit_runs_along_it_slowly_at_both_ends():
    start = looking_from((4 * np.sin(1.0), 0, 4 - 4 * np.cos(1.0)))
    led = lead_in(SOURCE, start, range(20, 30), 8)
    assert np.allclose(led.camera.world_to_camera[0], np.eye(4)) and len(led.camera) == 8
    eyes = np.concatenate([led.camera.camera_to_world, start.camera_to_world])[:, :3, 3]
    assert np.allclose(np.linalg.norm(eyes - [0, 0, 4], axis=1), 4), "as far from the subject all along"
    steps = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    assert steps.min() > 0 and steps[0] < steps[3] / 2 and steps[-1] < steps[3] / 2


def test_a_lead_in_zooms_evenly_and_survives_half_a_turn():
    turned = CameraPath(np.diag([-1.0, 1, -1, 1])[None], intrinsics_matrix(2000, 2000, 320, 180), 640, 360)
    led = lead_in(SOURCE, turned, [0], 16)
    focal = led.camera.intrinsics[:, 0, 0]
    assert focal[0] == pytest.approx(500) and focal[8] == pytest.approx(1000)
    facing = led.camera.world_to_camera[8, 2, :3]
    assert abs(facing[2]) < 1e-9, "half way of half a turn it looks sideways"


@pytest.mark.parametrize(
    ("shown", "times"),
    [
        (range(20, 24), (12, 13, 14, 15, 16, 17, 18, 19)),
        (range(2, 6), (0, 0, 0, 0, 0, 0, 0, 1)),
        ((9, 8, 7), (17, 16, 15, 14, 13, 12, 11, 10)),
        ((5, 5, 6), (5,) * 8),
        ((20, 22), (4, 6, 8, 10, 12, 14, 16, 18)),
        ((3,), (3,) * 8),
    ],
)
def test_time_runs_as_at_the_shots_start_and_stands_still_where_the_footage_ends(shown, times):
    assert lead_in(SOURCE, looking_from((1, 0, 0)), shown, 8).source_frames == times


# Windows.


@pytest.mark.parametrize(
    ("frames", "lengths"), [(1, [1]), (49, [49]), (50, [33, 26]), (90, [37, 37, 34]), (200, [49, 49, 49, 45, 44])]
)
def test_windows_are_about_equally_long(frames, lengths):
    assert window_lengths(frames, wan_preset("standard")) == lengths


def test_ex4ds_own_windows_stay_as_they_are():
    assert window_lengths(50, wan_preset("ex4d-reference")) == [49, 10]
    assert window_lengths(200, wan_preset("ex4d-reference")) == [49, 49, 49, 49, 40]


@pytest.mark.parametrize(("window", "overlap"), [(49, 9), (81, 13), (9, 5), (5, 1), (81, 77)])
def test_balanced_windows_cover_every_frame(window, overlap):
    for frames in range(1, 300):
        settings = WanSettings(conditioning="known", window=window, overlap=overlap)
        lengths = window_lengths(frames, settings)
        assert lengths[0] + sum(length - overlap for length in lengths[1:]) == frames
        assert all(length % 4 == 1 and length <= window for length in lengths[:-1])
        assert all(overlap < length <= window for length in lengths[1:])
        assert len(lengths) <= len(window_lengths(frames, WanSettings(window=window, overlap=overlap)))


def test_a_lead_in_makes_the_window_longer_rather_than_a_second_one():
    standard = wan_preset("standard")
    assert with_lead_in(standard, 49, 8).window == 57
    assert lead_in_cost(standard, 49, 8) == pytest.approx(15 / 13 - 1)
    assert with_lead_in(standard, 50, 8) == standard, "it has two windows anyway"
    assert with_lead_in(standard, 49, 0) == standard
    quality = wan_preset("quality")
    assert with_lead_in(quality, 81, 12) == quality and len(window_lengths(93, quality)) == 2


def test_pixels_that_are_not_square_are_generated_square():
    assert working_size(1440, 1080, 0, 4 / 3) == (1663, 935)
    assert working_size(1440, 1080, 512 * 512, 4 / 3) == (683, 384)
    assert working_size(512, 512, 512 * 512) == (512, 512)


def test_strided_shots_have_their_last_frame():
    assert [generated_frames(frames, 2) for frames in (1, 2, 3, 4, 49)] == [1, 2, 2, 3, 25]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 85, "conditioning": "known"}, "window must be at most 81 frames.* not 85"),
        ({"lead_in": 5}, "lead_in must be one of 0, 8, 12, 16 frames, not 5"),
        ({"lead_in": 20}, "lead_in must be a whole number from 0 to 16"),
        ({"stride": 0}, "stride must be a whole number from 1 to 4"),
        ({"erosion_seed": -1}, "erosion_seed must be a whole number"),
        ({"conditioning": "all"}, "conditioning must be one of original, known"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(RequestError, match=message):
        WanSettings(**changes)

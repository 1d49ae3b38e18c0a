"""Frames of the footage in any order: their text form, the rounding of a curve, and what requests make of them."""

from __future__ import annotations

import numpy as np
import pytest

from ex4d_core.errors import RequestError
from ex4d_core.shot import ShotRequest
from ex4d_core.source_frames import key_positions, nearest_frames, source_frames_from, to_text

from .test_shot import over_the_wire, request

FREEZE = (2, 2, 2, 1, 0)


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("7", (7,)),
        ("0-3", (0, 1, 2, 3)),
        ("3-0", (3, 2, 1, 0)),
        ("4*3", (4, 4, 4)),
        ("0-2,2*2,1-0", (0, 1, 2, 2, 2, 1, 0)),
        ("0*2,1*2,9", (0, 0, 1, 1, 9)),
    ],
)
def test_text_and_numbers_say_the_same(text, frames):
    assert source_frames_from(text) == source_frames_from(frames) == frames
    assert source_frames_from(to_text(frames)) == frames
    places = key_positions(frames)
    assert np.interp(np.arange(len(frames)), places, [frames[one] for one in places]).tolist() == list(frames)


@pytest.mark.parametrize(
    "values",
    ["", "1,", "-1", "1.5", "0-", "3*0", "0-999999", "100000", "0-99999,1", [0, -1], [1.5], [True], [], b"0", 5],
)
def test_what_cannot_be_frames_is_refused_in_words(values):
    with pytest.raises(RequestError, match="source_frames"):
        source_frames_from(values)


def test_a_curve_shows_the_nearest_frames_halves_the_later_one_and_stays_within_the_footage():
    times = np.float32([-3, -0.5, 0.49, 0.5, 1.4999999, 1.5, 2.5, 3.2, 7])
    assert nearest_frames(times, 4) == (0, 0, 0, 1, 2, 2, 3, 3, 3)
    half = np.float32(np.arange(100) * 0.5)
    assert [nearest_frames(half, 100).count(frame) for frame in range(1, 49)] == [2] * 48


def test_a_request_has_its_frames_on_the_other_side_and_in_its_parts():
    sent = request(first_frame=0, source_frames="2*3,1-0")
    received = over_the_wire(sent.to_wire())
    assert received.source_frames == received.footage_frames == FREEZE
    assert sent.to_wire()["source_frames"] == "2*3,1-0"
    assert received.part(1, 4).footage_frames == (2, 2, 1)
    assert list(received.part(2, 3).footage_frames) == [2]
    received.require_footage(3)
    with pytest.raises(RequestError, match="frame 2, but the scene has 2"):
        received.require_footage(2)


def test_consecutive_frames_are_an_ordinary_request_which_older_services_understand():
    ordinary, named = request(first_frame=3), request(first_frame=0, source_frames=range(3, 8))
    assert named.first_frame == 3 and named.source_frames is None and list(named.footage_frames) == [3, 4, 5, 6, 7]
    assert named.to_wire() == ordinary.to_wire() and "source_frames" not in ordinary.to_wire()


@pytest.mark.parametrize("changes", [{"source_frames": FREEZE[:4]}, {"source_frames": FREEZE, "first_frame": 1}])
def test_frames_that_do_not_go_with_the_camera_are_refused(changes):
    with pytest.raises(RequestError, match="source_frames"):
        request(**{"first_frame": 0, **changes})


def test_a_shot_of_the_largest_length_stays_within_a_message():
    frames = np.random.default_rng(1).integers(0, 100_000, 100_000).tolist()
    text = to_text(frames)
    assert len(text) < 1_000_000 and source_frames_from(text) == tuple(frames)
    assert ShotRequest.__dataclass_fields__["source_frames"].default is None

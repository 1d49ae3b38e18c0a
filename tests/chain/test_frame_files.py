"""Frames of a take are written by other threads: in order, complete, and with the errors of writing them in turn."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ex4d.generation import EngineState
from ex4d.media import MediaError, read_png, read_png_metadata
from ex4d.pipeline.frame_files import FrameFiles, StateAfterFrames
from ex4d_core.errors import Ex4dError


def image(side: int, value: int = 0) -> np.ndarray:
    return np.random.default_rng(value).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_frames_are_delivered_complete_and_in_order(tmp_path):
    """Also where the first is the largest, and so complete after those that follow it."""
    images = [image(1200), *(image(8, value) for value in range(1, 40))]
    delivered = []

    def deliver(index: int, path: Path) -> None:
        assert np.array_equal(read_png(path), images[index])
        assert read_png_metadata(path) == {"title": "dusk"}
        delivered.append(index)

    with FrameFiles(deliver, {"title": "dusk"}) as files:
        for index, one in enumerate(images):
            files.write(index, tmp_path / f"{index}.png", one)
        files.deliver_all()
    assert delivered == list(range(40))


def test_a_cancel_stops_the_frames_that_follow(tmp_path):
    """A sink raises where the job is no longer this worker's."""
    delivered = []

    def deliver(index: int, path: Path) -> None:
        if index == 2:
            raise Ex4dError("the claim is lost")
        delivered.append(index)

    with pytest.raises(Ex4dError, match="claim is lost"), FrameFiles(deliver, {}) as files:
        for index in range(100):
            files.write(index, tmp_path / f"{index}.png", image(8))
        files.deliver_all()
    assert delivered == [0, 1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's always-full device")
def test_a_full_disk_is_an_error_after_the_frames_before_it(tmp_path):
    delivered = []
    (tmp_path / "3.png").symlink_to("/dev/full")
    full = pytest.raises(MediaError, match=r"3.png: the disk is full")
    with full, FrameFiles(lambda index, path: delivered.append(index), {}) as files:
        for index in range(6):
            files.write(index, tmp_path / f"{index}.png", image(64))
        files.deliver_all()
    assert delivered == [0, 1, 2]


def test_a_state_is_never_ahead_of_the_frames(tmp_path):
    """A take that is resumed continues from the state only where all frames before it are there."""
    state, delivered = EngineState(tmp_path / "state"), []

    def deliver(index: int, path: Path) -> None:
        assert not state.load()
        delivered.append(index)

    with FrameFiles(deliver, {}) as files:
        for index in range(3):
            files.write(index, tmp_path / f"{index}.png", image(600))
        StateAfterFrames(state, files).save({"frames": 3})
        assert delivered == [0, 1, 2] and state.load() == {"frames": 3}


def test_an_error_of_the_engine_leaves_the_frames_before_it(tmp_path):
    delivered = []
    failing = pytest.raises(RuntimeError, match="NaN in window 2")
    with failing, FrameFiles(lambda index, path: delivered.append(index), {}) as files:
        for index in range(3):
            files.write(index, tmp_path / f"{index}.png", image(600))
        raise RuntimeError("NaN in window 2")
    assert delivered == [0, 1, 2]

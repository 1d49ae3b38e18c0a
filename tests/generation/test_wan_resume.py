"""A shot of the engine wan that was interrupted continues at its last complete window, to the same frames."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

import ex4d
from ex4d.generation import EngineState
from ex4d.generation.wan.wan_engine import create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.media import read_png
from ex4d_core.wan_settings import wan_preset
from tests.generation.small_shots import FEW, shot

# 13 frames: windows of 5 that start from 1 of the one before, so new frames 0-4, 5-8, 9-12; the size is halved, so that
# frames on disk are not what the next window starts from.
WINDOWS = {**FEW, "window": 5, "overlap": 1, "max_pixels": 64 * 64}
FRAMES = shot(13, 96, 64)


@pytest.fixture
def generate(toy_models, tmp_path):
    """Generates from frame `done` on, stops after `stop` frames; returns them and the windows that were denoised."""
    engine = create_wan_engine(wan_preset("ex4d-reference", **WINDOWS), "cpu", MachineSettings(toy_models))
    state = EngineState(tmp_path / "engine.pt")

    def run(done: int = 0, stop: int | None = None) -> tuple[list[np.ndarray], set[int]]:
        steps = []
        frames = engine.generate(FRAMES, count=13, on_progress=steps.append, done=done, state=state)
        made = list(islice(frames, stop))
        frames.close()
        return made, {(step.done - 1) // FEW["steps"] for step in steps if step.stage == "denoise"}

    run.state = state
    return run


@pytest.mark.parametrize(
    ("interrupted", "windows"),
    [(3, {0, 1, 2}), (5, {0, 1, 2}), (6, {1, 2}), (8, {1, 2}), (11, {2})],
    ids=lambda value: f"{value}",
)
def test_frames_after_an_interruption_are_the_same_and_complete_windows_are_not_made_again(
    generate, interrupted, windows
):
    whole, all_windows = generate()
    assert all_windows == {0, 1, 2} and len(whole) == 13
    generate.state.path.unlink()
    first, _ = generate(stop=interrupted)
    rest, again = generate(done=interrupted)
    assert again == windows
    assert np.array_equal(whole, [*first, *rest])


def test_without_its_state_the_frames_are_still_the_same(generate):
    """A damaged state, or one that is ahead of the frames that are left."""
    whole, _ = generate()
    rest, again = generate(done=3)  # the state is that of all 13 frames
    assert again == {0, 1, 2} and np.array_equal(rest, whole[3:])
    generate.state.path.write_bytes(b"damaged")
    rest, again = generate(done=9)
    assert again == {0, 1, 2} and np.array_equal(rest, whole[9:])


def test_an_interrupted_take_is_resumed_window_by_window(toy_models, small_scene, tmp_path, monkeypatch):
    monkeypatch.setenv("EX4D_MODELS", str(toy_models))
    scene = ex4d.open_scene(small_scene.folder)
    settings = {"engine": "wan", "device": "cpu", **WINDOWS}
    whole = ex4d.generate(scene, ex4d.orbit(20), tmp_path / "whole", **settings)

    def interrupt(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("wan", 6):
            raise KeyboardInterrupt

    take = tmp_path / "take"
    with pytest.raises(KeyboardInterrupt):
        ex4d.generate(scene, ex4d.orbit(20), take, progress=interrupt, **settings)
    (take / "frame_00005.png").unlink()
    denoised = []

    def count(stage: str, done: int, total: int) -> None:
        if stage == "denoise (float32)":  # without the part of a step
            denoised.append(done)

    resumed = ex4d.generate(scene, ex4d.orbit(20), take, progress=count, resume=True, **settings)
    assert denoised == [3, 4], "the second window's steps alone"
    assert np.array_equal(resumed.frames, whole.frames)
    for name in ("take.mp4", "color.mp4", "mask.mp4"):
        assert (take / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {path.name for path in take.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    assert read_png(take / "estimate.png").shape[2] == 3

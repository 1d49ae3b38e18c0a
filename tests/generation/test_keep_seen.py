"""The seen stays seen: the footage's own pixels over generated ones, through a matte that follows the mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ex4d
from ex4d.media import read_png, read_png_metadata
from ex4d.pipeline.keep_seen import (
    FootageKeeper,
    gains_of_frame,
    laid_over,
    seam_gains,
    seen_matte,
    steady_gains,
)
from ex4d.raster import RenderedFrame

WIDTH, HEIGHT = 160, 120
RAMP = np.broadcast_to(np.linspace(60, 180, WIDTH)[None, :, None], (HEIGHT, WIDTH, 3)).astype(np.uint8)


def alpha_with_hole(left: int = 60, right: int = 100) -> np.ndarray:
    """All seen but a strip from top to bottom, with a soft edge of one pixel on each side."""
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, left:right] = 0
    alpha[:, [left - 1, right]] = 128
    return alpha


def test_the_matte_lies_within_what_was_seen_and_rises_smoothly():
    matte = seen_matte(alpha_with_hole())
    assert not matte[:, 60:100].any() and (matte[:, [59, 100]] < 0.1).all(), "hardly where a pixel was seen in part"
    assert (matte[:, :50] == 1).all() and (matte[:, 112:] == 1).all(), "up to the frame's own edges"
    row = matte[60, 50:60]
    assert (np.diff(row) <= 0).all() and ((row > 0) & (row < 1)).sum() >= 2
    assert (seen_matte(np.full((HEIGHT, WIDTH), 255, np.uint8)) == 1).all()
    assert not seen_matte(np.zeros((HEIGHT, WIDTH), np.uint8)).any()


def test_cracks_show_the_generated_picture_in_their_own_pixels_alone():
    alpha = alpha_with_hole(60, 62)
    matte = seen_matte(alpha)
    assert not matte[:, 60:62].any() and (matte[:, :59] == 1).all() and (matte[:, 63:] == 1).all()
    assert matte[:, 59] == pytest.approx(128 / 255)


def test_the_matte_moves_with_the_mask_and_grows_with_the_frame():
    moved = seen_matte(np.roll(alpha_with_hole(), 7, axis=1))
    assert np.allclose(moved[:, 20:150], np.roll(seen_matte(alpha_with_hole()), 7, axis=1)[:, 20:150])
    large = seen_matte(np.kron(alpha_with_hole(), np.ones((8, 8), np.uint8)))
    widths = [((one > 0) & (one < 1)).sum(axis=1).max() for one in (moved, large)]
    assert widths[1] > 3 * widths[0]


def test_colours_are_matched_where_both_show_and_footage_is_exact():
    matte = seen_matte(alpha_with_hole())
    made = (RAMP * np.array([0.9, 1.1, 1.0])).astype(np.uint8)
    made[:, 70:90] = 0  # what is new has any colour
    gains = seam_gains(made, RAMP, matte)
    assert np.allclose(gains, [1 / 0.9, 1 / 1.1, 1.0], atol=0.02)
    image = laid_over(made, RAMP, matte, gains)
    assert np.array_equal(image[matte == 1], RAMP[matte == 1])
    seam = (matte > 0) & (matte < 1)
    assert np.abs(image[seam].astype(int) - RAMP[seam]).max() <= 2
    assert np.abs(laid_over(made, RAMP, matte, (1.0, 1.0, 1.0))[:, 58].astype(int) - RAMP[:, 58]).max() > 5


def test_gains_are_bounded_steady_and_kept_where_there_is_no_seam():
    matte = seen_matte(alpha_with_hole())
    assert max(seam_gains(RAMP // 4, RAMP, matte)) == 1.25
    assert seam_gains(RAMP, RAMP, np.ones_like(matte)) is None
    before = (1.1, 1.0, 0.9)
    assert steady_gains(None, before) == before and steady_gains(None, None) == (1.0, 1.0, 1.0)
    assert steady_gains(before, None) == before
    jumped = steady_gains((1.2, 1.0, 0.9), before)
    assert 1.1 < jumped[0] < 1.13 and jumped[1:] == pytest.approx(before[1:])
    assert gains_of_frame({"ex4d_gains": "1.1,1.0,0.9"}) == before
    for damaged in ({}, {"ex4d_gains": "1.1"}, {"ex4d_gains": "1,nan,1"}, {"ex4d_gains": "9,1,1"}):
        assert gains_of_frame(damaged) is None


def test_frames_in_between_have_their_own_footage_and_no_more_gain():
    alpha, depth = alpha_with_hole(), np.ones((HEIGHT, WIDTH), np.float32)
    frames = [
        RenderedFrame(index, RAMP + index, alpha == 255, depth, alpha=alpha) for index in range(5)
    ]  # two hidden ones before three
    keeper = FootageKeeper()
    assert len(list(keeper.watch(frames, 2))) == 5
    made = [(RAMP * 0.9).astype(np.uint8)] * 2
    first, last = keeper.over_generated(made, [0, 2])
    matte = seen_matte(alpha)
    finished = [keeper.finish(place, image) for place, image in enumerate((first, first, last))]
    assert [bool(metadata) for _, metadata in finished] == [True, False, True]
    for place, (image, _) in enumerate(finished):
        assert np.array_equal(image[matte == 1], (RAMP + 2 + place)[matte == 1])
    assert np.array_equal(finished[1][0][:, 70:90], first[:, 70:90])


QUICK = {"engine": "wan", "device": "cpu", "steps": 1, "guidance": 1.0, "precision": "float32", "lead_in": 0}


@pytest.fixture
def take(toy_models, small_scene, tmp_path, monkeypatch):
    """Makes a take of the small scene; returns its folder."""
    monkeypatch.setenv("EX4D_MODELS", str(toy_models))
    scene = ex4d.open_scene(small_scene.folder)

    def make(name: str, **settings) -> Path:
        how = {"preset": "draft", "tea_cache": 0.0, "fp8_attention": False, **QUICK, **settings}
        ex4d.generate(scene, ex4d.orbit(20), tmp_path / name, **how)
        return tmp_path / name

    return make


def frames_of(folder: Path) -> np.ndarray:
    return np.array([read_png(path) for path in sorted(folder.glob("frame_*.png"))])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_take_shows_the_footages_pixels_and_continues_after_an_interruption(take, stride):
    pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")
    how = {"window": 5, "overlap": 1, "stride": stride, "max_pixels": 64 * 64}
    plain, kept = frames_of(take("plain", **how)), take("kept", keep_seen=True, **how)
    assert json.loads((kept / "request.json").read_text())["wan"]["keep_seen"] is True
    images = frames_of(kept)
    assert (images != plain).any(axis=(1, 2, 3)).all()
    assert "ex4d_gains" in read_png_metadata(kept / "frame_00000.png")

    def interrupt(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("wan", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take("part", keep_seen=True, progress=interrupt, **how)
    assert np.array_equal(frames_of(take("part", keep_seen=True, resume=True, **how)), images)

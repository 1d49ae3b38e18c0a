"""The preview engine: seen pixels stay unchanged, the rest is filled smoothly from the background."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ex4d.generation import PreviewEngine
from ex4d.generation.far_sides import far_side_weights
from ex4d.generation.preview import REMEMBERED_COLOR, HoleFiller
from ex4d.raster import RenderedFrame
from ex4d_core.shot import PreviewSettings

HEIGHT, WIDTH = 60, 90


def frame(index: int = 0, hole: tuple[slice, slice] = (slice(20, 40), slice(30, 60))) -> RenderedFrame:
    """A horizontal ramp from dark to light at depth 5, with a hole."""
    ramp = np.linspace(40, 200, WIDTH)
    color = np.broadcast_to(ramp[None, :, None], (HEIGHT, WIDTH, 3)).astype(np.uint8)
    mask = np.ones((HEIGHT, WIDTH), bool)
    mask[hole] = False
    return RenderedFrame(index, color * mask[..., None], mask, np.full((HEIGHT, WIDTH), 5.0, np.float32))


def preview(*frames: RenderedFrame, **settings) -> list[np.ndarray]:
    return list(PreviewEngine(PreviewSettings(**settings)).generate(frames))


def test_seen_pixels_are_passed_on_untouched():
    shown = frame()
    for settings in ({"holes": "fill"}, {"holes": "mark"}):
        (image,) = preview(shown, **settings)
        assert np.array_equal(image[shown.mask], shown.color[shown.mask])


def test_marked_holes_have_the_artists_colour():
    shown = frame()
    (image,) = preview(shown, holes="mark", hole_color=(10, 250, 30))
    assert (image[~shown.mask] == (10, 250, 30)).all()


def test_filled_holes_continue_their_surroundings_smoothly():
    shown = frame()
    (image,) = preview(shown)
    truth = np.broadcast_to(np.linspace(40, 200, WIDTH)[None, :, None], image.shape)
    assert np.abs(image[~shown.mask] - truth[~shown.mask]).max() < 45
    assert np.abs(np.diff(image[30].astype(int), axis=0)).max() < 25


def test_what_a_moved_subject_uncovers_is_filled_with_background():
    color = np.full((HEIGHT, WIDTH, 3), (30, 60, 30), np.uint8)
    depth = np.full((HEIGHT, WIDTH), 8.0, np.float32)
    mask = np.ones((HEIGHT, WIDTH), bool)
    color[:, 30:50], depth[:, 30:50] = (250, 240, 20), 2.0
    mask[:, 50:60] = False
    (image,) = preview(RenderedFrame(0, color * mask[..., None], mask, depth))
    filled = image[:, 52:60].reshape(-1, 3).mean(axis=0)
    assert filled[0] < 80, "the yellow foreground must not bleed into what it uncovered"


def test_a_hole_does_not_flicker_with_its_rim():
    rng = np.random.default_rng(1)

    def noisy(index: int) -> RenderedFrame:
        shown = frame(index, (slice(5, 55), slice(10, 80)))
        noise = rng.integers(-40, 40, shown.color.shape)
        return RenderedFrame(index, (shown.color + noise).clip(0, 255).astype(np.uint8), shown.mask, shown.depth)

    frames = [noisy(index) for index in range(12)]
    steady = np.array(preview(*frames), dtype=float)[:, 25:35, 40:50]
    single = np.array([preview(one)[0] for one in frames], dtype=float)[:, 25:35, 40:50]
    assert np.abs(np.diff(steady[4:], axis=0)).mean() < 0.6 * np.abs(np.diff(single[4:], axis=0)).mean()


def test_the_previous_frame_leaves_no_ghost():
    """Pixels that were seen where there is a hole now leave no trace there."""
    bright = RenderedFrame(
        0, np.full((64, 64, 3), 250, np.uint8), np.ones((64, 64), bool), np.full((64, 64), 5.0, np.float32)
    )
    color, mask = np.full((64, 64, 3), 20, np.uint8), np.ones((64, 64), bool)
    mask[16:48, 16:48] = False
    dark = RenderedFrame(1, color * mask[..., None], mask, bright.depth)
    assert preview(bright, dark)[1].max() <= 21


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (33, 2), (61, 127)])
def test_odd_sizes_and_frames_without_seen_pixels(size):
    color, mask, depth = np.zeros((*size, 3), np.uint8), np.zeros(size, bool), np.full(size, np.inf, np.float32)
    nothing = HoleFiller().fill_frame(RenderedFrame(0, color, mask, depth))
    assert nothing.shape == (*size, 3)
    assert (nothing == nothing[0, 0]).all()


def test_the_same_frames_give_the_same_images():
    frames = [frame(index, (slice(10 + index, 40), slice(20, 60 + index))) for index in range(4)]
    assert all(np.array_equal(one, two) for one, two in zip(preview(*frames), preview(*frames), strict=True))


def _sliding_scene() -> RenderedFrame:
    """A near yellow thing slid to the left along a blue wall at a middle depth; others are nearer and farther."""
    color, depth = np.full((HEIGHT, WIDTH, 3), (30, 60, 160), np.uint8), np.full((HEIGHT, WIDTH), 5.0, np.float32)
    mask = np.ones((HEIGHT, WIDTH), bool)
    depth[:12], depth[-4:, :8] = 50.0, 1.0
    color[20:50, 42:50], depth[20:50, 42:50] = (250, 240, 20), 4.0
    mask[20:50, 50:64] = False
    return RenderedFrame(0, color * mask[..., None], mask, depth, np.array([1.0, 0.0, 0.0]))


def test_near_things_do_not_glow_into_the_hole_that_they_left():
    shown = _sliding_scene()
    yellow, without = (
        np.abs(preview(one)[0][22:48, 51:63].astype(float) - (30, 60, 160)).max()
        for one in (shown, replace(shown, source_centre=None))
    )
    assert yellow < 40 and yellow < without / 2, "in the depth range of the whole frame both are near"


def test_nothing_slid_across_the_cameras_path():
    """The sky above a hole is farther than the wall beside it, and is no reason to leave the wall out."""
    shown = _sliding_scene()
    weights = far_side_weights(torch.from_numpy(shown.mask), torch.from_numpy(shown.depth), shown.source_centre)
    assert weights[30, 70] == 1 and weights[30, 45] < 0.01
    turned = far_side_weights(torch.from_numpy(shown.mask), torch.from_numpy(shown.depth), np.zeros(3))
    assert (turned == 1).all(), "a camera that only turns slides nothing"


def test_a_soft_edge_blends_what_was_seen_with_what_fills_the_rest():
    """No rim: each pixel lies between the two, by its share, for a bright subject and for a dark one."""
    for subject, background in ((240, 40), (20, 200)):
        color = np.full((HEIGHT, WIDTH, 3), background, np.uint8)
        depth = np.full((HEIGHT, WIDTH), 8.0, np.float32)
        alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
        color[:, 30:45], depth[:, 30:45] = subject, 2.0
        alpha[:, 43], alpha[:, 44], alpha[:, 45:55] = 200, 57, 0
        color[alpha == 0] = 0
        shown = RenderedFrame(0, color, alpha >= 128, depth, alpha=alpha)
        (image,) = preview(shown)
        columns = image[HEIGHT // 2, :, 0].astype(float)
        assert columns[42] == subject and columns[60] == background
        filled = columns[45]
        assert abs(filled - background) < 25, "the hole is filled from the background"
        for column, share in ((43, 200 / 255), (44, 57 / 255)):
            assert columns[column] == pytest.approx(share * subject + (1 - share) * filled, abs=20)
        assert (image.min(), image.max()) == (min(subject, background), max(subject, background))


def test_marked_holes_show_through_soft_edges():
    shown = frame()
    alpha = shown.mask.astype(np.uint8) * 255
    alpha[20, 30:60] = 102
    color = shown.color.copy()
    color[20, 30:60] = 100
    (image,) = preview(
        RenderedFrame(0, color, alpha >= 128, shown.depth, alpha=alpha), holes="mark", hole_color=(200, 0, 50)
    )
    assert np.abs(image[20, 30:60].astype(int) - (160, 40, 70)).max() <= 1


@pytest.mark.parametrize("holes", ["fill", "mark"])
def test_what_is_remembered_needs_no_filling(holes):
    """All of a remembered pixel has its colour, even where a part was seen; where holes are marked, with a tint."""
    shown = frame()
    alpha = shown.mask.astype(np.uint8) * 255
    alpha[20, 30:60] = 102
    remembered = np.zeros((HEIGHT, WIDTH), bool)
    remembered[20:30, 30:60] = True
    color = np.where(remembered[..., None], np.array([10, 220, 130], np.uint8), shown.color)
    known = RenderedFrame(0, color, shown.mask, shown.depth, alpha=alpha, remembered=remembered)
    (image,) = preview(known, holes=holes, hole_color=(200, 0, 50))
    tinted = np.array([10, 220, 130]) // 2 + np.array(REMEMBERED_COLOR) // 2
    assert (image[remembered] == ([10, 220, 130] if holes == "fill" else tinted)).all()
    np.testing.assert_array_equal(image[shown.mask], shown.color[shown.mask])
    if holes == "mark":
        assert (image[30:40, 30:60] == (200, 0, 50)).all()

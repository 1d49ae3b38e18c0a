"""Per-image depth made steady: flicker goes, motion and edges stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ex4d.depth.motion import motion_between, working_picture
from ex4d.depth.temporal_alignment import Steadier, flicker, robust_scale_and_shift
from tests.depth.conftest import moving_picture

WIDTH, HEIGHT, FRAMES = 96, 64, 9


def true_depth(index: int) -> np.ndarray:
    """The square of `moving_picture` at depth 2 before a tilted wall."""
    depth = np.broadcast_to(np.linspace(5, 8, HEIGHT, dtype=np.float32)[:, None], (HEIGHT, WIDTH)).copy()
    left, size = WIDTH // 5 + index, HEIGHT // 3
    depth[size : 2 * size, left : left + size] = 2
    return depth


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, np.ndarray]:
    pictures = np.stack([moving_picture(index, WIDTH, HEIGHT) for index in range(FRAMES)])
    return pictures, np.stack([true_depth(index) for index in range(FRAMES)])


def as_tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255


def steadied(pictures: np.ndarray, depth: np.ndarray, offset: bool = True) -> np.ndarray:
    steadier = Steadier(offset)
    pairs = [(as_tensor(picture), 1 / torch.from_numpy(z)) for picture, z in zip(pictures, depth, strict=True)]
    for pair in pairs:
        steadier.look(*pair)
    return np.stack([1 / steadier.steady(*pair).numpy() for pair in pairs])


def flickering(depth: np.ndarray, share: float, with_shift: bool = True) -> np.ndarray:
    random = np.random.default_rng(0)
    scale = 1 + share * random.standard_normal((FRAMES, 1, 1))
    shift = 0.15 * share * random.standard_normal((FRAMES, 1, 1)) * with_shift
    return (1 / (scale / depth + shift)).astype(np.float32)


def test_motion_follows_what_moves():
    pictures = [working_picture(as_tensor(moving_picture(index, 160, 96))) for index in (0, 4)]
    motion = motion_between(*pictures)
    inside = motion.offset[:, 40:56, 42:58].mean(dim=(1, 2))
    assert inside.tolist() == pytest.approx([-4, 0], abs=0.7)
    assert motion.trusted[40:56, 42:58].float().mean() > 0.7
    assert motion.offset[:, 5:20, 100:150].abs().mean() < 0.3


def test_flicker_is_measured(clip):
    pictures, depth = clip
    assert flicker(pictures, depth) < 0.003
    assert flicker(pictures, flickering(depth, 0.05)) > 0.03
    assert flicker(pictures[:1], depth[:1]) == 0


@pytest.fixture(scope="module")
def flickers(clip) -> tuple[np.ndarray, np.ndarray]:
    """Depth that flickers by five per cent, as it is and steadied."""
    pictures, depth = clip
    spoilt = flickering(depth, 0.05)
    return spoilt, steadied(pictures, spoilt)


def test_steadying_takes_flicker_out_and_leaves_the_depth(clip, flickers):
    (pictures, depth), (spoilt, repaired) = clip, flickers
    before, after = flicker(pictures, spoilt), flicker(pictures, repaired)
    print(f"flicker {before:.2%} a frame, steadied {after:.2%}")
    assert after < before / 5
    # The whole clip is in one scale, the average of its frames'.
    average = np.exp(np.mean([np.median(np.log(frame / true)) for frame, true in zip(spoilt, depth, strict=True)]))
    error = np.abs(np.log(repaired / (depth * average)))
    assert np.median(error) < 0.03


def test_metric_depth_changes_by_a_factor_only(clip):
    pictures, depth = clip
    spoilt = flickering(depth, 0.05, with_shift=False)
    repaired = steadied(pictures, spoilt, offset=False)
    assert flicker(pictures, repaired) < flicker(pictures, spoilt) / 5


def test_edges_stay_where_they_are(clip, flickers):
    (_, depth), (_, repaired) = clip, flickers
    edge = np.abs(np.diff(np.log(repaired[-1]), axis=1)).max(axis=1)[HEIGHT // 3 + 2 : 2 * HEIGHT // 3 - 2]
    true = np.abs(np.diff(np.log(depth[-1]), axis=1)).max(axis=1)[HEIGHT // 3 + 2 : 2 * HEIGHT // 3 - 2]
    assert (edge > 0.9 * true).mean() > 0.9


def test_steady_depth_is_left_alone(clip):
    pictures, depth = clip
    assert np.abs(np.log(steadied(pictures, depth) / depth)).mean() < 0.01


def test_what_a_moving_camera_truly_changes_stays():
    """A camera that travels towards a wall and a square before it: depths shrink by a third, and flicker besides."""
    frames, random = 16, np.random.default_rng(5)
    y, x = np.mgrid[:HEIGHT, :WIDTH] - np.array([HEIGHT, WIDTH])[:, None, None] / 2
    pictures, depth = [], []
    for gone in np.linspace(0, 2, frames):
        near, far = 4 - gone, 8 - gone
        square = np.maximum(abs(x), abs(y)) * near < 60
        place = np.where(square, near, far)
        tone = np.sin(x * place / 14) * np.cos(y * place / 11)
        pictures.append(np.stack([np.where(square, 190 + 50 * tone, 80 + 40 * tone) * c for c in (1, 0.9, 0.6)], 2))
        depth.append(place)
    pictures, depth = np.stack(pictures).clip(0, 255).astype(np.uint8), np.stack(depth).astype(np.float32)
    spoilt = (depth * np.exp(0.05 * random.standard_normal((frames, 1, 1)))).astype(np.float32)
    repaired = steadied(pictures, spoilt, offset=False)

    def wrong(found: np.ndarray) -> np.ndarray:
        """Error of each frame's scale, apart from the whole clip's."""
        error = np.median(np.log(found / depth), axis=(1, 2))
        return error - error.mean()

    print(f"scale off by {wrong(spoilt).std():.1%}, steadied {wrong(repaired).std():.1%}")
    assert wrong(repaired).std() < 0.5 * wrong(spoilt).std()
    assert abs(np.diff(wrong(repaired))).mean() < 0.3 * abs(np.diff(wrong(spoilt))).mean()
    kept = np.log(repaired[-1, 0, 0] / repaired[0, 0, 0]) / np.log(depth[-1, 0, 0] / depth[0, 0, 0])
    assert 0.75 < kept < 1.25, "the wall has come nearer by as much as it did"


def test_nothing_is_carried_over_a_cut(clip):
    pictures, depth = clip
    steadier = Steadier(offset=True)
    before, after = 1 / torch.from_numpy(depth[0]), 3 / torch.from_numpy(depth[1])
    steadier.look(as_tensor(pictures[0]), before)
    steadier.look(as_tensor(pictures[1]), after, is_cut=True)
    assert torch.equal(steadier.steady(as_tensor(pictures[0]), before), before)
    assert torch.equal(steadier.steady(as_tensor(pictures[1]), after), after)


def test_few_wrong_values_do_not_matter():
    x = torch.linspace(1, 2, 200)
    y = 1.5 * x + 0.2
    y[::5] += 3
    assert robust_scale_and_shift(x, y, True) == pytest.approx((1.5, 0.2), abs=0.02)
    assert robust_scale_and_shift(x, 1.5 * x, False) == pytest.approx((1.5, 0))
    assert robust_scale_and_shift(torch.ones(9), torch.full((9,), 2.0), True) == (1.0, 1.0)

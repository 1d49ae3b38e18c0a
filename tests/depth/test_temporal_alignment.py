"""Per-image depth aligned over time: flicker goes, motion and edges stay."""

from __future__ import annotations

import tracemalloc
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.depth.depth_files import DepthFiles
from ex4d.depth.frame_store import FrameStore
from ex4d.depth.motion import motion_between, working_image
from ex4d.depth.temporal_alignment import TemporalAligner, flicker, robust_scale_and_shift
from ex4d.media import probe, read_frames
from tests.depth.conftest import moving_image

DATA = Path(__file__).resolve().parents[1] / "data"

WIDTH, HEIGHT, FRAMES = 96, 64, 9


def true_depth(index: int) -> np.ndarray:
    """The square of `moving_image` at depth 2 before a tilted wall."""
    depth = np.broadcast_to(np.linspace(5, 8, HEIGHT, dtype=np.float32)[:, None], (HEIGHT, WIDTH)).copy()
    left, size = WIDTH // 5 + index, HEIGHT // 3
    depth[size : 2 * size, left : left + size] = 2
    return depth


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([moving_image(index, WIDTH, HEIGHT) for index in range(FRAMES)])
    return images, np.stack([true_depth(index) for index in range(FRAMES)])


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def aligned(images: np.ndarray, depth: np.ndarray, with_offset: bool = True) -> np.ndarray:
    aligner = TemporalAligner(with_offset)
    disparities = [1 / torch.from_numpy(z) for z in depth]
    for image, disparity in zip(images, disparities, strict=True):
        aligner.observe(as_tensor(image), disparity)
    return np.stack([1 / disparity.numpy() for disparity in aligner.aligned(disparities)])


def flickering(depth: np.ndarray, share: float, with_shift: bool = True) -> np.ndarray:
    random = np.random.default_rng(0)
    scale = 1 + share * random.standard_normal((FRAMES, 1, 1))
    shift = 0.15 * share * random.standard_normal((FRAMES, 1, 1)) * with_shift
    return (1 / (scale / depth + shift)).astype(np.float32)


def test_motion_follows_what_moves():
    images = [working_image(as_tensor(moving_image(index, 160, 96))) for index in (0, 4)]
    motion = motion_between(*images)
    inside = motion.offset[:, 40:56, 42:58].mean(dim=(1, 2))
    assert inside.tolist() == pytest.approx([-4, 0], abs=0.7)
    assert motion.trusted[40:56, 42:58].float().mean() > 0.7
    assert motion.offset[:, 5:20, 100:150].abs().mean() < 0.3


def test_flicker_is_measured(clip):
    images, depth = clip
    assert flicker(images, depth) < 0.003
    assert flicker(images, flickering(depth, 0.05)) > 0.03
    assert flicker(images[:1], depth[:1]) == 0


@pytest.fixture(scope="module")
def flickers(clip) -> tuple[np.ndarray, np.ndarray]:
    """Depth that flickers by five per cent, as it is and aligned."""
    images, depth = clip
    spoilt = flickering(depth, 0.05)
    return spoilt, aligned(images, spoilt)


def test_alignment_removes_flicker_and_keeps_the_depth(clip, flickers):
    (images, depth), (spoilt, repaired) = clip, flickers
    before, after = flicker(images, spoilt), flicker(images, repaired)
    print(f"flicker {before:.2%} a frame, aligned {after:.2%}")
    assert after < before / 5
    # The whole clip is in one scale, the average of its frames'.
    average = np.exp(np.mean([np.median(np.log(frame / true)) for frame, true in zip(spoilt, depth, strict=True)]))
    error = np.abs(np.log(repaired / (depth * average)))
    assert np.median(error) < 0.03


def test_metric_depth_changes_by_a_factor_only(clip):
    images, depth = clip
    spoilt = flickering(depth, 0.05, with_shift=False)
    repaired = aligned(images, spoilt, with_offset=False)
    assert flicker(images, repaired) < flicker(images, spoilt) / 5


def test_edges_stay_where_they_are(clip, flickers):
    (_, depth), (_, repaired) = clip, flickers
    edge = np.abs(np.diff(np.log(repaired[-1]), axis=1)).max(axis=1)[HEIGHT // 3 + 2 : 2 * HEIGHT // 3 - 2]
    true = np.abs(np.diff(np.log(depth[-1]), axis=1)).max(axis=1)[HEIGHT // 3 + 2 : 2 * HEIGHT // 3 - 2]
    assert (edge > 0.9 * true).mean() > 0.9


def test_depth_without_flicker_is_left_alone(clip):
    images, depth = clip
    assert np.abs(np.log(aligned(images, depth) / depth)).mean() < 0.01


def test_what_a_moving_camera_truly_changes_stays():
    """A camera that travels towards a wall and a square before it: depths shrink by a third, and flicker besides."""
    frames, random = 16, np.random.default_rng(5)
    y, x = np.mgrid[:HEIGHT, :WIDTH] - np.array([HEIGHT, WIDTH])[:, None, None] / 2
    images, depth = [], []
    for gone in np.linspace(0, 2, frames):
        near, far = 4 - gone, 8 - gone
        square = np.maximum(abs(x), abs(y)) * near < 60
        place = np.where(square, near, far)
        tone = np.sin(x * place / 14) * np.cos(y * place / 11)
        images.append(np.stack([np.where(square, 190 + 50 * tone, 80 + 40 * tone) * c for c in (1, 0.9, 0.6)], 2))
        depth.append(place)
    images, depth = np.stack(images).clip(0, 255).astype(np.uint8), np.stack(depth).astype(np.float32)
    spoilt = (depth * np.exp(0.05 * random.standard_normal((frames, 1, 1)))).astype(np.float32)
    repaired = aligned(images, spoilt, with_offset=False)

    def wrong(found: np.ndarray) -> np.ndarray:
        """Error of each frame's scale, apart from the whole clip's."""
        error = np.median(np.log(found / depth), axis=(1, 2))
        return error - error.mean()

    print(f"scale off by {wrong(spoilt).std():.1%}, aligned {wrong(repaired).std():.1%}")
    assert wrong(repaired).std() < 0.5 * wrong(spoilt).std()
    assert abs(np.diff(wrong(repaired))).mean() < 0.3 * abs(np.diff(wrong(spoilt))).mean()
    kept = np.log(repaired[-1, 0, 0] / repaired[0, 0, 0]) / np.log(depth[-1, 0, 0] / depth[0, 0, 0])
    assert 0.75 < kept < 1.25, "the wall has come nearer by as much as it did"


def test_exact_depth_under_a_moving_camera_is_hardly_changed():
    """The committed clip whose camera moves: parallax changes its depth from frame to frame, and nothing flickers."""
    folder, count = DATA / "moving_camera", 5
    images = np.stack(list(read_frames(folder / "footage.mp4", count=count)))
    footage = probe(folder / "footage.mp4")
    depth = np.stack(list(islice(DepthFiles(folder / "depth.npz").estimate(footage), count)))
    change = np.abs(np.log(aligned(images, depth) / depth))
    print(f"changed by {change.mean():.3%}, in the median by {np.median(change):.3%}")
    assert change.mean() < 0.001 and np.median(change) < 1e-4


def test_nothing_is_carried_over_a_cut(clip):
    images, depth = clip
    aligner = TemporalAligner(with_offset=True)
    before, after = 1 / torch.from_numpy(depth[0]), 3 / torch.from_numpy(depth[1])
    aligner.observe(as_tensor(images[0]), before)
    aligner.observe(as_tensor(images[1]), after, is_cut=True)
    found = list(aligner.aligned([before, after]))
    assert torch.equal(found[0], before) and torch.equal(found[1], after)


def test_frames_are_kept_in_a_file_and_not_in_memory():
    frame, store = np.ones((64, 64), np.float32), FrameStore()
    tracemalloc.start()
    for index in range(100):
        store.append(index * frame)
    values = [float(one[5, 7]) for one in store]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert values == list(range(100)) and (store.lowest, store.highest, len(store)) == (0, 99, 100)
    assert peak < 10 * frame.nbytes
    with pytest.raises(ValueError, match="32, 64"):
        store.append(frame[:32])


def test_few_wrong_values_do_not_matter():
    x = torch.linspace(1, 2, 200)
    y = 1.5 * x + 0.2
    y[::5] += 3
    assert robust_scale_and_shift(x, y, True) == pytest.approx((1.5, 0.2), abs=0.02)
    assert robust_scale_and_shift(x, 1.5 * x, False) == pytest.approx((1.5, 0))
    assert robust_scale_and_shift(torch.ones(9), torch.full((9,), 2.0), True) == (1.0, 1.0)

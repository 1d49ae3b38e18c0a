"""Blurred depth edges: pixels join a side, slopes that are true stay, and new views gain from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ex4d.depth import EdgeSettings
from ex4d.depth.depth_files import DepthFiles
from ex4d.depth.edges import refined_depth
from ex4d.media import probe, read_frames
from ex4d.mesh import DepthSurface
from ex4d.raster import create_rasterizer
from ex4d_core.cameras import CameraPath

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"


def blurred(depth: np.ndarray, pixels: float) -> torch.Tensor:
    """Disparity blurred by a Gaussian, as depth."""
    reach = int(3 * pixels + 0.5)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * pixels**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    value = F.pad(1 / torch.from_numpy(depth)[None, None], (reach,) * 4, mode="replicate")
    return 1 / F.conv2d(F.conv2d(value, kernel), kernel.transpose(2, 3))[0, 0]


@pytest.fixture
def disc() -> tuple[np.ndarray, np.ndarray]:
    """Depth of a disc before a wall, and an image in which the disc is red and the wall is blue."""
    y, x = np.mgrid[:96, :128]
    inside = np.hypot(x - 60, y - 48) < 25
    image = np.where(inside[..., None], (200, 60, 40), (40, 60, 180)).astype(np.uint8)
    return np.where(inside, 2, 5).astype(np.float32), image


@pytest.mark.parametrize("pixels", [1, 2, 3])
def test_a_blurred_edge_becomes_the_true_one(disc, pixels):
    depth, image = disc
    soft = blurred(depth, pixels)
    sharp = refined_depth(soft, image, EdgeSettings())
    wrong_before = (np.abs(np.log(soft.numpy() / depth)) > 0.05).mean()
    wrong = (np.abs(np.log(sharp / depth)) > 0.05).mean()
    assert wrong < 0.15 * wrong_before


def test_colour_decides_where_depth_bleeds_over_the_edge(disc):
    """A model that sees the disc two pixels too large: by depth alone the edge would stay there."""
    depth, image = disc
    grown = 1 / F.max_pool2d(1 / torch.from_numpy(depth)[None, None], 5, 1, 2)[0, 0].numpy()
    soft = blurred(grown, 1.5)
    by_depth, with_colour = (
        (np.abs(np.log(refined_depth(soft, image, EdgeSettings(colour_weight=weight)) / depth)) > 0.05).mean()
        for weight in (0.0, 1.5)
    )
    assert with_colour < 0.5 * by_depth


def test_true_slopes_stay(disc):
    floor = np.broadcast_to(1 / np.linspace(1, 0.2, 96, dtype=np.float32)[:, None], (96, 128)).copy()
    _, image = disc
    assert np.allclose(refined_depth(torch.from_numpy(floor), image, EdgeSettings()), floor, rtol=1e-5)


def ground_with_poles() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ground up to the horizon and a facade beside it, seen at grazing angles, and poles: depth, image, the poles."""
    y, x = np.mgrid[:96, :160].astype(np.float32)
    disparity = np.maximum(0.02, np.maximum(0.006 * (y - 30), 0.004 * (x - 90)))
    pole = (x % 40 >= 20) & (x % 40 < 27) & (y > 8) & (y < 60)
    disparity = np.where(pole, disparity.max(axis=0) * 0.5 + 0.25, disparity)
    image = np.where(pole[..., None], (220, 200, 40), (60, 90, 70)).astype(np.uint8)
    return (1 / disparity).astype(np.float32), image, pole


def test_sharp_depth_keeps_every_bit():
    """Exact depth is all slopes: ground, a facade, and steps that are one pixel wide."""
    depth, image, _ = ground_with_poles()
    assert np.array_equal(refined_depth(torch.from_numpy(depth), image, EdgeSettings()), depth)


@pytest.mark.parametrize("pixels", [1, 2])
def test_ground_is_not_torn_beside_blurred_poles(pixels):
    """Behind a pole the ground goes on as the plane that it is, and far from poles it stays as it was."""
    depth, image, pole = ground_with_poles()
    soft = blurred(depth, pixels)
    sharp = refined_depth(soft, image, EdgeSettings())
    beside = F.max_pool2d(torch.from_numpy(pole)[None, None].float(), 25, 1, 12)[0, 0].numpy() > 0
    before, after = (np.abs(1 / found - 1 / depth) for found in (soft.numpy(), sharp))
    assert np.array_equal(sharp[~beside], soft.numpy()[~beside])
    assert (after > 0.05)[beside].mean() < 0.15 * (before > 0.05)[beside].mean()
    ground = beside & ~pole & (np.mgrid[:96, :160][0] > 40)
    assert after[ground].mean() < 0.4 * before[ground].mean()


def test_a_wide_slope_among_blurred_edges_is_true(disc):
    """A ramp of 30 pixels rises as much as the disc's blurred edge; only the edge is refined."""
    depth, image = disc
    x = np.arange(128)
    ramp = np.interp(x, [92, 122], [1 / 5, 1 / 3]).astype(np.float32)
    depth = np.where(depth == 2, 2, 1 / ramp).astype(np.float32)
    soft = blurred(depth, 2)
    sharp = refined_depth(soft, image, EdgeSettings())
    assert np.array_equal(sharp[:, 98:], soft.numpy()[:, 98:])
    assert not np.array_equal(sharp[:, :98], soft.numpy()[:, :98])


def test_without_settings_only_the_size_changes(disc):
    depth, image = disc
    assert np.allclose(refined_depth(torch.from_numpy(depth), image, None), depth)
    small = torch.from_numpy(depth[::4, ::4].copy())
    large = refined_depth(small, image, None)
    assert large.shape == (96, 128) and large.min() >= 2 - 1e-4 and large.max() <= 5 + 1e-4


def test_small_depth_is_brought_up_along_the_images_edges(disc):
    depth, image = disc
    small = 1 / F.interpolate(1 / torch.from_numpy(depth)[None, None], (24, 32), mode="bilinear", antialias=True)[0, 0]
    wrong_plain, wrong = (
        (np.abs(np.log(refined_depth(small, image, settings) / depth)) > 0.05).mean()
        for settings in (None, EdgeSettings())
    )
    assert wrong < 0.35 * wrong_plain


def test_new_views_of_the_sample_gain_from_it():
    """Exact depth of the sample's first frame, blurred by two pixels, against its two true views."""
    with np.load(SAMPLE / "true_views.npz") as arrays, np.load(SAMPLE / "camera.npz") as camera:
        views, lens = dict(arrays), camera["intrinsics"][0]
    (image,) = read_frames(SAMPLE / "footage.mp4", count=1)
    exact = next(iter(DepthFiles(SAMPLE / "depth.npz").estimate(probe(SAMPLE / "footage.mp4"))))
    soft = blurred(exact, 2)
    which = views["frames"] == 0

    def measured(depth: np.ndarray) -> tuple[float, float]:
        surface = DepthSurface(
            torch.from_numpy(depth[None]), torch.from_numpy(image[None]), torch.from_numpy(lens[None])
        )
        errors, false = [], []
        for index in np.flatnonzero(which):
            camera = CameraPath(views["extrinsics"][index][None], views["intrinsics"][index], 256, 256)
            out = create_rasterizer("warp", "cpu").render(surface, camera)
            seen, visible = out.mask[0].numpy(), views["visible"][index]
            error = out.color[0].numpy()[seen & visible].astype(float) - views["rgb"][index][seen & visible]
            errors.append(error.ravel() ** 2)
            false.append((seen & ~visible).mean())
        return 10 * np.log10(255**2 / np.concatenate(errors).mean()), float(np.mean(false))

    (psnr_before, false_before), (psnr, false) = (
        measured(soft.numpy()),
        measured(refined_depth(soft, image, EdgeSettings())),
    )
    print(f"PSNR {psnr_before:.2f} -> {psnr:.2f} dB, falsely seen {false_before:.2%} -> {false:.2%}")
    assert psnr > psnr_before + 3
    assert false < 0.6 * false_before

"""Silhouettes inside source pixels: enlarged ones follow the picture's edge, not the stair of its pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ex4d.mesh import DepthSurface
from ex4d.mesh.edge_shares import edge_shares
from ex4d.mesh.thickness import back_limits, pixel_angles
from ex4d.raster import Rasterizer, create_rasterizer
from ex4d_core.cameras import CameraPath

WIDTH, HEIGHT, ZOOM = 40, 40, 4
NEAR, FAR = (220, 60, 40), (30, 90, 160)
# Edges x = offset + slope y of a near surface on the left.
EDGES = [(14.3, 0.17), (13.0, 0.45), (25.6, -0.3)]


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


def shares(offset: float, slope: float, width: int, height: int) -> np.ndarray:
    """How much of each pixel of WIDTH x HEIGHT, at another size, the near surface covers."""
    fine = 8
    x = (np.arange(width * fine) + 0.5) / fine * WIDTH / width
    y = (np.arange(height * fine) + 0.5) / fine * HEIGHT / height
    near = x[None] < offset + slope * y[:, None]
    return near.reshape(height, fine, width, fine).mean(axis=(1, 3))


def picture(share: np.ndarray, near: tuple[int, ...] = NEAR, far: tuple[int, ...] = FAR) -> DepthSurface:
    """A near surface before a far one, as a camera photographs it, and depth of pixels' centres."""
    color = share[..., None] * np.array(near) + (1 - share[..., None]) * np.array(far)
    depth = np.where(share >= 0.5, 2.0, 6.0).astype(np.float32)
    intrinsics = torch.tensor([[[50.0, 0, WIDTH / 2], [0, 50, HEIGHT / 2], [0, 0, 1]]])
    return DepthSurface(
        torch.from_numpy(depth)[None],
        torch.from_numpy((color + 0.5).astype(np.uint8))[None],
        intrinsics,
        occlusion="thickness",
    )


def measured(surface: DepthSurface) -> torch.Tensor:
    limits = back_limits(surface.depth, pixel_angles(surface.intrinsics))
    return edge_shares(surface.depth, surface.color, limits.steps)


@pytest.mark.parametrize(("offset", "slope"), EDGES)
def test_an_enlarged_silhouette_is_a_line_and_no_stair(rasterizer, offset, slope) -> None:
    surface = picture(shares(offset, slope, WIDTH, HEIGHT))
    intrinsics = surface.intrinsics.numpy().copy()
    intrinsics[:, :2] *= ZOOM
    camera = CameraPath(np.eye(4)[None], intrinsics, ZOOM * WIDTH, ZOOM * HEIGHT)
    frames = rasterizer.render(surface, camera)
    assert frames.mask[0, ZOOM:-ZOOM, ZOOM:-ZOOM].all(), "no hole opens between the two sides"

    true = shares(offset, slope, ZOOM * WIDTH, ZOOM * HEIGHT) >= 0.5
    middle = np.add(NEAR, FAR) / 2
    drawn = ((frames.color[0].numpy() - middle) * np.subtract(NEAR, FAR)).sum(axis=2) > 0
    stairs = (surface.depth[0].numpy() < 4).repeat(ZOOM, 0).repeat(ZOOM, 1)
    inside = np.s_[2 * ZOOM : -2 * ZOOM, 2 * ZOOM : -2 * ZOOM]
    wrong, of_stairs = (int((one != true)[inside].sum()) for one in (drawn, stairs))
    assert wrong < 0.5 * of_stairs


@pytest.mark.parametrize(("offset", "slope"), EDGES)
def test_shares_are_what_the_camera_mixed(offset, slope) -> None:
    true = shares(offset, slope, WIDTH, HEIGHT)
    surface = picture(true)
    found = measured(surface)[0].numpy() / 255
    near = surface.depth[0].numpy() < 4
    mixed = (true > 0.15) & (true < 0.85)
    mixed[:2] = mixed[-2:] = False
    assert mixed.sum() > 15
    expected = np.where(near, true.clip(140 / 255, 1), true.clip(0, 115 / 255))
    assert np.abs(np.where(near, found[..., 0], found[..., 1]) - expected)[mixed].mean() < 0.06


def test_colours_that_tell_nothing_leave_the_silhouette_midway() -> None:
    """Sides of one colour, and an edge that is drawn in a third colour, which no mixture of the two gives."""
    true = shares(20.4, 0.0, WIDTH, HEIGHT)
    alike = picture(true, near=(90, 90, 90), far=(96, 94, 92))
    outlined = picture(np.round(true))
    outlined.color[:, :, 19:21] = torch.tensor([10, 250, 10], dtype=torch.uint8)
    for surface in (alike, outlined):
        found = measured(surface)[0]
        assert (found[..., 0] == 255).all() and (found[..., 1] == 0).all()

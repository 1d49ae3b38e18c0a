"""Soft edges: alpha is the share of a pixel that is seen, and moves with the camera in less than whole pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster import create_rasterizer, render_soft_edges


def wall() -> DepthSurface:
    color = torch.full((1, 30, 40, 3), 200, dtype=torch.uint8)
    lens = torch.tensor([[[40.0, 0, 20], [0, 40, 15], [0, 0, 1]]])
    return DepthSurface(torch.full((1, 30, 40), 4.0), color, lens, occlusion="open")


def test_alpha_follows_an_edge_by_parts_of_a_pixel() -> None:
    surface, rasterizer = wall(), create_rasterizer("warp", "cpu")
    areas, hard = [], []
    for shift in np.linspace(0, 0.1, 5):  # scene units at depth 4: a pixel in all
        camera = np.eye(4)[None].copy()
        camera[0, 0, 3] = -shift
        soft = render_soft_edges(rasterizer, surface, camera, surface.intrinsics, 40, 30, samples=4)
        areas.append(float(soft.alpha[0, 15].double().sum() / 255))
        hard.append(int(soft.mask[0, 15].sum()))
        assert (soft.color[soft.alpha > 0] == 200).all()
        assert not soft.color[soft.alpha == 0].any()
    # the wall reaches from 0.5 to 39.5 pixels, and moves to the left, beyond the picture's edge
    np.testing.assert_allclose(areas, np.minimum(39, 39.5 - np.linspace(0, 1, 5)), atol=0.02)
    assert set(np.diff(hard)) <= {0, -1}


def test_one_sample_is_the_plain_render() -> None:
    surface, rasterizer = wall(), create_rasterizer("warp", "cpu")
    views = (np.eye(4)[None], surface.intrinsics, 40, 30)
    soft, plain = render_soft_edges(rasterizer, surface, *views, samples=1), rasterizer.render(surface, *views)
    assert torch.equal(soft.mask, plain.mask) and torch.equal(soft.color, plain.color)
    with pytest.raises(ValueError, match="1 to 8 samples in each direction, got 9"):
        render_soft_edges(rasterizer, surface, *views, samples=9)

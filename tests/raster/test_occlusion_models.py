"""What hides: the watertight solid behind everything seen, or nothing but what was seen. And what never shows colour:
backs of faces, the inside of the solid, its walls and its caps, from however far round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.mesh import DepthSurface
from backend.raster import Rasterizer, create_rasterizer
from backend.raster.speed import made_up_cameras


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


def box_before_wall(**settings) -> DepthSurface:
    """A box at depth 2 in the middle of a wall at depth 4, 60x40 pixels, focal length 60; box 250, wall 100."""
    depth = torch.full((1, 40, 60), 4.0)
    depth[0, 12:28, 22:38] = 2.0
    color = torch.where(depth == 2.0, 250, 100).to(torch.uint8)[..., None].expand(-1, -1, -1, 3).contiguous()
    lens = torch.tensor([[[60.0, 0, 30], [0, 60, 20], [0, 0, 1]]])
    return DepthSurface(depth, color, lens, **settings)


def looking(eye: tuple[float, float, float], target: tuple[float, float, float]) -> np.ndarray:
    forward = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    camera = np.eye(4)
    camera[:3, :3] = right, np.cross(forward, right), forward
    camera[:3, 3] = -camera[:3, :3] @ eye
    return camera[None]


def test_through_the_boxs_shadow_open_shows_the_wall_and_watertight_does_not(rasterizer) -> None:
    """From beside the box, past its back, on to the wall at the other side, which the source camera did see."""
    surface = box_before_wall()
    eye, target = (1.2, 0.0, 2.4), (-1.2, 0.0, 4.0)
    views = (looking(eye, target), surface.intrinsics, 60, 40)
    watertight = rasterizer.render(surface, *views, with_depth=True)
    opened = rasterizer.render(replace(surface, occlusion="open"), *views, with_depth=True)

    way = float(np.linalg.norm(np.subtract(target, eye)))
    assert not watertight.mask[0, 20, 30] and watertight.depth[0, 20, 30] < 0.8 * way
    assert opened.mask[0, 20, 30] and (opened.color[0, 20, 30] == 100).all()
    assert float(opened.depth[0, 20, 30]) == pytest.approx(way, rel=0.02)
    assert not (watertight.mask & ~opened.mask).any()  # what stands with walls stands without them
    assert opened.depth[0][~opened.mask[0]].isinf().any()  # where nothing was seen, nothing is in the way either


def test_open_too_gives_the_source_camera_the_source_back_exactly(rasterizer) -> None:
    """Depth that is a cliff at every pixel leaves nothing but curtains; yet every pixel was seen."""
    random = torch.Generator().manual_seed(4)
    depth = torch.rand(2, 37, 64, generator=random) * 9 + 0.05
    color = torch.randint(0, 256, (2, 37, 64, 3), dtype=torch.uint8, generator=random)
    lens = torch.tensor([[50.0, 0, 32.3], [0, 50, 17], [0, 0, 1]]).expand(2, 3, 3)
    surface = DepthSurface(depth, color, lens, occlusion="open")
    frames = rasterizer.render(surface, np.eye(4)[None].repeat(2, 0), lens, 64, 37)
    assert frames.mask.all()
    assert torch.equal(frames.color, color)


@pytest.mark.parametrize("degrees", [90, 100, 135, 180, 225, 260])
@pytest.mark.parametrize("occlusion", ["watertight", "open"])
def test_from_round_the_back_a_wall_is_unseen(rasterizer, degrees, occlusion) -> None:
    """A flat wall at the pivot's depth has no side that the footage saw, from 90 degrees on."""
    color = torch.full((2, 48, 64, 3), 200, dtype=torch.uint8)
    lens = torch.tensor([[64.0, 0, 32], [0, 64, 24], [0, 0, 1]]).expand(2, 3, 3)
    surface = DepthSurface(torch.full((2, 48, 64), 3.0), color, lens, occlusion=occlusion)
    cameras = made_up_cameras(2, degrees)
    frames = rasterizer.render(surface, cameras, lens, 64, 48, with_depth=True)
    assert frames.mask[0].float().mean() > 0.9
    assert not frames.mask[1].any() and not frames.color[1].any()


@pytest.mark.parametrize("z", [3.5, 5.0, 30.0])
def test_backs_insides_and_caps_are_never_colour(rasterizer, z) -> None:
    """Back from behind the wall, within the solid and beyond its caps: surfaces everywhere, none of them seen."""
    surface = box_before_wall()
    back = np.diag([-1.0, 1.0, -1.0, 1.0])[None].copy()
    back[0, 2, 3] = z
    frames = rasterizer.render(surface, back, surface.intrinsics, 60, 40, with_depth=True)
    assert frames.depth[0, 20, 30].isfinite()
    assert not frames.mask.any() and not frames.color.any()


def test_the_reference_convention_colours_backs_as_the_original_does(rasterizer) -> None:
    """Where our default differs: EX-4D draws both sides of every face, so its pictures show the wall's back."""
    back = np.diag([-1.0, 1.0, -1.0, 1.0])[None].copy()
    back[0, 2, 3] = 5.0
    surface = box_before_wall(convention="reference", occlusion="open")
    assert rasterizer.render(surface, back, surface.intrinsics, 60, 40).mask.any()
    assert not rasterizer.render(replace(surface, convention="centered"), back, surface.intrinsics, 60, 40).mask.any()


def test_unknown_models_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown occlusion model 'solid': use one of watertight, open"):
        box_before_wall(occlusion="solid")

"""Drawing only the squares of an image that are wanted: what they show is what the whole image shows there."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster import RenderedBatch, create_rasterizer
from ex4d.raster.speed import synthetic_camera, synthetic_surface
from ex4d.raster.tiles import Tiles, tiles_with, widened
from ex4d.raster.warp_rasterizer import WarpRasterizer
from ex4d_core.cameras import CameraPath

FRAMES, SIZE, SIDE = 3, 96, 7  # the last row and column of squares lie off the image in part
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def rasterizer(request) -> WarpRasterizer:
    return cast(WarpRasterizer, create_rasterizer("warp", request.param))


@pytest.fixture(scope="module")
def shot() -> tuple[DepthSurface, CameraPath]:
    """Posts before a wall, from aside: many stretched faces."""
    surface = replace(synthetic_surface(FRAMES, SIZE, SIZE), occlusion="thickness", convention="centered", clean=False)
    return surface, synthetic_camera(FRAMES, SIZE, SIZE)


def some_tiles(device: torch.device, **settings) -> Tiles:
    squares = -(-SIZE // SIDE)
    wanted = torch.rand(FRAMES, squares, squares, generator=torch.Generator().manual_seed(0)) < 0.3
    wanted[1] = False
    return Tiles(wanted.to(device), SIDE, **settings)


def pixels_of(tiles: Tiles) -> torch.Tensor:
    """(T, H, W) bool."""
    return tiles.wanted.repeat_interleave(SIDE, 1).repeat_interleave(SIDE, 2)[:, :SIZE, :SIZE].cpu()


def assert_same(part: RenderedBatch, whole: RenderedBatch, where: torch.Tensor) -> None:
    assert part.depth is not None and whole.depth is not None
    assert torch.equal(part.mask.cpu()[where], whole.mask.cpu()[where])
    seen = where & whole.mask.cpu()
    assert torch.equal(part.color.cpu()[seen], whole.color.cpu()[seen])
    assert torch.equal(part.depth.cpu()[where], whole.depth.cpu()[where])


def test_wanted_squares_show_what_the_whole_image_shows(rasterizer, shot):
    tiles = some_tiles(rasterizer.device)
    part, whole = rasterizer.render_tiles(*shot, tiles), rasterizer.render(*shot, with_depth=True)
    where = pixels_of(tiles)
    assert_same(part, whole, where)
    assert whole.mask.cpu()[where].any() and not whole.mask.cpu()[where].all()
    assert not part.mask.cpu()[~where].any(), "nothing else is seen"


@pytest.mark.parametrize("forward", [0.0, 2.5], ids=["from aside", "past the ball"])
def test_a_few_wanted_pixels_need_no_others(rasterizer, shot, forward):
    """Whole blocks of the grid are left out, also where a part of them is behind the camera."""
    surface, camera = shot
    poses = camera.world_to_camera.copy()
    poses[:, 2, 3] -= forward
    wanted = torch.zeros(FRAMES, 12, 12, dtype=torch.bool)
    wanted[0, 5, 6] = wanted[1, 9, 3] = wanted[2, 0, 0] = True
    tiles = Tiles(wanted.to(rasterizer.device), 8)
    where = wanted.repeat_interleave(8, 1).repeat_interleave(8, 2)
    moved = CameraPath(poses, camera.intrinsics, *camera.size)
    part, whole = rasterizer.render_tiles(surface, moved, tiles), rasterizer.render(surface, moved, with_depth=True)
    assert_same(part, whole, where)


def test_what_was_measured_of_a_surface_is_kept_where_it_is_drawn_otherwise(shot):
    """Silhouettes belong to depth and colour, not to how they are drawn."""
    surface = replace(shot[0], occlusion="watertight", clean=True)
    edge_shares, limits, depth_range = surface.edge_shares, surface.back_limits, surface.depth_range
    other = surface.drawn_as(occlusion="thickness", clean=False)
    assert (other.occlusion, other.convention, other.clean) == ("thickness", "centered", False)
    assert other.edge_shares is edge_shares and other.back_limits is limits and other.depth_range is depth_range


def test_hollow_silhouettes_hide_nothing_and_keep_their_own_pixels(rasterizer, shot):
    surface, camera = shot
    everything = Tiles(torch.ones(FRAMES, 1, 1, dtype=torch.bool, device=rasterizer.device), SIZE, is_solid=False)
    hollow = rasterizer.render_tiles(surface, camera, everything)
    solid, empty = (
        rasterizer.render(replace(surface, occlusion=model), camera, with_depth=True) for model in ("thickness", "open")
    )
    assert bool((hollow.depth >= solid.depth).all()), "what hides nothing is not nearer than what hides"
    assert bool((hollow.depth > solid.depth).any()) and bool((hollow.mask | ~solid.mask).all())
    differs = (hollow.mask != empty.mask).float().mean()
    assert differs < 0.02, "only steps of depth that no face is stretched over differ"


def test_squares_hold_what_is_in_them():
    pixels = torch.zeros(10, 9, dtype=torch.bool)
    pixels[9, 0] = pixels[3, 4] = True
    tiles = tiles_with(pixels, 4)
    assert tiles.tolist() == [[False, True, False], [False, False, False], [True, False, False]]
    assert widened(tiles[None], 1)[0].sum() == 8
    assert Tiles(tiles[None], 4).table[0, -1, -1] == 2

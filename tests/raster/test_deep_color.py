"""Colours of more than 8 bits: half floats in, the same half floats out, drawn by the rules of 8-bit colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster import Rasterizer, RenderedBatch, create_rasterizer, render_in_batches
from ex4d.raster.mask_cleaning import remove_specks
from ex4d_core.cameras import CameraPath

HEIGHT, WIDTH, FOCAL = 48, 64, 50.0
# Half floats from the smallest normal one to the largest, as scene-linear pictures have them.
LIGHT = torch.logspace(-14, 15.99, HEIGHT * WIDTH * 3, base=2).reshape(1, HEIGHT, WIDTH, 3).half()


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


def surface_of(deep_color: torch.Tensor, **settings) -> DepthSurface:
    """A near square before a wall, with colours that tell the pixels apart."""
    depth = torch.full((1, HEIGHT, WIDTH), 4.0)
    depth[:, 14:34, 20:40] = 1.5
    intrinsics = torch.tensor([[[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]], dtype=torch.float64)
    color = torch.randint(0, 256, deep_color.shape, generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    return DepthSurface(depth, color, intrinsics, occlusion="thickness", deep_color=deep_color, **settings)


def camera_at(surface: DepthSurface, x: float = 0.0) -> CameraPath:
    """The source camera, moved to the right."""
    pose = np.eye(4)[None].copy()
    pose[0, 0, 3] = -x
    return CameraPath(pose, surface.intrinsics.numpy(), *surface.size)


def drawn(rasterizer: Rasterizer, surface: DepthSurface, camera: CameraPath, samples: int) -> RenderedBatch:
    """The one batch of a surface of one frame."""
    (batch,) = render_in_batches(rasterizer, surface, camera, with_depth=True, samples=samples)
    return batch


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_source_camera_shows_every_half_float_bit_for_bit(rasterizer, samples) -> None:
    surface = surface_of(LIGHT, clean=True)
    batch = drawn(rasterizer, surface, camera_at(surface), samples)
    assert batch.deep_color is not None and torch.equal(batch.deep_color.view(torch.int16), LIGHT.view(torch.int16))
    assert torch.equal(batch.color, surface.color)


@pytest.mark.parametrize("samples", [1, 3])
def test_a_new_camera_draws_deep_colours_as_those_of_8_bits(rasterizer, samples) -> None:
    """The same picture as half floats differs by rounding alone, where splines do not ring."""
    smooth = (torch.linspace(20, 230, WIDTH)[None, None, :, None] + torch.zeros(1, HEIGHT, WIDTH, 3)).to(torch.uint8)
    surface = replace(surface_of(smooth.half(), clean=True), color=smooth)
    camera = camera_at(surface, x=0.3)
    batch = drawn(rasterizer, surface, camera, samples)
    assert 0.02 < float((~batch.mask).float().mean()) < 0.5
    assert float((batch.deep_color.float() - batch.color.float()).abs().max()) <= 1.0
    plain = drawn(rasterizer, replace(surface, deep_color=None), camera, samples)
    assert plain.deep_color is None
    for name in ("color", "mask", "depth"):
        assert torch.equal(getattr(plain, name), getattr(batch, name))


def test_bright_light_rings_into_no_negative_neighbours(rasterizer) -> None:
    light = torch.full((1, HEIGHT, WIDTH, 3), 0.18)
    light[:, 20, 30] = 5000.0
    surface = surface_of(light.half())
    batch = drawn(rasterizer, surface, camera_at(surface, x=0.011), 3)
    seen = batch.deep_color[batch.mask].float()
    assert float(seen.min()) >= 0.17 and float(seen.max()) > 1000


def test_a_filled_speck_has_the_deep_colour_of_its_surface(rasterizer) -> None:
    mask = torch.ones(1, 10, 20, dtype=torch.bool)
    mask[0, 4, 9] = False
    color = torch.full((1, 10, 20, 3), 100, dtype=torch.uint8) * mask[..., None]
    deep = torch.full((1, 10, 20, 3), 12.5, dtype=torch.float16) * mask[..., None]
    rendered = RenderedBatch(color, mask, torch.full((1, 10, 20), 2.0), deep_color=deep)
    remove_specks(rendered)
    assert rendered.mask.all() and torch.equal(deep, torch.full_like(deep, 12.5))


def test_deep_colours_need_their_type_and_convention() -> None:
    with pytest.raises(ValueError, match="float16"):
        surface_of(LIGHT.float())
    with pytest.raises(ValueError, match="reference"):
        replace(surface_of(LIGHT), occlusion="watertight", convention="reference")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device on this machine")
def test_a_gpu_shows_every_half_float_bit_for_bit_and_draws_as_a_processor_does(rasterizer) -> None:
    gpu = create_rasterizer("warp", "cuda")
    surface = surface_of(LIGHT.clamp(max=100.0), clean=True)
    same = drawn(gpu, surface, camera_at(surface), 3)
    assert torch.equal(same.deep_color.view(torch.int16), surface.deep_color.view(torch.int16))
    moved = camera_at(surface, x=0.3)
    one, other = drawn(rasterizer, surface, moved, 3), drawn(gpu, surface, moved, 3)
    both = one.mask & other.mask
    assert float((one.mask != other.mask).float().mean()) < 1e-3
    difference = (one.deep_color.float() - other.deep_color.float()).abs()[both]
    assert float((difference > 0.01 + 0.01 * one.deep_color.float()[both]).float().mean()) < 1e-3

"""Several samples of each pixel: antialiased colours, soft edges of the mask, and the footage's own view untouched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster import Rasterizer, create_rasterizer, warp_rasterizer
from ex4d.raster.speed import synthetic_camera, synthetic_surface
from ex4d.raster.supersampling import render_supersampled
from ex4d_core.cameras import CameraPath
from ex4d_core.render_settings import OCCLUSION_MODELS

FOCAL, WIDTH, HEIGHT = 60.0, 60, 42


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


def surface(depth: torch.Tensor, color: torch.Tensor, **settings) -> DepthSurface:
    frames, height, width = depth.shape
    matrix = torch.tensor([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]]).double()
    return DepthSurface(depth, color, matrix.expand(frames, 3, 3), **settings)


def camera_of(shown: DepthSurface, *, scale: float = 1.0, shift: float = 0.0) -> CameraPath:
    """The source camera, moved by a shift to the right, with its image ``scale`` times as large."""
    poses = np.eye(4)[None].repeat(shown.frames, 0)
    poses[:, 0, 3] = -shift
    intrinsics = shown.intrinsics.numpy().copy()
    intrinsics[:, :2] *= scale
    return CameraPath(poses, intrinsics, *(round(side * scale) for side in shown.size))


@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("occlusion", OCCLUSION_MODELS)
def test_the_source_camera_gives_the_footage_back_byte_for_byte(rasterizer, occlusion, samples) -> None:
    """Though but one of nine samples meets a source pixel, or none of four; and though depth is a cliff everywhere."""
    random = torch.Generator().manual_seed(4)
    depth = torch.rand(2, 37, 64, generator=random) * 9 + 0.05
    color = torch.randint(0, 256, (2, 37, 64, 3), dtype=torch.uint8, generator=random)
    footage = surface(depth, color, occlusion=occlusion)
    frames = rasterizer.render(footage, camera_of(footage), with_depth=True, samples=samples)
    assert torch.equal(frames.color, color)
    assert frames.mask.all() and (frames.alpha == 255).all()
    assert torch.allclose(frames.depth, depth, rtol=1e-5)


@pytest.mark.parametrize("occlusion", OCCLUSION_MODELS)
def test_a_pixel_is_the_mean_of_its_samples(rasterizer, occlusion) -> None:
    """As of nine renders, each with its samples in the middle of pixels, but for what snapping to 1/256 pixel moves.

    Of colours that change evenly, since those of a surface are read in the middle of what a pixel shows of it.
    """
    y, x = np.mgrid[:64, :96]
    even = torch.from_numpy(np.stack([2 * x, 3 * y, x + y], axis=2).astype(np.uint8))[None]
    shot = replace(synthetic_surface(1, 96, 64), color=even, occlusion=occlusion)
    camera = synthetic_camera(1, 83, 61, 25)  # nowhere a multiple of the footage, whose pixels would end at samples
    frames = rasterizer.render(shot, camera, with_depth=True, samples=3)
    apart = render_supersampled(lambda path: rasterizer.render(shot, path, with_depth=True), camera, 3)
    alike = frames.alpha == apart.alpha
    assert alike.float().mean() > 0.9
    assert (frames.alpha.float() - apart.alpha.float()).abs().mean() < 2
    assert (frames.color.int() - apart.color.int()).abs()[alike].float().mean() < 0.5
    same = alike & frames.depth.isfinite() & apart.depth.isfinite()
    assert ((frames.depth / apart.depth - 1).abs()[same] < 0.02).float().mean() > 0.98
    assert torch.equal(frames.mask, frames.alpha >= 128)
    assert not frames.color[frames.alpha == 0].any()


def test_a_shrunk_picture_is_averaged_and_not_decimated(rasterizer) -> None:
    """At a third of its size each pixel's centre meets a source pixel; lines of one pixel become grey all the same."""
    color = torch.zeros(1, 60, 90, 3, dtype=torch.uint8)
    color[:, :, ::2] = 255
    lines = surface(torch.full((1, 60, 90), 3.0), color)
    one, nine = (rasterizer.render(lines, camera_of(lines, scale=1 / 3), samples=samples) for samples in (1, 3))
    inside = slice(2, -2)
    assert one.color[0, inside, inside].float().std() > 100
    assert (nine.color[0, inside, inside].float() - 127.5).abs().max() < 60
    assert nine.color[0, inside, inside].float().mean().item() == pytest.approx(127.5, abs=5)


def test_edges_of_the_mask_are_as_soft_as_what_was_seen_of_them(rasterizer) -> None:
    """A hole that grows by a tenth of a pixel a frame does so in the mask; with one sample it waits, then leaps."""
    depth = torch.full((1, HEIGHT, WIDTH), 6.0)
    depth[:, :, :20] = 2.0
    step = surface(depth, torch.full((1, HEIGHT, WIDTH, 3), 90, dtype=torch.uint8), occlusion="watertight")

    def seen(shift: float, samples: int) -> float:
        frames = rasterizer.render(step, camera_of(step, shift=shift), samples=samples)
        share = frames.mask.float() if frames.alpha is None else frames.alpha.float() / 255
        return float(share[0, HEIGHT // 2].sum())

    shifts = np.linspace(0.102, 0.198, 21)  # by 2 pixels, and nowhere by whole ones, where pixels meet source pixels
    soft, hard = (np.diff([seen(shift, samples) for shift in shifts]) for samples in (4, 1))
    assert np.abs(soft - soft.mean()).max() < 0.3
    assert np.abs(hard - hard.mean()).max() > 0.7


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_straight_edge_meets_the_samples_of_a_pixel_one_by_one(rasterizer, axis) -> None:
    """In a plain grid it would meet three at a time, and a pixel would have four shades."""
    depth = torch.full((1, HEIGHT, WIDTH), 6.0)
    near = depth[:, :20] if axis == "y" else depth[:, :, :20]
    near[:] = 2.0
    color = torch.full((1, HEIGHT, WIDTH, 3), 90, dtype=torch.uint8)
    step = surface(depth, color, occlusion="watertight", clean=False)
    shades = set()
    for shift in np.linspace(0.101, 0.149, 30):
        camera = camera_of(step)
        poses = camera.world_to_camera.copy()
        poses[:, "xy".index(axis), 3] = -shift
        alpha = rasterizer.render(step, replace(camera, world_to_camera=poses), samples=3).alpha
        shades |= set((alpha[0, HEIGHT // 2] if axis == "x" else alpha[0, :, WIDTH // 2]).tolist())
    assert len(shades) == 10


def test_texture_is_as_sharp_between_source_pixels_as_on_them(rasterizer) -> None:
    """Or it would breathe as the camera moves: the linear mean of two pixels has little of what they differ by."""
    noise = torch.randint(0, 256, (1, HEIGHT // 2, WIDTH // 2, 3), generator=torch.Generator().manual_seed(2))
    smooth = torch.nn.functional.interpolate(noise.permute(0, 3, 1, 2).float(), size=(HEIGHT, WIDTH), mode="bicubic")
    color = smooth.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    wall = surface(torch.full((1, HEIGHT, WIDTH), 3.0), color, occlusion="thickness")

    def contrast(pixels: float) -> float:
        frames = rasterizer.render(wall, camera_of(wall, shift=pixels * 3.0 / FOCAL), samples=3)
        inside = slice(4, -4)
        return float(frames.color[0, inside, inside].float().std())

    assert contrast(1.5) > 0.93 * contrast(1.0)


def test_pixels_that_happen_to_meet_source_pixels_do_not_flash(rasterizer) -> None:
    """A hundredth of a pixel on, nothing has changed to speak of, texture or silhouette."""
    random = torch.Generator().manual_seed(3)
    depth = torch.full((1, HEIGHT, WIDTH), 3.0)
    depth[:, 10:30, 15:40] = 2.0  # moves by 1.5 pixels where the wall moves by one
    color = torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=random)
    box = surface(depth, color, occlusion="thickness")
    on, beside = (
        rasterizer.render(box, camera_of(box, shift=pixels * 3.0 / FOCAL), samples=3) for pixels in (2.0, 2.01)
    )
    same = on.mask & beside.mask
    assert (on.color.int() - beside.color.int()).abs()[same].float().mean() < 2


def test_strips_of_rows_change_nothing(rasterizer, monkeypatch) -> None:
    shot = replace(synthetic_surface(2, 96, 64), occlusion="thickness")
    camera = synthetic_camera(2, 80, 61, 40)
    whole = rasterizer.render(shot, camera, with_depth=True, samples=3)
    monkeypatch.setattr(warp_rasterizer, "STRIP_SAMPLES", 9 * 80 * 7)
    strips = rasterizer.render(shot, camera, with_depth=True, samples=3)
    for name in ("color", "mask", "depth", "alpha"):
        assert torch.equal(getattr(whole, name), getattr(strips, name)), name


def test_the_reference_convention_has_one_sample_and_its_own_antialiasing(rasterizer) -> None:
    shot = synthetic_surface(1, 64, 48, "reference")
    camera = synthetic_camera(1, 64, 48, 20)
    one, nine = (rasterizer.render(shot, camera, samples=samples) for samples in (1, 3))
    assert nine.alpha is None and torch.equal(one.color, nine.color) and torch.equal(one.mask, nine.mask)


def test_less_than_one_sample_is_refused(rasterizer) -> None:
    shot = synthetic_surface(1, 64, 48)
    with pytest.raises(ValueError, match="samples 0"):
        rasterizer.render(shot, synthetic_camera(1, 64, 48), samples=0)


@pytest.mark.parametrize("scale", [1.0, 1.3, 2.0])
def test_colours_of_a_surface_are_read_from_that_surface_alone(rasterizer, scale) -> None:
    """Splines through a bright body's last pixels and the dark wall behind it would overshoot, on both sides."""
    body, wall = 220, 60
    depth = torch.full((1, HEIGHT, WIDTH), 12.0)
    color = torch.full((1, HEIGHT, WIDTH, 3), wall, dtype=torch.uint8)
    depth[0, 12:30, 22:38], color[0, 12:30, 22:38] = 3.0, body
    box = surface(depth, color, occlusion="thickness")
    drawn = rasterizer.render(box, camera_of(box, scale=scale, shift=1.03), samples=3)
    seen = drawn.color[0, ..., 0][drawn.mask[0]]
    assert (seen == body).any() and (seen == wall).any()
    assert seen.min() == wall and seen.max() == body

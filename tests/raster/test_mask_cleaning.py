"""Masks that are clean: no specks, whole zooms, whole ground, no backs of leaves; and steady from frame to frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ex4d.evaluation.mask_measures import speck_count
from ex4d.mesh import DepthSurface
from ex4d.raster import (
    Rasterizer,
    RenderedBatch,
    create_rasterizer,
    hold_steady,
    render_in_batches,
    warp_inputs,
)
from ex4d.raster.mask_cleaning import edge_tiles, remove_specks, vote
from ex4d.raster.simplified_frame import SimplifiedFrame
from ex4d.raster.speed import synthetic_camera, synthetic_surface
from ex4d_core.cameras import CameraPath, look_at
from ex4d_core.render_settings import OCCLUSION_MODELS

HEIGHT, WIDTH, FOCAL = 60, 80, 60.0


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


def surface_of(depth: torch.Tensor, model: str = "thickness", focal: float = FOCAL, **settings) -> DepthSurface:
    """A frame of (H, W) depth whose colours tell its pixels apart."""
    height, width = depth.shape
    intrinsics = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]], dtype=torch.float64)
    color = torch.randint(1, 256, (1, height, width, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return DepthSurface(depth[None].contiguous(), color, intrinsics, occlusion=model, **settings)


def camera_at(surface: DepthSurface, x: float = 0.0, y: float = 0.0) -> CameraPath:
    """The source camera, moved to the right and down."""
    pose = np.eye(4)[None].copy()
    pose[0, :2, 3] = -x, -y
    return CameraPath(pose, surface.intrinsics.numpy(), *surface.size)


def drawn_frame(mask: torch.Tensor) -> RenderedBatch:
    """A rendered frame, red near (depth 1) on the left half and blue far (depth 5) on the right, black where unseen."""
    depth = torch.full((1, *mask.shape), 1.0)
    depth[:, :, mask.shape[1] // 2 :] = 5.0
    color = torch.where((depth == 1.0)[..., None], torch.tensor([200, 0, 0]), torch.tensor([0, 0, 200]))
    return RenderedBatch((color * mask[None, ..., None]).to(torch.uint8), mask[None].clone(), depth)


def test_a_hole_of_a_pixel_takes_the_colour_of_its_own_surface() -> None:
    mask = torch.ones(10, 20, dtype=torch.bool)
    mask[4, 9] = mask[7, 10] = False  # the last near column, and the first far one

    rendered = drawn_frame(mask)
    remove_specks(rendered)

    assert rendered.mask.all()
    assert rendered.color[0, 4, 9].tolist() == [200, 0, 0] and rendered.color[0, 7, 10].tolist() == [0, 0, 200]
    assert (rendered.depth[0, 4, 9], rendered.depth[0, 7, 10]) == (1.0, 5.0)


def test_a_seen_speck_among_unseen_pixels_goes_and_is_black() -> None:
    mask = torch.zeros(10, 20, dtype=torch.bool)
    mask[:, :5] = True
    mask[3, 12] = mask[7, 15] = mask[7, 16] = True

    rendered = drawn_frame(mask)
    remove_specks(rendered)

    assert rendered.mask[0, :, :5].all() and not rendered.mask[0, :, 5:].any()
    assert not rendered.color[0][~rendered.mask[0]].any()


def test_straight_edges_and_what_is_all_seen_stay_as_they_are() -> None:
    half = torch.zeros(10, 20, dtype=torch.bool)
    half[:, 7:] = True
    for mask in (half, torch.ones(10, 20, dtype=torch.bool), ~half.T.contiguous()):
        rendered, before = drawn_frame(mask), drawn_frame(mask)
        remove_specks(rendered)
        assert torch.equal(rendered.mask, before.mask) and torch.equal(rendered.color, before.color)


def test_noise_of_depth_leaves_few_specks_and_the_same_bytes_each_time(rasterizer) -> None:
    noise = 0.03 * torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))
    surface = surface_of(3.0 * (1 + noise))
    camera = camera_at(surface, x=0.5)

    as_drawn = rasterizer.render(surface, camera)
    cleaned, again = (rasterizer.render(replace(surface, clean=True), camera) for _ in range(2))

    lone = {name: lone_pixels(frames.mask[0]) for name, frames in (("drawn", as_drawn), ("cleaned", cleaned))}
    assert lone["drawn"] > 50 and lone["cleaned"] < 0.05 * lone["drawn"]
    assert torch.equal(cleaned.mask, again.mask) and torch.equal(cleaned.color, again.color)
    assert not cleaned.color[~cleaned.mask].any() and cleaned.color[cleaned.mask].any(dim=1).all()


def test_in_a_small_image_lone_pixels_are_detail(rasterizer) -> None:
    noise = 0.03 * torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))
    surface = surface_of(3.0 * (1 + noise))
    small = camera_at(surface, x=0.5).resized(WIDTH // 2 - 1, HEIGHT // 2 - 1)

    assert torch.equal(
        rasterizer.render(surface, small).mask, rasterizer.render(replace(surface, clean=True), small).mask
    )


def lone_pixels(mask: torch.Tensor) -> int:
    """Pixels that none of their eight neighbours agrees with."""
    inner = mask[1:-1, 1:-1]
    rows, columns = inner.shape
    agree = torch.zeros(rows, columns, dtype=torch.int32)
    for dy in range(3):
        for dx in range(3):
            agree += mask[dy : dy + rows, dx : dx + columns] == inner
    return int((agree == 1).sum())


@pytest.mark.parametrize("model", OCCLUSION_MODELS)
@pytest.mark.parametrize(("factor", "roll"), [(1.5, 0), (3.0, 0), (2.0, 20)])
def test_a_pure_zoom_has_no_holes(rasterizer, model, factor, roll) -> None:
    """Cliffs at every pixel: all faces are stretched, but a longer lens at the same place sees what was seen."""
    surface = surface_of(torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3)) * 9 + 0.5, model)
    cosine, sine = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    pose, lens = np.eye(4)[None].copy(), surface.intrinsics.numpy().copy()
    pose[0, :2, :2] = [[cosine, -sine], [sine, cosine]]
    lens[0, [0, 1], [0, 1]] *= factor

    frames = rasterizer.render(surface, CameraPath(pose, lens, *surface.size))

    assert frames.mask.all()


def ground(model: str) -> DepthSurface:
    """Ground 1 below the camera up to its horizon in the middle row, before a sky at depth 10,000; 90 rows."""
    below = torch.arange(90) + 0.5 - 45
    depth = torch.where(below > 0, FOCAL / below.clamp_min(0.1), torch.tensor(1e4))
    return surface_of(depth[:, None].expand(90, WIDTH), model)


@pytest.mark.parametrize("model", OCCLUSION_MODELS)
def test_ground_is_whole_up_to_the_horizon(rasterizer, model) -> None:
    """Its last rows before the horizon lie beyond 23 camera heights, where a face is thinner than 2.5 degrees."""
    surface = ground(model)
    aside = camera_at(surface, x=0.3, y=-0.5)

    mask = rasterizer.render(surface, aside).mask[0]

    assert mask[47:85, 15:65].all()
    assert SimplifiedFrame(surface).visible_fraction(aside) == pytest.approx(float(mask.double().mean()), abs=0.01)


@pytest.mark.parametrize("model", OCCLUSION_MODELS)
@pytest.mark.parametrize("pixels", [2, 4, 7])
def test_an_edge_smeared_over_pixels_is_no_plane(rasterizer, model, pixels) -> None:
    """Disparity rises evenly over the ramp, as on a plane; but it soon ends, so it is the edge of the near half."""
    disparity = torch.full((HEIGHT, WIDTH), 0.1)
    disparity[:, :40] = 2.0
    disparity[:, 40 : 40 + pixels] = torch.linspace(2.0, 0.1, pixels + 2)[1:-1]
    surface = surface_of(1 / disparity, model, focal=400.0)
    surface.color[:] = 90  # random colours would say that a pixel of the ramp is more of one side than of the other

    mask = rasterizer.render(replace(surface, clean=True), camera_at(surface, x=0.0225)).mask[0, 5:-5]

    assert mask[:, 2:20].all() and mask[:, 50:75].all(), "the two surfaces"
    # From there the near half ends 18 pixels farther left, and the far one begins 1 farther left.
    assert not mask[:, 23:38].any(), "what lies between them was never seen"


@pytest.mark.parametrize("degrees", [95, 110, 125, 140])
@pytest.mark.parametrize("model", OCCLUSION_MODELS)
def test_a_leaf_seen_from_behind_does_not_show_its_front(rasterizer, model, degrees) -> None:
    """Walls lead back from its edges, and those turned to a camera behind it once showed the leaf's pixels there."""
    leaf = (slice(30, 33), slice(40, 43))
    depth = torch.full((HEIGHT, WIDTH), 8.0)
    depth[leaf] = 2.0
    surface = surface_of(depth, model)
    surface.color[:], surface.color[0][leaf] = 90, 200
    target, angle = np.array([0.05, 0.05, 2.0]), np.radians(degrees)
    eye = target + 0.4 * np.array([np.sin(angle), 0.3, -np.cos(angle)])
    ahead = target - [0.0, 0.0, 0.4]

    behind = rasterizer.render(
        surface, CameraPath(look_at(eye[None], target), surface.intrinsics.numpy(), *surface.size)
    )
    before = rasterizer.render(
        surface, CameraPath(look_at(ahead[None], target), surface.intrinsics.numpy(), *surface.size)
    )

    assert not (behind.color == 200).any() and (before.color == 200).any()


def test_two_of_three_frames_decide_where_a_mask_ends() -> None:
    """One frame's edge has a bump and a notch that those before and after do not have."""
    mask = torch.zeros(10, 20, dtype=torch.bool)
    mask[:, :8] = True
    before = mask.clone()
    mask[5, 8] = True
    mask[2, 7] = False

    steady = hold_steady(drawn_frame(mask), before[None], before[None].clone())

    assert torch.equal(steady.mask[0], before)
    assert steady.color[0, 2, 7].tolist() == [200, 0, 0] and not steady.color[0, 5, 8].any()


@pytest.mark.parametrize("model", OCCLUSION_MODELS)
def test_neighbours_are_right_wherever_they_may_outvote(rasterizer, model) -> None:
    """Only tiles near the edges of a frame's own mask are drawn, but with all that reaches into them."""
    clip = replace(synthetic_surface(3, 160, 120), occlusion=model)
    camera = synthetic_camera(3, 160, 120, 30).frames(1, 2)
    own = rasterizer.render(clip.frame_range(1, 2), camera).mask
    neighbour = clip.frame_range(2, 3)
    voted = rasterizer.render(neighbour, camera).mask
    vote(voted)

    marked = edge_tiles(own)
    drawn = rasterizer.masks_in_tiles(neighbour, camera, own, marked)

    edge = (own[:, 1:] != own[:, :-1])[:, :, 1:] | (own[:, :, 1:] != own[:, :, :-1])[:, 1:]
    near = F.max_pool2d(F.pad(edge, (1, 0, 1, 0)).float(), 5, stride=1, padding=2).bool()
    assert (voted != own)[near].any() and torch.equal(drawn[near], voted[near])
    assert 0 < marked.float().mean() < 0.7, "not all of the image is drawn"


@pytest.mark.parametrize("width", [64, 61], ids=["looked at by words", "by pixels"])
def test_tiles_near_every_edge_are_marked_and_no_others(width) -> None:
    """Edges in all places of a word, at its ends, and at those of the image."""
    random = torch.Generator().manual_seed(6)
    masks = torch.rand(40, 24, width, generator=random) < 0.002
    masks[20:] = ~masks[20:]
    edge = torch.zeros_like(masks)
    across, down = masks[:, :, 1:] != masks[:, :, :-1], masks[:, 1:] != masks[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    corners = edge.clone()  # of an edge's two pixels, and of the one that is beside both
    corners[:, :, 1:] |= across | F.pad(down, (0, 0, 0, 1))[:, :, :-1]
    corners[:, 1:] |= down | F.pad(across, (0, 1))[:, :-1]
    corners[:, 1:, 1:] |= across[:, :-1] | down[:, :, :-1]
    reach = F.max_pool2d(corners[:, None].float(), 7, stride=1, padding=3)[:, 0]
    tiles = F.max_pool2d(F.pad(reach, (0, -width % 8))[:, None], 8)[:, 0].int()

    assert 0.05 < tiles.float().mean() < 0.9
    assert torch.equal(edge_tiles(masks), tiles)


def test_masks_of_neighbours_unmix_no_colours(rasterizer) -> None:
    """Colours of silhouettes are of no use to a mask."""
    clip = synthetic_surface(2, 160, 120).drawn_as(occlusion="thickness")
    own, neighbour = clip.frame_range(0, 1), clip.frame_range(1, 2)
    camera = synthetic_camera(2, 160, 120, 20).frames(1, 2)
    mask = rasterizer.render(own, camera).mask

    rasterizer.masks_in_tiles(neighbour, camera, mask, edge_tiles(mask))

    assert "surface_colors" in own.__dict__ and "surface_colors" not in neighbour.__dict__


@pytest.mark.parametrize("model", OCCLUSION_MODELS)
def test_frames_held_steady_are_those_of_whole_neighbours(rasterizer, model) -> None:
    clip = replace(synthetic_surface(5, 160, 120), occlusion=model)
    camera = synthetic_camera(3, 160, 120, 40)
    earlier, own, later = (clip.frame_range(start, start + 3) for start in range(3))
    whole = [rasterizer.render(near, camera).mask for near in (earlier, later)]
    for mask in whole:
        vote(mask)
    expected = hold_steady(rasterizer.render(own, camera, with_depth=True), *whole)

    (held,) = render_in_batches(rasterizer, own, camera, with_depth=True, around=(earlier, later))

    assert not torch.equal(held.mask, held.drawn)
    for name in ("mask", "drawn", "color", "depth"):
        assert torch.equal(getattr(held, name), getattr(expected, name)), name


@pytest.mark.parametrize("model", ["open", "thickness"])
@pytest.mark.parametrize("focal", [25.0, 60.0, 300.0], ids=["rays beyond 45 degrees", "wide", "narrow"])
def test_cells_that_are_flat_at_a_glance_are_flat(rasterizer, monkeypatch, model, focal) -> None:
    """Slopes on both sides of the limit, steps among them: the faces that are cut off are the same."""
    random = torch.Generator().manual_seed(4)
    slopes = 4 / focal * (torch.rand(2, 1, 1, generator=random) * 3 - 1.5)
    rows, columns = torch.arange(HEIGHT)[:, None] - 30, torch.arange(WIDTH)[None] - 40
    depth = (40 + slopes[0] * rows + slopes[1] * columns).clamp_min(1) * (1 + 0.3 * (columns % 16 == 0))
    depth *= 1 + 0.02 / focal * torch.rand(HEIGHT, WIDTH, generator=random)
    surface = surface_of(depth, model, focal)
    camera = camera_at(surface, x=2.0, y=1.0)
    quick = rasterizer.render(surface, camera, with_depth=True)
    monkeypatch.setattr(warp_inputs, "_level_widths", lambda surface: 0.0)
    exact = rasterizer.render(surface, camera, with_depth=True)
    assert torch.equal(quick.mask, exact.mask) and torch.equal(quick.color, exact.color)
    assert torch.equal(quick.depth, exact.depth)


def test_what_a_frame_alone_saw_stays_seen() -> None:
    """As at the source camera, where the frames before and after were filmed from elsewhere."""
    mask, others = torch.ones(10, 20, dtype=torch.bool), torch.ones(10, 20, dtype=torch.bool)
    others[:, 15:] = False
    rendered = drawn_frame(mask)

    steady = hold_steady(rendered, others[None], others[None].clone())

    assert steady.mask.all() and torch.equal(steady.color, rendered.color)


def test_the_reference_convention_is_never_cleaned() -> None:
    with pytest.raises(ValueError, match="clean=False"):
        surface_of(torch.full((HEIGHT, WIDTH), 2.0), "watertight", convention="reference", clean=True)


def test_what_a_few_samples_saw_is_a_speck_too(rasterizer) -> None:
    """Lone pixels in the middle of what the mask calls unseen, or seen, keep no soft edge of their own."""
    disparity = torch.full((HEIGHT, WIDTH), 0.1)
    disparity[:, :40] = 2.0
    disparity[::7, 40:44] = torch.linspace(1.8, 0.3, 4)  # left over of a smeared edge
    surface = surface_of(1 / disparity, focal=400.0)
    camera = camera_at(surface, x=0.03)
    specks = {}
    for clean in (False, True):
        frames = rasterizer.render(replace(surface, clean=clean), camera, samples=3)
        specks[clean] = speck_count((frames.alpha[0] > 0).numpy())
        assert (frames.color[0][frames.alpha[0] == 0] == 0).all()
        assert torch.equal(frames.mask, frames.alpha >= 128)
    assert specks[True] < 0.2 * specks[False]

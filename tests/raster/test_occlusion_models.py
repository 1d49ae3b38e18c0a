"""What hides: the watertight solid behind everything seen, nothing but what was seen, or solid to a plausible depth.
And what never shows colour: backs of faces, the inside of the solid, its walls and caps, from however far round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster import Rasterizer, RenderedBatch, create_rasterizer
from ex4d.raster.speed import synthetic_camera
from ex4d_core.cameras import CameraPath, look_at
from ex4d_core.render_settings import OCCLUSION_MODELS

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
FOCAL, HEIGHT, WIDTH = 100.0, 48, 128


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


def box_before_wall(**settings) -> DepthSurface:
    """A box at depth 2 in the middle of a wall at depth 4, 60x40 pixels, focal length 60; box 250, wall 100."""
    depth = torch.full((1, 40, 60), 4.0)
    depth[0, 12:28, 22:38] = 2.0
    color = torch.where(depth == 2.0, 250, 100).to(torch.uint8)[..., None].expand(-1, -1, -1, 3).contiguous()
    intrinsics = torch.tensor([[[60.0, 0, 30], [0, 60, 20], [0, 0, 1]]])
    return DepthSurface(depth, color, intrinsics, **settings)


def seen_by(rasterizer: Rasterizer, surface: DepthSurface, poses: np.ndarray) -> RenderedBatch:
    """Cameras (T, 4, 4) with the intrinsics and the size of the source image."""
    camera = CameraPath(poses, surface.intrinsics.numpy(), *surface.size)
    return rasterizer.render(surface, camera, with_depth=True)


def test_through_the_boxs_shadow_open_shows_the_wall_and_watertight_does_not(rasterizer) -> None:
    """From beside the box, past its back, on to the wall at the other side, which the source camera did see."""
    surface = box_before_wall()
    eye, target = (1.2, 0.0, 2.4), (-1.2, 0.0, 4.0)
    pose = look_at(np.array([eye]), np.array(target))
    watertight = seen_by(rasterizer, surface, pose)
    opened = seen_by(rasterizer, replace(surface, occlusion="open"), pose)

    way = float(np.linalg.norm(np.subtract(target, eye)))
    assert not watertight.mask[0, 20, 30] and watertight.depth[0, 20, 30] < 0.8 * way
    assert opened.mask[0, 20, 30] and (opened.color[0, 20, 30] == 100).all()
    assert float(opened.depth[0, 20, 30]) == pytest.approx(way, rel=0.02)
    assert not (watertight.mask & ~opened.mask).any()  # what stands with walls stands without them
    assert opened.depth[0][~opened.mask[0]].isinf().any()  # where nothing was seen, nothing is in the way either


def test_open_too_gives_the_source_camera_the_source_back_exactly(rasterizer) -> None:
    """Depth that is a cliff at every pixel leaves nothing but stretched faces; yet every pixel was seen."""
    random = torch.Generator().manual_seed(4)
    depth = torch.rand(2, 37, 64, generator=random) * 9 + 0.05
    color = torch.randint(0, 256, (2, 37, 64, 3), dtype=torch.uint8, generator=random)
    intrinsics = torch.tensor([[50.0, 0, 32.3], [0, 50, 17], [0, 0, 1]]).expand(2, 3, 3)
    surface = DepthSurface(depth, color, intrinsics, occlusion="open")
    frames = seen_by(rasterizer, surface, np.eye(4)[None].repeat(2, 0))
    assert frames.mask.all()
    assert torch.equal(frames.color, color)


@pytest.mark.parametrize("degrees", [90, 100, 135, 180, 225, 260])
@pytest.mark.parametrize("occlusion", ["watertight", "open"])
def test_from_round_the_back_a_wall_is_unseen(rasterizer, degrees, occlusion) -> None:
    """A flat wall at the pivot's depth has no side that the footage saw, from 90 degrees on."""
    color = torch.full((2, 48, 64, 3), 200, dtype=torch.uint8)
    camera = synthetic_camera(2, 64, 48, degrees)
    surface = DepthSurface(torch.full((2, 48, 64), 3.0), color, torch.tensor(camera.intrinsics), occlusion=occlusion)
    frames = rasterizer.render(surface, camera)
    assert frames.mask[0].float().mean() > 0.9
    assert not frames.mask[1].any() and not frames.color[1].any()


@pytest.mark.parametrize("z", [3.5, 5.0, 30.0])
def test_backs_insides_and_caps_are_never_colour(rasterizer, z) -> None:
    """Back from behind the wall, within the solid and beyond its caps: surfaces everywhere, none of them seen."""
    surface = box_before_wall()
    back = np.diag([-1.0, 1.0, -1.0, 1.0])[None].copy()
    back[0, 2, 3] = z
    frames = seen_by(rasterizer, surface, back)
    assert frames.depth[0, 20, 30].isfinite()
    assert not frames.mask.any() and not frames.color.any()


def test_the_reference_convention_colours_backs_as_the_original_does(rasterizer) -> None:
    """Where our default differs: EX-4D draws both sides of every face, so its images show the wall's back."""
    back = np.diag([-1.0, 1.0, -1.0, 1.0])[None].copy()
    back[0, 2, 3] = 5.0
    surface = box_before_wall(convention="reference", occlusion="open")
    assert seen_by(rasterizer, surface, back).mask.any()
    assert not seen_by(rasterizer, replace(surface, convention="centered"), back).mask.any()


def test_unknown_models_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="invalid occlusion model 'solid'"):
        box_before_wall(occlusion="solid")


def test_thickness_needs_the_centered_convention() -> None:
    with pytest.raises(ValueError, match=r"reference convention .* 'thickness'"):
        box_before_wall(convention="reference", occlusion="thickness")


def before_wall(depth: float, box: tuple[slice, slice], box_depth: float, model: str) -> DepthSurface:
    """A grey image of a wall and something nearer, 128x48 pixels, focal length 100."""
    depths = torch.full((1, HEIGHT, WIDTH), depth)
    depths[0][box] = box_depth
    intrinsics = torch.tensor([[[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]])
    return DepthSurface(depths, torch.full((1, HEIGHT, WIDTH, 3), 128, dtype=torch.uint8), intrinsics, occlusion=model)


def moved_right(distance: float) -> np.ndarray:
    """World-to-camera matrix of a camera that stands to the right of the source camera, (1, 4, 4)."""
    pose = np.eye(4)
    pose[0, 3] = -distance
    return pose[None]


def true_surface(truth: Mapping[str, np.ndarray], frames: np.ndarray, model: str) -> DepthSurface:
    depth, color = torch.from_numpy(truth["depth"][frames]), torch.from_numpy(truth["rgb"][frames])
    intrinsics = torch.from_numpy(truth["intrinsics"]).expand(len(depth), 3, 3)
    return DepthSurface(depth, color, intrinsics, occlusion=model)


@pytest.fixture(scope="module")
def sample() -> Mapping[str, np.ndarray]:
    """The sample clip's depth at the frames of its true views, and what those see of it."""
    with np.load(SAMPLE / "depth.npz") as arrays:
        depth, scale, intrinsics = arrays["depth"], arrays["scale"], arrays["intrinsics"]
    with np.load(SAMPLE / "true_views.npz") as views:
        frames = views["frames"]
        return {
            "depth": (depth[frames] * scale).astype(np.float32),
            "source_intrinsics": intrinsics[frames],
            "extrinsics": views["extrinsics"],
            "intrinsics": views["intrinsics"],
            "visible": views["visible"],
        }


def sample_seen_by_its_true_views(rasterizer: Rasterizer, sample: Mapping[str, np.ndarray], model: str):
    depth = torch.from_numpy(sample["depth"])
    grey = torch.full((*depth.shape, 3), 128, dtype=torch.uint8)
    intrinsics = torch.from_numpy(sample["source_intrinsics"]).expand(len(depth), 3, 3)
    surface = DepthSurface(depth, grey, intrinsics, occlusion=model)
    return rasterizer.render(surface, CameraPath(sample["extrinsics"], sample["intrinsics"], 256, 256))


def shares(mask: torch.Tensor, visible: np.ndarray) -> tuple[float, float]:
    """Falsely seen and missed, as shares of all pixels."""
    seen = mask.numpy()
    return float((seen & ~visible).mean()), float((visible & ~seen).mean())


def test_thickness_is_near_the_truth_on_both_sides(rasterizer, ground_truth, psnr) -> None:
    truth = ground_truth
    moved = np.abs(truth["extrinsics"] - np.eye(4)).max(axis=(1, 2)) > 1e-6
    visible = truth["true_visible"][moved]
    false_seen, missed, ratio = {}, {}, {}
    for model in OCCLUSION_MODELS:
        frames = seen_by(rasterizer, true_surface(truth, moved, model), truth["extrinsics"][moved])
        false_seen[model], missed[model] = shares(frames.mask, visible)
        both = frames.mask.numpy() & visible
        ratio[model] = psnr(frames.color.numpy(), truth["true_rgb"][moved], both)
        iou = both.sum() / (frames.mask.numpy() | visible).sum()
        figures = f"false seen {false_seen[model]:.2%}, missed {missed[model]:.2%}, IoU {iou:.3f}"
        print(f"{model}: {figures}, PSNR {ratio[model]:.2f} dB")

    assert false_seen["thickness"] <= 0.012
    assert missed["thickness"] <= 0.04
    assert false_seen["thickness"] < 0.6 * false_seen["open"]
    assert missed["thickness"] < 0.3 * missed["watertight"]
    assert ratio["thickness"] > max(ratio["open"], ratio["watertight"])


def test_thickness_lies_between_the_others_on_the_sample_clip(rasterizer, sample) -> None:
    false_seen, missed = {}, {}
    for model in OCCLUSION_MODELS:
        frames = sample_seen_by_its_true_views(rasterizer, sample, model)
        false_seen[model], missed[model] = shares(frames.mask, sample["visible"])
        iou = (frames.mask.numpy() & sample["visible"]).sum() / (frames.mask.numpy() | sample["visible"]).sum()
        print(f"{model}: false seen {false_seen[model]:.2%}, missed {missed[model]:.2%}, IoU {iou:.3f}")

    assert false_seen["thickness"] <= 0.0175
    assert missed["thickness"] <= 0.02
    assert false_seen["thickness"] < 0.65 * false_seen["open"]
    assert missed["thickness"] < 0.25 * missed["watertight"]


@pytest.mark.parametrize("model", OCCLUSION_MODELS)
def test_the_source_camera_sees_all_of_its_own_image(rasterizer, ground_truth, model) -> None:
    surface = true_surface(ground_truth, np.arange(len(ground_truth["depth"])), model)

    frames = seen_by(rasterizer, surface, np.eye(4)[None].repeat(surface.frames, 0))

    assert frames.mask.all()
    assert torch.equal(frames.color, surface.color)


def test_with_thickness_too_cliffs_at_every_pixel_come_back_exactly(rasterizer) -> None:
    random = torch.Generator().manual_seed(5)
    depth = torch.rand(2, 37, 64, generator=random) * 9 + 0.05
    color = torch.randint(0, 256, (2, 37, 64, 3), dtype=torch.uint8, generator=random)
    intrinsics = torch.tensor([[50.0, 0, 32.3], [0, 50, 17], [0, 0, 1]]).expand(2, 3, 3)
    surface = DepthSurface(depth, color, intrinsics, occlusion="thickness")
    frames = seen_by(rasterizer, surface, np.eye(4)[None].repeat(2, 0))
    assert frames.mask.all()
    assert torch.equal(frames.color, color)


def test_the_wall_beside_the_shadow_of_a_thin_pole_is_seen_again(rasterizer) -> None:
    # A pole 8 pixels wide at depth 2 before a wall at depth 6. From 0.6 to the right the wall moves 10 pixels to the
    # left and the pole 30: it stands on columns 30-37, and what it hid of the wall lies on columns 50-57.
    pole = (slice(None), slice(60, 68))
    mask = {
        model: seen_by(rasterizer, before_wall(6.0, pole, 2.0, model), moved_right(0.6)).mask[0, 4:-4]
        for model in OCCLUSION_MODELS
    }

    for model in OCCLUSION_MODELS:
        assert mask[model][:, 31:37].all(), "the pole itself"
        assert not mask[model][:, 51:57].any(), "what the pole hid"
        assert mask[model][:, 59:110].all(), "the wall on the far side of the shadow"
    assert not mask["watertight"][:, 38:50].any(), "all between the pole and its shadow counts as solid"
    assert mask["thickness"][:, 40:49].all()
    assert mask["open"][:, 40:49].all()


def test_a_thick_box_keeps_its_body(rasterizer) -> None:
    # A box front 20 pixels wide at depth 3 is 0.6 wide, so it is at most solid to depth 3.3; from 1.5 to the right,
    # 25 degrees aside, to twice what a round body would show there, depth 3.13. The front moves from columns 90-109 to
    # 40-59, its right edge at depth 3.13 to 110 - 150 / 3.13 = 62.1, and what it hid of the wall at depth 9 to columns
    # 73.3 - 93.3.
    box = (slice(8, 40), slice(90, 110))
    mask = {
        model: seen_by(rasterizer, before_wall(9.0, box, 3.0, model), moved_right(1.5)).mask[0, 12:36]
        for model in OCCLUSION_MODELS
    }

    assert mask["open"][:, 61:72].all(), "the wall shines through the unseen side of the box"
    assert not mask["thickness"][:, 61:62].any(), "the body hides it"
    assert mask["thickness"][:, 63:72].all(), "beyond the body it is seen again"
    assert not mask["watertight"][:, 61:72].any()
    for model in OCCLUSION_MODELS:
        assert mask[model][:, 42:58].all(), "the front"
        assert not mask[model][:, 75:92].any(), "what the box hid"


@pytest.mark.parametrize("distance", [1.96, 1.9999, 2.3])
def test_stretched_faces_end_as_far_back_for_a_camera_among_them(rasterizer, distance) -> None:
    # The camera stands beside the pole, past its front or right before it, so that the pole's own stretched faces reach
    # behind the camera; those to the wall are cut off at depth 2.08, and nothing hides what lies ahead of the camera.
    pole = (slice(None), slice(60, 68))
    pose = moved_right(0.02)
    pose[0, 2, 3] = -distance
    mask = {
        model: seen_by(rasterizer, before_wall(6.0, pole, 2.0, model), pose).mask[0, 20:28]
        for model in OCCLUSION_MODELS
    }
    assert (mask["thickness"].sum() >= mask["watertight"].sum()) and mask["thickness"][:, 100:].all()


def test_a_flat_wall_is_whole_with_thickness_at_any_angle(rasterizer) -> None:
    columns = (torch.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCAL
    for slope in (0.0, 0.5, 1.2):
        surface = before_wall(2.0, (slice(0), slice(0)), 2.0, "thickness")
        depth = (2.0 / (1.0 - slope * columns)).expand(1, HEIGHT, WIDTH).contiguous()
        surface = replace(surface, depth=depth)
        thickness = seen_by(rasterizer, surface, moved_right(0.1)).mask[0]
        watertight = seen_by(rasterizer, replace(surface, occlusion="watertight"), moved_right(0.1)).mask[0]
        assert thickness[1:-1, 10:110].all()
        assert not (watertight & ~thickness).any()


@pytest.mark.parametrize("model", OCCLUSION_MODELS)
def test_the_unit_of_depth_does_not_matter(rasterizer, ground_truth, model) -> None:
    surface, poses = true_surface(ground_truth, np.array([-1]), model), ground_truth["extrinsics"][-1:]
    larger = poses.copy()
    larger[:, :3, 3] *= 4

    small = seen_by(rasterizer, surface, poses)
    large = seen_by(rasterizer, replace(surface, depth=4 * surface.depth), larger)

    assert torch.equal(small.mask, large.mask)


@pytest.mark.parametrize("model", OCCLUSION_MODELS)
def test_where_the_source_camera_stands_in_the_world_does_not_matter(rasterizer, ground_truth, model) -> None:
    surface, poses = true_surface(ground_truth, np.array([-1]), model), ground_truth["extrinsics"][-1:]
    angle = np.radians(130.0)
    placed = np.eye(4)
    placed[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    placed[:3, 3] = (1.0, -2.0, 0.5)

    here = seen_by(rasterizer, surface, poses)
    there = seen_by(
        rasterizer, replace(surface, camera_to_world=torch.from_numpy(placed[None])), poses @ np.linalg.inv(placed)
    )

    assert (here.mask != there.mask).float().mean() < 1e-3


def test_thickness_gives_the_same_bytes_each_time(rasterizer, sample) -> None:
    first, second = (sample_seen_by_its_true_views(rasterizer, sample, "thickness") for _ in range(2))
    assert torch.equal(first.mask, second.mask) and torch.equal(first.color, second.color)

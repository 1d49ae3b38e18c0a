"""The "reference" convention against what the original EX-4D computed: its mesh, bit by bit, and its mask renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from ex4d.mesh import DepthSurface, build_surface_mesh
from ex4d.raster import create_rasterizer, force_first_frame
from ex4d.raster.speed import synthetic_camera, synthetic_surface
from ex4d_core.cameras import CameraPath, from_reference, intrinsics_matrix

TRAJECTORIES = ["30", "60", "90", "180", "free"]


def reference_surface(original: Mapping[str, np.ndarray], rule: str = "angle") -> DepthSurface:
    depth, color = torch.from_numpy(original["depth"]), torch.from_numpy(original["rgb"])
    intrinsics = torch.from_numpy(original["intrinsics"]).expand(len(depth), 3, 3)
    return DepthSurface(depth, color, intrinsics, convention="reference", occlusion_rule=rule)


def test_the_mesh_of_frame_0_is_the_originals(golden_geometry) -> None:
    mesh = build_surface_mesh(reference_surface(golden_geometry))
    np.testing.assert_array_equal(mesh.vertices[0].numpy(), golden_geometry["mesh_vertices"])
    np.testing.assert_array_equal(mesh.faces.numpy(), golden_geometry["mesh_faces"])
    np.testing.assert_array_equal(mesh.vertex_rgba()[0].numpy(), golden_geometry["mesh_colors"])


@pytest.mark.parametrize(("trajectory", "rule"), [(name, "angle") for name in TRAJECTORIES] + [("180", "boundary")])
def test_renders_match_the_originals(golden_geometry, psnr, trajectory: str, rule: str) -> None:
    original = golden_geometry
    surface = reference_surface(original, rule)
    steps = original["frames"]
    poses = from_reference(original[f"extrinsics_{trajectory}"][steps])

    frames = create_rasterizer("warp", "cpu").render(surface, CameraPath(poses, original["intrinsics"], *surface.size))

    expected = original[f"render_{trajectory}" if rule == "angle" else f"render_{rule}_{trajectory}"]
    overlaps, ratios = [], []
    for index in range(1, len(steps)):  # the original puts the source in frame 0's place
        seen, mask = expected[index, ..., 3] > 0, frames.mask[index].numpy()
        overlaps.append((mask & seen).sum() / (mask | seen).sum())
        ratios.append(psnr(frames.color[index].numpy(), expected[index, ..., :3], mask & seen))
    print(f"{trajectory} {rule}: IoU min {min(overlaps):.4f} mean {np.mean(overlaps):.4f}, PSNR min {min(ratios):.1f}")
    assert min(overlaps) >= 0.9999
    if len(overlaps) > 1:  # the data of the checkout has one frame, whose own bound is the one above
        assert np.mean(overlaps) >= 0.99995
    assert min(ratios) >= 56.0


@pytest.mark.parametrize("reach", [0.125, 0.375, 0.625, 0.875])
def test_a_pixel_at_a_silhouette_takes_a_share_of_its_neighbour(reach: float) -> None:
    """A bright plate before a dark wall ends so far, in pixels, beyond the last centre that it covers."""
    height, width, focal, zoom = 8, 24, 16.0, 8
    depth = torch.full((1, height, width), 16.0)
    color = torch.full((1, height, width, 3), 40, dtype=torch.uint8)
    depth[..., :10], color[:, :, :10] = 2.0, 200
    lens = intrinsics_matrix(focal, focal, width / 2, height / 2)
    surface = DepthSurface(depth, color, torch.from_numpy(lens[None]), convention="reference", occlusion="open")
    aside = np.eye(4)[None]
    end = 11 * zoom + 0.5 + reach  # of the plate in x; without the move, which brings it before the wall, 9 * zoom
    aside[0, 0, 3] = (end - 9 * zoom) * 2.0 / (focal * zoom)

    closer = CameraPath(aside, lens, width, height).resized(width * zoom, height * zoom)
    frames = create_rasterizer("warp", "cpu").render(surface, closer)

    # a row that the lower faces of the cells cross at their right ends: only a pixel whose own face ends is blended
    row, last = frames.color[0, height * zoom // 2 + zoom - 2, :, 0], int(end - 0.5)
    shown = {last - 1: 1.0, last: 1 - max(0.0, 0.5 - reach), last + 1: max(0.0, reach - 0.5), last + 2: 0.0}
    for column, share in shown.items():
        assert int(row[column]) == pytest.approx(40 + 160 * share, abs=1), column


def clip_and_snap(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """Corners (n, 2) of a convex polygon, in pixels, cut off at the image's edges, then to 1/16 pixel."""
    for axis, sign, edge in ((0, 1, 0), (0, -1, width), (1, 1, 0), (1, -1, height)):
        inside = sign * (corners[:, axis] - edge)
        rest = []
        for k, (here, there) in enumerate(zip(inside, np.roll(inside, -1), strict=True)):
            after = corners[(k + 1) % len(corners)]
            if here >= 0:
                rest.append(corners[k])
            if (here >= 0) != (there >= 0):
                rest.append(corners[k] + here / (here - there) * (after - corners[k]))
        corners = np.array(rest).reshape(-1, 2)
    return np.floor(corners * 16 + 0.5) / 16


def test_what_leaves_the_image_is_cut_off_before_it_is_snapped() -> None:
    """The plane of an image of 2 x 2 pixels, its depth all border, as a needle across 40 views."""
    width, height = 48, 32
    surface = DepthSurface(
        torch.ones(40, 2, 2),
        torch.zeros(40, 2, 2, 3, dtype=torch.uint8),
        torch.tensor([[100.0, 0, 0.5], [0, 100.0, 0.5], [0, 0, 1]]).expand(40, 3, 3),
        convention="reference",
    )
    square = np.array([[-0.5, -0.5, 100], [0.5, -0.5, 100], [0.5, 0.5, 100], [-0.5, 0.5, 100]])
    lens = intrinsics_matrix(4000.0, 60.0, width / 2, height / 2)
    random = np.random.default_rng(5)
    cameras = np.repeat(np.eye(4)[None], 40, axis=0)
    angles = random.uniform(0.2, 1.4, 40)
    cameras[:, 0, 0] = cameras[:, 1, 1] = np.cos(angles)
    cameras[:, 0, 1], cameras[:, 1, 0] = -np.sin(angles), np.sin(angles)
    cameras[:, :3, 3] = random.uniform([-0.3, -5, -97], [0.3, 5, -80], (40, 3))

    camera = CameraPath(cameras, lens, width, height)
    frames = create_rasterizer("warp", "cpu").render(surface, camera, with_depth=True)

    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    leaves = 0
    for pose, depth in zip(cameras, frames.depth.numpy(), strict=True):
        points = (square @ pose[:3, :3].T + pose[:3, 3]) @ lens.T
        corners = points[:, :2] / points[:, 2:]
        leaves += bool(((corners < 0) | (corners > [width, height])).any())
        polygon = clip_and_snap(corners, width, height)
        along = np.roll(polygon, -1, axis=0) - polygon
        offset = centres[:, :, None] - polygon
        side = along[:, 0] * offset[..., 1] - along[:, 1] * offset[..., 0]
        inside, on_edge = (side > 0).all(axis=2), (side == 0).any(axis=2)
        inside &= len(polygon) > 0
        np.testing.assert_array_equal(np.isfinite(depth)[~on_edge], inside[~on_edge])
    assert leaves > 20


def test_caps_hide_the_corners_of_the_border_that_lie_in_their_plane() -> None:
    """Two of the image's corners keep their alpha, and the caps show their colours (golden: frame 48 of "180")."""
    depth, color = torch.full((1, 12, 16), 8.0), torch.full((1, 12, 16, 3), 10, dtype=torch.uint8)
    color[0, 0, 0], color[0, -1, -1] = 100, 200
    camera = synthetic_camera(1, 16, 12)
    surface = DepthSurface(depth, color, torch.tensor(camera.intrinsics), convention="reference")

    frames = create_rasterizer("warp", "cpu").render(surface, camera)

    for row, column, shown in ((0, 0, 100), (10, 14, 200)):
        assert frames.mask[0, row, column]
        assert int(frames.color[0, row, column, 0]) == pytest.approx(shown, abs=12)
        assert not frames.mask[0, row + 1, column] and not frames.mask[0, row, column + 1]


def test_the_principal_point_is_the_images_centre_whatever_the_intrinsics_say() -> None:
    surface, camera = synthetic_surface(1, 64, 48), synthetic_camera(1, 64, 48)
    aside = replace(camera, intrinsics=intrinsics_matrix(64, 64, 39, 19))
    for convention, same in (("reference", True), ("centered", False)):
        drawn = [
            create_rasterizer("warp", "cpu").render(replace(surface, convention=convention), view).color
            for view in (camera, aside)
        ]
        assert torch.equal(*drawn) == same, convention


def test_frame_0_is_forced_to_the_source_as_the_original_does(golden_geometry) -> None:
    original = golden_geometry
    surface = reference_surface(original).frame_range(0, 2)
    aside = np.eye(4)[None].repeat(2, 0)
    aside[:, 0, 3] = 1.0
    frames = create_rasterizer("warp", "cpu").render(surface, CameraPath(aside, original["intrinsics"], *surface.size))
    source = torch.from_numpy(original["rgb"][0])

    forced = force_first_frame(frames, source)

    assert forced.mask[0].all() and torch.equal(forced.color[0], source)
    assert not frames.mask[0].all()
    assert torch.equal(forced.color[1], frames.color[1]) and torch.equal(forced.mask[1], frames.mask[1])
    with pytest.raises(ValueError, match="render at the source image's size"):
        force_first_frame(frames, source[:-1])

"""The "reference" convention against what the original EX-4D computed: its mesh, bit by bit, and its mask renders."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from backend.mesh import DepthSurface, build_surface_mesh
from backend.raster import create_rasterizer, force_first_frame

TRAJECTORIES = ["30", "60", "90", "180", "free"]


def reference_surface(original: Mapping[str, np.ndarray], rule: str = "angle") -> DepthSurface:
    depth, color = torch.from_numpy(original["depth"]), torch.from_numpy(original["rgb"])
    intrinsics = torch.from_numpy(original["intrinsics"]).expand(len(depth), 3, 3)
    return DepthSurface(depth, color, intrinsics, convention="reference", occlusion_rule=rule)


def world_to_camera(raw: np.ndarray) -> np.ndarray:
    """The original's rows are right = forward x up, up, forward; OpenCV's are x, y down, z forward."""
    return np.diag([-1.0, 1.0, 1.0, 1.0]) @ raw.astype(np.float64)


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
    cameras = world_to_camera(original[f"extrinsics_{trajectory}"][steps])
    height, width = original["depth"].shape[1:]
    intrinsics = np.broadcast_to(original["intrinsics"], (len(steps), 3, 3))

    frames = create_rasterizer("warp", "cpu").render(surface, cameras, intrinsics, width, height)

    expected = original[f"render_{trajectory}" if rule == "angle" else f"render_{rule}_{trajectory}"]
    overlaps, ratios = [], []
    for index in range(1, len(steps)):  # the original puts the source in frame 0's place
        seen, mask = expected[index, ..., 3] > 0, frames.mask[index].numpy()
        overlaps.append((mask & seen).sum() / (mask | seen).sum())
        ratios.append(psnr(frames.color[index].numpy(), expected[index, ..., :3], mask & seen))
    print(f"{trajectory} {rule}: IoU min {min(overlaps):.4f} mean {np.mean(overlaps):.4f}, PSNR min {min(ratios):.1f}")
    assert min(overlaps) >= 0.9995
    assert np.mean(overlaps) >= 0.9999
    assert min(ratios) >= 48.0


@pytest.mark.parametrize("reach", [0.125, 0.375, 0.625, 0.875])
def test_a_pixel_at_a_silhouette_takes_a_share_of_its_neighbour(reach: float) -> None:
    """A bright plate before a dark wall ends so far, in pixels, beyond the last centre that it covers."""
    height, width, focal, zoom = 8, 24, 16.0, 8
    depth = torch.full((1, height, width), 16.0)
    color = torch.full((1, height, width, 3), 40, dtype=torch.uint8)
    depth[..., :10], color[:, :, :10] = 2.0, 200
    lens = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]])
    surface = DepthSurface(depth, color, lens, convention="reference", occlusion="open")
    closer = lens * torch.tensor([zoom, zoom, 1.0])[:, None]
    aside = np.eye(4)[None]
    end = 11 * zoom + 0.5 + reach  # of the plate in x; without the move, which brings it before the wall, 9 * zoom
    aside[0, 0, 3] = (end - 9 * zoom) * 2.0 / (focal * zoom)

    frames = create_rasterizer("warp", "cpu").render(surface, aside, closer, width * zoom, height * zoom)

    # a row that the lower faces of the cells cross at their right ends: only a pixel whose own face ends is blended
    row, last = frames.color[0, height * zoom // 2 + zoom - 2, :, 0], int(end - 0.5)
    shown = {last - 1: 1.0, last: 1 - max(0.0, 0.5 - reach), last + 1: max(0.0, reach - 0.5), last + 2: 0.0}
    for column, share in shown.items():
        assert int(row[column]) == pytest.approx(40 + 160 * share, abs=1), column


def test_frame_0_is_forced_to_the_source_as_the_original_does(golden_geometry) -> None:
    original = golden_geometry
    surface = reference_surface(original).frame_range(0, 2)
    height, width = original["depth"].shape[1:]
    aside = np.eye(4)[None].repeat(2, 0)
    aside[:, 0, 3] = 1.0
    frames = create_rasterizer("warp", "cpu").render(
        surface, aside, original["intrinsics"][None].repeat(2, 0), width, height
    )
    source = torch.from_numpy(original["rgb"][0])

    forced = force_first_frame(frames, source)

    assert forced.mask[0].all() and torch.equal(forced.color[0], source)
    assert not frames.mask[0].all()
    assert torch.equal(forced.color[1], frames.color[1]) and torch.equal(forced.mask[1], frames.mask[1])
    with pytest.raises(ValueError, match="render at the source picture's size"):
        force_first_frame(frames, source[:-1])

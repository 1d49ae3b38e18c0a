"""Coverage of a camera path: near enough to what a full render shows, and the angle from which the subject is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.mesh import DepthSurface
from backend.raster import Rasterizer, create_rasterizer, path_coverage, reduce_surface, view_angles
from backend.raster.speed import SUBJECT_DISTANCE, made_up_cameras, made_up_surface


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


def true_scene(truth) -> tuple[DepthSurface, np.ndarray]:
    intrinsics = torch.from_numpy(truth["intrinsics"]).expand(len(truth["depth"]), 3, 3)
    surface = DepthSurface(torch.from_numpy(truth["depth"]), torch.from_numpy(truth["rgb"]), intrinsics)
    return surface, truth["extrinsics"]


@pytest.mark.parametrize("occlusion", ["watertight", "open", "thickness"])
@pytest.mark.parametrize("clip", ["true scene", "fence at 512x512", "fence at 832x480"])
def test_coverage_is_within_a_hundredth_of_the_full_renders(rasterizer, ground_truth, clip, occlusion) -> None:
    if clip == "true scene":
        surface, cameras = true_scene(ground_truth)
    else:
        size = (512, 512) if clip.endswith("512") else (832, 480)
        surface, cameras = made_up_surface(4, *size), made_up_cameras(4, 45)
    surface = replace(surface, occlusion=occlusion)

    coverage = path_coverage(rasterizer, surface, cameras, surface.intrinsics, *surface.size)

    full = rasterizer.render(surface, cameras, surface.intrinsics, *surface.size)
    expected = full.mask.flatten(1).double().mean(dim=1).numpy()
    print(f"{clip} {occlusion}: off by {np.abs(coverage.seen - expected).max():.4f}")
    assert coverage.seen == pytest.approx(expected, abs=0.01)


def test_what_is_reduced_once_serves_every_path(rasterizer) -> None:
    surface = made_up_surface(2, 512, 512)
    reduced = reduce_surface(surface, rasterizer)
    assert [each.size for each in reduced.reduced] == [(256, 256), (128, 128)]
    for degrees in (10, 40):
        cameras = made_up_cameras(2, degrees)
        again = path_coverage(rasterizer, reduced, cameras, surface.intrinsics, 512, 512)
        anew = path_coverage(rasterizer, surface, cameras, surface.intrinsics, 512, 512)
        assert (again.seen == anew.seen).all()


def test_the_reference_conventions_border_keeps_its_full_size(rasterizer) -> None:
    surface = made_up_surface(1, 520, 300, "reference")
    assert reduce_surface(surface, rasterizer).strides == (1,)


def test_the_view_angle_is_the_arcs(rasterizer) -> None:
    surface = made_up_surface(7, 64, 48)
    cameras = made_up_cameras(7, 90)
    np.testing.assert_allclose(view_angles(surface, cameras, SUBJECT_DISTANCE), np.linspace(0, 90, 7), atol=1e-9)
    # the ball's face, nearer than its centre, is what lies in the middle of the picture
    np.testing.assert_allclose(view_angles(surface, cameras)[:2], [0, 20.5], atol=1.5)


def test_the_view_angle_follows_a_source_camera_that_moves() -> None:
    surface = made_up_surface(3, 64, 48)
    poses = np.eye(4)[None].repeat(3, 0)
    poses[:, :3, 3] = [[0, 0, 0], [5, 1, 2], [-3, 0, 9]]
    moving = replace(surface, camera_to_world=poses)
    np.testing.assert_allclose(view_angles(moving, np.linalg.inv(poses), 3.0), 0, atol=1e-6)
    aside = np.linalg.inv(poses)
    aside[:, 0, 3] += 3.0
    np.testing.assert_allclose(view_angles(moving, aside, 3.0), 45, atol=1e-6)

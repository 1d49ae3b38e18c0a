"""Coverage of a camera path: near enough to what a full render shows, and the angle from which the subject is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ex4d.mesh import DepthSurface, MeshDepthError
from ex4d.raster import Rasterizer, create_rasterizer, sparse_camera, view_angles, visible_fractions
from ex4d.raster.simplified_frame import SimplifiedFrame
from ex4d.raster.speed import SUBJECT_DISTANCE, synthetic_camera, synthetic_surface
from ex4d_core.cameras import CameraPath

MODELS = [
    ("centered", "watertight"),
    ("centered", "open"),
    ("centered", "thickness"),
    ("reference", "watertight"),
    ("reference", "open"),
]


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


def counted(surface: DepthSurface, camera: CameraPath) -> np.ndarray:
    sparse = sparse_camera(camera, surface.convention)
    return np.array(
        [
            SimplifiedFrame(surface.frame_range(k, k + 1)).visible_fraction(sparse.frames(k, k + 1))
            for k in range(len(sparse))
        ]
    )


def assert_near_the_full_render(
    rasterizer: Rasterizer, surface: DepthSurface, camera: CameraPath, bound: float = 0.01
) -> None:
    found = counted(surface, camera)
    full = visible_fractions(rasterizer, surface, camera)
    print(f"off by {np.abs(found - full).max():.4f}")
    assert found == pytest.approx(full, abs=bound)


def true_scene(truth) -> tuple[DepthSurface, CameraPath]:
    intrinsics = np.repeat(truth["intrinsics"][None], len(truth["depth"]), axis=0)
    surface = DepthSurface(
        torch.from_numpy(truth["depth"]), torch.from_numpy(truth["rgb"]), torch.from_numpy(intrinsics)
    )
    return surface, CameraPath(truth["extrinsics"], intrinsics, *surface.size)


@pytest.mark.parametrize(("convention", "occlusion"), MODELS)
def test_coverage_of_the_true_scene_is_within_a_hundredth(rasterizer, ground_truth, convention, occlusion) -> None:
    surface, camera = true_scene(ground_truth)
    surface = replace(surface, convention=convention, occlusion=occlusion)
    for size in (surface.size, (768, 512), (200, 133)):
        assert_near_the_full_render(rasterizer, surface, camera.resized(*size))


@pytest.mark.parametrize(("convention", "occlusion"), MODELS)
@pytest.mark.parametrize("size", [(512, 512), (832, 480), (1280, 720)])
def test_coverage_of_a_fence_is_within_a_hundredth(rasterizer, size, convention, occlusion) -> None:
    surface = replace(synthetic_surface(2, *size), convention=convention, occlusion=occlusion)
    # The camera of a "reference" shot's frame 0 shows the source frame, and is not drawn.
    for degrees in (7.0, 45.0, 130.0):
        assert_near_the_full_render(rasterizer, surface, synthetic_camera(3, *size, degrees).frames(1, 3))


@pytest.mark.parametrize("trajectory", ["30", "60", "90", "180", "free"])
@pytest.mark.parametrize(("convention", "occlusion"), MODELS)
def test_coverage_of_the_golden_trajectories_is_within_a_hundredth(
    rasterizer, golden_geometry, trajectory, convention, occlusion
) -> None:
    original = golden_geometry
    intrinsics = np.repeat(original["intrinsics"].astype(float)[None], len(original["depth"]), axis=0)
    surface = DepthSurface(
        torch.from_numpy(original["depth"]),
        torch.from_numpy(original["rgb"]),
        torch.from_numpy(intrinsics),
        convention=convention,
        occlusion=occlusion,
    )
    raw = original[f"extrinsics_{trajectory}"][original["frames"]].astype(np.float64)
    camera = CameraPath(np.diag([-1.0, 1.0, 1.0, 1.0]) @ raw, intrinsics, *surface.size)
    assert_near_the_full_render(rasterizer, surface, camera)


# Of faces that stand alone, as all do that "reference" and "open" leave here, antialiasing takes some from the render.
@pytest.mark.parametrize(("convention", "occlusion"), [model for model in MODELS if model != ("reference", "open")])
def test_where_nothing_can_be_simplified_every_ray_counts_as_in_a_render(rasterizer, convention, occlusion) -> None:
    """Depth that is a cliff at every pixel, and near enough to reach before the camera; every ray is drawn."""
    random = torch.Generator().manual_seed(1)
    depth = torch.rand(1, 60, 80, generator=random) * 9 + 0.05
    surface = DepthSurface(depth, torch.zeros(1, 60, 80, 3, dtype=torch.uint8), synthetic_surface(1, 80, 60).intrinsics)
    surface = replace(surface, convention=convention, occlusion=occlusion)
    for degrees in (0.0, 15.0, 100.0, 180.0):
        assert_near_the_full_render(rasterizer, surface, synthetic_camera(2, 80, 60, degrees).frames(1, 2), 2e-3)


def test_the_source_camera_sees_all_there_is() -> None:
    for occlusion in ("watertight", "open", "thickness"):
        surface = replace(synthetic_surface(1, 512, 300), occlusion=occlusion)
        assert counted(surface, synthetic_camera(1, 512, 300)) == 1.0


def test_a_frame_of_nothing_but_stretched_faces_is_counted_too(rasterizer) -> None:
    """2 x 2 pixels, each behind the other's back: every face touches the ring."""
    surface = replace(synthetic_surface(1, 2, 2), depth=torch.tensor([[[1.0, 50.0], [50.0, 1.0]]]))
    camera = synthetic_camera(2, 30, 30, 20.0).frames(1, 2)
    for occlusion in ("watertight", "open", "thickness"):
        assert_near_the_full_render(rasterizer, replace(surface, occlusion=occlusion), camera)


def test_an_open_surface_has_no_border_in_either_convention(rasterizer) -> None:
    """EX-4D's border, 100 away, is not stretched before a wall at that depth; it is left out all the same."""
    surface = replace(synthetic_surface(1, 20, 20, "reference"), occlusion="open", depth=torch.full((1, 20, 20), 100.0))
    camera = synthetic_camera(1, 80, 80)
    assert counted(surface, camera)[0] < 0.9
    assert_near_the_full_render(rasterizer, surface, camera)


def test_a_smooth_surface_has_few_faces_and_an_outline_all_of_them() -> None:
    wall = DepthSurface(
        torch.full((1, 300, 300), 4.0),
        torch.zeros(1, 300, 300, 3, dtype=torch.uint8),
        synthetic_surface(1, 300, 300).intrinsics,
    )
    border = 2 * 4 * 301  # the ring's faces, which are all hidden
    smooth = SimplifiedFrame(wall).faces - border
    assert smooth < 8000  # of 178,802
    stepped = wall.depth.clone()
    stepped[:, :, 150:] = 8.0
    discontinuity = SimplifiedFrame(replace(wall, depth=stepped)).faces - border
    assert smooth + 600 < discontinuity < smooth + 8000


def test_a_frame_is_simplified_alone_and_refuses_what_a_render_refuses() -> None:
    surface = synthetic_surface(2, 64, 48)
    with pytest.raises(ValueError, match="surface of 2 frames"):
        SimplifiedFrame(surface)
    frame, camera = SimplifiedFrame(surface.frame_range(0, 1)), synthetic_camera(2, 64, 48)
    with pytest.raises(ValueError, match="a camera path of 2 frames does not fit a surface of 1"):
        frame.visible_fraction(camera)
    assert 0.0 <= frame.visible_fraction(replace(camera.frames(0, 1), width=1, height=1)) <= 1.0
    surface.depth[1, 3, 4] = np.nan
    with pytest.raises(MeshDepthError, match="depth of frame 0 has 1 values"):
        SimplifiedFrame(surface.frame_range(1, 2))


@pytest.mark.parametrize("size", [(512, 512), (1024, 576), (1920, 1080), (90, 2000), (1, 1)])
def test_a_sparse_camera_has_rays_of_the_full_one(size) -> None:
    intrinsics = np.array([[[0.9 * size[0], 0, size[0] / 2], [0, 0.9 * size[0], size[1] / 2], [0, 0, 1]]])
    full = CameraPath(np.eye(4)[None], intrinsics, *size)
    sparse = sparse_camera(full)
    assert sparse.width * sparse.height <= 1.6 * 2**16
    # Pixel centres of the sparse image, as rays, and where the full camera sees them.
    corner = (sparse.width - 0.5, sparse.height - 0.5, 1.0)
    centres = np.array([[0.5, 0.5, 1.0], [(sparse.width // 2) + 0.5, 0.5, 1.0], corner])
    seen = centres @ np.linalg.inv(sparse.intrinsics[0]).T @ full.intrinsics[0].T
    np.testing.assert_allclose(seen[:, :2] % 1.0, 0.5, atol=1e-9)
    assert (seen[:, :2] < size).all()


def test_the_view_angle_is_the_arcs() -> None:
    still, arc = synthetic_camera(7, 64, 48, 0), synthetic_camera(7, 64, 48, 90)
    np.testing.assert_allclose(view_angles(still, arc, SUBJECT_DISTANCE), np.linspace(0, 90, 7), atol=1e-6)


def test_the_view_angle_follows_a_source_camera_that_moves() -> None:
    poses = np.eye(4)[None].repeat(3, 0)
    poses[:, :3, 3] = [[0, 0, 0], [5, 1, 2], [-3, 0, 9]]
    moving = replace(synthetic_camera(3, 64, 48), world_to_camera=np.linalg.inv(poses))
    np.testing.assert_allclose(view_angles(moving, moving, 3.0), 0, atol=1e-6)
    aside = np.linalg.inv(poses)
    aside[:, 0, 3] += 3.0
    np.testing.assert_allclose(view_angles(moving, replace(moving, world_to_camera=aside), 3.0), 45, atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, 1, 1.5, 2, 4])
def test_coverage_of_the_source_camera_of_the_reference_convention(rasterizer, scale) -> None:
    """There colours fade over a pixel of the footage, and a few rays may all meet the same side of it."""
    surface = synthetic_surface(1, 512, 512, "reference")
    side = round(512 * scale)
    assert_near_the_full_render(rasterizer, surface, synthetic_camera(1, side, side))


def test_the_reference_convention_has_its_principal_point_in_the_middle(rasterizer) -> None:
    """Whatever the intrinsics say: so it is in a render, and of its every third ray."""
    surface = synthetic_surface(1, 512, 512, "reference")
    aside = surface.intrinsics.numpy().copy()
    aside[:, :2, 2] += 60.0
    camera = replace(synthetic_camera(2, 512, 512, 20.0).frames(1, 2), intrinsics=aside)
    assert_near_the_full_render(rasterizer, surface, camera.resized(1000, 1000))

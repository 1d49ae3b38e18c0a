"""The `warp` rasterizer's promises: the source camera gives the footage back, what is unknown is unseen, nothing
breaks on degenerate input, and errors name the frame and the value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ex4d.devices import DeviceError
from ex4d.mesh import DepthSurface, MeshDepthError
from ex4d.raster import (
    Rasterizer,
    available_rasterizers,
    create_rasterizer,
)
from ex4d.raster.speed import synthetic_camera, synthetic_surface
from ex4d.raster.warp_rasterizer import WarpRasterizer
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.errors import RequestError


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


def camera_of(poses: np.ndarray, focal: float = 60.0, width: int = 60, height: int = 40) -> CameraPath:
    return CameraPath(poses, intrinsics_matrix(focal, focal, width / 2, height / 2), width, height)


def source(depth: torch.Tensor, color: torch.Tensor, camera: CameraPath, **settings) -> DepthSurface:
    """A surface seen with a camera's lens."""
    return DepthSurface(depth, color, torch.tensor(camera.intrinsics), **settings)


def noise(frames: int, height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth that is a cliff at every pixel, and random colours."""
    random = torch.Generator().manual_seed(seed)
    depth = torch.rand(frames, height, width, generator=random) * 9 + 0.05
    return depth, torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=random)


def wall(frames: int = 1, height: int = 40, width: int = 60) -> DepthSurface:
    """A flat wall at depth 4, in one colour; the focal length equals the width."""
    color = torch.full((frames, height, width, 3), 200, dtype=torch.uint8)
    return source(torch.full((frames, height, width), 4.0), color, camera_of(still(frames), width, width, height))


def still(frames: int = 1) -> np.ndarray:
    return np.eye(4)[None].repeat(frames, 0)


@pytest.mark.parametrize(
    ("height", "width", "focal"), [(2, 2, 3.0), (37, 64, 50.0), (256, 200, 500.0), (96, 1500, 2e4)]
)
@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.31, -7.7)], ids=["centred", "shifted"])
def test_the_source_camera_gives_the_source_back_exactly(rasterizer, height, width, focal, centre) -> None:
    depth, color = noise(2, height, width)
    lens = intrinsics_matrix(focal, focal, width / 2 + centre[0], height / 2 + centre[1])
    camera = CameraPath(still(2), lens, width, height)

    frames = rasterizer.render(source(depth, color, camera), camera, with_depth=True)

    assert frames.mask.all()
    assert torch.equal(frames.color, color)
    # beside cliffs a hundred times as deep as wide, 1/256 pixel is a visible step in depth
    assert ((frames.depth / depth - 1).abs() < 0.2).all()


def test_a_moving_source_camera_gives_the_source_back_exactly(rasterizer) -> None:
    depth, color = noise(3, 90, 120)
    angles = np.radians([10.0, 75.0, 200.0])
    poses = still(3)
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(angles)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(angles), -np.sin(angles)
    poses[:, :3, 3] = [[0.2, 0, 0], [5, -3, 8], [-20, 4, 2]]

    camera = camera_of(np.linalg.inv(poses), 130.0, 120, 90)
    mesh = source(depth, color, camera, camera_to_world=torch.from_numpy(poses))
    frames = rasterizer.render(mesh, camera)

    assert frames.mask.all()
    assert torch.equal(frames.color, color)


def test_render_size_is_independent_of_mesh_size(rasterizer) -> None:
    mesh = wall()
    for width, height in ((1, 1), (7, 5), (60, 40), (333, 222)):
        frames = rasterizer.render(mesh, camera_of(still(), width, width, height))
        assert frames.color.shape == (1, height, width, 3) and frames.color.dtype == torch.uint8
        assert frames.mask.shape == (1, height, width) and frames.mask.dtype == torch.bool
        assert frames.depth is None
        # half a source pixel at the image's edge is the wall's own border
        inner = frames.mask[:, height // 40 + 1 : -(height // 40) - 1, width // 60 + 1 : -(width // 60) - 1]
        assert inner.all()
        assert (frames.color[frames.mask] == 200).all()


def test_zoom_follows_the_intrinsics_of_each_frame(rasterizer) -> None:
    """A wall 60 pixels wide of half the focal length covers the middle half of the image."""
    mesh = wall(frames=2)
    intrinsics = np.stack([intrinsics_matrix(focal, focal, 30, 20) for focal in (60, 30)])
    frames = rasterizer.render(mesh, CameraPath(still(2), intrinsics, 60, 40))
    assert frames.mask[0].all()
    assert frames.mask[1, 11:29, 16:44].all()
    assert not frames.mask[1, :9].any() and not frames.mask[1, :, :14].any()


def test_no_crack_and_no_overlap_at_any_view_of_a_surface(rasterizer) -> None:
    """A wavy surface that fills the view, from 40 odd cameras: a crack would let the unseen caps show."""
    height, width, count = 60, 80, 40
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    depth = (4 + 0.1 * torch.sin(x / 5.0) * torch.cos(y / 7.0)).expand(count, -1, -1).contiguous()
    color = torch.full((count, height, width, 3), 90, dtype=torch.uint8)
    mesh = source(depth, color, camera_of(still(count), 60.0, width, height))
    random = np.random.default_rng(3)
    angles = random.uniform(-0.15, 0.15, count)
    cameras = still(count)
    cameras[:, 0, 0] = cameras[:, 1, 1] = np.cos(angles)
    cameras[:, 0, 1], cameras[:, 1, 0] = -np.sin(angles), np.sin(angles)
    cameras[:, :3, 3] = random.uniform(-0.2, 0.2, (count, 3))

    frames = rasterizer.render(mesh, camera_of(cameras, 150.0, 101, 67))

    assert frames.mask.all()
    assert (frames.color == 90).all()


@pytest.mark.parametrize("distance", [4.5, 10.0, 60.0])
def test_from_behind_nothing_is_seen(rasterizer, distance: float) -> None:
    mesh = wall()
    behind = np.diag([-1.0, 1.0, -1.0, 1.0])[None].copy()
    behind[0, 2, 3] = distance
    frames = rasterizer.render(mesh, camera_of(behind), with_depth=True)
    assert not frames.mask.any()
    assert (frames.color == 0).all()
    assert frames.depth[0, 20, 30].isfinite()  # but it is there, and hides what is behind it


def test_a_camera_that_flies_through_the_wall_sees_it_until_it_is_through(rasterizer) -> None:
    positions = [0.0, 3.9, 3.99999, 4.00001, 4.2, 5.0]
    mesh = wall(frames=len(positions))
    cameras = still(len(positions))
    cameras[:, 2, 3] = -np.array(positions)
    frames = rasterizer.render(mesh, camera_of(cameras), with_depth=True)
    assert frames.mask.flatten(1).all(dim=1).tolist() == [True, True, True, False, False, False]
    assert not frames.mask[3:].any()
    np.testing.assert_allclose(frames.depth[:3, 20, 30], [4.0, 0.1, 1e-5], rtol=0.05)


def test_a_grazing_camera_inside_the_mesh_sees_the_part_before_it(rasterizer) -> None:
    """Standing on a floor that reaches from behind the camera to the horizon: its lower half is floor, all of it."""
    height, width = 50, 60
    y = torch.arange(height)[:, None] + 0.5
    depth = (60.0 / (y + 5)).expand(height, width)[None].contiguous()  # the plane Y = 1
    color = torch.full((1, height, width, 3), 120, dtype=torch.uint8)
    intrinsics = torch.tensor([[[60.0, 0, 30], [0, 60.0, -5], [0, 0, 1]]])
    mesh = DepthSurface(depth, color, intrinsics)
    # the floor reaches from Z = 1.1 to Z = 11; the camera stands above Z = 4, so near faces pass behind it
    camera = still()
    camera[0, 2, 3] = -4.0
    camera[0, 1, 3] = -0.95
    frames = rasterizer.render(mesh, camera_of(camera, 40.0, 41, 31), with_depth=True)
    floor = frames.depth[0, 20:, 20]
    expected = 0.05 * 40.0 / (np.arange(20, 31) + 0.5 - 15.5)
    np.testing.assert_allclose(floor.numpy(), expected, rtol=0.01)
    assert frames.mask[0, 20:, 15:26].all()
    assert not frames.mask[0, :15].any()


def test_faces_of_no_area_draw_nothing_and_break_nothing(rasterizer) -> None:
    """A pose that squashes the world flat, to a line, to a point, or turns it behind the camera."""
    flat = wall(height=4, width=5)
    for squash in ((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, -1.0)):
        degenerate = replace(flat, camera_to_world=np.diag([*squash, 1.0])[None])
        frames = rasterizer.render(degenerate, camera_of(still(), 5, 5, 4))
        assert not frames.mask.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_impossible_depth_is_refused_with_its_frame_and_value(rasterizer, value: float) -> None:
    surface = wall(frames=2)
    surface.depth[1, 20, 30] = value
    with pytest.raises(MeshDepthError, match=f"depth of frame 1 has 1 values.*first: {value}"):
        rasterizer.render(surface, camera_of(still(2)))


def test_footage_that_is_all_border_has_nothing_to_show_in_the_originals_convention(rasterizer) -> None:
    """2 x 2 pixels: EX-4D's border takes them all; in our own convention they stay what they are."""
    color = torch.full((1, 2, 2, 3), 77, dtype=torch.uint8)
    camera = camera_of(still(), 2, 2, 2)
    tiny = source(torch.full((1, 2, 2), 3.0), color, camera, convention="reference")
    opened = rasterizer.render(replace(tiny, occlusion="open"), camera)
    assert not opened.mask.any()
    centered = rasterizer.render(replace(tiny, convention="centered"), camera)
    assert centered.mask.all() and (centered.color == 77).all()
    with pytest.raises(MeshDepthError, match="invalid size 1 x 1"):
        source(torch.ones(1, 1, 1), color[:, :1, :1], camera)


def test_the_same_input_gives_the_same_bytes_in_any_company(rasterizer) -> None:
    depth, color = noise(4, 50, 70)
    poses = still(4)
    poses[:, 0, 3] = [-0.5, 0.3, 1.0, 2.0]
    camera = camera_of(poses, 60.0, 70, 50)
    mesh = source(depth, color, camera)
    together = rasterizer.render(mesh, camera)
    again = rasterizer.render(mesh, camera)
    assert torch.equal(together.color, again.color) and torch.equal(together.mask, again.mask)
    for frame in range(4):
        one = frame, frame + 1
        alone = rasterizer.render(mesh.frame_range(*one), camera.frames(*one))
        assert torch.equal(alone.color[0], together.color[frame])
        assert torch.equal(alone.mask[0], together.mask[frame])


@pytest.mark.parametrize("room", [None, 30], ids=["room in the queues", "queues overflow"])
@pytest.mark.parametrize(
    ("convention", "occlusion"),
    [(c, o) for c in ("centered", "reference") for o in ("watertight", "open")] + [("centered", "thickness")],
)
def test_threads_that_share_the_drawing_draw_what_one_draws(rasterizer, monkeypatch, convention, occlusion, room):
    """As on a GPU, with faces drawn alone, in pieces by groups, before the near plane and over the image's edges.

    In small queues with threads that draw next to nothing alone, so that rims of silhouettes are queued too.
    """
    surface = replace(synthetic_surface(2, 96, 64, convention), occlusion=occlusion)
    poses = synthetic_camera(2, 200, 150, 40).world_to_camera.copy()
    poses[0, 2, 3] = -1.9
    camera = camera_of(poses, 300.0, 200, 150)
    alone = rasterizer.render(surface, camera, with_depth=True)
    direct_pixels = 48 if room is None else 2
    sharing = direct_pixels, direct_pixels, 8, 5, 16, 37
    monkeypatch.setattr(WarpRasterizer, "_sharing", lambda self, frames, height: sharing)
    if room is not None:
        monkeypatch.setattr(WarpRasterizer, "_pieces", lambda self, vertices: room)
        monkeypatch.setattr(WarpRasterizer, "_stretched_faces", lambda self, vertices: room)
    together = rasterizer.render(surface, camera, with_depth=True)
    assert 0.2 < alone.mask.float().mean() < 0.999
    for part in ("color", "mask", "depth"):
        assert torch.equal(getattr(together, part), getattr(alone, part)), part


def test_choice_of_rasterizer_and_device() -> None:
    assert available_rasterizers()[0] == "warp"
    chosen = create_rasterizer()
    assert chosen.name == "warp" and "Apache-2.0" in chosen.licence
    assert chosen.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(RequestError, match="invalid rasterizer 'opengl'"):
        create_rasterizer("opengl")
    with pytest.raises(DeviceError, match="invalid device 'gpu'"):
        create_rasterizer("warp", "gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_where_there_is_none_is_refused_with_the_remedy() -> None:
    with pytest.raises(DeviceError, match=r"no usable CUDA device: install an NVIDIA driver.*device cpu"):
        create_rasterizer("warp", "cuda")

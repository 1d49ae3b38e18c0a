"""Rims in the "thickness" model: surfaces go on as planes to their silhouettes and to the image's edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ex4d.mesh import DepthSurface
from ex4d.raster import Rasterizer, create_rasterizer
from ex4d_core.cameras import CameraPath, look_at

WIDTH, HEIGHT, FOCAL = 64, 48, 60.0
HORIZON = 20  # the row where the table ends
TABLE, WALL = 200, 90


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return create_rasterizer("warp", "cpu")


def table_before_wall(far: float = 60.0) -> DepthSurface:
    """A table top half a unit below the camera, seen at a grazing angle, from its far edge down; behind it a wall."""
    row = torch.arange(HEIGHT) + 0.5 - HEIGHT / 2
    below = row + HEIGHT / 2 - HORIZON + 3.0
    depth = torch.where(below >= 3.0, 0.5 * FOCAL / below.clamp_min(1.0), torch.tensor(far))
    color = torch.where(below >= 3.0, TABLE, WALL).to(torch.uint8)
    intrinsics = torch.tensor([[[FOCAL, 0, WIDTH / 2], [0, FOCAL, float(HORIZON - 3)], [0, 0, 1]]])
    return DepthSurface(
        depth[None, :, None].expand(1, HEIGHT, WIDTH).contiguous(),
        color[None, :, None, None].expand(1, HEIGHT, WIDTH, 3).contiguous(),
        intrinsics,
        occlusion="thickness",
    )


def from_above(surface: DepthSurface) -> CameraPath:
    """A camera that looks steeply down at the table's far edge."""
    pose = look_at(np.array([[0.0, -4.0, 5.0]]), np.array([0.0, 0.5, 9.0]))
    return CameraPath(pose, surface.intrinsics.numpy(), *surface.size)


def test_a_table_reaches_to_its_far_edge(rasterizer) -> None:
    """Its last row of pixels has depth 8.6, and ends midway to the next row of its plane, at depth 10."""
    surface = table_before_wall()
    camera = from_above(surface)
    drawn = rasterizer.render(surface, camera, with_depth=True)
    seen = drawn.mask[0] & (drawn.color[0, ..., 0] == TABLE)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    (focal_x, focal_y), centre = surface.intrinsics[0, [0, 1], [0, 1]].numpy(), surface.intrinsics[0, :2, 2].numpy()
    ray = np.stack([(x - centre[0]) / focal_x, (y - centre[1]) / focal_y, np.ones_like(x)], axis=-1)
    points = ray * np.nan_to_num(drawn.depth[0].numpy(), posinf=0.0)[..., None]
    pose = np.linalg.inv(camera.world_to_camera[0])
    z = (points @ pose[:3, :3].T + pose[:3, 3])[..., 2][seen.numpy()]
    last, end = 0.5 * FOCAL / 3.5, 0.5 * FOCAL / 3.0
    assert z.max() > last + 0.6 * (end - last)
    assert z.max() < end + 0.05


def test_backs_of_rims_are_unseen(rasterizer) -> None:
    surface = table_before_wall()
    pose = look_at(np.array([[0.0, 2.0, 7.0]]), np.array([0.0, 0.5, 8.6]))
    drawn = rasterizer.render(surface, CameraPath(pose, surface.intrinsics.numpy(), *surface.size))
    assert not (drawn.color[0, ..., 0] == TABLE).any()


def test_a_body_hides_the_more_the_farther_a_camera_turns(rasterizer) -> None:
    """The wall that a box hides beyond its front: a hair's breadth at 2 degrees, half its width at most."""
    depth = torch.full((1, HEIGHT, WIDTH), 12.0)
    depth[0, :, 24:40] = 3.0
    intrinsics = torch.tensor([[[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]])
    gray = torch.full((1, HEIGHT, WIDTH, 3), 100, dtype=torch.uint8)
    surface = DepthSurface(depth, gray, intrinsics, occlusion="thickness")
    behind = []
    for degrees in (2, 30):
        angle = np.radians(degrees)
        eye = 3.0 * np.array([[np.sin(angle), 0.0, 1 - np.cos(angle)]])
        pose = look_at(eye, np.array([0.0, 0.0, 3.0]))
        drawn = rasterizer.render(surface, CameraPath(pose, intrinsics.numpy(), *surface.size), with_depth=True)
        wall = drawn.mask[0] & (drawn.depth[0] > 8)
        body = ~drawn.mask[0] & (drawn.depth[0] < 4)
        assert wall.any()
        behind.append(int(body.sum()))
    assert behind[0] == 0 < behind[1]


def test_no_fringe_of_a_bodys_colour_stands_around_the_hole_that_it_leaves(rasterizer) -> None:
    """Two in five parts of the wall's pixels beside the box are the box, and beyond them the wall alone is shown."""
    box, wall, mixed = 220, 60, 124
    depth = torch.full((1, HEIGHT, WIDTH), 12.0)
    color = torch.full((1, HEIGHT, WIDTH, 3), wall, dtype=torch.uint8)
    depth[0, :, 24:40], color[0, :, 24:40] = 3.0, box
    color[0, :, 23] = color[0, :, 40] = mixed
    intrinsics = torch.tensor([[[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]])
    surface = DepthSurface(depth, color, intrinsics, occlusion="thickness")
    pose = np.eye(4)[None]
    pose[0, 0, 3] = -1.0  # the camera moves to the right by one unit: 5 pixels of the wall, 20 of the box
    lens = intrinsics.numpy() * np.array([[[4], [4], [1]]])
    drawn = rasterizer.render(surface, CameraPath(pose, lens, 4 * WIDTH, 4 * HEIGHT), with_depth=True)
    row = drawn.color[0, 2 * HEIGHT, :, 0][drawn.mask[0, 2 * HEIGHT] & (drawn.depth[0, 2 * HEIGHT] > 10)]
    assert (row == wall).sum() > 100, "the wall"
    assert not (row > wall + 4).any(), "neither the mixed pixel nor what goes on beyond it"
    assert rasterizer.render(surface, CameraPath(np.eye(4)[None], intrinsics.numpy(), WIDTH, HEIGHT)).color.equal(color)


def test_pixels_that_stand_out_are_unmixed_and_texture_and_shadows_stay() -> None:
    """Beside a much nearer box the wall has its own colour again; on a striped wall, or a near one, none changes."""
    box, wall, mixed = 220, 60, 124
    depth = torch.full((1, HEIGHT, WIDTH), 12.0)
    color = torch.full((1, HEIGHT, WIDTH, 3), wall, dtype=torch.uint8)
    depth[0, :, 24:40], color[0, :, 24:40] = 3.0, box
    color[0, :, 23] = color[0, :, 40] = mixed
    intrinsics = torch.tensor([[[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]])
    alone = color.clone()
    alone[0, :, [23, 40]] = wall
    assert DepthSurface(depth, color, intrinsics, occlusion="thickness").surface_colors.equal(alone)

    near = torch.where(depth > 3.0, torch.tensor(5.0), depth)
    assert DepthSurface(near, color, intrinsics, occlusion="thickness").surface_colors.equal(color)
    striped = color.clone()
    striped[0, 1::2, :22] = striped[0, 1::2, 42:] = 2 * mixed - wall
    assert DepthSurface(depth, striped, intrinsics, occlusion="thickness").surface_colors.equal(striped)


def test_no_crack_opens_where_silhouettes_reach_behind_the_camera(rasterizer) -> None:
    """Rims of faces that are drawn by homogeneous edge functions meet the faces beside them, which are not, exactly."""
    frames, zoom = 40, 4
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    body = np.hypot(x - WIDTH / 2, y - HEIGHT / 2) < 14 + 3 * np.sin(x)
    depth = torch.from_numpy(np.where(body, np.float32(3.0), np.float32(12.0))).expand(frames, -1, -1).contiguous()
    intrinsics = torch.tensor([[[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]]).expand(frames, 3, 3)
    gray = torch.full((frames, HEIGHT, WIDTH, 3), 100, dtype=torch.uint8)
    surface = DepthSurface(depth, gray, intrinsics, occlusion="thickness")
    random = np.random.default_rng(0)
    poses = np.repeat(np.eye(4)[None], frames, axis=0)
    poses[:, 2, 3] = -3.5  # past the body
    poses[:, :2, 3] = random.uniform(-0.3, 0.3, (frames, 2))
    roll = random.uniform(-0.05, 0.05, frames)
    poses[:, 0, 0] = poses[:, 1, 1] = np.cos(roll)
    poses[:, 0, 1], poses[:, 1, 0] = -np.sin(roll), np.sin(roll)
    lens = intrinsics.numpy() * np.array([[[zoom], [zoom], [1]]])
    mask = rasterizer.render(surface, CameraPath(poses, lens, zoom * WIDTH, zoom * HEIGHT)).mask.float()
    around = F.avg_pool2d(mask[:, None], 3, stride=1)[:, 0] * 9 - mask[:, 1:-1, 1:-1]
    assert mask.mean() > 0.3
    assert not ((mask[:, 1:-1, 1:-1] == 0) & (around > 6.5)).any()

"""The rasterizer against a ray caster that knows nothing of projection, clipping or edges: every pixel's ray is cut
with every face in float64. Cameras stand outside, inside and behind the mesh."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ex4d.mesh import DepthSurface, DWMesh, build_surface_mesh
from ex4d.raster import create_rasterizer
from ex4d_core.cameras import CameraPath

HEIGHT, WIDTH = 14, 18
VIEW_HEIGHT, VIEW_WIDTH = 60, 80

# position (x, y, z) and rotation (pitch, yaw, roll in degrees) of cameras; the surface lies at depths 1 to 3
CAMERAS = {
    "at the source": ((0, 0, 0), (0, 0, 0)),
    "beside the source": ((0.7, -0.2, 0.1), (5, -20, 0)),
    "rolled and far to the side": ((2.5, 0.5, 0.6), (0, -70, 35)),
    "inside the unseen space, looking on": ((0.1, 0.05, 2.2), (0, 15, 0)),
    "inside the unseen space, looking back": ((0.1, 0.05, 2.6), (10, 190, 0)),
    "through the surface": ((0.3, 0.1, 1.45), (-10, 40, 10)),
    "behind the caps, looking back": ((0.2, 0.3, 6.0), (0, 180, 0)),
    "above, looking down through the frustum": ((0, -2.0, 2.0), (-90, 0, 0)),
}


def pose(position: tuple, angles: tuple) -> np.ndarray:
    pitch, yaw, roll = np.radians(angles)
    x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = (y @ x @ z).T
    world_to_camera[:3, 3] = -world_to_camera[:3, :3] @ np.array(position, dtype=float)
    return world_to_camera


def stepped_surface() -> DepthSurface:
    """A near box before a tilted background, with noise, in random colours."""
    random = np.random.default_rng(5)
    depth = 2.4 + 0.03 * np.arange(WIDTH) + 0.05 * random.random((HEIGHT, WIDTH))
    depth[4:10, 5:12] = 1.2 + 0.05 * random.random((6, 7))
    color = random.integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    intrinsics = np.array([[[16.0, 0, 9], [0, 16.0, 7], [0, 0, 1]]])
    return DepthSurface(
        torch.from_numpy(depth[None].astype(np.float32)), torch.from_numpy(color), torch.from_numpy(intrinsics)
    )


def grazing_surface() -> DepthSurface:
    """The same with ground below it, up to a horizon: of its far rows each face is thinner than EX-4D's rule allows."""
    surface = stepped_surface()
    below = torch.arange(40)[:, None].expand(40, WIDTH) + 0.5
    depth = torch.cat([surface.depth[0] * 60, 40.0 / below])[None]
    color = torch.cat([surface.color, surface.color.repeat(1, 3, 1, 1)[:, :40]], dim=1)
    return DepthSurface(depth, color, surface.intrinsics)


def cast_rays(mesh: DWMesh, world_to_camera: np.ndarray, intrinsics: np.ndarray):
    """Nearest hit of each pixel's ray: depth, seen, a wall's front, blended colour (Moeller and Trumbore, 1997)."""
    corners = mesh.vertices[0].double().numpy() @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    a, b, c = (corners[mesh.faces[:, k].long().numpy()] for k in range(3))
    y, x = np.mgrid[0:VIEW_HEIGHT, 0:VIEW_WIDTH] + 0.5
    rays = np.stack(
        [(x - intrinsics[0, 2]) / intrinsics[0, 0], (y - intrinsics[1, 2]) / intrinsics[1, 1], np.ones_like(x)], -1
    ).reshape(-1, 1, 3)
    normal = np.cross(b - a, c - a)
    determinant = (rays * normal).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (a * normal).sum(-1) / determinant
        u = (rays * np.cross(c - a, a)[None]).sum(-1) / determinant
        v = (rays * np.cross(a, b - a)[None]).sum(-1) / determinant
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (depth > 0)
    depth = np.where(hit, depth, np.inf)
    nearest = depth.argmin(axis=1)
    pixels = np.arange(len(rays))
    u, v, depth = u[pixels, nearest], v[pixels, nearest], depth[pixels, nearest]
    front, occluded = np.isfinite(depth) & (determinant[pixels, nearest] > 0), mesh.occluded[0].numpy()[nearest]
    seen, wall = front & ~occluded, front & occluded
    weights = np.stack([1 - u - v, u, v], axis=-1)
    colors = mesh.colors[0].numpy().astype(float)[mesh.faces.long().numpy()[nearest]]
    blended = np.where(seen[:, None], (weights[..., None] * colors).sum(1), 0)
    shape = (VIEW_HEIGHT, VIEW_WIDTH)
    return depth.reshape(shape), seen.reshape(shape), wall.reshape(shape), blended.reshape(*shape, 3)


BESIDE = "beside the source"


@pytest.mark.parametrize(
    "camera, surface",
    [(camera, stepped_surface()) for camera in CAMERAS] + [(BESIDE, grazing_surface())],
    ids=[*CAMERAS, "before grazing ground"],
)
def test_agrees_with_a_ray_caster_from_anywhere(camera: str, surface: DepthSurface) -> None:
    world_to_camera = pose(*CAMERAS[camera])
    intrinsics = np.array([[50.0, 0, 40.3], [0, 50.0, 30.1], [0, 0, 1]])

    view = CameraPath(world_to_camera[None], intrinsics, VIEW_WIDTH, VIEW_HEIGHT)
    frames = create_rasterizer("warp", "cpu").render(surface, view, with_depth=True)
    depth, seen, wall, color = cast_rays(build_surface_mesh(surface), world_to_camera, intrinsics)

    # Vertices are snapped to 1/256 pixel: a pixel on a silhouette may fall to the other side. And the front of a wall
    # may show the squares of the source pixels at its ends.
    assert ((frames.mask[0].numpy() != seen) & ~wall).mean() < 2e-3
    hit = np.isfinite(depth)
    assert (frames.depth[0].isfinite().numpy() != hit).mean() < 2e-3
    both = hit & frames.depth[0].isfinite().numpy()
    close = np.abs(frames.depth[0].numpy()[both] / depth[both] - 1) < 0.02
    assert close.mean() > 0.995
    agreed = seen & frames.mask[0].numpy()
    error = np.abs(frames.color[0].numpy()[agreed] - color[agreed]).max(axis=-1, initial=0)
    assert (error > 4).sum() <= 0.005 * agreed.sum()

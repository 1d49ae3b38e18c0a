"""The original EX-4D's loop for masks, rewritten for timing beside our rasterizers.

The same operations in the same order as its `recon.py`, frame by frame: faces rebuilt in numpy and copied to the GPU,
mesh and occlusion in PyTorch, nvdiffrast for one frame, antialiasing with its edge table built again, the image copied
to host memory as float32. Used by the benchmark only.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster.nvdiffrast_rasterizer import load_nvdiffrast
from ex4d_core.cameras import CameraPath

BORDER_DEPTH = 100.0
SMALLEST_ANGLE = 2.5
NEAR, FAR = 1e-3, 1e3


def render_as_the_original(surface: DepthSurface, camera: CameraPath, context: object) -> np.ndarray:
    """Render colour and mask, (T, H, W, 4) uint8.

    Args:
        surface: on a CUDA device, with EX-4D's "angle" rule.
        camera: of the footage's size and lens.
        context: an nvdiffrast ``RasterizeCudaContext``.
    """
    nvdiffrast = load_nvdiffrast()
    device = surface.device
    _, height, width = surface.depth.shape
    depth = surface.depth.clone()
    depth[:, [0, -1]] = BORDER_DEPTH
    depth[:, :, [0, -1]] = BORDER_DEPTH
    intrinsics = surface.intrinsics[0]
    focal_x, focal_y, centre_x, centre_y = (intrinsics[index] for index in ((0, 0), (1, 1), (0, 2), (1, 2)))
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    rays = torch.stack([(x - centre_x) / focal_x, (y - centre_y) / focal_y, torch.ones_like(x)], -1).float()
    projection = torch.zeros(4, 4, device=device)
    projection[0, 0], projection[1, 1] = 2 * focal_x / width, 2 * focal_y / height
    projection[2, 2], projection[2, 3] = (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
    projection[3, 2] = 1.0
    cameras = torch.tensor(camera.world_to_camera, dtype=torch.float32, device=device)
    images = []
    for frame in range(surface.frames):
        color = surface.color[frame].float()
        points = (depth[frame][..., None] * rays).reshape(-1, 3)
        faces = _faces(height, width, device)
        colors = _faded_colors(points, faces, color)
        ones = torch.ones(len(points), 1, device=device)
        clip = (torch.cat([points, ones], dim=1) @ (projection @ cameras[frame]).T)[None]
        hits, _ = nvdiffrast.rasterize(context, clip, faces, resolution=[height, width])
        image, _ = nvdiffrast.interpolate(colors[None], hits, faces)
        image = nvdiffrast.antialias(image, hits, clip, faces)[0]
        mask = image[..., 3:]
        mask[mask > 125] = 255
        mask[mask <= 125] = 0
        image[..., :3] = image[..., :3] * (mask / 255)
        images.append(image.cpu().numpy().astype(np.uint8))
    return np.stack(images)


def _faces(height: int, width: int, device: torch.device) -> torch.Tensor:
    index = np.arange(height * width).reshape(height, width)
    upper = np.stack([index[1:, :-1].ravel(), index[:-1, :-1].ravel(), index[:-1, 1:].ravel()], axis=-1)
    lower = np.stack([index[1:, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel()], axis=-1)
    last = height * width - 1
    caps = torch.tensor([[width - 1, 0, last], [last, 0, last - width + 1]]).int().to(device)
    return torch.cat([torch.from_numpy(np.concatenate([upper, lower])).int().to(device), caps])


def _faded_colors(points: torch.Tensor, faces: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """(V, 4) float32: every vertex of a thin face has colour and alpha 0."""
    alpha = torch.full((*color.shape[:2], 1), 255.0, device=color.device)
    colors = torch.cat([color, alpha], dim=-1).reshape(-1, 4)
    a, b, c = (points[faces[:, corner].long()] for corner in range(3))
    normals = torch.linalg.cross(b - a, c - a)
    torch.nn.functional.normalize(normals, dim=1)  # computed there too, but not used
    angles = [_angle(b - a, c - a), _angle(c - b, a - b), _angle(a - c, b - c)]
    thin = torch.minimum(torch.minimum(angles[0], angles[1]), angles[2]) < SMALLEST_ANGLE
    for edge_axis in range(3):  # extents of faces, likewise not used by this rule
        lengths = [(p - q)[:, edge_axis].abs() for p, q in ((a, b), (b, c), (c, a))]
        torch.maximum(torch.maximum(lengths[0], lengths[1]), lengths[2])
    colors.index_put_((faces[thin].long(),), torch.zeros(4, device=color.device))
    return colors


def _angle(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    cosine = (p * q).sum(-1) / (torch.norm(p, dim=1) * torch.norm(q, dim=1) + 1e-12)
    return torch.arccos(torch.clip(cosine, -1.0, 1.0)) * (180 / math.pi)

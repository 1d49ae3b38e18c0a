"""How much of each new frame the footage saw, and from how far aside: for a whole camera path, while it is being made.

A GPU draws the path as it is and hands back a number for each frame. A CPU draws it twice at reduced sizes, which is
quick enough to follow an artist who drags a keyframe: the walls beside every outline are a pixel wide at any size, so
coverage errs in proportion to the size of a pixel, and two sizes tell what it is at the footage's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from backend.mesh import DepthSurface
from backend.raster.batches import BATCH_PIXELS
from backend.raster.interface import Rasterizer

# On a CPU, about the longer side of the larger of the two reduced pictures. Coverage is then within 0.01 of the full
# size's, which the tests hold it to.
REDUCED_SIDE = 256


@dataclass(frozen=True)
class PathCoverage:
    """What a camera path asks of the generator.

    Attributes:
        seen: (T,) float64, share of each frame that the footage saw, 0 to 1.
        view_angle: (T,) float64, degrees between the directions from which the source camera and the new camera look
            at the subject.
    """

    seen: np.ndarray
    view_angle: np.ndarray


@dataclass(frozen=True)
class ReducedSurface:
    """What path_coverage draws: made once for a clip, for as many paths as the artist tries.

    Attributes:
        surface: the clip at its own size.
        strides: how many pixels of the clip make one of each reduced size, ascending.
        reduced: the clip at these sizes.
    """

    surface: DepthSurface
    strides: tuple[int, ...]
    reduced: tuple[DepthSurface, ...]


def reduce_surface(surface: DepthSurface, rasterizer: Rasterizer) -> ReducedSurface:
    """The sizes at which this rasterizer's device draws coverage.

    In the "reference" convention, whose border is a pixel wide at any size, there is only the full one.
    """
    stride = max(1, round(max(surface.size) / REDUCED_SIDE))
    if stride == 1 or rasterizer.device.type == "cuda" or surface.convention == "reference":
        return ReducedSurface(surface, (1,), (surface,))
    strides = (stride, 2 * stride)
    return ReducedSurface(surface, strides, tuple(_reduced(surface, each) for each in strides))


def path_coverage(
    rasterizer: Rasterizer,
    surface: DepthSurface | ReducedSurface,
    world_to_camera: np.ndarray | torch.Tensor,
    intrinsics: np.ndarray | torch.Tensor,
    width: int,
    height: int,
    *,
    subject_distance: float | None = None,
) -> PathCoverage:
    """Coverage and view angle of each frame of a path.

    Args:
        surface: the clip, or what `reduce_surface` made of it, for callers who ask again and again.
        world_to_camera, intrinsics, width, height: as for `interface.Rasterizer.render`.
        subject_distance: of the subject from the source camera along its axis, scene units; by default the median
            depth in the middle of each frame.

    Raises:
        ValueError, DepthError: see `interface.Rasterizer.render`.
    """
    sizes = surface if isinstance(surface, ReducedSurface) else reduce_surface(surface, rasterizer)
    lenses = torch.as_tensor(intrinsics).double().cpu().numpy()
    shares = [
        _seen_shares(rasterizer, reduced, world_to_camera, lenses, (width, height), stride)
        for reduced, stride in zip(sizes.reduced, sizes.strides, strict=True)
    ]
    seen = shares[0]
    if len(shares) == 2:
        fine, coarse = sizes.strides
        seen = np.clip(seen + (seen - shares[1]) * (fine - 1) / (coarse - fine), 0.0, 1.0)
    return PathCoverage(seen, view_angles(sizes.surface, world_to_camera, subject_distance))


def _seen_shares(
    rasterizer: Rasterizer,
    surface: DepthSurface,
    world_to_camera: np.ndarray | torch.Tensor,
    lenses: np.ndarray,
    size: tuple[int, int],
    stride: int,
) -> np.ndarray:
    """(T,) share of each frame's pixels that are seen, drawn 1 / stride as large."""
    width, height = (max(1, round(side / stride)) for side in size)
    lenses = lenses * np.array([width / size[0], height / size[1], 1.0])[:, None]
    step = max(1, BATCH_PIXELS // (width * height))
    shares = []
    for start in range(0, surface.frames, step):
        part = slice(start, start + step)
        frames = rasterizer.render(
            surface.frame_range(start, start + step), world_to_camera[part], lenses[part], width, height
        )
        shares.append(frames.mask.flatten(1).double().mean(dim=1))
    return torch.cat(shares).cpu().numpy()


def _reduced(surface: DepthSurface, stride: int) -> DepthSurface:
    """Every so-manieth pixel of a surface, nothing blended."""
    width, height = surface.size
    columns, rows = max(2, round(width / stride)), max(2, round(height / stride))
    x = ((torch.arange(columns) + 0.5) * width / columns).long()
    y = ((torch.arange(rows) + 0.5) * height / rows).long()
    scale = torch.tensor([columns / width, rows / height, 1.0], dtype=torch.float64)
    return replace(
        surface,
        depth=surface.depth[:, y[:, None], x],
        color=surface.color[:, y[:, None], x],
        intrinsics=surface.intrinsics * scale[:, None],
    )


def view_angles(
    surface: DepthSurface, world_to_camera: np.ndarray | torch.Tensor, subject_distance: float | None = None
) -> np.ndarray:
    """(T,) degrees between the source camera's and the new camera's directions to the subject of each frame."""
    poses = torch.as_tensor(world_to_camera).double().cpu().numpy()
    still = surface.camera_to_world is None
    source = np.broadcast_to(np.eye(4), poses.shape) if still else surface.camera_to_world.numpy()
    distance = _middle_depth(surface) if subject_distance is None else np.full(len(poses), float(subject_distance))
    ahead = source[:, :3, 2] * distance[:, None]
    subject = source[:, :3, 3] + ahead
    eye = -np.einsum("tji,tj->ti", poses[:, :3, :3], poses[:, :3, 3])
    there = subject - eye
    lengths = np.linalg.norm(ahead, axis=1) * np.linalg.norm(there, axis=1)
    cosine = (ahead * there).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _middle_depth(surface: DepthSurface) -> np.ndarray:
    """(T,) median depth of the middle ninth of each frame."""
    width, height = surface.size
    rows = slice(height // 3, max(height // 3 + 1, 2 * height // 3))
    columns = slice(width // 3, max(width // 3 + 1, 2 * width // 3))
    middle = surface.depth[:, rows, columns]
    return middle.flatten(1).median(dim=1).values.double().cpu().numpy()

"""`Inputs`: a surface and cameras as the kernels of the `warp` rasterizer take them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
import warp as wp

from ex4d.mesh import DepthSurface
from ex4d.mesh.edge_shares import edge_shares
from ex4d.mesh.occlusion import MIN_INNER_ANGLE_DEGREES
from ex4d.mesh.plane_kernel import flat_widths_of
from ex4d.mesh.surface_colors import surface_colors
from ex4d.mesh.thickness import back_limits, pixel_angles
from ex4d.raster.rasterizer import REFERENCE_FAR, REFERENCE_NEAR
from ex4d.raster.tiles import Tiles
from ex4d.raster.warp import projection
from ex4d_core.cameras import CameraPath

StructInstance = Any  # Warp has no public type for instances of a struct.

OCCLUSION_CODES = {
    "watertight": projection.WATERTIGHT,
    "open": projection.OPEN,
    "thickness": projection.THICKNESS,
}

# What `drawing.is_flat_cell` expects: pixels at most so much longer than wide, and |x / z| and |y / z| of rays at
# most this.
FLAT_ASPECT, FLAT_RAYS = 1.1, 1.0

REFERENCE_SNAP, CENTERED_SNAP = 16, 1  # in 1/256 pixel; nvdiffrast's vertices are snapped to 1/16
# In nvdiffrast's depth buffer caps, which come last, win over faces in their plane: those at the border's corners.
REFERENCE_CAP_NEARER = 1 + 1e-4
# Depth has no fixed unit, so our own near plane is practically 0; homogeneous edge functions lose no precision by it.
CENTERED_NEAR, CENTERED_FAR = 1e-6, math.inf


@dataclass(frozen=True)
class Inputs:
    """The kernels' inputs on the surface's device: B frames each."""

    depth: torch.Tensor
    color: torch.Tensor
    border: torch.Tensor
    ray_x: torch.Tensor
    ray_y: torch.Tensor
    cameras: torch.Tensor
    intrinsics: torch.Tensor
    pixel_angles: torch.Tensor
    level_widths: float
    tiles: Tiles | None = None

    @staticmethod
    def of(surface: DepthSurface, camera: CameraPath, tiles: Tiles | None = None) -> Inputs:
        """The inputs for all frames of a surface, copied to its device; without tiles all of the image is drawn."""
        poses = torch.from_numpy(camera.world_to_camera.copy())
        if surface.camera_to_world is not None:
            poses = poses @ surface.camera_to_world
        intrinsics = torch.from_numpy(camera.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]])
        small = (*surface.rays, poses, intrinsics, pixel_angles(surface.intrinsics))
        return Inputs(
            surface.depth.contiguous(),
            surface.color.contiguous(),
            surface.border_depth,
            *(_upload(values, surface.device) for values in small),
            level_widths=_level_widths(surface),
            tiles=tiles,
        )

    def frames(self, part: slice) -> Inputs:
        """The inputs of some of the frames."""
        shared = {"level_widths": self.level_widths, "tiles": None if self.tiles is None else self.tiles[part]}
        own = {field.name: getattr(self, field.name)[part] for field in fields(self) if field.name not in shared}
        return Inputs(**own, **shared)

    def source(self, surface: DepthSurface, *, has_colors: bool = True) -> StructInstance:
        """The kernels' `Source`; what the "thickness" model needs is measured, unless the surface has it already.

        Args:
            has_colors: whether colours will be drawn, which are unmixed for that; a mask does without.
        """
        source = projection.Source()
        source.depth, source.color = wp.from_torch(self.depth), wp.from_torch(self.color)
        source.border = wp.from_torch(self.border)
        source.ray_x, source.ray_y = wp.from_torch(self.ray_x), wp.from_torch(self.ray_y)
        source.surface_color = source.color
        if surface.occlusion == "thickness":
            if surface.frames == 1 or surface.has_edge_shares:
                found, shares = surface.back_limits, surface.edge_shares
                colors = surface.surface_colors if has_colors else None
            else:
                found = back_limits(self.depth, self.pixel_angles)
                shares = edge_shares(self.depth, self.color, found.steps)
                colors = surface_colors(self.depth, self.color, found.steps, shares) if has_colors else None
            source.limits, source.steps = wp.from_torch(found.limits), wp.from_torch(found.steps)
            source.shares = wp.from_torch(shares)
            if colors is not None:
                source.surface_color = wp.from_torch(colors)
        source.pixel_angles = wp.from_torch(self.pixel_angles)
        source.rows, source.columns = surface.grid_shape
        source.ring = surface.ring
        source.boundary_rule = surface.occlusion_rule == "boundary"
        source.thin = 4.0 * math.cos(math.radians(MIN_INNER_ANGLE_DEGREES)) ** 2
        source.flat_widths = flat_widths_of(surface.occlusion_rule)
        source.level_widths = self.level_widths
        return source

    def view(self, surface: DepthSurface, size: tuple[int, int], samples: int = 1, top: int = 0) -> StructInstance:
        """The kernels' `View` of an image of (width, height) pixels, with so many samples of each per axis.

        Args:
            top: the row of pixels that the image begins at, where it is a strip of a larger one.
        """
        view = projection.View()
        view.cameras = wp.from_torch(self.cameras, dtype=wp.mat44d)
        intrinsics = self.intrinsics * samples
        intrinsics[:, 3] -= top * samples
        view.intrinsics = wp.from_torch(intrinsics, dtype=wp.vec4d)
        view.width, view.height = (side * samples for side in size)
        view.samples = samples
        view.slant = projection.HALF_PIXEL // samples if samples > 1 else 0
        reference = surface.convention == "reference"
        view.near = REFERENCE_NEAR if reference else CENTERED_NEAR
        view.far = REFERENCE_FAR if reference else CENTERED_FAR
        view.occlusion = OCCLUSION_CODES[surface.occlusion]
        view.snap = REFERENCE_SNAP if reference else CENTERED_SNAP
        if self.tiles is not None:
            view.wanted, view.tile = wp.from_torch(self.tiles.table), self.tiles.side
            view.is_hollow = 0 if self.tiles.is_solid else 1
        view.cap_nearer = REFERENCE_CAP_NEARER if reference else 1.0
        return view


def _level_widths(surface: DepthSurface) -> float:
    """`Source.level_widths`: none for a lens, or a shape of pixels, for which it would not hold."""
    focal = surface.intrinsics[:, [0, 1], [0, 1]]
    is_square = bool((focal.amax(1) <= FLAT_ASPECT * focal.amin(1)).all())
    is_narrow = all(bool((rays[:, 1:-1].abs() <= FLAT_RAYS).all()) for rays in surface.rays)
    return 1.0 if is_square and is_narrow and surface.ring else 0.0


def _upload(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small array on the device, copied without waiting for the device's pending work."""
    values = values.contiguous()
    return values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)

"""`DepthSurface`: depth and colour of every frame of the footage, and the camera that saw them.

`dw_mesh.py` builds the mesh of a surface; rasterizers draw a surface, with or without that mesh.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from ex4d_core import mesh_cache
from ex4d_core.errors import Ex4dError
from ex4d_core.mesh_cache import REFERENCE_BORDER_DEPTH, RING_DEPTH_FACTOR
from ex4d_core.render_settings import (
    CONVENTIONS,
    OCCLUSION_MODELS,
    OCCLUSION_RULES,
    Convention,
    OcclusionModel,
    OcclusionRule,
)

if TYPE_CHECKING:
    from ex4d.mesh.thickness import BackLimits


class MeshDepthError(Ex4dError):
    """Depth from which no mesh can be built: not finite, not in front of the camera, or of too few pixels."""


@dataclass(frozen=True)
class DepthSurface:
    """The seen surface of every frame of a clip, before any mesh is built.

    Attributes:
        depth: (T, H, W) float32, along z, scene units, finite and positive.
        color: (T, H, W, 3) uint8, sRGB.
        intrinsics: (T, 3, 3), pixels of the source image; kept as float64 on the CPU.
        camera_to_world: (T, 4, 4) source camera poses, kept as float64 on the CPU; None for a camera at the origin.
        convention: "centered" (rays through pixel centres, a ring of vertices around the image) or "reference"
            (EX-4D's own: rays through pixel corners, the outermost pixels set to depth 100).
        occlusion_rule: "angle" (a face is occluded if its smallest inner angle is under 2.5 degrees) or "boundary" (if
            its largest depth difference is more than twice its larger extent in x and y).
        occlusion: what hides the surfaces behind it: "watertight" (as in EX-4D: the space behind every seen surface
            counts as solid, its walls and the back are drawn, unseen), "open" (occluded faces, border and caps hide
            nothing and are not drawn) or "thickness" (solid to a plausible depth behind each silhouette, see
            `thickness.py`; faces over a step in depth count as occluded even if they are not thin; "centered" only).
        clean: whether specks are removed from the masks of new views; "centered" only.
        deep_color: (T, H, W, 3) float16, colours that are drawn beside those of 8 bits; "centered" only. None without.

    Raises:
        ValueError: shapes that do not belong together, unknown names, focal lengths not positive, broken poses.
    """

    depth: torch.Tensor
    color: torch.Tensor
    intrinsics: torch.Tensor
    camera_to_world: torch.Tensor | None = None
    convention: Convention = "centered"
    occlusion_rule: OcclusionRule = "angle"
    occlusion: OcclusionModel = "watertight"
    clean: bool = False
    deep_color: torch.Tensor | None = None

    def __post_init__(self) -> None:
        """Check everything but the depth values; see `depth_range`."""
        object.__setattr__(self, "intrinsics", _small_float64(self.intrinsics))
        if self.camera_to_world is not None:
            object.__setattr__(self, "camera_to_world", _small_float64(self.camera_to_world))
        _check_surface(self)

    @property
    def frames(self) -> int:
        """T, the number of frames."""
        return len(self.depth)

    @property
    def device(self) -> torch.device:
        """The device of depth and colour."""
        return self.depth.device

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the source image, pixels."""
        return self.depth.shape[2], self.depth.shape[1]

    @property
    def ring(self) -> int:
        """How many vertices lie beyond the image on each side."""
        return 1 if self.convention == "centered" else 0

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(rows, columns) of the vertex grid."""
        return vertex_grid_shape(self.size[1], self.size[0], self.convention)

    @cached_property
    def depth_range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Least and greatest depth of each frame, (T,) float32 each, on the depth's device.

        Raises:
            MeshDepthError: depth not finite or not positive, with the first such frame.
        """
        # Two reductions: on a CPU `aminmax` takes ten times as long. NaN fails both comparisons.
        depth = self.depth.flatten(1)
        if depth.device.type == "cpu":  # NumPy's, which wake no threads; see `calling_thread`
            lowest, highest = (torch.from_numpy(found(depth.numpy(), axis=1)) for found in (np.min, np.max))
        else:
            lowest, highest = depth.amin(dim=1), depth.amax(dim=1)
        usable = (lowest > 0) & (highest < float("inf"))
        if not bool(usable.all()):
            frame = int((~usable).nonzero()[0])
            bad = ~(torch.isfinite(self.depth[frame]) & (self.depth[frame] > 0))
            raise MeshDepthError(
                f"depth of frame {frame} has {int(bad.sum())} values that are not finite and positive (first: "
                f"{float(self.depth[frame][bad][0])}): fill them, or set the sky to a large finite depth"
            )
        return lowest, highest

    @property
    def border_depth(self) -> torch.Tensor:
        """(T,) float32, depth of the outermost vertices of the grid; raises what `depth_range` raises."""
        highest = self.depth_range[1]
        return highest * RING_DEPTH_FACTOR if self.ring else torch.full_like(highest, REFERENCE_BORDER_DEPTH)

    @cached_property
    def rays(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rays of the grid: x / z of each column (T, C), and y / z of each row (T, R), float32 on the CPU."""
        rays = []
        for axis, size in enumerate(self.size):
            positions = sample_positions(size, self.ring)
            rays.append((positions - self.intrinsics[:, axis, 2:]) / self.intrinsics[:, axis, axis, None])
        return rays[0].float(), rays[1].float()

    @cached_property
    def back_limits(self) -> BackLimits:
        """How deep silhouettes may be solid in the "thickness" model, measured on the depth's device."""
        from ex4d.mesh.thickness import back_limits, pixel_angles  # imports Warp

        return back_limits(self.depth, pixel_angles(self.intrinsics).to(self.device))

    @cached_property
    def edge_shares(self) -> torch.Tensor:
        """Where silhouettes lie inside pixels in the "thickness" model, measured on the depth's device."""
        from ex4d.mesh.edge_shares import edge_shares  # imports Warp

        return edge_shares(self.depth, self.color, self.back_limits.steps)

    @cached_property
    def surface_colors(self) -> torch.Tensor:
        """Colours without what the camera mixed at silhouettes, in the "thickness" model, on the depth's device."""
        from ex4d.mesh.surface_colors import surface_colors  # imports Warp

        return surface_colors(self.depth, self.color, self.back_limits.steps, self.edge_shares)

    @property
    def has_edge_shares(self) -> bool:
        """Whether `edge_shares`, and with them `back_limits`, have been measured."""
        return "edge_shares" in self.__dict__

    def frame_range(self, start: int, stop: int) -> DepthSurface:
        """The surface of frames start..stop-1, as views: nothing is copied or computed again."""
        return self._with_each(lambda values: values[start:stop])

    def repeated(self, times: int) -> DepthSurface:
        """All frames, so many times after each other, with what has been measured of them."""
        return self._with_each(lambda values: values.repeat(times, *[1] * (values.dim() - 1)))

    def _with_each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> DepthSurface:
        """The surface with other frames: a change of every array's first axis."""
        surface = copy.copy(self)
        for name in ("depth", "color", "intrinsics", "camera_to_world", "deep_color"):
            values = getattr(self, name)
            object.__setattr__(surface, name, None if values is None else change(values))
        for name in ("depth_range", "rays"):
            if name in self.__dict__:
                surface.__dict__[name] = tuple(change(values) for values in self.__dict__[name])
        if "back_limits" in self.__dict__:
            limits = self.back_limits
            surface.__dict__["back_limits"] = replace(limits, limits=change(limits.limits), steps=change(limits.steps))
        for name in ("edge_shares", "surface_colors"):
            if name in self.__dict__:
                surface.__dict__[name] = change(self.__dict__[name])
        return surface

    def drawn_as(
        self,
        *,
        occlusion: OcclusionModel | None = None,
        convention: Convention | None = None,
        clean: bool | None = None,
    ) -> DepthSurface:
        """The same frames with other settings of how they are drawn; what has been measured of them is kept."""
        surface = replace(
            self,
            occlusion=occlusion or self.occlusion,
            convention=convention or self.convention,
            clean=self.clean if clean is None else clean,
        )
        for name in ("depth_range", "back_limits", "edge_shares", "surface_colors"):
            if name in self.__dict__:
                surface.__dict__[name] = self.__dict__[name]
        return surface

    def in_8_bits(self) -> DepthSurface:
        """The same frames without deep colours; what has been measured of them is kept."""
        surface = copy.copy(self)
        object.__setattr__(surface, "deep_color", None)
        return surface

    def reduced(self, step: int) -> DepthSurface:
        """Every so many pixels of the surface, in both directions; itself with a step of 1."""
        if step == 1:
            return self
        intrinsics = self.intrinsics.clone()
        intrinsics[:, :2] /= step
        intrinsics[:, :2, 2] += 0.5 - 0.5 / step  # the centre of pixel 0 stays where it is
        depth, color = self.depth[:, ::step, ::step], self.color[:, ::step, ::step]
        deep = None if self.deep_color is None else self.deep_color[:, ::step, ::step].contiguous()
        return replace(self, depth=depth.contiguous(), color=color.contiguous(), intrinsics=intrinsics, deep_color=deep)

    def to(self, device: torch.device | str) -> DepthSurface:
        """The same surface with depth and colour on a device; itself if they are there already."""
        if self.depth.device == torch.device(device) and self.color.device == torch.device(device):
            return self
        depth, color = self.depth.to(device, non_blocking=True), self.color.to(device, non_blocking=True)
        deep = None if self.deep_color is None else self.deep_color.to(device, non_blocking=True)
        return replace(self, depth=depth, color=color, deep_color=deep)


def vertex_grid_shape(height: int, width: int, convention: str = "centered") -> tuple[int, int]:
    """(rows, columns) of the vertex grid of an image of height x width pixels.

    Raises:
        ValueError: an unknown convention.
        MeshDepthError: fewer than 2 x 2 pixels.
    """
    require_convention(convention)
    if height < 2 or width < 2:
        raise MeshDepthError(f"invalid size {width} x {height} of the depth: a mesh needs at least 2 x 2 pixels")
    return (height + 2, width + 2) if convention == "centered" else (height, width)


def sample_positions(size: int, ring: int) -> torch.Tensor:
    """Pixel coordinates of the grid's columns (or rows), float64.

    With a ring: pixel centres and the image's two edges; without: pixel corners.
    """
    return torch.from_numpy(mesh_cache.sample_positions(size, ring))


def require_convention(convention: str) -> None:
    """Raise ValueError for an unknown convention."""
    if convention not in CONVENTIONS:
        raise ValueError(f"invalid convention {convention!r}: expected {' or '.join(CONVENTIONS)}")


def _small_float64(matrices: torch.Tensor | np.ndarray) -> torch.Tensor:
    return torch.as_tensor(matrices).detach().to(device="cpu", dtype=torch.float64)


def _check_surface(surface: DepthSurface) -> None:
    """Everything but the depth values, which cost a pass over all pixels."""
    require_convention(surface.convention)
    for name, value, known in (
        ("occlusion rule", surface.occlusion_rule, OCCLUSION_RULES),
        ("occlusion model", surface.occlusion, OCCLUSION_MODELS),
    ):
        if value not in known:
            raise ValueError(f"invalid {name} {value!r}: expected {' or '.join(known)}")
    if surface.convention == "reference" and surface.occlusion == "thickness":
        raise ValueError(
            "the reference convention has no occlusion model 'thickness': use watertight or open, or the centered "
            "convention"
        )
    if surface.convention == "reference" and surface.clean:
        raise ValueError(
            "the reference convention draws masks as they are: use clean=False, or the centered convention"
        )
    depth, color, intrinsics, poses = surface.depth, surface.color, surface.intrinsics, surface.camera_to_world
    if depth.ndim != 3 or depth.dtype != torch.float32:
        raise ValueError(f"depth must be (T, H, W) float32, got {tuple(depth.shape)} {depth.dtype}")
    if tuple(color.shape) != (*depth.shape, 3) or color.dtype != torch.uint8:
        raise ValueError(
            f"color must be {(*depth.shape, 3)} uint8 to match depth {tuple(depth.shape)}, "
            f"got {tuple(color.shape)} {color.dtype}"
        )
    deep = surface.deep_color
    if deep is not None and (deep.shape != color.shape or deep.dtype != torch.float16):
        raise ValueError(f"deep_color must be {tuple(color.shape)} float16, got {tuple(deep.shape)} {deep.dtype}")
    if deep is not None and surface.convention == "reference":
        raise ValueError("the reference convention draws 8 bits: leave deep_color out, or use the centered convention")
    frames, height, width = depth.shape
    if frames == 0:
        raise ValueError("depth has 0 frames: a mesh needs at least 1")
    vertex_grid_shape(height, width, surface.convention)
    if tuple(intrinsics.shape) != (frames, 3, 3):
        raise ValueError(f"intrinsics must be {(frames, 3, 3)} to match depth, got {tuple(intrinsics.shape)}")
    if poses is not None and tuple(poses.shape) != (frames, 4, 4):
        raise ValueError(f"camera_to_world must be {(frames, 4, 4)} to match depth, got {tuple(poses.shape)}")
    focal = torch.stack([intrinsics[:, 0, 0], intrinsics[:, 1, 1]], dim=1)
    usable = (focal > 0).all(dim=1) & torch.isfinite(intrinsics).flatten(1).all(dim=1)
    if not bool(usable.all()):
        frame = int((~usable).nonzero()[0])
        raise ValueError(
            f"intrinsics of frame {frame} need finite values and positive focal lengths, got "
            f"{intrinsics[frame].tolist()}"
        )
    if poses is not None and not bool(torch.isfinite(poses).all()):
        frame = int((~torch.isfinite(poses).flatten(1).all(dim=1)).nonzero()[0])
        raise ValueError(f"camera_to_world of frame {frame} is not finite: {poses[frame].tolist()}")

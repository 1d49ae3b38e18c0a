"""What every rasterizer takes and returns: a surface and a camera path in, colour and mask out.

Stands between the mesh room and whoever needs the render (engines, worker, CLI), none of whom know which rasterizer
draws, nor whether it builds a mesh to do so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d_core.errors import Ex4dError

# EX-4D's own, which the "reference" convention keeps: clipping planes, and the alpha (of 255) that is just not seen.
REFERENCE_NEAR, REFERENCE_FAR = 1e-3, 1e3
REFERENCE_SEEN_ALPHA = 125.0


class RasterizerUnavailableError(Ex4dError, RuntimeError):
    """The rasterizer or device that was asked for is not on this machine; the message says what to do."""


class RenderMemoryError(Ex4dError, RuntimeError):
    """Not even one frame fits into the device's memory; the message says what was asked of it."""


@dataclass(frozen=True)
class RenderedFrames:
    """What a camera path shows of a surface.

    Attributes:
        color: (T, H, W, 3) uint8, sRGB, black where unseen.
        mask: (T, H, W) bool, true where the footage was seen.
        depth: (T, H, W) float32, along the new camera's z, of the nearest surface of any kind; infinite where there
            is none. None unless it was asked for.
    """

    color: torch.Tensor
    mask: torch.Tensor
    depth: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> RenderedFrames:
        """The same frames on a device; from a GPU to the CPU by way of page-locked memory, several times as fast."""
        if torch.device(device).type != "cpu" or self.color.device.type != "cuda":
            return self._each(lambda values: values.to(device))
        copies = self._each(lambda values: page_locked_copy(values))
        torch.cuda.current_stream(self.color.device).synchronize()
        return copies

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> RenderedFrames:
        depth = None if self.depth is None else change(self.depth)
        return RenderedFrames(change(self.color), change(self.mask), depth)


def torch_cuda_problem(device: str) -> str | None:
    """Why PyTorch cannot use this device ("cuda", "cuda:N" or "auto"), and what to do; None where it can."""
    if not torch.cuda.is_available():
        return no_usable_cuda("PyTorch")
    index, count = torch.device(device).index if device.startswith("cuda") else None, torch.cuda.device_count()
    if index is not None and index >= count:
        return f"there is no device {device}: this machine has cuda:0 to cuda:{count - 1}"
    return None


def no_usable_cuda(library: str) -> str:
    return (
        f"{library} finds no usable CUDA device: install an NVIDIA driver and a CUDA build of PyTorch, or use "
        "device cpu"
    )


def numbered(device: torch.device | str) -> torch.device:
    """The device with its number: plain "cuda" is whichever is current."""
    device = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def cpu_cores() -> int:
    """Cores that this process may use: a container or a batch system may grant fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def page_locked_copy(values: torch.Tensor) -> torch.Tensor:
    """A copy in page-locked memory, under way on the current stream when this returns."""
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return copy.copy_(values, non_blocking=True)


class Rasterizer(Protocol):
    """Draws a surface along a camera path. The size of the render is independent of the footage's."""

    name: str
    licence: str  # what its results may be used for, in words for the user
    device: torch.device

    def render(
        self,
        surface: DepthSurface,
        world_to_camera: np.ndarray | torch.Tensor,
        intrinsics: np.ndarray | torch.Tensor,
        width: int,
        height: int,
        *,
        with_depth: bool = False,
    ) -> RenderedFrames:
        """Render frame t of the surface with camera t.

        Args:
            surface: T frames, on any device; its convention and its occlusion model decide how it is drawn.
            world_to_camera: (T, 4, 4), OpenCV.
            intrinsics: (T, 3, 3), pixels of the new picture; pixel centres lie at +0.5.
            width, height: new picture, pixels.
            with_depth: also return depth.

        Returns:
            Tensors on the rasterizer's device.

        Raises:
            ValueError: cameras that do not match the surface, are not finite, or have no positive focal length.
            DepthError: depth that is not finite and positive.
            torch.OutOfMemoryError: the device has too little memory; `render_in_batches` goes on with less.
        """
        ...


@dataclass(frozen=True)
class CameraBatch:
    """Checked cameras of a render.

    Attributes:
        world_to_camera: (T, 4, 4) float64.
        lenses: (T, 4) float64, fx, fy, cx, cy in pixels.
    """

    world_to_camera: np.ndarray
    lenses: np.ndarray


def check_cameras(
    surface: DepthSurface,
    world_to_camera: np.ndarray | torch.Tensor,
    intrinsics: np.ndarray | torch.Tensor,
    width: int,
    height: int,
) -> CameraBatch:
    """Validate what a rasterizer was given, with errors that name the frame and the value.

    In the "reference" convention the principal point is the picture's centre, whatever the intrinsics say: EX-4D
    knows a field of view only, 2 atan(size / 2f).
    """
    poses = _as_float64(world_to_camera)
    matrices = _as_float64(intrinsics)
    frames = surface.frames
    if poses.shape != (frames, 4, 4):
        raise ValueError(
            f"world_to_camera has shape {poses.shape}, but a surface of {frames} frames needs {(frames, 4, 4)}"
        )
    if matrices.shape != (frames, 3, 3):
        raise ValueError(
            f"intrinsics have shape {matrices.shape}, but a surface of {frames} frames needs {(frames, 3, 3)}"
        )
    if width < 1 or height < 1:
        raise ValueError(f"a render needs at least 1 x 1 pixels, got {width} x {height} (width x height)")
    for name, values in (("world_to_camera", poses), ("intrinsics", matrices)):
        broken = ~np.isfinite(values).all(axis=(1, 2))
        if broken.any():
            frame = int(np.argmax(broken))
            raise ValueError(f"{name} of frame {frame} is not finite: {values[frame].tolist()}")
    focal = matrices[:, [0, 1], [0, 1]]
    broken = ~(focal > 0).all(axis=1)
    if broken.any():
        frame = int(np.argmax(broken))
        raise ValueError(f"focal lengths of frame {frame} must be positive, got {focal[frame].tolist()} pixels")
    centre = matrices[:, [0, 1], [2, 2]]
    if surface.convention == "reference":
        centre = np.broadcast_to([width / 2, height / 2], (frames, 2))
    return CameraBatch(poses, np.concatenate([focal, centre], axis=1))


def force_first_frame(frames: RenderedFrames, source: torch.Tensor) -> RenderedFrames:
    """EX-4D's habit, for the "reference" convention only: frame 0 is the source frame, all of it seen.

    Args:
        frames: a render of the source picture's own size.
        source: (H, W, 3) uint8, the first source frame.

    Raises:
        ValueError: when the sizes differ.
    """
    if tuple(source.shape) != tuple(frames.color.shape[1:]):
        raise ValueError(
            f"the source frame has shape {tuple(source.shape)}, the rendered frames {tuple(frames.color.shape[1:])}: "
            "render at the source picture's size"
        )
    color, mask = frames.color.clone(), frames.mask.clone()
    color[0] = source.to(color.device)
    mask[0] = True
    return RenderedFrames(color, mask, frames.depth)


def _as_float64(values: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.array(values, dtype=np.float64)

"""The interface of all rasterizers: a surface and a camera path in, colour and mask out.

Users of a render (engines, worker, command line) do not depend on which rasterizer draws, nor on whether it builds a
mesh to do so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ex4d.mesh import DepthSurface
from ex4d.raster.frames import RenderedBatch
from ex4d_core.errors import Ex4dError

# EX-4D's own, which the "reference" convention uses: clipping planes, and the alpha (of 255) that is just not seen.
REFERENCE_NEAR, REFERENCE_FAR = 1e-3, 1e3
REFERENCE_SEEN_ALPHA = 125.0


class RasterizerUnavailableError(Ex4dError):
    """The requested rasterizer or device is not on this machine; the message says what to do."""


class RenderMemoryError(Ex4dError):
    """Not even one frame fits into the device's memory; the message says what was requested."""


class Rasterizer(Protocol):
    """Draws a surface along a camera path. The size of the render is independent of the footage's."""

    name: str
    licence: str
    """What its results may be used for, in words for the user."""
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
    ) -> RenderedBatch:
        """Render frame t of the surface with camera t.

        Args:
            surface: T frames, on any device; its convention and its occlusion model decide how it is drawn.
            world_to_camera: (T, 4, 4), OpenCV.
            intrinsics: (T, 3, 3), pixels of the new image; pixel centres lie at +0.5.
            width: of the new image, pixels.
            height: of the new image, pixels.
            with_depth: also return depth.

        Returns:
            Tensors on the rasterizer's device.

        Raises:
            ValueError: cameras that do not match the surface, are not finite, or have no positive focal length.
            MeshDepthError: depth that is not finite and positive.
            torch.OutOfMemoryError: the device has too little memory; `render_in_batches` continues with less.
        """
        ...


@dataclass(frozen=True)
class CameraBatch:
    """Checked cameras of a render.

    Attributes:
        world_to_camera: (T, 4, 4) float64.
        intrinsics: (T, 4) float64, fx, fy, cx, cy in pixels.
    """

    world_to_camera: np.ndarray
    intrinsics: np.ndarray


def check_cameras(
    surface: DepthSurface,
    world_to_camera: np.ndarray | torch.Tensor,
    intrinsics: np.ndarray | torch.Tensor,
    width: int,
    height: int,
) -> CameraBatch:
    """Validate a rasterizer's input; arguments are those of `Rasterizer.render`.

    In the "reference" convention the principal point is the image's centre, whatever the intrinsics say: EX-4D
    knows a field of view only, 2 atan(size / 2f).

    Raises:
        ValueError: see `Rasterizer.render`; the message names the frame and the value.
    """
    poses = _as_float64(world_to_camera)
    matrices = _as_float64(intrinsics)
    frames = surface.frames
    if poses.shape != (frames, 4, 4):
        raise ValueError(
            f"world_to_camera has shape {poses.shape}: a surface of {frames} frames needs {(frames, 4, 4)}"
        )
    if matrices.shape != (frames, 3, 3):
        raise ValueError(f"intrinsics have shape {matrices.shape}: a surface of {frames} frames needs {(frames, 3, 3)}")
    if width < 1 or height < 1:
        raise ValueError(f"invalid size {width} x {height} of a render: expected at least 1 x 1 pixels")
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


def indexed_device(device: torch.device | str) -> torch.device:
    """The device with its index: plain "cuda" is the current CUDA device."""
    device = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def cpu_cores() -> int:
    """Cores that this process may use: a container or a batch system may grant fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _as_float64(values: np.ndarray | torch.Tensor) -> np.ndarray:
    if not isinstance(values, np.ndarray):
        values = values.detach().cpu().numpy()
    return np.array(values, dtype=np.float64)

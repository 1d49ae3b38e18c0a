"""The interface of all rasterizers: a surface and a camera path in, colour and mask out.

Users of a render (engines, worker, command line) do not depend on which rasterizer draws, nor on whether it builds a
mesh to do so.
"""

from __future__ import annotations

from typing import Protocol

import torch

from ex4d.mesh import DepthSurface
from ex4d.raster.frames import RenderedBatch
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import Ex4dError

# EX-4D's own, which the "reference" convention uses: clipping planes, and the alpha (of 255) that is just not seen.
REFERENCE_NEAR, REFERENCE_FAR = 1e-3, 1e3
REFERENCE_SEEN_ALPHA = 125.0

# With several samples of each pixel a frame is drawn in strips of rows, of this many samples: 128 MB of keys.
STRIP_SAMPLES = 1 << 24


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
        self, surface: DepthSurface, camera: CameraPath, *, with_depth: bool = False, samples: int = 1
    ) -> RenderedBatch:
        """Render frame t of the surface with camera t.

        Args:
            surface: T frames, on any device; its convention and its occlusion model decide how it is drawn.
            camera: of T frames; its size is that of the new image.
            with_depth: also return depth.
            samples: of each pixel, per axis, in a grid that is turned a little; `samples_to_draw` says
                where one is drawn whatever this is.

        Returns:
            Tensors on the rasterizer's device.

        Raises:
            ValueError: the camera path has another number of frames than the surface.
            MeshDepthError: depth that is not finite and positive.
            torch.OutOfMemoryError: the device has too little memory; `render_in_batches` continues with less.
        """
        ...

    def masks_in_tiles(
        self, surface: DepthSurface, camera: CameraPath, known: torch.Tensor, marked: torch.Tensor
    ) -> torch.Tensor:
        """What cameras see of a surface, drawn in some tiles of the image.

        Args:
            surface: T frames, on any device, in the "centered" convention.
            camera: of T frames.
            known: (T, H, W) bool, on the rasterizer's device: masks of another surface that is much like it.
            marked: (T, rows, columns) int32, 1 for the tiles; see `mask_cleaning.edge_tiles`.

        Returns:
            (T, H, W) bool, without specks; right in the middle of marked tiles, elsewhere right or as ``known``.
        """
        ...


def require_same_frames(surface: DepthSurface, camera: CameraPath) -> None:
    """Raise ValueError for a camera path of another number of frames than the surface's."""
    if len(camera) != surface.frames:
        raise ValueError(f"a camera path of {len(camera)} frames does not fit a surface of {surface.frames}")


def camera_to_draw(surface: DepthSurface, camera: CameraPath) -> CameraPath:
    """The camera path that a rasterizer draws; arguments and errors are those of `Rasterizer.render`.

    In the "reference" convention the principal point is the image's centre, whatever the intrinsics say: EX-4D
    knows a field of view only, 2 atan(size / 2f).
    """
    require_same_frames(surface, camera)
    return camera.with_centred_principal_point() if surface.convention == "reference" else camera


def samples_to_draw(surface: DepthSurface, samples: int) -> int:
    """The samples of a pixel, per axis, that a rasterizer draws: one in the "reference" convention, antialiased itself.

    Raises:
        ValueError: fewer than one.
    """
    if samples < 1:
        raise ValueError(f"invalid samples {samples}: expected at least 1")
    return 1 if surface.convention == "reference" else samples


def indexed_device(device: torch.device | str) -> torch.device:
    """The device with its index: plain "cuda" is the current CUDA device."""
    device = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device

"""The visible fraction of new views of one frame of footage, on the CPU: simplifies the mesh once, then counts pixels.

`visible_fraction.py` says what it is for; its kernels are in `warp/simplifying.py` and `warp/counting.py`.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
import warp as wp

from ex4d.kernels import load_kernels
from ex4d.mesh import DepthSurface
from ex4d.raster.rasterizer import require_same_frames
from ex4d.raster.warp import counting, simplifying
from ex4d.raster.warp.projection import Projected
from ex4d.raster.warp_inputs import Inputs, StructInstance
from ex4d_core.cameras import CameraPath

_BLOCK = 1 << int(simplifying.LARGEST_LEVEL)

# Working memory of each thread, kept from frame to frame: allocating it costs more than the drawing.
_workspace = threading.local()


class SimplifiedFrame:
    """One frame of footage, ready for any camera. May be used by several threads."""

    def __init__(self, surface: DepthSurface):
        """Simplify the mesh of a frame.

        Args:
            surface: of one frame, in host memory; its depth is kept.

        Raises:
            ValueError: more frames than one.
            MeshDepthError: depth that is not finite and positive.
        """
        if surface.frames != 1:
            raise ValueError(f"invalid surface of {surface.frames} frames: expected 1")
        load_kernels((simplifying, counting), "cpu")
        self._surface = surface
        source_camera = CameraPath(np.eye(4)[None], surface.intrinsics.numpy(), *surface.size)
        inputs = Inputs.of(surface, source_camera)
        source, view = inputs.source(surface), inputs.view(surface, surface.size)
        rows, columns = surface.grid_shape
        cells = (rows - 1) * (columns - 1)
        found = simplifying.Simplified()
        arrays = {
            "hidden": np.empty(cells, np.uint8),
            "touched": np.zeros(rows * columns, np.uint8),
            "used": np.zeros(rows * columns, np.uint8),
            "blocks": np.empty((cells, 2), np.int32),
            "stretched": np.empty(2 * cells, np.int32),
            "counts": np.zeros(2, np.int32),
        }
        for name, values in arrays.items():
            setattr(found, name, _wrap(values, wp.vec2i if name == "blocks" else None))
        wp.launch(simplifying.find_stretched, dim=rows - 1, inputs=[source, view, found], device="cpu")
        largest = (-(-(rows - 1) // _BLOCK), -(-(columns - 1) // _BLOCK))
        wp.launch(simplifying.find_blocks, dim=largest, inputs=[source, found], device="cpu")
        used = arrays["used"].reshape(rows, columns)
        used[:: rows - 1, :: columns - 1] = 1  # the caps'
        blocks, stretched = (int(count) for count in arrays["counts"])
        self._kept = (
            np.flatnonzero(arrays["used"]).astype(np.int32),
            arrays["blocks"][:blocks].copy(),
            arrays["stretched"][:stretched].copy(),
        )
        self.faces = 2 * blocks + stretched

    @property
    def bytes(self) -> int:
        """Memory that this keeps besides the footage's depth."""
        kept = sum(values.nbytes for values in self._kept)
        if self._surface.occlusion == "thickness":
            limits = self._surface.back_limits
            kept += limits.limits.nbytes + limits.steps.nbytes + self._surface.edge_shares.nbytes
        return kept

    def visible_fraction(self, camera: CameraPath) -> float:
        """The share of an image that the footage saw.

        Args:
            camera: of one frame. Its principal point is used in every convention, since these rays may be some of a
                larger image's (`sparse_camera`).

        Raises:
            ValueError: more frames than one.
        """
        surface = self._surface
        require_same_frames(surface, camera)
        inputs = Inputs.of(surface, camera)
        mesh = counting.Mesh()
        mesh.vertices, mesh.stretched = (_wrap(self._kept[index]) for index in (0, 2))
        mesh.blocks = _wrap(self._kept[1], wp.vec2i)
        rows, columns = surface.grid_shape
        projected, winners, alpha = _working_memory(rows * columns, camera.width * camera.height)
        if surface.convention != "reference":
            alpha = alpha[:0]
        counts = np.zeros(1, np.int32)
        source = inputs.source(surface)
        view = inputs.view(surface, camera.size)
        wp.launch(
            counting.count_seen,
            dim=1,
            inputs=[source, mesh, view, projected, winners, _wrap(alpha), _wrap(counts)],
            device="cpu",
        )
        return int(counts[0]) / (camera.width * camera.height)


def _wrap(values: np.ndarray, dtype: type | None = None) -> wp.array:
    """The same memory for Warp."""
    if dtype is not None and not len(values):  # Warp refuses the strides of an empty array
        return wp.empty(0, dtype=dtype, device="cpu")
    return wp.from_torch(torch.from_numpy(values), dtype=dtype)


def _working_memory(vertices: int, pixels: int) -> tuple[StructInstance, wp.array, np.ndarray]:
    if getattr(_workspace, "size", None) != (vertices, pixels):
        projected = Projected()
        projected.x = _wrap(np.empty((1, vertices), np.int32))
        projected.y = _wrap(np.empty((1, vertices), np.int32))
        projected.inverse_z = _wrap(np.empty((1, vertices), np.float32))
        winners = wp.from_torch(torch.empty((1, pixels), dtype=torch.int64), dtype=wp.uint64)
        _workspace.kept = projected, winners, np.empty(vertices, np.uint8)
        _workspace.size = vertices, pixels
    return _workspace.kept

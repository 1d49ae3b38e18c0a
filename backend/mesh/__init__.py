"""Depth and colour to a Depth Watertight Mesh, as batched tensors, and its exports (PLY, PC2)."""

from backend.mesh.dw_mesh import (
    CONVENTIONS,
    DepthError,
    DWMesh,
    build_dw_mesh,
    grid_topology,
    vertex_grid_shape,
)
from backend.mesh.export import Pc2Writer, write_ply
from backend.mesh.occlusion import OCCLUSION_RULES

__all__ = [
    "CONVENTIONS",
    "OCCLUSION_RULES",
    "DWMesh",
    "DepthError",
    "Pc2Writer",
    "build_dw_mesh",
    "grid_topology",
    "vertex_grid_shape",
    "write_ply",
]

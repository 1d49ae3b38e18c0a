"""Depth and colour to a Depth Watertight Mesh, as batched tensors, and its exports (PLY, PC2)."""

from ex4d.mesh.dw_mesh import DWMesh, build_dw_mesh, build_surface_mesh, grid_topology
from ex4d.mesh.export import Pc2Writer, write_ply
from ex4d.mesh.surface import DepthError, DepthSurface, vertex_grid_shape
from ex4d_core.shot import CONVENTIONS, OCCLUSION_MODELS, OCCLUSION_RULES

__all__ = [
    "CONVENTIONS",
    "OCCLUSION_MODELS",
    "OCCLUSION_RULES",
    "DWMesh",
    "DepthError",
    "DepthSurface",
    "Pc2Writer",
    "build_dw_mesh",
    "build_surface_mesh",
    "grid_topology",
    "vertex_grid_shape",
    "write_ply",
]

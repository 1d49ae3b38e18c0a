"""Depth Watertight Meshes from depth and colour, as batched tensors, and their exports (PLY, PC2)."""

from ex4d.mesh.dw_mesh import DWMesh, build_dw_mesh, build_surface_mesh, grid_topology
from ex4d.mesh.export import write_ply
from ex4d.mesh.surface import DepthSurface, MeshDepthError
from ex4d_core.mesh_cache import Pc2Writer

__all__ = [
    "DWMesh",
    "DepthSurface",
    "MeshDepthError",
    "Pc2Writer",
    "build_dw_mesh",
    "build_surface_mesh",
    "grid_topology",
    "write_ply",
]

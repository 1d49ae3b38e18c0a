"""Builds the Depth Watertight Mesh (DW-Mesh, EX-4D, arXiv 2506.05554) of all frames of a clip at once.

Its input is depth and intrinsics from `ex4d.depth`; rasterizers and exporters use the mesh. The mesh is a grid: its
topology is the same in every frame and follows from the image's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ex4d.mesh.occlusion import occluded_faces
from ex4d.mesh.surface import DepthSurface, require_convention, sample_positions, vertex_grid_shape
from ex4d_core.render_settings import Convention, OcclusionRule

CAP_FACES = 2

# Vertices of a block. On a CPU: what its caches hold, and just under the 32768 elements from which PyTorch
# runs an operation on all its threads, which gains little here and costs much when another program uses the cores.
_BLOCK_VERTICES = (1 << 15) - 1
_GPU_BLOCK_VERTICES = 1 << 24  # keeps a GPU busy; some 20 float32 planes of this size are alive at once


@dataclass(frozen=True)
class DWMesh:
    """A watertight mesh of every frame of a clip: one topology, moving vertices.

    Vertices lie on a grid of R x C (`grid_shape`), row by row. Faces: first the upper left triangle of each grid cell
    (row by row), then the lower right triangle of each, then `cap_faces` triangles that close the back. Rasterizers may
    rely on this order instead of reading `faces`.

    Attributes:
        vertices: (T, V, 3) float32, scene units, OpenCV axes (x right, y down, z forward), V = R * C.
        faces: (F, 3) int32; seen from the source camera, each grid face turns clockwise on the screen.
        occluded: (T, F) bool, true where a face hides what the footage never saw (stretched faces, border, caps).
        colors: (T, V, 3) uint8, sRGB, the source pixel of each vertex, whether occluded or not.
        uvs: (V, 2) float32, source image coordinates in [0, 1], v upwards.
        convention: "centered" (R, C = H + 2, W + 2: the image and a ring around it) or "reference" (R, C = H, W).
        cap_faces: the number of caps at the end of `faces`.
        grid_shape: (R, C).
    """

    vertices: torch.Tensor
    faces: torch.Tensor
    occluded: torch.Tensor
    colors: torch.Tensor
    uvs: torch.Tensor
    convention: str
    cap_faces: int
    grid_shape: tuple[int, int]

    def __post_init__(self) -> None:
        """Check that all shapes match."""
        require_convention(self.convention)
        rows, columns = self.grid_shape
        vertex_count = rows * columns
        face_count = 2 * (rows - 1) * (columns - 1) + self.cap_faces
        frames = len(self.vertices)
        expected = {
            "vertices": (frames, vertex_count, 3),
            "faces": (face_count, 3),
            "occluded": (frames, face_count),
            "colors": (frames, vertex_count, 3),
            "uvs": (vertex_count, 2),
        }
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(
                    f"{name} has shape {tuple(getattr(self, name).shape)}: {frames} frames on a grid of "
                    f"{rows} x {columns} vertices need {shape}"
                )

    @property
    def frames(self) -> int:
        """T, the number of frames."""
        return len(self.vertices)

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.vertices.device

    def vertex_seen(self) -> torch.Tensor:
        """(T, V) bool, false for every vertex of an occluded face: occlusion as EX-4D stores it, per vertex."""
        rows, columns = self.grid_shape
        cells = (rows - 1) * (columns - 1)
        seen = torch.ones(self.frames, rows, columns, dtype=torch.bool, device=self.device)
        visible = ~self.occluded
        upper = visible[:, :cells].reshape(-1, rows - 1, columns - 1)
        lower = visible[:, cells : 2 * cells].reshape(-1, rows - 1, columns - 1)
        both = upper & lower
        seen[:, :-1, :-1] &= upper
        seen[:, 1:, :-1] &= both
        seen[:, :-1, 1:] &= both
        seen[:, 1:, 1:] &= lower
        seen = seen.reshape(self.frames, -1)
        for cap in range(self.cap_faces):
            face = len(self.faces) - self.cap_faces + cap
            corners = self.faces[face].long()
            seen[:, corners] &= visible[:, face : face + 1]
        return seen

    def vertex_rgba(self) -> torch.Tensor:
        """(T, V, 4) uint8: (r, g, b, 255), or all zero for every vertex of an occluded face, as in EX-4D."""
        seen = self.vertex_seen()[..., None].to(torch.uint8)
        return torch.cat([self.colors * seen, seen * 255], dim=-1)


def grid_topology(
    height: int, width: int, convention: str = "centered", device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Faces and texture coordinates of the mesh of any image of this size.

    Args:
        height: of the source image, pixels, at least 2.
        width: of the source image, pixels, at least 2.
        convention: "centered" or "reference".
        device: for the results.

    Returns:
        faces (F, 3) int32, uvs (V, 2) float32 and cap_faces, as in `DWMesh`. Source pixels lie at texel centres; the
        ring of the "centered" convention lies on the image's edge.

    Raises:
        ValueError: for an unknown convention.
        MeshDepthError: for an image smaller than 2 x 2.
    """
    rows, columns = vertex_grid_shape(height, width, convention)
    index = torch.arange(rows * columns, dtype=torch.int32, device=device).reshape(rows, columns)
    top_left, top_right = index[:-1, :-1], index[:-1, 1:]
    bottom_left, bottom_right = index[1:, :-1], index[1:, 1:]
    # Written where they stay: of footage of 8000 x 8000 pixels these are gigabytes.
    cells = (rows - 1) * (columns - 1)
    faces = torch.empty(2 * cells + CAP_FACES, 3, dtype=torch.int32, device=device)
    upper, lower = faces[: 2 * cells].view(2, rows - 1, columns - 1, 3)
    corners = ((bottom_left, bottom_left), (top_left, top_right), (top_right, bottom_right))
    for number, (of_upper, of_lower) in enumerate(corners):
        upper[..., number], lower[..., number] = of_upper, of_lower
    first, last = 0, rows * columns - 1
    caps = torch.tensor(
        [[columns - 1, first, last], [last, first, last - columns + 1]], dtype=torch.int32, device=device
    )
    faces[2 * cells :] = caps
    ring = 1 if convention == "centered" else 0
    x = _texel_positions(width, ring, device) / width
    y = _texel_positions(height, ring, device) / height
    uvs = torch.empty(rows, columns, 2, dtype=torch.float32, device=device)
    uvs[..., 0], uvs[..., 1] = x, (1.0 - y)[:, None]
    return faces, uvs.reshape(-1, 2), CAP_FACES


def build_dw_mesh(
    depth: torch.Tensor,
    color: torch.Tensor,
    intrinsics: torch.Tensor,
    *,
    convention: Convention = "centered",
    occlusion_rule: OcclusionRule = "angle",
    camera_to_world: torch.Tensor | None = None,
) -> DWMesh:
    """Build the DW-Mesh of all frames.

    "centered": the vertex of pixel (i, j) lies on the ray through its centre (i + 0.5, j + 0.5). A ring of vertices
    around the image lies on the image's edge, 1.1 times as far as the frame's farthest depth, so the solid is
    exactly the part of the view frustum that lies behind the surface: the ring's faces are the frustum's side walls,
    and the caps close it behind everything. The outermost pixels keep their own depth and colour. Ring faces and caps
    are always occluded, faces that continue a plane never (`plane_kernel.py`). Occlusion is a property of faces;
    vertices keep their colour.

    "reference": EX-4D's own mesh. The vertex of pixel (i, j) lies on the ray through (i, j); the outermost pixels are
    set to depth 100 instead of a ring.

    The mesh takes about 18 bytes per pixel and frame: split long clips.

    Args:
        depth: (T, H, W) float32, along z, scene units, finite and positive.
        color: (T, H, W, 3) uint8, sRGB.
        intrinsics: (T, 3, 3), pixels of the source image.
        convention: "centered" or "reference".
        occlusion_rule: "angle" (smallest inner angle under 2.5 degrees) or "boundary" (a face's largest depth
            difference more than twice its larger extent in x and y).
        camera_to_world: (T, 4, 4) source camera poses; None for a source camera at the origin.

    Returns:
        The mesh on depth's device.

    Raises:
        ValueError: shapes that do not match, an unknown convention or rule, focal lengths not positive.
        MeshDepthError: depth not finite or not positive; the message names the first such frame.
    """
    surface = DepthSurface(depth, color, intrinsics, camera_to_world, convention, occlusion_rule)
    return build_surface_mesh(surface)


def build_surface_mesh(surface: DepthSurface) -> DWMesh:
    """The mesh of a surface, as `build_dw_mesh` describes it; the surface's occlusion model does not matter."""
    frames, height, width = surface.depth.shape
    rows, columns = surface.grid_shape
    depth, device, ring = surface.depth, surface.device, surface.ring
    border = surface.border_depth
    faces, uvs, cap_faces = grid_topology(height, width, surface.convention, device)
    ray_x, ray_y = (rays.to(device) for rays in surface.rays)
    ray_x, ray_y = ray_x[:, None, :], ray_y[:, :, None]

    vertices = torch.empty(frames, rows, columns, 3, dtype=torch.float32, device=device)
    occluded = torch.ones(frames, len(faces), dtype=torch.bool, device=device)
    sides = occluded[:, :-cap_faces].unflatten(1, (2, rows - 1, columns - 1))
    block = _BLOCK_VERTICES if device.type == "cpu" else _GPU_BLOCK_VERTICES
    for part, first, stop in _blocks(frames, rows, columns, block):
        z = _depth_rows(depth[part], border[part], first, stop, rows, ring)
        x, y = z * ray_x[part], z * ray_y[part, first:stop]
        for axis, plane in enumerate((x, y, z)):
            vertices[part, first:stop, :, axis] = plane
        for side, values in enumerate(occluded_faces(x, y, z, surface.occlusion_rule)):
            sides[part, side, first : stop - 1] = values
        if surface.camera_to_world is not None:
            _place(vertices[part, first:stop], (x, y, z), surface.camera_to_world[part].to(vertices))
    vertices = vertices.flatten(1, 2)
    if ring:
        _uncover_planes(surface, sides)
        for edge in (sides[:, :, 0], sides[:, :, -1], sides[..., 0], sides[..., -1]):
            edge.fill_(True)
    else:
        occluded[:, -cap_faces:] = _occluded_caps(ray_x, ray_y, border[:, None, None], surface.occlusion_rule)
    colors = (_pad_colors(surface.color) if ring else surface.color).reshape(frames, -1, 3)
    return DWMesh(vertices, faces, occluded, colors, uvs, surface.convention, cap_faces, (rows, columns))


def _uncover_planes(surface: DepthSurface, sides: torch.Tensor) -> None:
    """Clear flags (T, 2, R - 1, C - 1) of faces that continue a plane, however thin they are."""
    from ex4d.mesh.plane_kernel import flat_widths_of, uncover_planes  # imports Warp
    from ex4d.mesh.thickness import pixel_angles
    from ex4d.warp_launch import launch_rows

    depth = surface.depth.contiguous()
    angles = pixel_angles(surface.intrinsics).to(surface.device)
    flat_widths = flat_widths_of(surface.occlusion_rule)
    launch_rows(uncover_planes, depth.shape, surface.device, depth, angles, flat_widths, sides)


def _blocks(frames: int, rows: int, columns: int, block: int) -> Iterator[tuple[slice, int, int]]:
    """Parts of the grids of all frames with at most `block` vertices: frames, and vertex rows first..stop-1.

    Neighbours share a row of vertices, so that each has whole cells.
    """
    frame_step = max(1, block // (rows * columns))
    row_step = max(1, min(rows, block // (frame_step * columns)) - 1)
    for frame in range(0, frames, frame_step):
        for first in range(0, rows - 1, row_step):
            yield slice(frame, frame + frame_step), first, min(first + row_step + 1, rows)


def _depth_rows(depth: torch.Tensor, border: torch.Tensor, first: int, stop: int, rows: int, ring: int) -> torch.Tensor:
    """Depth of vertex rows first..stop-1: the frame's border value at the edges, the image's depth within."""
    columns = depth.shape[2] + 2 * ring
    z = border[:, None, None].expand(-1, stop - first, columns).clone()
    low, high = max(first, 1), min(stop, rows - 1)
    z[:, low - first : high - first, 1:-1] = depth[:, low - ring : high - ring, 1 - ring : columns - 1 - ring]
    return z


def _place(vertices: torch.Tensor, points: tuple[torch.Tensor, ...], pose: torch.Tensor) -> None:
    """Write camera-space points, as planes (n, R, C) of x, y and z, into vertices (n, R, C, 3) in world space."""
    x, y, z = points
    for axis, row in enumerate(pose[:, :3, :, None, None].unbind(1)):
        vertices[..., axis] = (x * row[:, 0]).addcmul_(y, row[:, 1]).addcmul_(z, row[:, 2]).add_(row[:, 3])


def _pad_colors(color: torch.Tensor) -> torch.Tensor:
    """(T, H, W, 3) to (T, H + 2, W + 2, 3): the ring repeats the outermost pixels."""
    frames, height, width, _ = color.shape
    padded = color.new_empty(frames, height + 2, width + 2, 3)
    padded[:, 1:-1, 1:-1] = color
    padded[:, 0, 1:-1], padded[:, -1, 1:-1] = color[:, 0], color[:, -1]
    padded[:, :, 0], padded[:, :, -1] = padded[:, :, 1], padded[:, :, -2]
    return padded


def _texel_positions(size: int, ring: int, device: torch.device | str) -> torch.Tensor:
    """The texture positions of a grid's columns (or rows): texel centres, and the texture's edges for a ring."""
    return (sample_positions(size, ring) + (0.0 if ring else 0.5)).to(device)


def _occluded_caps(ray_x: torch.Tensor, ray_y: torch.Tensor, z: torch.Tensor, rule: OcclusionRule) -> torch.Tensor:
    """(n, 2) bool: whether EX-4D's rule, which it applies to caps too, calls them occluded.

    They are the two faces of a cell as large as the image, mirrored, since caps are split along the other diagonal.
    """
    x = (z * ray_x[:, :, [-1, 0]]).expand(-1, 2, 2)
    y = (z * ray_y[:, [0, -1]]).expand(-1, 2, 2)
    return torch.cat([side.flatten(1) for side in occluded_faces(x, y, z.expand(-1, 2, 2), rule)], dim=1)

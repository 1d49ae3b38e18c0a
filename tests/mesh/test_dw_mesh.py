"""What a DW-Mesh is: where its vertices lie, which faces hide the unknown, that it is closed, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ex4d.mesh import DWMesh, MeshDepthError, build_dw_mesh, grid_topology
from ex4d_core.render_settings import CONVENTIONS, OCCLUSION_RULES

HEIGHT, WIDTH = 6, 9


def footage(frames: int = 2, height: int = HEIGHT, width: int = WIDTH) -> tuple[torch.Tensor, ...]:
    """A wall at depth 5 with a box at depth 2 before it, in random colours, the box moving to the right."""
    depth = torch.full((frames, height, width), 5.0)
    for frame in range(frames):
        depth[frame, 2:4, 2 + frame : 5 + frame] = 2.0
    color = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (frames, height, width, 3), dtype=np.uint8))
    intrinsics = torch.tensor([[80.0, 0, 4.2], [0, 81.0, 3.1], [0, 0, 1]], dtype=torch.float64)
    return depth, color, intrinsics.expand(frames, 3, 3)


def source_pixels(mesh: DWMesh, per_vertex: torch.Tensor) -> torch.Tensor:
    """(T, V, n) to (T, H, W, n), without the ring."""
    return per_vertex.unflatten(1, mesh.grid_shape)[:, 1:-1, 1:-1]


def test_centered_vertices_lie_behind_pixel_centres() -> None:
    depth, color, intrinsics = footage()
    mesh = build_dw_mesh(depth, color, intrinsics)

    assert mesh.frames == 2
    assert mesh.grid_shape == (HEIGHT + 2, WIDTH + 2)
    points = source_pixels(mesh, mesh.vertices).double()
    projected = points @ intrinsics[0].T
    pixels = (projected[..., :2] / projected[..., 2:]).numpy()
    np.testing.assert_allclose(pixels[1, 3, 7], [7.5, 3.5], atol=1e-5)
    np.testing.assert_allclose(pixels[..., 0], np.broadcast_to(np.arange(WIDTH) + 0.5, pixels.shape[:3]), atol=1e-5)
    assert torch.equal(points[..., 2].float(), depth)
    assert torch.equal(source_pixels(mesh, mesh.colors), color)


def test_centered_ring_closes_the_frustum_behind_everything_and_is_never_seen() -> None:
    depth, color, intrinsics = footage()
    depth[1, 0, 0] = 400.0  # farther than any fixed border
    mesh = build_dw_mesh(depth, color, intrinsics)

    rows, columns = mesh.grid_shape
    ring = torch.ones(rows, columns, dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    ring = ring.flatten()
    assert (mesh.vertices[0, ring, 2] > 5.0).all()
    assert (mesh.vertices[1, ring, 2] > 400.0).all()
    corner = mesh.vertices[0, -1].double() @ intrinsics[0].T
    np.testing.assert_allclose((corner[:2] / corner[2]).numpy(), [WIDTH, HEIGHT], atol=1e-4)
    touches_ring = ring[mesh.faces.long()].any(dim=1)
    assert mesh.occluded[:, touches_ring].all()
    assert touches_ring[-mesh.cap_faces :].all()


@pytest.mark.parametrize("rule", OCCLUSION_RULES)
def test_only_the_faces_between_box_and_wall_are_occluded(rule: str) -> None:
    depth, color, intrinsics = footage()
    mesh = build_dw_mesh(depth, color, intrinsics, occlusion_rule=rule)

    z = mesh.vertices[..., 2][:, mesh.faces.long()]
    inside = (z < 5.1).all(dim=2)  # no ring vertex
    between = (z == 2.0).any(dim=2) & (z == 5.0).any(dim=2)
    assert torch.equal(mesh.occluded[inside], between[inside])


def test_rules_are_the_originals_in_numbers() -> None:
    """A cell as wide as deep; its far corner moves back. Depth differences along an edge of length 1."""
    color = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    intrinsics = torch.tensor([[[1000.0, 0, 0], [0, 1000.0, 0], [0, 0, 1]]])
    upper = 0

    def occluded(depth_difference: float, rule: str) -> bool:
        # unit cell: f = 1000 at depth 1000, and the difference is small against that depth
        depth = torch.tensor([[[1000.0, 1000.0], [1000.0 + depth_difference, 1000.0]]])
        mesh = build_dw_mesh(depth, color, intrinsics, occlusion_rule=rule)
        on_grid = mesh.occluded[0, upper : 3 * 3].reshape(3, 3)
        return bool(on_grid[1, 1])

    # right angle at the top left corner: the smallest inner angle is atan(1 / sqrt(1 + d^2)), 2.5 degrees at d = 22.9
    assert not occluded(22.4, "angle")
    assert occluded(23.4, "angle")
    assert not occluded(1.9, "boundary")
    assert occluded(2.1, "boundary")


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_mesh_is_closed(convention: str) -> None:
    """A closed surface has a vector area of zero, and a volume that does not depend on the origin."""
    mesh = build_dw_mesh(*footage(), convention=convention)
    a, b, c = (mesh.vertices.double()[:, mesh.faces[:, k].long()] for k in range(3))
    areas = torch.linalg.cross(b - a, c - a) / 2
    assert (areas.sum(dim=1).abs() < 1e-6 * areas.norm(dim=2).sum(dim=1, keepdim=True)).all()
    assert (areas[..., 2].abs().sum(dim=1) > 0.1).all()


def test_a_moving_source_camera_carries_the_mesh_along() -> None:
    depth, color, intrinsics = footage()
    turn = torch.tensor([[0.0, 0, 1, 3], [0, 1, 0, -2], [-1, 0, 0, 0.5], [0, 0, 0, 1]], dtype=torch.float64)
    poses = torch.stack([torch.eye(4, dtype=torch.float64), turn])

    still = build_dw_mesh(depth, color, intrinsics)
    moving = build_dw_mesh(depth, color, intrinsics, camera_to_world=poses)

    torch.testing.assert_close(moving.vertices[0], still.vertices[0])
    x, y, z = still.vertices[1].unbind(-1)
    torch.testing.assert_close(moving.vertices[1], torch.stack([z + 3, y - 2, 0.5 - x], dim=-1))
    assert torch.equal(moving.occluded, still.occluded)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_texture_coordinates_point_at_texel_centres(convention: str) -> None:
    faces, uvs, cap_faces = grid_topology(HEIGHT, WIDTH, convention)
    mesh = build_dw_mesh(*footage(), convention=convention)

    assert torch.equal(mesh.faces, faces) and torch.equal(mesh.uvs, uvs) and mesh.cap_faces == cap_faces == 2
    grid = uvs.unflatten(0, mesh.grid_shape)
    if convention == "centered":
        torch.testing.assert_close(grid[0, 0], torch.tensor([0.0, 1.0]))  # the image's top left corner
        grid = grid[1:-1, 1:-1]
    torch.testing.assert_close(grid[0, 0], torch.tensor([0.5 / WIDTH, 1 - 0.5 / HEIGHT]))
    torch.testing.assert_close(grid[-1, -1], torch.tensor([1 - 0.5 / WIDTH, 0.5 / HEIGHT]))


def test_reference_border_is_set_to_depth_100() -> None:
    mesh = build_dw_mesh(*footage(), convention="reference")
    z = mesh.vertices[..., 2].unflatten(1, mesh.grid_shape)
    assert mesh.grid_shape == (HEIGHT, WIDTH)
    assert (z[:, 0] == 100).all() and (z[:, :, -1] == 100).all()
    assert (z[:, 1:-1, 1:-1] < 100).all()


def test_every_vertex_of_an_occluded_face_is_unseen_in_the_originals_way() -> None:
    mesh = build_dw_mesh(*footage())
    for frame in range(mesh.frames):
        unseen = torch.zeros(mesh.vertices.shape[1], dtype=torch.bool)
        unseen[mesh.faces[mesh.occluded[frame]].flatten().long()] = True
        assert torch.equal(mesh.vertex_seen()[frame], ~unseen)
        assert (mesh.vertex_rgba()[frame, unseen] == 0).all()


def test_all_frames_at_once_equal_one_at_a_time() -> None:
    depth, color, intrinsics = footage(frames=5, height=300, width=400)  # more than one block of working memory
    together = build_dw_mesh(depth, color, intrinsics)
    for frame in range(5):
        one = slice(frame, frame + 1)
        alone = build_dw_mesh(depth[one], color[one], intrinsics[one])
        for name in ("vertices", "occluded", "colors"):
            assert torch.equal(getattr(alone, name), getattr(together, name)[one])


def test_the_smallest_image_is_2_by_2() -> None:
    mesh = build_dw_mesh(*footage(height=2, width=2), convention="reference")
    assert mesh.faces.shape == (4, 3)
    with pytest.raises(MeshDepthError, match="invalid size 1 x 2"):
        grid_topology(2, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_impossible_depth_is_refused_with_its_frame_and_value(value: float) -> None:
    depth, color, intrinsics = footage()
    depth[1, 2, 3] = value
    with pytest.raises(MeshDepthError, match=f"depth of frame 1 has 1 values.*first: {value}"):
        build_dw_mesh(depth, color, intrinsics)


def test_inputs_that_do_not_belong_together_are_refused() -> None:
    depth, color, intrinsics = footage()
    with pytest.raises(ValueError, match=r"color must be \(2, 6, 9, 3\) uint8.*got \(2, 5, 9, 3\)"):
        build_dw_mesh(depth, color[:, 1:], intrinsics)
    with pytest.raises(ValueError, match=r"intrinsics must be \(2, 3, 3\).*got \(1, 3, 3\)"):
        build_dw_mesh(depth, color, intrinsics[:1])
    with pytest.raises(ValueError, match=r"camera_to_world must be \(2, 4, 4\).*got \(4, 4\)"):
        build_dw_mesh(depth, color, intrinsics, camera_to_world=torch.eye(4))
    with pytest.raises(ValueError, match=r"depth must be .* float32, got .*float64"):
        build_dw_mesh(depth.double(), color, intrinsics)
    with pytest.raises(ValueError, match="0 frames"):
        build_dw_mesh(depth[:0], color[:0], intrinsics[:0])
    with pytest.raises(ValueError, match="invalid convention 'centred'"):
        build_dw_mesh(depth, color, intrinsics, convention="centred")
    with pytest.raises(ValueError, match="invalid occlusion rule 'depth'"):
        build_dw_mesh(depth, color, intrinsics, occlusion_rule="depth")
    backwards = intrinsics.clone()
    backwards[1, 0, 0] = -20.0
    with pytest.raises(ValueError, match="intrinsics of frame 1"):
        build_dw_mesh(depth, color, backwards)

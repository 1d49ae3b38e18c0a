"""DW-Mesh files as other programs read them, and that a file is whole or not there."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.mesh import DWMesh, Pc2Writer, build_dw_mesh, write_ply


@pytest.fixture
def mesh() -> DWMesh:
    random = torch.Generator().manual_seed(2)
    depth = torch.rand(3, 4, 5, generator=random) + 1
    color = torch.randint(0, 256, (3, 4, 5, 3), dtype=torch.uint8, generator=random)
    intrinsics = torch.tensor([[5.0, 0, 2.5], [0, 5.0, 2], [0, 0, 1]]).expand(3, 3, 3)
    return build_dw_mesh(depth, color, intrinsics)


def test_ply_holds_one_frames_positions_colours_and_faces(tmp_path: Path, mesh: DWMesh) -> None:
    write_ply(tmp_path / "frame.ply", mesh, 1)

    header, body = (tmp_path / "frame.ply").read_bytes().split(b"end_header\n", 1)
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\n")
    assert b"element vertex 42\n" in header  # 6 x 7 with the ring
    assert b"element face 62\n" in header  # 2 x 5 x 6 and two caps
    vertices = np.frombuffer(body, dtype=[("position", "<f4", 3), ("color", "u1", 3)], count=42)
    faces = np.frombuffer(body, dtype=[("count", "u1"), ("corners", "<i4", 3)], offset=vertices.nbytes)
    np.testing.assert_array_equal(vertices["position"], mesh.vertices[1].numpy())
    np.testing.assert_array_equal(vertices["color"], mesh.colors[1].numpy())
    np.testing.assert_array_equal(faces["corners"], mesh.faces.numpy())
    assert (faces["count"] == 3).all()
    assert [path.name for path in tmp_path.iterdir()] == ["frame.ply"]


def test_ply_of_a_frame_that_is_not_there_is_refused(tmp_path: Path, mesh: DWMesh) -> None:
    with pytest.raises(IndexError, match=r"invalid frame 3.* 0 to 2"):
        write_ply(tmp_path / "frame.ply", mesh, 3)
    assert not list(tmp_path.iterdir())


def test_pc2_streams_all_frames_in_blenders_layout(tmp_path: Path, mesh: DWMesh) -> None:
    path = tmp_path / "positions.pc2"
    with Pc2Writer(path, 42, 3) as cache:
        cache.append(mesh.vertices[:2])
        assert not path.exists()  # no half-written file under the final name
        cache.append(mesh.vertices[2])

    content = path.read_bytes()
    assert struct.unpack("<12siiffi", content[:32]) == (b"POINTCACHE2\0", 1, 42, 0.0, 1.0, 3)
    np.testing.assert_array_equal(np.frombuffer(content[32:], "<f4").reshape(3, 42, 3), mesh.vertices.numpy())
    assert [entry.name for entry in tmp_path.iterdir()] == ["positions.pc2"]


def test_pc2_that_is_not_finished_leaves_nothing_and_spares_the_old_file(tmp_path: Path, mesh: DWMesh) -> None:
    path = tmp_path / "positions.pc2"
    path.write_bytes(b"an older cache")
    with pytest.raises(ValueError, match="3 frames: only 2"), Pc2Writer(path, 42, 3) as cache:
        cache.append(mesh.vertices[:2])
    with pytest.raises(KeyboardInterrupt), Pc2Writer(path, 42, 3) as cache:
        cache.append(mesh.vertices[:2])
        raise KeyboardInterrupt
    assert path.read_bytes() == b"an older cache"
    assert [entry.name for entry in tmp_path.iterdir()] == ["positions.pc2"]


def test_pc2_refuses_another_mesh_and_too_many_frames(tmp_path: Path, mesh: DWMesh) -> None:
    path = tmp_path / "positions.pc2"
    another_mesh = r"shape \(3, 41, 3\): expected \(n, 42, 3\)"
    with pytest.raises(ValueError, match=another_mesh), Pc2Writer(path, 42, 3) as cache:
        cache.append(mesh.vertices[:, :41])
    too_many = "2 frames: 0 are written, got 3 more"
    with pytest.raises(ValueError, match=too_many), Pc2Writer(path, 42, 2) as cache:
        cache.append(mesh.vertices)
    with pytest.raises(ValueError, match="42 vertices and 0 frames"):
        Pc2Writer(path, 42, 0)
    assert not list(tmp_path.iterdir())

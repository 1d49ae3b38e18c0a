"""Cameras go out and come back: COLMAP's text and transforms.json within 1e-6, .chan as Nuke reads it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.depth import read_source_camera
from ex4d.media import FootageInfo
from ex4d_core.cameras import FLIP_Y_AND_Z, CameraPath, intrinsics_matrix, invert_rigid, look_at

FRAMES, SIZE = 8, (320, 192)
FOOTAGE = FootageInfo(Path("take.mp4"), *SIZE, FRAMES, Fraction(24))


def path_of(zooms: bool) -> CameraPath:
    """All the way around, so that every sign of a quaternion occurs, over and under its subject."""
    angle = np.linspace(0, 2 * np.pi, FRAMES)
    eyes = np.stack([3 * np.sin(angle), np.cos(2 * angle), 5 - 3 * np.cos(angle)], axis=-1)
    focal = np.linspace(300, 340 if zooms else 300, FRAMES)
    return CameraPath(
        look_at(eyes, np.array([0, 0.1, 5])), [intrinsics_matrix(f, 1.1 * f, 150, 100) for f in focal], *SIZE
    )


@pytest.mark.parametrize("name", ["transforms.json", "model", "again.npz"])
@pytest.mark.parametrize("zooms", [False, True])
def test_a_camera_comes_back_as_it_was(tmp_path, name, zooms):
    camera = path_of(zooms)
    camera.save(tmp_path / "camera.npz")
    words = ["camera", "convert", str(tmp_path / "camera.npz"), "-o", str(tmp_path / name)]
    assert main([*words, "--first-frame", "1001", "--fps", "24"]) == 0
    found = read_source_camera(tmp_path / name, FOOTAGE).path
    assert np.abs(found.intrinsics - camera.intrinsics).max() < 1e-6
    relative = camera.world_to_camera @ invert_rigid(camera.world_to_camera[:1])
    assert np.abs(found.world_to_camera - relative).max() < 1e-6
    assert main(words) == 1, "what is there stays"
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize(("name", "expected"), [("shot.v2", "dot"), ("shot.usdc", "Blender"), ("shot.FBX", "Blender")])
def test_a_name_that_is_no_format_of_ours_is_told_why(tmp_path, capsys, name, expected):
    path_of(zooms=False).save(tmp_path / "camera.npz")
    assert main(["camera", "convert", str(tmp_path / "camera.npz"), "-o", str(tmp_path / name)]) != 0
    told = capsys.readouterr().err.partition(name)[2]
    assert expected in told and ("Blender" in told) == (expected == "Blender")
    assert not (tmp_path / name).exists()


def turned(axis: int, degrees: float) -> np.ndarray:
    one, other = (axis + 1) % 3, (axis + 2) % 3
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    matrix[one, one] = matrix[other, other] = cosine
    matrix[one, other], matrix[other, one] = -sine, sine
    return matrix


def test_chan_is_nukes_camera(tmp_path, capsys):
    camera = path_of(zooms=True)
    camera.save(tmp_path / "camera.npz")
    words = ["camera", "convert", str(tmp_path / "camera.npz"), "-o", str(tmp_path / "camera.chan")]
    assert main([*words, "--first-frame", "1001"]) == 0
    assert "principal point" in capsys.readouterr().err
    rows = np.loadtxt(tmp_path / "camera.chan")
    assert rows[:, 0].tolist() == list(range(1001, 1001 + FRAMES))
    for row, expected, lens in zip(rows, camera.camera_to_world, camera.intrinsics, strict=True):
        to_world = np.eye(4)
        to_world[:3, :3] = turned(1, row[5]) @ turned(0, row[4]) @ turned(2, row[6])
        to_world[:3, 3] = row[1:4]
        assert np.abs(FLIP_Y_AND_Z @ to_world @ FLIP_Y_AND_Z - expected).max() < 1e-6
        assert np.isclose(SIZE[1] / 2 / np.tan(np.radians(row[7]) / 2), lens[1, 1])


def test_a_camera_that_looks_straight_down_has_a_rotation(tmp_path):
    pose = np.eye(4)
    pose[:3, :3] = turned(0, 90)
    CameraPath(pose[None], intrinsics_matrix(300, 300, 160, 96), *SIZE).save(tmp_path / "camera.npz")
    assert main(["camera", "convert", str(tmp_path / "camera.npz"), "-o", str(tmp_path / "camera.chan")]) == 0
    row = np.loadtxt(tmp_path / "camera.chan")
    rotation = turned(1, row[5]) @ turned(0, row[4]) @ turned(2, row[6])
    flip = FLIP_Y_AND_Z[:3, :3]
    assert np.abs(flip @ rotation @ flip - invert_rigid(pose)[:3, :3]).max() < 1e-6


@pytest.mark.parametrize("name", ["camera.fbx", "camera.usd", "camera.abc"])
def test_what_blender_writes_is_said_so(tmp_path, capsys, name):
    path_of(False).save(tmp_path / "camera.npz")
    assert main(["camera", "convert", str(tmp_path / "camera.npz"), "-o", str(tmp_path / name)]) == 1
    assert "Blender" in capsys.readouterr().err

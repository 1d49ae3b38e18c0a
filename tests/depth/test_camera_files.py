"""Cameras solved elsewhere: COLMAP's models and transforms.json as the path of the camera that filmed."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.depth import read_source_camera, read_source_points, transforms_json
from ex4d.media import FootageInfo
from ex4d_core.cameras import CameraError, CameraPath, intrinsics_matrix, invert_rigid, look_at

FRAMES, WIDTH, HEIGHT = 4, 64, 48
FOOTAGE = FootageInfo(path=Path("clip.mp4"), width=WIDTH, height=HEIGHT, frames=FRAMES, fps=Fraction(24))
# Somewhere in a world of its own, as solvers leave it.
EYES = np.array([[1.0, 2, 3], [1.2, 2, 3], [1.4, 2.1, 3], [1.6, 2.1, 3.2]])
POSES = look_at(EYES, np.array([0.5, 1, 9]))
RELATIVE = POSES @ invert_rigid(POSES[:1])


def quaternion(rotation: np.ndarray) -> list[float]:
    """(w, x, y, z) of a rotation by less than half a turn."""
    w = np.sqrt(1 + np.trace(rotation)) / 2
    x, y, z = (
        (rotation[2, 1] - rotation[1, 2]) / (4 * w),
        (rotation[0, 2] - rotation[2, 0]) / (4 * w),
        (rotation[1, 0] - rotation[0, 1]) / (4 * w),
    )
    return [w, x, y, z]


def write_colmap(folder: Path, lens: str = f"1 PINHOLE {WIDTH} {HEIGHT} 50 51 32 24", points: str = "") -> Path:
    (folder / "cameras.txt").write_text(f"# Camera list\n{lens}\n")
    lines = ["# Image list"]
    # By number, not by letter, and not in their order.
    for index in (2, 0, 3, 1):
        numbers = [*quaternion(POSES[index, :3, :3]), *POSES[index, :3, 3]]
        lines += [f"{index + 1} {' '.join(map(str, numbers))} 1 frame_{index + 8}.png", points]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_binary_colmap(
    folder: Path, model: int = 1, lens: tuple[float, ...] = (50, 51, 32, 24), points: int = 0
) -> Path:
    """cameras.bin and images.bin byte by byte, as COLMAP documents them."""
    camera = struct.pack("<iiQQ", 7, model, WIDTH, HEIGHT) + struct.pack(f"<{len(lens)}d", *lens)
    (folder / "cameras.bin").write_bytes(struct.pack("<Q", 1) + camera)
    images = struct.pack("<Q", FRAMES)
    for index in (2, 0, 3, 1):
        numbers = [*quaternion(POSES[index, :3, :3]), *POSES[index, :3, 3]]
        images += struct.pack("<i7di", index + 1, *numbers, 7) + f"frame_{index + 8}.png".encode() + b"\0"
        images += struct.pack("<Q", points) + points * struct.pack("<ddq", 10.5, 20.5, -1)
    (folder / "images.bin").write_bytes(images)
    return folder


def camera_of(path: Path, footage: FootageInfo, scale: float = 1.0) -> CameraPath:
    return read_source_camera(path, footage, scale).path


# A point near the camera's axis in all frames, and one that a model lists and no image sees.
POINT, UNSEEN = (0.6, 1.2, 8.0), (1.0, 1.0, 1.0)


def write_points(folder: Path) -> Path:
    """points3D beside `write_colmap` with ``points="10.5 20.5 31 1 2 -1 3 4 99"``: a known, no and a missing point."""
    rows = [f"{number} {x} {y} {z} 0 0 0 0.5 1 0 2 0" for number, (x, y, z) in ((40, UNSEEN), (31, POINT))]
    (folder / "points3D.txt").write_text("\n".join(["# 3D point list", *rows]) + "\n")
    return folder


def write_binary_points(folder: Path) -> Path:
    """points3D.bin byte by byte, as COLMAP documents it."""
    data = struct.pack("<Q", 2)
    for number, position in ((40, UNSEEN), (31, POINT)):
        data += struct.pack("<Q3d3BdQ", number, *position, 0, 0, 0, 0.5, 2) + struct.pack("<4i", 1, 0, 2, 0)
    (folder / "points3D.bin").write_bytes(data)
    images = (folder / "images.bin").read_bytes().replace(struct.pack("<ddq", 10.5, 20.5, -1), SEEN)
    (folder / "images.bin").write_bytes(images)
    return folder


SEEN = struct.pack("<ddq", 10.5, 20.5, 31)


def nerf_document() -> dict:
    poses = invert_rigid(POSES) @ np.diag([1.0, -1, -1, 1])
    frames = [{"file_path": f"images/{i}.png", "transform_matrix": pose.tolist()} for i, pose in enumerate(poses)]
    return {"w": 2 * WIDTH, "h": 2 * HEIGHT, "fl_x": 100, "fl_y": 102, "cx": 64, "cy": 48, "frames": frames}


def write_nerf(folder: Path, **changes) -> Path:
    (folder / "transforms.json").write_text(json.dumps({**nerf_document(), **changes}))
    return folder / "transforms.json"


@pytest.mark.parametrize("points", ["", "10.5 20.5 -1 30 40 7"])
def test_colmap(tmp_path, points):
    camera = camera_of(write_colmap(tmp_path, points=points), FOOTAGE)
    assert np.allclose(camera.world_to_camera, RELATIVE, atol=1e-9)
    assert np.array_equal(camera.world_to_camera[0], np.eye(4))
    assert np.allclose(camera.intrinsics, intrinsics_matrix(50, 51, 32, 24))
    assert np.allclose(camera_of(tmp_path / "images.txt", FOOTAGE).world_to_camera, RELATIVE)


@pytest.mark.parametrize("points", [0, 3])
def test_colmap_in_binary(tmp_path, points):
    camera = camera_of(write_binary_colmap(tmp_path, points=points), FOOTAGE)
    assert np.allclose(camera.world_to_camera, RELATIVE, atol=1e-12)
    assert np.allclose(camera.intrinsics, intrinsics_matrix(50, 51, 32, 24))
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    named = camera_of(tmp_path / "images.bin", FOOTAGE)
    assert np.array_equal(named.world_to_camera, camera.world_to_camera)


def test_binary_comes_before_text_unless_the_text_is_named(tmp_path):
    write_binary_colmap(tmp_path)
    write_colmap(tmp_path, f"1 PINHOLE {WIDTH} {HEIGHT} 60 60 32 24")
    assert camera_of(tmp_path, FOOTAGE).intrinsics[0, 0, 0] == 50
    assert camera_of(tmp_path / "images.txt", FOOTAGE).intrinsics[0, 0, 0] == 60


@pytest.mark.parametrize(
    ("model", "lens", "focal"),
    [
        (0, (50, 32, 24), (50, 50)),
        (1, (50, 51, 32, 24), (50, 51)),
        (2, (50, 32, 24, 0), (50, 50)),
        (3, (50, 32, 24, 0, 1e-4), (50, 50)),
        (4, (50, 51, 32, 24, 0, 0, 0, 0), (50, 51)),
    ],
)
def test_every_pinhole_of_colmaps(tmp_path, model, lens, focal):
    camera = camera_of(write_binary_colmap(tmp_path, model, lens), FOOTAGE)
    assert np.allclose(camera.intrinsics, intrinsics_matrix(*focal, 32, 24))


def test_damaged_binary_models(tmp_path):
    write_binary_colmap(tmp_path, model=10, lens=(50, 50, 32, 24, 0.1, 0, 0, 0, 0, 0, 0, 0))
    with pytest.raises(CameraError, match="THIN_PRISM_FISHEYE"):
        camera_of(tmp_path, FOOTAGE)
    write_binary_colmap(tmp_path, model=6, lens=(50, 50, 32, 24, 0.1, 0, 0, 0, 0, 0.2, 0, 0))
    with pytest.raises(CameraError, match=r"camera 7 .*\[0.2, 0.0, 0.0\]"):
        camera_of(tmp_path, FOOTAGE)
    whole = (write_binary_colmap(tmp_path) / "images.bin").read_bytes()
    for length in (4, 40, len(whole) - 1):
        (tmp_path / "images.bin").write_bytes(whole[:length])
        with pytest.raises(CameraError, match=r"images.bin: ends in the middle"):
            camera_of(tmp_path, FOOTAGE)
    (tmp_path / "images.bin").write_bytes(whole + b"more")
    with pytest.raises(CameraError, match=r"images.bin: 4 bytes"):
        camera_of(tmp_path, FOOTAGE)
    (tmp_path / "images.bin").write_bytes(whole[:72] + b"x" * 5000)
    with pytest.raises(CameraError, match=r"images.bin: .*name"):
        camera_of(tmp_path, FOOTAGE)
    (tmp_path / "images.bin").write_bytes(struct.pack("<Q", 2**60))
    with pytest.raises(CameraError, match="ends in the middle"):
        camera_of(tmp_path, FOOTAGE)
    (tmp_path / "images.bin").write_bytes(struct.pack("<Q", 0))
    with pytest.raises(CameraError, match="holds no images"):
        camera_of(tmp_path, FOOTAGE)


@pytest.mark.parametrize("binary", [False, True])
def test_the_points_of_a_colmap_model_are_where_its_frames_see_them(tmp_path, binary):
    if binary:
        folder = write_binary_points(write_binary_colmap(tmp_path, points=1))
    else:
        folder = write_points(write_colmap(tmp_path, points="10.5 20.5 31 1 2 -1 3 4 99"))
    points = read_source_points(folder, FOOTAGE, scale=2.0)
    assert points is not None
    assert points.frame.tolist() == list(range(FRAMES))
    assert np.allclose(points.pixel, (10.5, 20.5))
    assert np.allclose(points.depth, 2 * (POSES[:, 2, :3] @ POINT + POSES[:, 2, 3]))
    large = FootageInfo(path=Path("clip.mp4"), width=2 * WIDTH, height=2 * HEIGHT, frames=FRAMES, fps=Fraction(24))
    scaled = read_source_points(folder / f"points3D.{'bin' if binary else 'txt'}", large)
    assert scaled is not None and np.allclose(scaled.pixel, (21, 41))


def test_cameras_without_points(tmp_path):
    assert read_source_points(write_colmap(tmp_path), FOOTAGE) is None
    assert read_source_points(write_nerf(tmp_path), FOOTAGE) is None
    assert read_source_points(tmp_path / "camera.npz", FOOTAGE) is None


def test_damaged_points(tmp_path):
    write_binary_points(write_binary_colmap(tmp_path, points=1))
    whole = (tmp_path / "points3D.bin").read_bytes()
    (tmp_path / "points3D.bin").write_bytes(whole[:-3])
    with pytest.raises(CameraError, match=r"points3D.bin: ends in the middle"):
        read_source_points(tmp_path, FOOTAGE)
    (tmp_path / "points3D.bin").write_bytes(whole + b"more")
    with pytest.raises(CameraError, match=r"points3D.bin: 4 bytes"):
        read_source_points(tmp_path, FOOTAGE)
    text = tmp_path / "text"
    text.mkdir()
    write_points(write_colmap(text, points="10.5 20.5"))
    with pytest.raises(CameraError, match=r"images.txt: cannot read the points"):
        read_source_points(text, FOOTAGE)
    (text / "points3D.txt").write_text("31 0.5 near 3\n")
    with pytest.raises(CameraError, match=r"points3D.txt: .*near"):
        read_source_points(text, FOOTAGE)


def test_nerf_at_another_size(tmp_path):
    camera = camera_of(write_nerf(tmp_path), FOOTAGE)
    assert np.allclose(camera.world_to_camera, RELATIVE, atol=1e-9)
    assert np.allclose(camera.intrinsics, intrinsics_matrix(50, 51, 32, 24))
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    assert np.array_equal(camera_of(tmp_path, FOOTAGE).world_to_camera, camera.world_to_camera)


def test_nerf_with_a_field_of_view_only(tmp_path):
    document = nerf_document()
    for name in ("w", "h", "fl_x", "fl_y", "cx", "cy"):
        del document[name]
    (tmp_path / "transforms.json").write_text(json.dumps({**document, "camera_angle_x": np.pi / 2}))
    camera = camera_of(tmp_path / "transforms.json", FOOTAGE)
    assert np.allclose(camera.intrinsics, intrinsics_matrix(32, 32, 32, 24))


def test_our_own_file_and_the_scale(tmp_path):
    CameraPath(POSES, intrinsics_matrix(50, 50, 32, 24), WIDTH, HEIGHT).save(tmp_path / "camera.npz")
    camera = camera_of(tmp_path / "camera.npz", FOOTAGE, scale=3)
    assert np.allclose(camera.camera_to_world[:, :3, 3], 3 * invert_rigid(RELATIVE)[:, :3, 3])
    assert np.allclose(camera.world_to_camera[:, :3, :3], RELATIVE[:, :3, :3])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "cameras.txt").unlink(), "cameras.txt"),
        (lambda folder: (folder / "cameras.txt").write_text("1 FOV 64 48 50 50 32 24 1"), "'FOV'"),
        (lambda folder: (folder / "cameras.txt").write_text("1 PINHOLE 64"), "'1 PINHOLE 64'"),
        (lambda folder: (folder / "cameras.txt").write_text("2 PINHOLE 64 48 50 50 32 24"), "camera 1, .*cameras.txt"),
        (lambda folder: (folder / "images.txt").write_text("1 1 0 0"), "'1 1 0 0'"),
        (lambda folder: (folder / "images.txt").write_text("# nothing\n"), "holds no images"),
        (lambda folder: (folder / "images.txt").rename(folder / "images.bin"), "cameras.bin"),
        (lambda folder: write_colmap(folder, "1 PINHOLE 48 64 50 50 24 32"), "48x64"),
    ],
)
def test_damaged_colmap_folders(tmp_path, spoil, message):
    write_colmap(tmp_path)
    spoil(tmp_path)
    with pytest.raises(CameraError, match=message):
        camera_of(tmp_path, FOOTAGE)


def test_damaged_transforms(tmp_path):
    path = tmp_path / "transforms.json"
    for text in ("{", "[]", '{"frames": [{}]}', '{"frames": [{"transform_matrix": [[1]]}]}'):
        path.write_text(text)
        with pytest.raises(CameraError, match=r"transforms.json"):
            camera_of(path, FOOTAGE)
    sheared = nerf_document()
    sheared["frames"][1]["transform_matrix"][0][1] += 0.5
    path.write_text(json.dumps(sheared))
    with pytest.raises(CameraError, match="frame 1 is not rigid"):
        camera_of(path, FOOTAGE)


def test_as_many_cameras_as_frames(tmp_path):
    document = nerf_document()
    document["frames"].pop()
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    with pytest.raises(CameraError, match=r"3 cameras, .*clip.mp4 has 4 frames"):
        camera_of(tmp_path / "transforms.json", FOOTAGE)


def test_something_else_is_refused(tmp_path):
    with pytest.raises(CameraError, match=r"camera.abc"):
        camera_of(tmp_path / "camera.abc", FOOTAGE)
    with pytest.raises(CameraError, match="--camera-scale 0"):
        camera_of(tmp_path / "camera.npz", FOOTAGE, scale=0)


def test_a_transforms_json_that_is_too_deep_or_too_long_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "transforms.json"
    path.write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(CameraError, match=r"not a readable transforms\.json"):
        camera_of(path, FOOTAGE)
    monkeypatch.setattr(transforms_json, "_MAX_JSON_BYTES", 100)
    with pytest.raises(CameraError, match="at most 100 are expected"):
        camera_of(write_nerf(tmp_path), FOOTAGE)

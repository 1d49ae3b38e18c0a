"""Cameras as COLMAP, nerfstudio and NeRF tools leave them: sizes, units, lenses, orders, and missing images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.depth import read_source_camera, read_source_points
from ex4d.depth.intrinsics import require_plausible
from ex4d.media import FootageInfo, probe
from ex4d_core.cameras import CameraError, CameraPath

DATA = Path(__file__).parents[1] / "data"
CASES, CLIP = DATA / "cases", DATA / "moving_camera"


@pytest.fixture(scope="module")
def footage() -> FootageInfo:
    return probe(CLIP / "footage.mp4")


@pytest.fixture(scope="module")
def truth() -> CameraPath:
    return CameraPath.load(CLIP / "camera.npz")


def changed(folder: Path, case: str = "07_root_size", drop: tuple[str, ...] = (), **values) -> Path:
    """A transforms.json of the cases with other values at its root."""
    document = json.loads((CASES / case / "transforms.json").read_text())
    for name in drop:
        del document[name]
    (folder / "transforms.json").write_text(json.dumps({**document, **values}))
    return folder


def model_with(folder: Path, lens: str) -> Path:
    """The model of the cases with another line in cameras.txt."""
    shutil.copytree(CASES / "07_colmap_radial", folder, dirs_exist_ok=True)
    (folder / "cameras.txt").write_text(f"1 {lens}\n")
    return folder


# Order, size, unit


@pytest.mark.parametrize(
    "case", ["07_root_size", "07_per_frame_size", "07_train_test", "07_time_field", "07_colmap_project"]
)
def test_the_camera_of_every_frame_is_where_it_was(case, footage, truth):
    found = read_source_camera(CASES / case, footage)
    assert np.allclose(found.path.world_to_camera, truth.world_to_camera, atol=1e-3)
    assert np.allclose(found.path.intrinsics, truth.intrinsics, atol=1e-3)
    assert found.distortion is None


def test_a_fisheye_is_undistorted_by_all_of_its_coefficients(footage):
    found = read_source_camera(CASES / "07_fisheye", footage)
    values = json.loads((CASES / "07_fisheye" / "transforms.json").read_text())
    assert found.distortion is not None and found.distortion.model == "fisheye"
    assert found.distortion.coefficients == tuple(values[name] for name in ("k1", "k2", "k3", "k4"))


def test_a_lens_without_a_focal_length_is_refused_by_its_name(tmp_path, footage):
    document = json.loads((CASES / "07_root_size" / "transforms.json").read_text())
    kept = {name: values for name, values in document.items() if name not in ("fl_x", "fl_y", "camera_angle_x")}
    (tmp_path / "transforms.json").write_text(json.dumps({**kept, "camera_model": "SPHERICAL"}))
    with pytest.raises(CameraError, match="'SPHERICAL'"):
        read_source_camera(tmp_path, footage)


def test_intrinsics_that_are_shares_of_the_sides(tmp_path, footage, truth):
    focal = 270.2222 / 256
    found = read_source_camera(changed(tmp_path, fl_x=focal, fl_y=focal, cx=0.5, cy=0.5), footage)
    assert np.allclose(found.path.intrinsics, truth.intrinsics, atol=1e-3)
    assert "shares" in found.notes[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fl_x": 540, "fl_y": 540, "cx": 256, "cy": 256}, r"540 .*\(256, 256\), for an image of 256x256"),
        ({"fl_x": 1, "fl_y": 1, "cx": 128, "cy": 128}, r"focal lengths 1 and 1 pixels \(179\.\d x 179"),
        ({"fl_x": 270, "fl_y": 40, "cx": 128, "cy": 128}, "three times"),
    ],
)
def test_intrinsics_that_cannot_be_the_footages_are_refused_with_their_numbers(tmp_path, footage, values, message):
    with pytest.raises(CameraError, match=message):
        read_source_camera(changed(tmp_path, drop=("w", "h"), **values), footage)


def test_plausible_intrinsics_of_long_and_wide_lenses():
    for focal in (20, 16_000):
        require_plausible(np.array([[focal, 0, 250], [0, focal, 90], [0, 0, 1]]), 256, 256, "lens")


def test_a_camera_solved_from_images_with_square_pixels(tmp_path, truth):
    squeezed = FootageInfo(Path("clip.mp4"), 128, 256, 20, Fraction(24), pixel_aspect=2.0)
    found = read_source_camera(CASES / "07_root_size", squeezed).path
    assert np.allclose(found.intrinsics[:, 0], truth.intrinsics[:, 0] / 2, atol=1e-3)
    assert np.isclose(found.pixel_aspect, 2)


def test_frames_in_two_folders_with_the_same_numbers_stay_apart(tmp_path, footage, truth):
    document = json.loads((CASES / "07_root_size" / "transforms.json").read_text())
    for index, frame in enumerate(document["frames"]):
        frame["file_path"] = f"{'ab'[index // 10]}/{index % 10}.png"
    (tmp_path / "transforms.json").write_text(json.dumps({**document, "frames": document["frames"][::-1]}))
    found = read_source_camera(tmp_path, footage).path
    assert np.allclose(found.world_to_camera, truth.world_to_camera, atol=1e-3)


# Lenses


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("SIMPLE_RADIAL", [270, 128, 128, -0.03]),
        ("RADIAL", [270, 120, 130, -0.2, 0.05]),
        ("OPENCV", [270, 300, 120, 130, -0.1, 0.02, 0.01, -0.006]),
        ("FULL_OPENCV", [270, 300, 120, 130, -0.1, 0.02, 0.01, -0.006, 0.03, 0, 0, 0]),
        ("OPENCV_FISHEYE", [170, 180, 120, 130, 0.05, -0.01, 0.02, -0.01]),
        ("RADIAL_FISHEYE", [170, 120, 130, 0.05, -0.01]),
        ("SIMPLE_FISHEYE", [170, 120, 130]),
        ("DIVISION", [270, 300, 120, 130, -0.1]),
    ],
)
def test_lenses_bend_pixels_as_colmap_says(tmp_path, footage, model, parameters):
    pycolmap = pytest.importorskip("pycolmap")
    words = " ".join(map(str, [model, 256, 256, *parameters]))
    found = read_source_camera(model_with(tmp_path, words), footage)
    rays = np.array([[0.2, -0.3, 1], [-0.4, 0.1, 1], [0.35, 0.4, 1]])
    camera = pycolmap.Camera(model=model, width=256, height=256, params=parameters)
    ideal = rays @ found.path.intrinsics[0].T
    assert found.distortion is not None
    assert np.allclose(found.distortion.distorted(ideal[:, :2]), camera.img_from_cam(rays), atol=1e-6)


def test_lens_distortion_follows_the_footages_size(tmp_path, footage):
    large = read_source_camera(model_with(tmp_path, "OPENCV 512 512 540 600 240 260 -0.1 0.02 0.01 -0.006"), footage)
    same = read_source_camera(model_with(tmp_path, "OPENCV 256 256 270 300 120 130 -0.1 0.02 0.01 -0.006"), footage)
    assert large.distortion == same.distortion and large.distortion is not None
    assert (large.distortion.width, large.distortion.focal_y) == (256, 300)


@pytest.mark.parametrize(
    ("values", "model"),
    [
        ({"camera_model": "OPENCV", "k1": -0.1, "p2": 0.01}, "brown"),
        ({"k3": 0.05}, "brown"),
        ({"distortion_params": [-0.1, 0.02, 0, 0, 0.001, 0]}, "brown"),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0}, "fisheye"),
        ({"is_fisheye": True, "k1": 0.05}, "fisheye"),
        ({"camera_model": "OPENCV", "k1": 0.0002}, None),
    ],
)
def test_lenses_of_transforms(tmp_path, footage, values, model):
    distortion = read_source_camera(changed(tmp_path, **values), footage).distortion
    assert (None if distortion is None else distortion.model) == model
    if model == "fisheye":
        assert distortion.coefficients[0] == values["k1"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"camera_model": "EQUIRECTANGULAR"}, "'EQUIRECTANGULAR'"),
        ({"camera_model": "OMNIDIRECTIONALSTEREO_L"}, "'OMNIDIRECTIONALSTEREO_L'"),
        ({"k1": "bent"}, "bent"),
        ({"k1": float("nan")}, "nan"),
        ({"k1": -9}, "folds"),
        ({"k1": 0.1, "k5": 0.1}, "k5"),
    ],
)
def test_lenses_that_cannot_be_undone_are_refused_by_name(tmp_path, footage, values, message):
    with pytest.raises(CameraError, match=message):
        read_source_camera(changed(tmp_path, **values), footage)


def test_images_of_several_lenses_are_refused(tmp_path, footage):
    document = json.loads((CASES / "07_root_size" / "transforms.json").read_text())
    document["frames"][3]["k1"] = 0.1
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    with pytest.raises(CameraError, match="2 lens distortions"):
        read_source_camera(tmp_path, footage)


# Missing images


def test_an_image_without_a_camera_is_named_or_interpolated(footage, truth):
    with pytest.raises(CameraError, match=r"19 cameras.*none for frame_00008\."):
        read_source_camera(CASES / "07_colmap_missing", footage)
    found = read_source_camera(CASES / "07_colmap_missing", footage, gaps="interpolate")
    assert np.allclose(found.path.world_to_camera, truth.world_to_camera, atol=2e-3)
    assert "frame_00008" in found.notes[0]


def without(folder: Path, *missing: int, name: str = "frame_{:05d}.png") -> Path:
    shutil.copy(CASES / "07_colmap_project/sparse/0/cameras.txt", folder)
    lines = (CASES / "07_colmap_project/sparse/0/images.txt").read_text().splitlines()
    kept = []
    for frame, line in enumerate(lines[::2]):
        if frame not in missing:
            kept += [" ".join([*line.split()[:9], name.format(frame + 1)]), ""]
    (folder / "images.txt").write_text("\n".join(kept) + "\n")
    return folder


@pytest.mark.parametrize(
    ("missing", "named"), [((0,), "frame_00001"), ((19,), "frame_00020"), ((0, 5), "frame_00001, frame_00006")]
)
def test_the_ends_of_footage_cannot_be_interpolated(tmp_path, footage, missing, named):
    with pytest.raises(CameraError, match=rf"none for {named}, and nothing to interpolate from"):
        read_source_camera(without(tmp_path, *missing), footage, gaps="interpolate")


def test_names_that_do_not_tell_the_frame(tmp_path, footage):
    with pytest.raises(CameraError, match=r"19 cameras, but the footage footage\.mp4 has 20 frames"):
        read_source_camera(without(tmp_path, 4, name="frame_{:05d}_v2.png"), footage, gaps="interpolate")


def test_images_of_a_folder_are_known_by_their_names(tmp_path, footage, truth):
    frames = tmp_path / "frames"
    frames.mkdir()
    for frame in range(20):
        (frames / f"shot_{3 * frame + 1001}.png").touch()
    model = without(tmp_path, 4, 5)
    text = (model / "images.txt").read_text()
    for frame in range(20):
        text = text.replace(f"frame_{frame + 1:05d}", f"shot_{3 * frame + 1001}")
    (model / "images.txt").write_text(text)
    images = replace(footage, path=frames)
    with pytest.raises(CameraError, match="none for shot_1013, shot_1016"):
        read_source_camera(model, images)
    found = read_source_camera(model, images, gaps="interpolate").path
    assert np.allclose(found.world_to_camera, truth.world_to_camera, atol=5e-3)


def test_points_keep_their_frames_where_an_image_is_missing(tmp_path, footage):
    model = without(tmp_path, 4)
    lines = (model / "images.txt").read_text().split("\n")
    lines[1::2] = ["100.5 120.5 7"] * len(lines[1::2])
    (model / "images.txt").write_text("\n".join(lines))
    (model / "points3D.txt").write_text("7 0 0 5 0 0 0 0.5 1 0\n")
    points = read_source_points(model, footage, gaps="interpolate")
    assert points is not None and sorted(points.frame) == [frame for frame in range(20) if frame != 4]


# Where models are


def test_the_largest_model_of_a_project_is_taken_and_named(tmp_path, footage, truth):
    shutil.copytree(CASES / "07_colmap_project/sparse/0", tmp_path / "sparse" / "1")
    (tmp_path / "sparse" / "0").mkdir()
    without(tmp_path / "sparse" / "0", *range(5, 20))
    for folder in (tmp_path, tmp_path / "sparse"):
        found = read_source_camera(folder, footage)
        assert np.allclose(found.path.world_to_camera, truth.world_to_camera, atol=1e-3)
        assert "1 has the most images" in found.notes[0]


@pytest.mark.parametrize("name", ["camera.chan", "camera.fbx", "camera.abc", "camera.usdc", "camera.USD"])
def test_what_blender_reads_goes_through_blender(tmp_path, footage, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CameraError, match=r"Import it into Blender"):
        read_source_camera(tmp_path / name, footage)

"""Stereo from a clip of known geometry to files: disparity, directions of VR180, and what is written where."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.media import probe, read_frames, read_png
from ex4d.media.stereo_boxes import boxes_in
from ex4d.pipeline.array_clip import ArrayClip
from ex4d.pipeline.outputs import Views, render_views
from ex4d.pipeline.take_folder import saved_request
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.render_settings import RenderSettings
from ex4d_core.stereo import StereoSettings

SIZE, FOCAL = 96, 100.0
LENS = intrinsics_matrix(FOCAL, FOCAL, SIZE / 2, SIZE / 2)
PLAIN = RenderSettings("warp", samples=1, clean=False)


def plane(depth: float) -> ArrayClip:
    """One frame of noise on a plane before the camera."""
    noise = np.random.default_rng(7).integers(30, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    return ArrayClip("plane", np.full((1, SIZE, SIZE), depth), noise, LENS)


def seen(clip: ArrayClip, stereo: StereoSettings, camera: CameraPath | None = None, settings=PLAIN) -> Views:
    return render_views(clip, camera or clip.source_camera(), settings, stereo=stereo, device="cpu")


def test_a_plane_at_the_convergence_distance_has_no_disparity_and_one_for_each_eye_shows_the_footage():
    views = seen(plane(2.0), StereoSettings("side-by-side", (0.08,), (2.0,)))
    left, right = np.split(views.color[0], 2, axis=1)
    inner = slice(4, -4)
    assert np.array_equal(left[:, inner], right[:, inner])
    assert np.array_equal(left[:, inner], plane(2.0).color()[0][:, inner])


@pytest.mark.parametrize(("depth", "pixels"), [(1.0, 4), (4.0, -2)])
def test_nearer_planes_are_before_the_screen_and_farther_ones_behind_it(depth, pixels):
    """Disparity is interaxial * f * (1 / z - 1 / convergence): 0.08 * 100 * (1 / z - 1 / 2) pixels."""
    views = seen(plane(depth), StereoSettings("side-by-side", (0.08,), (2.0,)))
    left, right = np.split(views.color[0], 2, axis=1)
    columns = np.arange(8, SIZE - 8)
    assert np.array_equal(left[:, columns], right[:, columns - pixels])
    assert not np.array_equal(left[:, columns], right[:, columns])


def turned(across: float, down: float) -> CameraPath:
    """A camera at the footage's place, turned to the right and then downwards, by degrees."""
    a, b = np.radians([across, down])
    yaw = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    pitch = [[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]]
    pose = np.eye(4)
    pose[:3, :3] = np.array(yaw) @ np.array(pitch)
    return CameraPath(np.linalg.inv(pose)[None], LENS, SIZE, SIZE)


@pytest.mark.parametrize("turn", [(0, 0), (70, 0), (-70, 10), (10, 70), (0, -70), (50, 50)])
@pytest.mark.parametrize("samples", [1, 2])
def test_each_direction_of_vr180_has_its_place_and_its_distance(turn, samples):
    clip, (row, column), depth, side = plane(3.0), (33, 62), 3.0, 256
    clip.color()[:] = 40
    clip.color()[0, row - 2 : row + 3, column - 2 : column + 3] = 255
    camera, stereo = turned(*turn), StereoSettings("vr180", (1e-6,), vr180_side=side)
    views = seen(clip, stereo, camera, RenderSettings("warp", samples=samples, clean=False))
    assert views.color.shape == (1, side, 2 * side, 3)
    point = depth * np.linalg.inv(LENS) @ [column + 0.5, row + 0.5, 1]
    x, y, z = camera.world_to_camera[0, :3, :3] @ point
    longitude, latitude = np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))
    for eye in range(2):
        half = slice(eye * side, (eye + 1) * side)
        bright = views.color[0, :, half, 0].astype(float) * (views.color[0, :, half, 0] > 100)
        rows, columns = np.mgrid[:side, :side] + 0.5
        found = [(bright * places).sum() / bright.sum() for places in (columns, rows)]
        expected = [(longitude / np.pi + 0.5) * side, (latitude / np.pi + 0.5) * side]
        np.testing.assert_allclose(found, expected, atol=0.5)
        distance = views.depth[0, int(expected[1]), eye * side + int(expected[0])]
        assert distance == pytest.approx(np.linalg.norm(point), rel=0.005)
    # All of the footage is in front of the camera, without cracks between the tiles.
    share = views.mask[0].mean()
    assert share == pytest.approx(sphere_share(camera), rel=0.03)


def sphere_share(camera: CameraPath) -> float:
    """The share of an equirectangular half sphere's area that shows the footage's frame, by casting rays."""
    longitude, latitude = np.meshgrid(*[(np.arange(400) + 0.5) / 400 * np.pi - np.pi / 2] * 2)
    rays = [np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)]
    x, y, z = np.einsum("ji,j...->i...", camera.world_to_camera[0, :3, :3], np.array(rays))
    reach = SIZE / 2 / FOCAL
    return float(((z > 0) & (abs(x) < reach * z) & (abs(y) < reach * z)).mean())


def test_eyes_that_are_apart_see_vr180_from_their_places():
    clip, side = plane(2.0), 512
    clip.color()[:] = 40
    clip.color()[0, 46:50, 46:50] = 255  # straight ahead
    views = seen(clip, StereoSettings("vr180", (0.2,), vr180_side=side))
    columns = [np.nonzero(half[0].max(axis=(0, 2)) > 150)[0].mean() + 0.5 for half in np.split(views.color, 2, axis=2)]
    angle = np.arctan(0.1 / 2.0) / np.pi * side
    assert columns == pytest.approx([side / 2 + angle, side / 2 - angle], abs=0.6)


MOVE = ["--preset", "orbit", "--amount", "10", "--size", "64x48", "--frames", "2", "--device", "cpu", "--no-remember"]
TWO_EYES = ["--interaxial", "0.08", "--convergence", "3.5"]


def sample_entry(path) -> dict[bytes, bytes]:
    """The boxes of a movie's H.264 sample entry, by name; players find them there."""
    content = path.read_bytes()
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        content = dict(reversed(list(boxes_in(content))))[name]
    return dict(boxes_in(dict(boxes_in(content[8:]))[b"avc1"][78:]))


def test_a_render_side_by_side_is_what_both_eyes_render_alone(sample_scene, tmp_path, capsys):
    command = ["render", str(sample_scene.path("color").parent), *MOVE, *TWO_EYES]
    assert main([*command, "--stereo", "side-by-side", "-o", str(tmp_path / "both.npz")]) == 0
    assert "disparity" in capsys.readouterr().err
    assert main([*command, "--stereo", "files", "-o", str(tmp_path)]) == 0
    names = [f"{part}_orbit_{eye}" for part in ("camera", "color", "mask") for eye in "LR"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["both", *names]
    with np.load(tmp_path / "both.npz") as arrays:
        both = dict(arrays)
    assert both["color"].shape == (2, 48, 128, 3) and both["depth"].shape == both["mask"].shape == (2, 48, 128)
    for number, eye in enumerate("LR"):
        camera = ["--camera", str(tmp_path / f"camera_orbit_{eye}.npz"), "--device", "cpu", "--no-remember"]
        alone = tmp_path / f"alone_{eye}.npz"
        assert main([*command[:2], *camera, "-o", str(alone)]) == 0
        half = slice(64 * number, 64 * number + 64)
        with np.load(alone) as arrays:
            assert np.array_equal(arrays["color"], both["color"][:, :, half])
            assert np.array_equal(arrays["alpha"], both["alpha"][:, :, half])


def test_a_take_side_by_side_fills_each_eye_alone_and_is_resumed(sample_scene, tmp_path):
    generate = ["generate", str(sample_scene.path("color").parent), *MOVE, *TWO_EYES]
    both, files = tmp_path / "both", tmp_path / "files"
    assert main([*generate, "--stereo", "side-by-side", "-o", str(both)]) == 0
    assert main([*generate, "--stereo", "files", "-o", str(files)]) == 0
    frames = [read_png(both / f"frame_0000{index}.png") for index in range(2)]
    for index, frame in enumerate(frames):
        eyes = [read_png(files / f"files_{eye}" / f"frame_0000{index}.png") for eye in "LR"]
        assert np.array_equal(frame, np.hstack(eyes))
    assert {
        (probe(both / name).width, probe(both / name).height) for name in ("take.mp4", "color.mp4", "mask.mp4")
    } == {(128, 48)}
    assert saved_request(both, sample_scene).stereo == StereoSettings("side-by-side", (0.08,), (3.5,))
    (both / "frame_00001.png").unlink()
    assert main([*generate, "--stereo", "side-by-side", "-o", str(both), "--resume"]) == 0
    assert np.array_equal(read_png(both / "frame_00001.png"), frames[1])


def test_movies_say_how_they_have_both_eyes_and_play_as_before(sample_scene, tmp_path):
    render = ["render", str(sample_scene.path("color").parent), *MOVE, "--samples", "1"]
    for layout in ("side-by-side", "vr180"):
        extra = ["--vr180-side", "96"] if layout == "vr180" else []
        assert main([*render, "--stereo", layout, *extra, "-o", str(tmp_path / layout)]) == 0
    flat, round_ = (sample_entry(tmp_path / layout / "color_orbit.mp4") for layout in ("side-by-side", "vr180"))
    assert flat[b"st3d"] == round_[b"st3d"] == bytes([0, 0, 0, 0, 2]) and b"sv3d" not in flat
    projection = dict(boxes_in(dict(boxes_in(round_[b"sv3d"]))[b"proj"]))
    assert projection[b"equi"] == bytes(12) + bytes([0x40, 0, 0, 0]) * 2
    images = list(read_frames(tmp_path / "vr180" / "color_orbit.mp4"))
    assert [image.shape for image in images] == [(96, 192, 3)] * 2 and images[0].max() > 100


def test_what_has_no_two_eyes_is_refused_by_its_flag(sample_scene, tmp_path, capsys):
    folder = str(sample_scene.path("color").parent)
    for verb, words, named in (
        ("render", ["--interaxial", "0.1"], "--interaxial"),
        ("render", ["--stereo", "vr180", "--convergence", "3"], "--convergence"),
        ("generate", ["--stereo", "side-by-side", "--engine", "wan"], "engine wan"),
        ("generate", ["--stereo", "files", "--convergence", "1,2,3"], "convergence has 3 values"),
    ):
        assert main([verb, folder, *MOVE, *words, "-o", str(tmp_path / "out")]) in (1, 2)
        assert named in capsys.readouterr().err


def test_json_names_the_files_of_each_eye(sample_scene, tmp_path, capsys):
    render = ["render", str(sample_scene.path("color").parent), *MOVE, "--stereo", "files", "--json"]
    assert main([*render, "-o", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["color_L"].endswith("color_orbit_L.mp4") and result["camera_R"].endswith("camera_orbit_R.npz")

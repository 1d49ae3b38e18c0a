"""Takes of previews in more than 8 bits, renders with the clip's memory, motion vectors, and what these cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch

import ex4d
from ex4d.cli.main import main
from ex4d.media import read_png
from ex4d.media.colour_management import ACESCG
from ex4d.media.deep_source import chromaticities_of
from ex4d.media.exr import read_exr_channels
from ex4d.pipeline.deep_outputs import render_deep
from ex4d.pipeline.geometry_passes import PinholeView, motion_vectors
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.shot_estimates import estimate_take
from ex4d.pipeline.source_paths import SourcePaths
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.output_settings import OutputSettings
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import Scene, SceneError
from ex4d_core.shot import PreviewSettings, ShotRequest
from ex4d_core.sources import DepthSettings
from ex4d_core.wan_settings import wan_preset

FRAMES, HEIGHT, WIDTH, WALL, FOCAL = 4, 48, 64, 4.0, 60.0
RENDER = RenderSettings(rasterizer="warp", occlusion="thickness")


def wall() -> np.ndarray:
    """(H, W, 3) float16: light brighter than 1, in another step in every pixel."""
    across, down = np.meshgrid(np.linspace(0.2, 3.0, WIDTH), np.linspace(1.0, 0.5, HEIGHT))
    return np.stack([across, across * down, 0.4 * down], -1).astype(np.float16)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    """A dark square that walks to the right before a bright wall that stands still; what it hid is remembered."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "exr").mkdir()
    depths = np.full((FRAMES, HEIGHT, WIDTH), WALL, np.float32)
    for index in range(FRAMES):
        picture, square = wall(), (slice(14, 34), slice(6 + 12 * index, 18 + 12 * index))
        picture[square], depths[index][square] = 0.05, 1.5
        with OpenEXR.File({"chromaticities": chromaticities_of(ACESCG)}, {"RGB": picture}) as file:
            file.write(str(folder / "exr" / f"walk.{index:04}.exr"))
    np.save(folder / "depth.npy", depths)
    sources = SourcePaths(folder / "exr", folder / "depth.npy")
    settings = ReconstructionSettings("walk", DepthSettings("array"), bit_depth="16", focal_px=FOCAL)
    return reconstruct(sources, settings, folder / "scene")


def moved(scene: Scene, x: float) -> CameraPath:
    """The source camera, further to the right in each frame."""
    camera = scene.source_camera()
    poses = camera.world_to_camera.copy()
    poses[:, 0, 3] = -x * np.arange(len(poses))
    return CameraPath(poses, camera.intrinsics, *camera.size)


def light_of(path: Path) -> np.ndarray:
    channels = read_exr_channels(path)
    return np.dstack([channels[name] for name in "RGB"]).astype(np.float32)


def test_a_preview_keeps_the_footages_half_floats_and_fills_holes_as_bright_as_they_are_around(scene, tmp_path) -> None:
    camera = moved(scene, 0.15)
    ex4d.generate(scene, camera, tmp_path / "plain", remember=False)
    take = ex4d.generate(scene, camera, tmp_path / "deep", remember=False, format="exr")
    assert np.array_equal(take.frames, [read_png(path) for path in sorted((tmp_path / "plain").glob("frame_*.png"))])
    first = light_of(tmp_path / "deep" / "take_v001.1001.exr")
    assert np.array_equal(first.astype(np.float16), scene.deep_color()[0]), "the source view, bit for bit"
    path = tmp_path / "deep" / "take_v001.1004.exr"
    channels, light = read_exr_channels(path), light_of(path)
    hole = channels["seen.A"] == 0
    assert 0.01 < hole.mean() < 0.3 and "A" not in channels and "remembered.A" not in channels
    beside_wall = hole & (np.arange(WIDTH) > 12) & (np.arange(WIDTH) < WIDTH - 8)
    assert light[hole].min() > 0 and light[beside_wall][:, 0].max() > 1, "8 bits end at 1"
    rendered = render_deep(scene, camera, RENDER, OutputSettings(format="exr"), tmp_path / "render", "same")
    seen = channels["seen.A"] == 1
    assert np.array_equal(light[seen], light_of(rendered.color[3])[seen]), "over its own passes, pixel for pixel"


def test_the_clips_memory_fills_with_the_footages_own_half_floats(scene, tmp_path) -> None:
    drawn = replace(RENDER, clean=False)
    camera, remember = moved(scene, 0.15), replace(drawn, remember=True)
    made = render_deep(scene, camera, remember, OutputSettings(format="exr"), tmp_path / "exr", "walk")
    plain = render_deep(scene, camera, drawn, OutputSettings(format="exr"), tmp_path / "plain", "walk")
    assert made.remembered is None and 0.01 < made.remembered_fraction[2] < 0.3
    channels, light = read_exr_channels(made.color[2]), light_of(made.color[2])
    remembered = channels["remembered.A"] == 1
    assert (channels["A"][remembered] == 1).all()
    own = read_exr_channels(plain.color[2])
    assert np.array_equal(channels["seen.A"], own["A"])
    assert np.array_equal(light[~remembered], light_of(plain.color[2])[~remembered])
    # What the wall shows at these places, by its own ramp.
    row, column = np.nonzero(remembered & (own["A"] == 0))
    across = column + 0.5 + FOCAL * 0.3 / WALL
    expected = np.interp(across, np.arange(WIDTH) + 0.5, wall()[0, :, 0].astype(np.float32))
    inside = across < WIDTH - 1
    assert inside.sum() > 10
    assert np.allclose(light[row, column, 0][inside], expected[inside], rtol=0.01)
    movie = render_deep(scene, camera, remember, OutputSettings(format="png16", output_space=ACESCG), tmp_path, "walk")
    assert movie.remembered is not None and movie.remembered.stat().st_size > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device on this machine")
def test_a_gpu_remembers_the_same_half_floats(scene, tmp_path) -> None:
    output, render = OutputSettings(format="exr"), replace(RENDER, remember=True)
    made = [
        render_deep(scene, moved(scene, 0.15), render, output, tmp_path / device, "walk", device=device)
        for device in ("cpu", "cuda")
    ]
    for one, other in zip(*(files.color for files in made), strict=True):
        ours, theirs = read_exr_channels(one), read_exr_channels(other)
        assert (ours["remembered.A"] != theirs["remembered.A"]).mean() < 1e-3
        assert (np.abs(light_of(one) - light_of(other)).max(-1) > 0.01).mean() < 2e-3


def test_motion_vectors_are_those_of_the_wall_for_a_camera_that_moves(scene, tmp_path) -> None:
    """A wall at distance z moves by f / z pixels for each unit that the camera goes to the right: to the left."""
    output = OutputSettings(format="exr", motion="both")
    made = render_deep(scene, moved(scene, 0.15), RENDER, output, tmp_path, "walk")
    for index, path in enumerate(made.color):
        channels = read_exr_channels(path)
        for depth in (WALL, 1.5):
            part = (channels["A"] == 1) & (np.abs(channels["Z"] - depth) < 1e-3)
            step = FOCAL * 0.15 / depth
            forward = -step if index < FRAMES - 1 else 0.0
            backward = step if index > 0 else 0.0
            assert part.sum() > 100
            assert np.allclose(channels["forward.u"][part], forward, atol=1e-3)
            assert np.allclose(channels["backward.u"][part], backward, atol=1e-3)
            assert np.allclose(channels["forward.v"][part], 0, atol=1e-4)
        assert (channels["forward.u"][~np.isfinite(channels["Z"])] == 0).all()


def test_motion_vectors_point_up_where_the_picture_does_and_know_turning_cameras(scene) -> None:
    camera = scene.source_camera()
    poses, lenses = camera.world_to_camera.copy(), camera.intrinsics.copy()
    poses[1, 1, 3] = 0.4  # the camera goes up, so what it sees goes down
    angle = np.radians(3.0)
    poses[2, :3, :3] = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    lenses[3, :2, :2] *= 1.5
    path = CameraPath(poses, lenses, *camera.size)
    depth = np.full((HEIGHT, WIDTH), WALL, np.float32)
    depth[0, 0] = np.inf
    down = motion_vectors(depth, [PinholeView(path)], 0, "forward")
    assert set(down) == {"forward.u", "forward.v"} and down["forward.v"][0, 0] == 0
    assert np.allclose(down["forward.v"][1:], -FOCAL * 0.4 / WALL, atol=1e-3)
    # Seen from every frame, the point that one shows at the vector's end is the point itself.
    for index in (1, 2):
        vectors = motion_vectors(depth, [PinholeView(path)], index, "both")
        pixel, lens = np.array([40.5, 11.5]), path.intrinsics[index]
        point = np.append((pixel - lens[:2, 2]) / lens[[0, 1], [0, 1]] * WALL, WALL)
        world = path.camera_to_world[index] @ np.append(point, 1.0)
        for name, step in (("forward", 1), ("backward", -1)):
            there = path.intrinsics[index + step] @ (path.world_to_camera[index + step] @ world)[:3]
            u, v = (vectors[f"{name}.{axis}"][11, 40] for axis in "uv")
            assert (pixel[0] + u, pixel[1] - v) == pytest.approx(tuple(there[:2] / there[2]), abs=1e-3)


def test_what_a_preview_cannot_show_in_more_bits_is_refused_by_name(scene, small_scene, tmp_path) -> None:
    with pytest.raises(SceneError, match="--bit-depth"):
        ex4d.generate(ex4d.open_scene(small_scene.folder), ex4d.orbit(9), tmp_path / "a", format="exr")
    with pytest.raises(RequestError, match="holes mark"):
        ex4d.generate(scene, moved(scene, 0.1), tmp_path / "b", format="exr", holes="mark")
    with pytest.raises(RequestError, match="motion"):
        ex4d.generate(scene, moved(scene, 0.1), tmp_path / "c", motion="both")
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


@pytest.mark.parametrize("verb", ["render", "generate"])
def test_an_estimate_counts_the_files_of_more_bits(verb, scene, tmp_path, capsys) -> None:
    words = [verb, str(scene.path("color").parent), "--preset", "dolly_in", "--amount", "0.2", "--format", "exr"]
    words += ["--position", "--motion", "both"]
    assert main([*words, "-o", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    estimated = json.loads(capsys.readouterr().out)["result"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert estimated["disk"] == pytest.approx(size, rel=0.15)


@pytest.mark.parametrize(
    ("output", "changes"),
    [
        # A preview of these in more than 8 bits would be refused: for its holes, or for how it is rendered.
        (OutputSettings("exr"), {"preview": PreviewSettings("mark")}),
        (OutputSettings("exr"), {"wan": wan_preset("draft", keep_seen=True), "preview": PreviewSettings("mark")}),
        (OutputSettings("png16"), {"render": RenderSettings(convention="reference", occlusion="watertight")}),
    ],
)
def test_a_final_of_a_deep_scene_is_estimated_however_its_preview_would_be_made(scene, output, changes):
    plain = ShotRequest(scene.digest, moved(scene, 0.1), engine="wan", wan=wan_preset("draft"))
    final = replace(plain, output=output, **changes)
    assert estimate_take(scene, final, "cpu").disk_bytes > estimate_take(scene, plain, "cpu").disk_bytes

"""Footage from a lens with distortion becomes what a pinhole camera would have filmed, and takes go the way back."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.media import Distorter, VideoWriter, read_exr_channels, read_frames
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.source_paths import SourcePaths
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.errors import RequestError
from ex4d_core.lens_distortion import LensDistortion
from ex4d_core.reconstruction import ReconstructionRequest, ReconstructionSettings, request_from_wire
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError, SceneManifest
from ex4d_core.sources import DepthSettings, MistPass, SourceFile

FRAMES, WIDTH, HEIGHT, FOCAL, K1, K2 = 3, 96, 64, 80.0, -0.2, 0.05
CENTRE = (50.0, 30.0)
LENS = LensDistortion("polynomial", (K1, K2, 0.0), FOCAL, CENTRE, WIDTH, HEIGHT)
# A slanted wall, n . x + d = 0, and a card before it.
NORMAL, OFFSET, CARD_DEPTH = np.array([0.5, 0.25, -1.0]), 4.0, 2.0


def ideal_rays(pixels: np.ndarray) -> np.ndarray:
    """Rays (..., 3), z = 1, of the footage's pixels: the lens undone by iteration, without the code under test."""
    bent = (pixels - CENTRE) / FOCAL
    straight = bent.copy()
    for _ in range(100):
        squared = (straight**2).sum(axis=-1, keepdims=True)
        straight = bent / (1 + K1 * squared + K2 * squared**2)
    return np.concatenate([straight, np.ones((*straight.shape[:-1], 1))], axis=-1)


def filmed(rays: np.ndarray, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Colour and depth along z of rays (..., 3) from a camera at x = shift."""
    eye = np.array([shift, 0.0, 0.0])
    wall = -(OFFSET + NORMAL @ eye) / (rays @ NORMAL)
    on_card = (np.abs(eye[:2] + CARD_DEPTH * rays[..., :2] - (-0.5, 0.2)) < (0.3, 0.25)).all(axis=-1)
    depth = np.where(on_card, CARD_DEPTH, wall)
    place = eye + depth[..., None] * rays
    color = 128 + 50 * np.stack([np.sin(2 * place[..., 0]), np.cos(3 * place[..., 1]), np.zeros_like(depth)], axis=-1)
    color[on_card] = (230, 200, 60)
    return color.astype(np.uint8), depth.astype(np.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Footage, depth of its own pixels, and the camera that moved."""
    folder = tmp_path_factory.mktemp("distorted")
    pixels = np.stack(np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5), axis=-1)
    poses = np.repeat(np.eye(4)[None], FRAMES, axis=0)
    poses[:, 0, 3] = -0.1 * np.arange(FRAMES)
    CameraPath(poses, intrinsics_matrix(FOCAL, FOCAL, *CENTRE), WIDTH, HEIGHT).save(folder / "camera.npz")
    depths = []
    with VideoWriter(folder / "clip.mp4", WIDTH, HEIGHT, Fraction(24), crf=0) as movie:
        for frame in range(FRAMES):
            color, depth = filmed(ideal_rays(pixels), 0.1 * frame)
            movie.write(color)
            depths.append(depth)
    np.savez(folder / "depth.npz", depth=np.stack(depths))
    return folder


def settings(distortion: LensDistortion | None) -> ReconstructionSettings:
    return ReconstructionSettings("clip", DepthSettings("array"), distortion=distortion)


def test_colour_depth_and_camera_are_those_of_one_pinhole_camera(clip, tmp_path):
    sources = SourcePaths(clip / "clip.mp4", clip / "depth.npz", clip / "camera.npz")
    scene = reconstruct(sources, settings(LENS), tmp_path / "scene", device="cpu")
    camera, pixels = scene.source_camera(), np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=-1) + 0.5
    lens = camera.intrinsics[0]
    rays = np.concatenate([(pixels - lens[:2, 2]) / lens[0, 0], np.ones((HEIGHT, WIDTH, 1))], axis=-1)
    for frame in range(FRAMES):
        color, depth = filmed(rays, 0.1 * frame)
        z = np.array(scene.depth()[frame])
        edges = np.abs(np.gradient(depth)).max(axis=0) > 0.1
        assert np.abs(z - depth)[~edges].max() < 0.06  # nearest pixel on a slanted wall
        off = np.abs(scene.color()[frame].astype(int) - color.astype(int))[~edges]
        assert off.mean() < 4 and np.percentile(off, 95) < 12
        place = camera.camera_to_world[frame][:3, 3] + z[..., None] * rays
        on_wall = (depth > CARD_DEPTH) & ~edges
        assert np.abs(place @ NORMAL + OFFSET)[on_wall].max() < 0.06
    assert scene.manifest.provenance["lens distortion"].startswith("undone: polynomial, k1=-0.2")
    bent = reconstruct(sources, settings(None), tmp_path / "bent", device="cpu")
    off = np.abs(np.array(bent.depth()[0]) - filmed(rays, 0.0)[1])
    assert off.max() > 0.2, "the footage is far from a pinhole image"


def test_a_request_without_distortion_is_one_that_older_services_understand():
    files = {"footage": (SourceFile("a" * 64, 5, "clip.mp4"),), "depth_files": (SourceFile("b" * 64, 5, "depth.npz"),)}
    plain = ReconstructionRequest(settings(None), **files).to_wire()
    assert "distortion" not in plain and request_from_wire(plain).settings.distortion is None
    sent = ReconstructionRequest(settings(LENS), **files).to_wire()
    assert request_from_wire(sent).settings.distortion == LENS


def test_what_does_not_go_with_distortion_is_refused(clip, tmp_path):
    with pytest.raises(RequestError, match="mist"):
        ReconstructionSettings("clip", DepthSettings("exr", mist=MistPass(1, 2)), distortion=LENS)
    square = LensDistortion("polynomial", (K1, K2, 0.0), FOCAL, CENTRE, HEIGHT, HEIGHT)
    with pytest.raises(RequestError, match="aspect ratio"):
        reconstruct(SourcePaths(clip / "clip.mp4", clip / "depth.npz"), settings(square), tmp_path / "scene")


@pytest.fixture(scope="module")
def scene(clip, tmp_path_factory) -> Scene:
    sources = SourcePaths(clip / "clip.mp4", clip / "depth.npz", clip / "camera.npz")
    return reconstruct(sources, settings(LENS), tmp_path_factory.mktemp("lens") / "scene", device="cpu")


def test_a_scene_records_its_lens_and_older_programs_notice(scene, clip, tmp_path):
    document = json.loads(scene.manifest_bytes)
    assert document["version"] == 5 and SceneManifest.from_json(scene.manifest_bytes).distortion == LENS
    plain = reconstruct(
        SourcePaths(clip / "clip.mp4", clip / "depth.npz"), settings(None), tmp_path / "plain", device="cpu"
    )
    assert json.loads(plain.manifest_bytes)["version"] == 3 and "distortion" not in json.loads(plain.manifest_bytes)
    with pytest.raises(SceneError, match="damaged"):
        SceneManifest.from_json(json.dumps({**document, "distortion": {"model": "straight"}}).encode())


def test_a_movie_of_the_scene_is_distorted_back_to_the_footage(scene, clip, tmp_path, capsys):
    folder, out = scene.path("footage").parent, tmp_path / "back.mp4"
    assert main(["distort", str(folder), str(folder / "footage.mp4"), "-o", str(out)]) == 0
    told = capsys.readouterr().out
    assert "beyond" in told and "polynomial" in told
    beyond = Distorter(LENS, WIDTH, HEIGHT).beyond
    assert 0.005 < beyond.mean() < 0.3
    lens = Distorter(LENS, WIDTH, HEIGHT)
    movies = (clip / "clip.mp4", folder / "footage.mp4", out)
    for footage, straight, movie, color in zip(*map(read_frames, movies), scene.color(), strict=True):
        back = lens.color(np.array(color))
        off, without = (np.abs(one.astype(int) - footage)[~beyond].mean() for one in (back, color))
        assert off < 0.5 * without, "without the codec's own loss"
        assert np.abs(movie.astype(int) - lens.color(straight)).mean() < 3
    assert main(["distort", str(folder), str(folder / "footage.mp4"), "-o", str(out)]) == 1, "it exists"


def test_a_map_for_compositors_says_where_in_the_take_each_pixel_is(scene, tmp_path):
    folder, out = str(scene.path("footage").parent), tmp_path / "map.exr"
    for _ in range(2):
        assert main(["distort", folder, "--st-map", "--size", "192x128", "-o", str(out), "--overwrite"]) == 0
    st = read_exr_channels(out)
    assert st["R"].shape == (128, 192) and st["R"].dtype == np.float32
    # A pixel of the distorted picture, its ray, and where the scene's camera sees that.
    x, y = 150, 20
    ray = ideal_rays(np.array([(x + 0.5) / 2, (y + 0.5) / 2]))
    seen = (scene.source_camera().intrinsics[0] @ ray)[:2]
    assert np.allclose((st["R"][y, x] * WIDTH, (1 - st["G"][y, x]) * HEIGHT), seen, atol=1e-2)


def test_what_cannot_be_distorted_is_refused(scene, clip, tmp_path, capsys):
    folder = str(scene.path("footage").parent)
    square = tmp_path / "square.mp4"
    with VideoWriter(square, 64, 64, 24) as movie:
        movie.write(np.zeros((64, 64, 3), np.uint8))
    for words in ([str(square), "-o", "back.mp4"], ["-o", "back.mp4"], [str(square), "-o", "back.mov"]):
        assert main(["distort", folder, *words[:-1], str(tmp_path / words[-1])]) == 1
    plain = reconstruct(
        SourcePaths(clip / "clip.mp4", clip / "depth.npz"), settings(None), tmp_path / "plain", device="cpu"
    )
    capsys.readouterr()
    words = ["distort", str(plain.path("footage").parent), "--st-map", "-o", str(tmp_path / "map.exr")]
    assert main(words) == 1 and "no lens distortion" in capsys.readouterr().err

"""Stereo in more than 8 bits: both eyes side by side and in VR180, with masks, depth, positions and motion vectors."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import OpenEXR
import pytest

from ex4d.cli.main import main
from ex4d.media import probe, read_deep_frames, read_frames
from ex4d.media.exr import read_exr_channels
from ex4d.media.exr_writer import read_exr_metadata
from ex4d.media.stereo_boxes import boxes_in
from ex4d.pipeline.reconstruct import reconstruct
from ex4d.pipeline.source_paths import SourcePaths
from ex4d_core.cameras import CameraPath
from ex4d_core.output_settings import SUFFIXES
from ex4d_core.reconstruction import ReconstructionSettings
from ex4d_core.scene import Scene
from ex4d_core.sources import DepthSettings

FRAMES, HEIGHT, WIDTH, WALL, NEAR, FOCAL = 2, 48, 64, 4.0, 1.5, 60.0
INTERAXIAL = 0.2


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    """A square before a wall that is brighter than white, in another step in every pixel."""
    folder = tmp_path_factory.mktemp("wall")
    (folder / "exr").mkdir()
    across, down = np.meshgrid(np.linspace(0.2, 3.0, WIDTH), np.linspace(1.0, 0.5, HEIGHT))
    picture = np.stack([across, across * down, 0.4 * down], -1).astype(np.float16)
    depths = np.full((FRAMES, HEIGHT, WIDTH), WALL, np.float32)
    depths[:, 16:32, 24:40] = NEAR
    for index in range(FRAMES):
        with OpenEXR.File({}, {"RGB": picture}) as file:
            file.write(str(folder / "exr" / f"wall.{index:04}.exr"))
    np.save(folder / "depth.npy", depths)
    settings = ReconstructionSettings("wall", DepthSettings("array"), bit_depth="16", focal_px=FOCAL)
    return reconstruct(SourcePaths(folder / "exr", folder / "depth.npy"), settings, folder / "scene")


def made(scene: Scene, out: Path, layout: str, *words: str, verb: str = "render") -> Path:
    """Run a command on a camera that goes to the right, with eyes that are far apart."""
    camera = out.with_name("right.npz")
    if not camera.exists():
        source = scene.source_camera()
        poses = source.world_to_camera.copy()
        poses[:, 0, 3] = -0.1 * np.arange(len(poses))
        CameraPath(poses, source.intrinsics, *source.size).save(camera)
    two_eyes = ["--stereo", layout, "--interaxial", str(INTERAXIAL)]
    command = [verb, str(scene.path("color").parent), "--camera", str(camera), "--device", "cpu", *two_eyes]
    assert main([*command, *words, "-o", str(out)]) == 0
    return out


def images(folder: Path, ending: str = ".exr") -> list[Path]:
    found = sorted(folder.glob(f"*{ending}"))
    assert len(found) == FRAMES
    return found


EXR = ("--format", "exr", "--position", "--motion", "both")


@pytest.mark.parametrize("verb", ["render", "generate"])
def test_side_by_side_is_what_both_eyes_have_alone_in_every_channel(scene, tmp_path, verb) -> None:
    words = [*EXR, "--convergence", "3", *([] if verb == "render" else ["--file-name", "{shot}.{frame}"])]
    both = images(made(scene, tmp_path / "both", "side-by-side", *words, verb=verb))
    files = made(scene, tmp_path / "files", "files", *words, verb=verb)
    for index, path in enumerate(both):
        joined = read_exr_channels(path)
        assert {"R", "G", "B", "Z", "P.X", "P.Y", "P.Z", "forward.u", "backward.v"} < joined.keys()
        eyes = []
        for eye in "LR":
            pattern = f"*_{eye}*.exr" if verb == "render" else f"files_{eye}/*.exr"
            eyes.append(read_exr_channels(sorted(files.glob(pattern))[index]))
        for name, values in joined.items():
            assert values.shape == (HEIGHT, 2 * WIDTH)
            assert np.array_equal(values, np.hstack([one[name] for one in eyes]), equal_nan=True), name
        assert joined["R"].max() > 1, "8 bits end at 1"
        assert (joined["Z"][:, :WIDTH] != joined["Z"][:, WIDTH:]).any()
        told = json.loads(read_exr_metadata(path)["camera"])
        assert told["stereo"]["layout"] == "side-by-side" and told["size"] == [WIDTH, HEIGHT]


SIDE = 128


def test_vr180_has_the_scenes_light_distances_positions_and_motion(scene, tmp_path) -> None:
    first, second = map(
        read_exr_channels, images(made(scene, tmp_path / "vr", "vr180", *EXR, "--vr180-side", str(SIDE)))
    )
    rays = rays_of(SIDE)
    for eye, place in enumerate((-0.5 * INTERAXIAL, 0.5 * INTERAXIAL)):
        half = slice(SIDE * eye, SIDE * (eye + 1))
        now, later = ({name: one[name][:, half].astype(np.float64) for name in one} for one in (first, second))
        seen, depth = now["A"] == 1, now["Z"]
        point = np.stack([now[f"P.{axis}"] for axis in "XYZ"], -1)
        for away, least in ((WALL, 700), (NEAR, 50)):
            part = seen & (np.abs(point[..., 2] - away) < 0.02)
            assert part.sum() > least
            np.testing.assert_allclose(depth[part] * rays[part][:, 2], away, rtol=0.02)
            np.testing.assert_allclose(point[part], depth[part][:, None] * rays[part] + [place, 0, 0], atol=1e-4)
        wall = seen & (np.abs(point[..., 2] - WALL) < 0.02)
        # The footage shows a point at its column, where its ramp of light has this value.
        column = point[..., 0] / np.where(wall, point[..., 2], 1) * FOCAL + WIDTH / 2 - 0.5
        inner = wall & (column > 2) & (column < WIDTH - 3) & ((column < 20) | (column > 44))
        ramp = 0.2 + 2.8 * column / (WIDTH - 1)
        np.testing.assert_allclose(now["R"][inner], ramp[inner], atol=0.06)
        assert now["R"][inner].max() > 1 and (now["R"][now["A"] == 0] == 0).all()
        # Where the next frame, whose eye is 0.1 further to the right, shows the same points.
        there = point[seen] - [place + 0.1, 0, 0]
        longitude, latitude = np.arctan2(there[:, 0], there[:, 2]), np.arctan2(there[:, 1], np.hypot(*there[:, ::2].T))
        rows, columns = np.nonzero(seen)
        np.testing.assert_allclose(now["forward.u"][seen], (longitude / np.pi + 0.5) * SIDE - columns - 0.5, atol=1e-3)
        np.testing.assert_allclose(now["forward.v"][seen], rows + 0.5 - (latitude / np.pi + 0.5) * SIDE, atol=1e-3)
        assert (now["backward.u"] == 0).all() and (later["forward.u"] == 0).all()


def rays_of(side: int) -> np.ndarray:
    """(side, side, 3) directions of an equirectangular half sphere's pixels; x right, y down, z forward."""
    longitude, latitude = np.meshgrid(*[((np.arange(side) + 0.5) / side - 0.5) * np.pi] * 2)
    return np.stack(
        [np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], axis=-1
    )


def test_a_preview_in_vr180_fills_around_what_was_seen_and_keeps_it(scene, tmp_path) -> None:
    words = ["--vr180-side", "64", "--no-remember", "--format", "exr"]
    render, take = (made(scene, tmp_path / verb, "vr180", *words, verb=verb) for verb in ("render", "generate"))
    for passes, finished in zip(images(render), images(take), strict=True):
        below, over = read_exr_channels(finished), read_exr_channels(passes)
        seen = over["A"] == 1
        assert np.array_equal(below["seen.A"], over["A"]) and seen.sum() > 100
        for name in "RGB":
            assert np.array_equal(below[name][seen], over[name][seen])
            assert np.isfinite(below[name]).all() and below[name].min() > 0


@pytest.mark.parametrize("kind", ["prores4444", "dnxhr", "h265"])
def test_movies_of_10_bits_say_how_they_have_both_eyes_and_play_as_those_of_one(scene, tmp_path, kind) -> None:
    words = ["--format", kind, "--size", "256x128"]
    both, files = (made(scene, tmp_path / layout, layout, *words) for layout in ("side-by-side", "files"))
    movie = both / f"right_v001{SUFFIXES[kind]}"
    entry = sample_entry(movie.read_bytes())
    assert entry[b"st3d"] == bytes([0, 0, 0, 0, 2]) and b"sv3d" not in entry
    info = probe(movie)
    assert (info.width, info.height, info.frames) == (512, 128, FRAMES)
    frames = np.stack(list(read_deep_frames(movie)))
    for number, eye in enumerate("LR"):
        alone = np.stack(list(read_deep_frames(files / f"right_{eye}_v001{SUFFIXES[kind]}")))
        half = frames[:, :, 256 * number : 256 * (number + 1)]
        # A codec mixes the sides where they meet.
        assert np.abs(half - alone)[:, :, 16:-16].mean() < 0.01
    if kind != "prores4444":
        mask = next(iter(read_frames(both / "mask_right.mp4")))
        assert mask.shape == (128, 512, 3) and 0.5 < (mask > 128).mean() < 1


def sample_entry(content: bytes) -> dict[bytes, bytes]:
    """The boxes of a movie's sample entry of its video, which comes first, by name; players find them there."""
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        content = dict(reversed(list(boxes_in(content))))[name]
    (_, entry), *_ = boxes_in(content[8:])
    return dict(boxes_in(entry[78:].removesuffix(bytes(4))))


def test_png_has_both_eyes_with_alpha(scene, tmp_path) -> None:
    for path in images(made(scene, tmp_path / "png", "side-by-side", "--format", "png16"), ".png"):
        with av.open(str(path)) as container:
            picture = next(container.decode(video=0)).to_ndarray()
        assert picture.shape == (HEIGHT, 2 * WIDTH, 4) and picture.dtype == np.uint16
        assert 0.5 < (picture[..., 3] == 65535).mean() < 1


def test_what_stereo_in_more_bits_takes_is_told_before(scene, tmp_path, capsys) -> None:
    words = ["--vr180-side", "64", "--format", "exr", "--position"]
    for verb in ("render", "generate"):
        out = tmp_path / verb
        capsys.readouterr()
        made(scene, out, "vr180", *words, "--dry-run", "--json", verb=verb)
        told = json.loads(capsys.readouterr().out)["result"]
        assert not out.exists()
        made(scene, out, "vr180", *words, verb=verb)
        taken = sum(path.stat().st_size for path in out.iterdir())
        assert told["disk"] == pytest.approx(taken, rel=0.2)
    assert "note: \n" not in capsys.readouterr().err, "metric depth in VR180 leaves nothing to say"

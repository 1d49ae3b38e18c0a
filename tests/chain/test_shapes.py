"""Pixels that are not square, and images of another shape than the footage: nothing that is shown is squeezed."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import OpenEXR
import pytest

from ex4d.cli.main import main
from ex4d.media import probe, read_frames, write_png
from ex4d_core.scene import Scene

TESTS = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("chart", TESTS / "media" / "chart.py")
chart = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chart)
PLANE = 4.0
STILL = ["--preset", "truck", "--amount", "0", "--device", "cpu"]


def depth_of(folder: Path, frames: int) -> list[str]:
    np.savez(folder / "depth.npz", depth=np.full((frames, chart.HEIGHT, chart.WIDTH), PLANE, np.float32))
    return ["--depth", str(folder / "depth.npz"), "--device", "cpu"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chart")
    (folder / "frames").mkdir()
    write_png(folder / "frames" / "f_1.png", chart.chart())
    words = ["reconstruct", str(folder / "frames"), *depth_of(folder, 1), "--fov", "50"]
    assert main([*words, "-o", str(folder / "scene")]) == 0
    return folder / "scene"


def sides(image: np.ndarray) -> tuple[int, int]:
    """Width and height of the magenta patch."""
    there = (np.abs(image.astype(int) - (255, 0, 255)) < 40).all(axis=-1)
    return int(there.any(axis=0).sum()), int(there.any(axis=1).sum())


@pytest.mark.parametrize(
    ("size", "framing", "told"),
    [
        ("256x192", "crop", "cropped to 80% of the width"),
        ("320x320", "extend", "extended to 167% of the height"),
        ("640x384", "crop", ""),
    ],
)
def test_a_patch_keeps_its_shape(scene, tmp_path, capsys, size, framing, told):
    words = ["render", str(scene), *STILL, "--size", size, "--framing", framing, "-o", str(tmp_path / "views.npz")]
    assert main(words) == 0
    out = capsys.readouterr()
    assert told in out.out + out.err and ("another shape" in out.out + out.err) == bool(told)
    with np.load(tmp_path / "views.npz") as views:
        image = views["color"][0]
    width, height = sides(image)
    assert f"{image.shape[1]}x{image.shape[0]}" == size
    assert width / height == pytest.approx(80 / 36, abs=0.12)
    if framing == "extend":
        assert not image[:50].any() and not image[-50:].any(), "beyond the footage"


def test_a_framing_needs_a_size(scene, tmp_path, capsys):
    assert main(["render", str(scene), *STILL, "--framing", "extend", "-o", str(tmp_path)]) != 0
    assert "--size" in capsys.readouterr().err


def test_a_take_of_anamorphic_footage_is_shown_as_the_footage_is(tmp_path):
    clip, scene = TESTS / "data" / "cases" / "05_sar.mp4", tmp_path / "scene"
    assert main(["reconstruct", str(clip), *depth_of(tmp_path, 3), "-o", str(scene)]) == 0
    lens = Scene.open(scene).source_camera().intrinsics[0]
    assert lens[0, 0] / lens[1, 1] == pytest.approx(45 / 64)
    assert main(["generate", str(scene), *STILL, "-o", str(tmp_path / "take")]) == 0
    for movie in (tmp_path / "take" / "take.mp4", scene / "footage.mp4"):
        with av.open(str(movie)) as container:
            ratio = container.streams.video[0].sample_aspect_ratio
        assert round(320 * ratio) == 455, movie.name
    take, footage = (next(read_frames(path)) for path in (tmp_path / "take" / "take.mp4", clip))
    assert np.abs(chart.patch(take, "skin") - chart.patch(footage, "skin")).max() <= 6
    words = ["render", str(scene), *STILL, "--size", "455x192", "-o", str(tmp_path / "views.npz")]
    assert main(words) == 0
    with np.load(tmp_path / "views.npz") as views:
        width, height = sides(views["color"][0])
    assert width / height == pytest.approx(80 * 64 / 45 / 36, abs=0.15), "pixels are square, and all is shown"
    assert probe(tmp_path / "take" / "take.mp4").pixel_aspect == pytest.approx(64 / 45, abs=0.01)


@pytest.mark.parametrize("name", ["pasp.mov", "dar.mkv", "plate.exr"])
def test_other_files_say_that_pixels_are_not_square(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".exr"):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, "pixelAspectRatio": 2.0}
        with OpenEXR.File(header, {"RGB": np.zeros((32, 48, 3), np.float32)}) as file:
            file.write(str(path))
        info = probe(tmp_path)
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=24)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8))))
            container.mux(stream.encode())
        info = probe(path)
    assert (info.width, info.height, info.pixel_aspect) == (48, 32, 2)
    assert any("not square (2" in text for text in info.notes)

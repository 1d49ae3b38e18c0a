"""Fields for more than 8 bits: shown for footage that can have them, and sent under the command line's names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import bpy
import pytest

from blender_addon.footage.bit_depth import may_be_deep
from blender_addon.footage.sources import plan_of

from .conftest import ROOT, backend_environment

_ENCODE = """
import sys, av, numpy as np
for path, codec, pixels in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, 24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
"""


@pytest.fixture(scope="module")
def movies(backend_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movies")
    kinds = [
        ("prores.mov", "prores_ks", "yuv422p10le"),
        ("hevc10.mp4", "libx265", "yuv420p10le"),
        ("hevc8.mov", "libx265", "yuv420p"),
        ("phone.mp4", "libx264", "yuv420p"),
    ]
    words = [word for name, *how in kinds for word in (str(folder / name), *how)]
    subprocess.run([backend_python, "-c", _ENCODE, *words], check=True, env=backend_environment(), capture_output=True)
    return folder


def test_codecs_tell_whether_footage_can_have_more_than_8_bits(movies):
    found = {path.name: may_be_deep(path) for path in movies.iterdir()}
    assert found == {"prores.mov": True, "hevc10.mp4": True, "hevc8.mov": False, "phone.mp4": False}


def test_folders_of_jpegs_have_8_bits_and_of_exr_more(tmp_path):
    for folder, name in (("photos", "a.jpg"), ("plates", "a.exr")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"")
    assert not may_be_deep(tmp_path / "photos")
    assert may_be_deep(tmp_path / "plates")
    assert not may_be_deep(tmp_path / "missing.mov")


def test_fields_are_sent_under_the_names_of_the_command_line():
    settings = bpy.context.scene.ex4d_footage
    sample = ROOT / "tests" / "data" / "sample"
    settings.footage = str(next(sample.glob("*.mp4")))
    assert not settings.is_deep
    settings.depth_from = "ESTIMATOR"
    plain = plan_of(settings, bpy.context.scene).settings
    assert (plain.bit_depth, plain.input_space, plain.camera_gaps) == ("8", "", "refuse")
    settings.input_space = "ACEScg"  # of a field that is hidden again
    assert plan_of(settings, bpy.context.scene).settings.input_space == ""
    settings.bit_depth, settings.working_space = "16", " ACES2065-1 "
    settings.camera_gaps = True
    settings.camera = str(write_camera(Path(bpy.app.tempdir)))
    sent = plan_of(settings, bpy.context.scene).settings
    assert (sent.bit_depth, sent.input_space, sent.working_space) == ("16", "ACEScg", "ACES2065-1")
    assert sent.camera_gaps == "interpolate"


def write_camera(folder: Path) -> Path:
    path = folder / "transforms.json"
    path.write_text("{}")
    return path

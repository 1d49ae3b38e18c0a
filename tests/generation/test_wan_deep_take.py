"""The generator's picture before it is rounded to 8 bits: through windows, enlarging and kept footage into files."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

import ex4d
from ex4d.cli.main import main
from ex4d.generation import EngineState
from ex4d.generation.wan.wan_engine import create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.media import read_png, read_png_metadata
from ex4d.media.exr import read_exr_channels
from ex4d.media.exr_writer import read_exr_metadata
from ex4d_core.errors import RequestError
from ex4d_core.wan_settings import wan_preset
from tests.generation.small_shots import FEW, shot

# Windows of 5 that share one frame, at a fraction of the size.
WINDOWS = {"window": 5, "overlap": 1, "max_pixels": 64 * 64}
QUICK = {"engine": "wan", "device": "cpu", "steps": 1, "guidance": 1.0, "precision": "float32", "lead_in": 0}


def test_8_bits_are_the_unrounded_frames_rounded_down_also_of_a_continued_shot(toy_models, tmp_path):
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW, **WINDOWS), "cpu", MachineSettings(toy_models))
    plain, state = list(engine.generate(shot(9, 96, 64), count=9)), EngineState(tmp_path / "engine.pt")
    unrounded: list[np.ndarray] = []
    made = list(engine.generate(shot(9, 96, 64), count=9, state=state, on_unrounded=unrounded.append))
    assert np.array_equal(made, plain), "nothing changes in 8 bits"
    floats = np.array(unrounded)
    assert floats.dtype == np.float32 and floats.min() >= 0 and floats.max() <= 1
    assert np.array_equal((floats * np.float32(255)).astype(np.uint8), made)
    assert len(np.unique(floats)) > 20 * 256
    rest: list[np.ndarray] = []
    list(engine.generate(shot(9, 96, 64), count=9, done=7, state=state, on_unrounded=rest.append))
    assert np.array_equal(rest, floats[7:])


@pytest.fixture
def take(toy_models, small_scene, tmp_path, monkeypatch):
    """Makes a take of the small scene; returns its folder."""
    monkeypatch.setenv("EX4D_MODELS", str(toy_models))
    scene = ex4d.open_scene(small_scene.folder)

    def make(name: str, **settings) -> Path:
        how = {"preset": "draft", "tea_cache": 0.0, "fp8_attention": False, **QUICK, **WINDOWS, **settings}
        ex4d.generate(scene, ex4d.orbit(20), tmp_path / name, **how)
        return tmp_path / name

    return make


def frames_of(folder: Path) -> np.ndarray:
    return np.array([read_png(path) for path in sorted(folder.glob("frame_*.png"))], np.float32)


def codes_of(path: Path) -> np.ndarray:
    """(H, W, 3) uint16 of a PNG."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.format.name.startswith("rgb48")
        return frame.to_ndarray()


def deep_of(folder: Path) -> np.ndarray:
    """A take's images in 16 bits, as values up to 255."""
    return np.array([codes_of(path) for path in sorted(folder.glob("take_v001.*.png"))]) / 257


@pytest.mark.parametrize("keep_seen", [False, True])
def test_images_of_16_bits_are_the_take_in_finer_steps(take, keep_seen):
    plain = take("plain", keep_seen=keep_seen)
    folder = take("deep", keep_seen=keep_seen, format="png16")
    frames, deep = frames_of(folder), deep_of(folder)
    assert np.array_equal(frames, frames_of(plain)) and len(deep) == len(frames) == 6
    difference = deep - frames
    if keep_seen:
        assert np.abs(difference).max() <= 1.76, "the generator's rounding, times the most that its colours change by"
    else:
        assert difference.min() > -0.01 and difference.max() <= 1.01, "8 bits are rounded down"
    assert len(np.unique(deep)) > 10 * 256
    texts = read_png_metadata(folder / "take_v001.1001.png")
    assert json.loads(texts["ex4d_request"])["output"]["format"] == "png16"
    assert json.loads((folder / "request.json").read_text())["made_by"]["color_space"] == "sRGB - Texture"


def test_footage_is_laid_once_over_frames_between_generated_ones(take):
    folder = take("deep", keep_seen=True, format="png16", stride=2)
    between = slice(1, 5, 2)
    difference = deep_of(folder)[between] - frames_of(folder)[between]
    assert np.abs(difference).max() < 0.51, "the same picture, rounded"


@pytest.mark.parametrize("stride", [1, 2])
def test_a_take_in_more_bits_continues_to_the_same_files(take, stride):
    how = {"keep_seen": True, "format": "png16", "stride": stride}
    whole = take("whole", **how)

    def interrupt(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("wan", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take("part", progress=interrupt, **how)
    part = take("part", resume=True, **how)
    assert np.array_equal(deep_of(part), deep_of(whole))
    # An image that is gone is made again, and its frame with it.
    (part / "take_v001.1005.png").unlink()
    (part / "take.mp4").unlink()
    assert np.array_equal(deep_of(take("part", resume=True, **how)), deep_of(whole))


def test_exr_files_of_an_8_bit_scene_are_linear_and_say_what_was_seen(take, capsys):
    pytest.importorskip("PyOpenColorIO")
    folder = take("exr", keep_seen=True, format="exr", motion="both", position=True)
    frames = frames_of(folder) / 255
    channels = read_exr_channels(folder / "take_v001.1004.exr")
    picture = np.dstack([channels[name].astype(np.float32) for name in "RGB"])
    light = np.where(frames[3] <= 0.04045, frames[3] / 12.92, ((frames[3] + 0.055) / 1.055) ** 2.4)
    assert np.abs(picture - light).mean() < 0.007
    assert not {"A"} & channels.keys()
    assert {"Z", "seen.A", "P.X", "forward.u", "forward.v", "backward.u", "backward.v"} <= channels.keys()
    assert 0.3 < channels["seen.A"].mean() < 1
    assert read_exr_metadata(folder / "take_v001.1004.exr")["colorSpace"] == "Linear Rec.709 (sRGB)"


def test_a_movie_of_10_bits_begins_again_and_is_whole(take):
    notes: list[str] = []
    how = {"format": "prores4444", "file_name": "final"}

    def interrupt(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("wan", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take("movie", progress=interrupt, **how)
    folder = take("movie", resume=True, note=notes.append, **how)
    assert not (folder / ".ex4d-unfinished").exists()
    assert any("begins again" in text for text in notes)
    with av.open(str(folder / "final.mov")) as movie:
        assert sum(1 for _ in movie.decode(video=0)) == 6


def test_the_command_line_asks_for_more_bits_as_render_does(toy_models, small_scene, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EX4D_MODELS", str(toy_models))
    words = ["generate", str(small_scene.folder), "--engine", "wan", "--steps", "1", "--guidance", "1", "--frames", "2"]
    words += ["--precision", "float32", "--device", "cpu", "--preset", "orbit", "--amount", "9"]
    more = ["--bit-depth", "16", "--output-space", "sRGB - Texture", "--first-number", "7"]
    assert main([*words, *more, "-o", str(tmp_path / "take")]) == 0
    assert sorted(path.name for path in (tmp_path / "take").glob("*.exr")) == [
        "orbit_v001.0007.exr",
        "orbit_v001.0008.exr",
    ]
    # Made again, it keeps its output, unless another is typed.
    again = ["generate", str(small_scene.folder), "--again", str(tmp_path / "take"), "--device", "cpu"]
    assert main([*again, "--format", "png16", "-o", str(tmp_path / "again")]) == 0
    assert sorted(path.name for path in (tmp_path / "again").glob("orbit*")) == [
        "orbit_v001.0007.png",
        "orbit_v001.0008.png",
    ]
    assert main([*again, "--bit-depth", "8", "-o", str(tmp_path / "plain")]) == 0
    assert not list((tmp_path / "plain").glob("orbit*"))
    for wrong in (["--bit-depth", "8", "--format", "exr"], ["--bit-depth", "16", "--format", "mp4"]):
        capsys.readouterr()
        assert main([*words, *wrong, "-o", str(tmp_path / "other")]) != 0
        assert "--bit-depth: " in capsys.readouterr().err
    with pytest.raises(RequestError, match=r"frame_00000\.png"):
        ex4d.generate(
            ex4d.open_scene(small_scene.folder),
            ex4d.orbit(9),
            tmp_path / "other",
            format="png16",
            file_name="frame_{frame:05}",
            first_number=0,
        )

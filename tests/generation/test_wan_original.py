"""`ex4d original generate`: the options, frames, sizes, rate and weights of the original EX-4D's generate.py."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.media import VideoWriter, probe, read_frames
from ex4d.pipeline.original import original_wan_settings, repaint_original, spread_indices
from ex4d.weights.catalogue import WAN
from ex4d_core.wan_settings import wan_preset

SMALL = ["--width", "48", "--height", "32", "--num_frames", "5", "--num_inference_steps", "1", "--device", "cpu"]
# Options for files of weights, and where a folder of models has them.
FILES = {
    "ex4d_path": "EX-4D/ex4d.ckpt",
    "text_encoder_path": f"{WAN}/models_t5_umt5-xxl-enc-bf16.pth",
    "vae_path": f"{WAN}/Wan2.1_VAE.pth",
    "clip_path": f"{WAN}/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    "dit_dir": WAN,
}


class Recorder:
    """An engine that keeps what it is given and returns it, to see what reaches the real one."""

    name = "recorder"

    def __init__(self):
        self.frames = []

    def generate(self, frames, *, count=None, on_progress=None):
        for frame in frames:
            self.frames.append(frame)
            yield frame.color


def write_movie(path: Path, frames: np.ndarray) -> Path:
    height, width = frames.shape[1:3]
    with VideoWriter(path, width, height, Fraction(24), crf=0) as movie:
        for frame in frames:
            movie.write(frame)
    return path


@pytest.fixture
def movies(tmp_path) -> list[str]:
    """Noise of 11 frames, wholly seen on the left; the two movies' options."""
    color = np.random.default_rng(0).integers(0, 256, (11, 40, 64, 3), dtype=np.uint8)
    mask = np.zeros((11, 40, 64), np.uint8)
    mask[:, :, :40] = 255
    paths = write_movie(tmp_path / "color.mp4", color), write_movie(tmp_path / "mask.mp4", mask)
    return ["--color_video", str(paths[0]), "--mask_video", str(paths[1])]


@pytest.fixture(autouse=True)
def no_models_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("EX4D_MODELS", raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


def counted_movies(folder: Path, count: int) -> tuple[Path, Path]:
    """Frames whose grey says their number, all seen."""
    grey = np.repeat(np.arange(count, dtype=np.uint8)[:, None, None], 32 * 32, axis=1).reshape(count, 32, 32)
    color = write_movie(folder / "color.mp4", np.repeat(10 + 3 * grey[..., None], 3, axis=-1))
    return color, write_movie(folder / "mask.mp4", np.full((count, 32, 32), 255, np.uint8))


def test_frames_are_spread_over_the_movie(tmp_path):
    """From the first to the last, as many as are asked for, at 15 frames per second, in a folder that is created."""
    engine, out = Recorder(), tmp_path / "new" / "folder" / "out.mp4"
    repaint_original(*counted_movies(tmp_path, 73), out, engine, frames=49, width=32, height=32)
    numbers = [round((frame.color.mean() - 10) / 3) for frame in engine.frames]
    expected = np.linspace(0, 72, 49, dtype=int)
    assert len(numbers) == 49 and np.abs(np.array(numbers) - expected).max() <= 0
    made = probe(out)
    assert (made.frames, made.fps) == (49, 15)


def test_a_short_movie_repeats_its_last_frame(tmp_path):
    engine, notes = Recorder(), []
    repaint_original(
        *counted_movies(tmp_path, 3), tmp_path / "o.mp4", engine, frames=5, width=32, height=32, note=notes.append
    )
    assert [round((frame.color.mean() - 10) / 3) for frame in engine.frames] == [0, 1, 2, 2, 2]
    assert len(notes) == 2 and all("3 frames" in note for note in notes)


@pytest.mark.parametrize(("available", "count"), [(49, 49), (100, 49), (50, 49), (2, 2)])
def test_the_first_and_the_last_frame_are_always_taken(available, count):
    indices = spread_indices(available, count)
    assert len(indices) == count and (indices[0], indices[-1]) == (0, available - 1)
    assert (np.diff(indices) > 0).all()


def test_movies_are_resized_and_unseen_pixels_are_black(tmp_path, movies):
    engine = Recorder()
    color, mask = Path(movies[1]), Path(movies[3])
    repaint_original(color, mask, tmp_path / "o.mp4", engine, frames=5, width=96, height=48)
    first = engine.frames[0]
    assert first.color.shape == (48, 96, 3) and first.mask.shape == (48, 96)
    assert first.mask[:, :58].all() and not first.mask[:, 62:].any()
    assert not first.color[:, 62:].any() and first.color[:, :58].any()
    assert (probe(tmp_path / "o.mp4").width, probe(tmp_path / "o.mp4").height) == (96, 48)


def test_the_engine_works_as_the_original_does():
    assert original_wan_settings(49, 0, 25) == wan_preset("ex4d-reference", max_pixels=0)
    assert original_wan_settings(49, 0, 25).precision == "bf16"
    at_once = wan_preset("ex4d-reference", max_pixels=0, window=81, seed=7, steps=30)
    assert original_wan_settings(81, 7, 30) == at_once
    assert original_wan_settings(5, 0, 25).window == 5
    assert original_wan_settings(49, 0, 25, 3.5).guidance == 3.5
    assert original_wan_settings(50, 0, 25).window == 53


def test_two_movies_become_one(toy_models, movies, tmp_path):
    out = tmp_path / "new" / "output.mp4"
    for verb in (["original", "generate"], ["generate"]):
        assert main([*verb, *movies, "--output_video", str(out), *SMALL, "--models", str(toy_models)]) == 0
        made = probe(out)
        assert (made.width, made.height, made.frames, made.fps) == (48, 32, 5, 15)
        assert np.array(list(read_frames(out))).std() > 5
        out.unlink()


def test_the_seed_the_steps_and_the_guidance_count(toy_models, movies, tmp_path):
    made = {}
    options = {"seed": ["--seed", "5"], "steps": ["--num_inference_steps", "2"], "guidance": ["--cfg", "9"]}
    for name, more in {"a": [], "again": [], **options}.items():
        out = tmp_path / f"{name}.mp4"
        words = [*movies, "--output_video", str(out), *SMALL, *more, "--models", str(toy_models)]
        assert main(["original", "generate", *words]) == 0
        made[name] = np.array(list(read_frames(out))).astype(int)
    assert np.array_equal(made["a"], made["again"])
    for name in options:
        assert np.abs(made["a"] - made[name]).mean() > 1, name


def test_each_file_of_weights_may_lie_elsewhere(toy_models, movies, tmp_path):
    """All five options together, as a user of the original gives them, with an empty folder of models."""
    paths = [word for option, name in FILES.items() for word in (f"--{option}", str(toy_models / name))]
    words = [*movies, *SMALL, "--models", str(tmp_path / "nothing")]
    assert main(["original", "generate", *words, *paths, "--output_video", str(tmp_path / "a.mp4")]) == 0
    whole = [*movies, *SMALL, "--models", str(toy_models), "--output_video", str(tmp_path / "b.mp4")]
    assert main(["original", "generate", *whole]) == 0
    a, b = (np.array(list(read_frames(tmp_path / f"{name}.mp4"))) for name in "ab")
    assert np.array_equal(a, b)


def test_a_given_file_is_used_in_place_of_the_folders(toy_models, movies, tmp_path):
    from bench.random_weights import write_models

    other = write_models(tmp_path / "other", seed=9)
    made = []
    for option in ("ex4d_path", "dit_dir"):
        words = [*movies, *SMALL, "--models", str(toy_models), f"--{option}", str(other / FILES[option])]
        assert main(["original", "generate", *words, "--output_video", str(tmp_path / f"{option}.mp4")]) == 0
        made.append(np.array(list(read_frames(tmp_path / f"{option}.mp4"))).astype(int))
    assert np.abs(made[0] - made[1]).mean() > 1


def test_the_originals_own_folder_of_models_is_found(toy_models, movies, tmp_path, monkeypatch):
    """./models, with everything of Wan2.1 in models/Wan-AI, as its README downloads it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_models / WAN, tmp_path / "models" / "Wan-AI")
    shutil.copytree(toy_models / "EX-4D", tmp_path / "models" / "EX-4D")
    assert main(["original", "generate", *movies, *SMALL, "--output_video", "outputs/output.mp4"]) == 0
    assert probe(tmp_path / "outputs" / "output.mp4").frames == 5


@pytest.mark.parametrize("verb", [["generate"], ["original", "generate"]])
def test_without_weights_there_is_no_preview_but_the_way_to_one(verb, movies, tmp_path, capsys):
    out = tmp_path / "new" / "out.mp4"
    assert main([*verb, *movies, "--output_video", str(out), "--models", str(tmp_path / "nothing")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("ex4d original generate: ") and "--engine preview makes a preview" in told
    assert "ex4d models fetch dit text_encoder image_encoder vae ex4d --models" in told
    assert not out.parent.exists()


def test_a_preview_is_made_on_request_without_weights(movies, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    words = ["generate", *movies, "--output_video", str(out), "--width", "64", "--height", "40", "--num_frames", "5"]
    assert main([*words, "--engine", "preview"]) == 0
    assert "preview" in capsys.readouterr().out
    frames = np.array(list(read_frames(out))).astype(int)
    assert frames.shape == (5, 40, 64, 3) and frames[:, :, 48:].mean() > 30, "what was unseen is filled, not black"
    assert main([*words, "--engine", "preview", "--cfg", "3", "--overwrite"]) == 1
    assert "--cfg has no effect with --engine preview" in capsys.readouterr().err


@pytest.mark.parametrize("option", FILES)
def test_a_file_of_weights_that_is_not_there_is_named(option, movies, tmp_path, capsys):
    words = [*movies, "--output_video", str(tmp_path / "out.mp4"), f"--{option}", "nowhere/file"]
    assert main(["original", "generate", *words]) == 1
    told = capsys.readouterr().err
    assert f"--{option} nowhere/file is not there" in told and "--models" in told
    assert not (tmp_path / "out.mp4").exists()


def test_a_folder_without_a_transformer_is_named(movies, tmp_path, capsys):
    words = [*movies, "--output_video", str(tmp_path / "out.mp4"), "--dit_dir", str(tmp_path)]
    assert main(["original", "generate", *words]) == 1
    assert "diffusion_pytorch_model*.safetensors" in capsys.readouterr().err


def test_an_input_is_never_replaced_and_must_be_there(toy_models, movies, tmp_path, capsys):
    before = Path(movies[3]).read_bytes()
    words = [*SMALL, "--models", str(toy_models)]
    assert main(["original", "generate", *movies, *words, "--output_video", movies[3]]) == 1
    assert "mask.mp4" in capsys.readouterr().err and Path(movies[3]).read_bytes() == before
    gone = ["--color_video", str(tmp_path / "gone.mp4"), *movies[2:], "--output_video", str(tmp_path / "o.mp4")]
    assert main(["original", "generate", *gone, *words]) == 1
    assert "gone.mp4" in capsys.readouterr().err

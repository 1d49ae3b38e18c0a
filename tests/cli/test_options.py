"""Options that would change nothing are refused with the reason, and all verbs agree on the default licence."""

from __future__ import annotations

import pytest

from ex4d.cli import generate, reconstruct, render
from ex4d.cli.main import _verb_parser, main
from ex4d.cli.parsing import under_flags
from ex4d_core.licences import DEFAULT_LICENCE, effective_licence
from ex4d_core.render_settings import RenderSettings
from ex4d_core.sources import DepthSettings

CAMERA = ["--camera", "move.npz"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["jobs", "--data", "d"], "--data has no effect without --prune"),
        (["jobs", "--out", "o"], "--out has no effect without --fetch"),
        (["jobs", "--prune", "3", "--backend", "tcp://a:1"], "--backend has no effect with --prune"),
        (["serve", "--create-keys", "--device", "cpu", "--models", "m"], "--device and --models have no effect"),
        (["reconstruct", "c.mp4", "--camera-scale", "2"], "--camera-scale has no effect without --source-camera"),
        (
            ["reconstruct", "c.mp4", "--camera-gaps", "interpolate"],
            "--camera-gaps has no effect without --source-camera",
        ),
        (["render", "SCENE", "--framing", "extend"], "--framing has no effect without --size"),
        (["reconstruct", "c.mp4", "--depth", "d", "--mist-falloff", "linear"], "--mist-falloff has no effect without"),
        (["reconstruct", "c.mp4", "--depth-scale", "2"], "--depth-scale has no effect without --depth"),
        (["reconstruct", "c.mp4", "--inverse-depth", "--mist", "1", "2"], "--inverse-depth and --mist have no effect"),
        (["reconstruct", "c.mp4", "--depth", "d", "--estimator", "auto"], "--estimator has no effect with --depth"),
        (["reconstruct", "c.mp4", "--depth", "d", "--models", "m"], "--models has no effect with --depth"),
        (["reconstruct", "c.mp4", "--sensor-mm", "36"], "--sensor-mm has no effect without --focal-mm"),
        (["render", "SCENE", "--camera-convention", "opencv"], "--camera-convention has no effect without --camera"),
        (["render", "SCENE", *CAMERA, "--preset", "orbit"], "--preset has no effect with --camera"),
        (["render", "SCENE", "--preset", "30", "--amount", "4"], "--amount has no effect with --preset 30"),
        (["render", "SCENE", "--preset", "truck", "--elevation", "4"], "--elevation has no effect with --preset truck"),
        (["render", "SCENE", "--preset", "60", "--pivot", "middle"], "--pivot has no effect with --preset 60"),
        (["render", "SCENE", "--preset", "zoom_in", "--pivot", "2"], "--pivot has no effect with --preset zoom_in"),
        (["generate", "SCENE", "--client-key", "c"], "--client-key has no effect without --backend"),
        (["generate", "SCENE", "--detach"], "--detach has no effect without --backend"),
        (["generate", "SCENE", "--steps", "9"], "--steps has no effect with the engine preview; add --engine wan"),
        (["generate", "SCENE", "--wan-preset", "draft"], "--wan-preset has no effect with the engine preview"),
        (["generate", "SCENE", "--vram-limit", "8"], "--vram-limit has no effect with the engine preview"),
        (["generate", "SCENE", "--engine", "wan", "--holes", "fill"], "--holes has no effect with the engine wan"),
        (["generate", "SCENE", "--hole-color", "1,2,3"], "--hole-color has no effect without --holes mark"),
        (["generate", "SCENE", "--backend", "tcp://a:1", "--device", "cpu"], "--device has no effect with --backend"),
    ],
)
def test_an_option_without_effect_is_refused_even_with_its_default(small_scene, tmp_path, capsys, arguments, told):
    words = [str(small_scene.folder) if word == "SCENE" else word for word in arguments]
    if words[0] in ("render", "generate") and "--detach" not in words:
        words += ["-o", str(tmp_path / "out")]
    assert main(words) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", [reconstruct, render, generate])
def test_every_verb_leaves_the_licence_to_the_machine_and_that_to_one_default(verb):
    assert _verb_parser("verb", verb).get_default("licence") is None
    assert RenderSettings().licence is DepthSettings("array").licence is None
    assert effective_licence(None, None) == DEFAULT_LICENCE == "commercial"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--first-frame", "99"], "--first-frame must be from 0 to"),
        (["--source-frames", "0-99"], "--source-frames has footage frame"),
        (["--preset", "dolly_in", "--amount", "2"], "amount 2 of dolly_in ends behind the pivot"),
    ],
)
def test_errors_name_the_flags_that_were_given(small_scene, tmp_path, capsys, words, told):
    assert main(["render", str(small_scene.folder), *words, "-o", str(tmp_path / "views")]) == 1
    assert told in capsys.readouterr().err


def test_names_in_paths_and_values_are_no_flags():
    parser = _verb_parser("reconstruct", reconstruct)
    given = "the focal length is given more than once (fov_degrees=50, focal_mm=35)"
    assert under_flags(given, parser) == "the focal length is given more than once (--fov 50, --focal-mm 35)"
    for text in ("/shots/focal_mm/a.mp4", "focal_mm.npz", "my_focal_mm", "focal_mm_2", "a-focal_mm"):
        assert under_flags(text, parser) == text

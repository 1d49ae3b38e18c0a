"""The configuration file: below flags and environment variables, above defaults, and wrong in one sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.config import config_file
from ex4d.machine import MachineSettings, default_models_folder


def rendered_size(path: Path) -> tuple[int, int]:
    with np.load(path) as arrays:
        _, height, width, _ = arrays["color"].shape
    return width, height


def test_a_verbs_options_have_the_files_values_unless_they_are_typed(small_scene, configure, tmp_path):
    out = tmp_path / "render.npz"
    configure(f'[render]\nsize = "24x16"\nframes = 2\nout = "{out.as_posix()}"\n')
    assert main(["render", str(small_scene.folder)]) == 0, "an option that must be given may be in the file"
    assert rendered_size(out) == (24, 16)
    assert main(["render", str(small_scene.folder), "--size", "12x8", "--overwrite"]) == 0
    assert rendered_size(out) == (12, 8)


def test_switches_lists_and_pairs_are_written_as_toml_has_them(configure):
    from ex4d.cli import generate, main, parsing, reconstruct

    def parsed(verb, *words):
        return parsing.parse(main._verb_parser(verb.SUMMARY, verb), verb.__name__.rpartition(".")[2], words, main.VERBS)

    configure(
        "[reconstruct]\nno-edges = true\nmist = [1.5, 20]\ninverse-depth = false\n"
        '[generate]\nloras = ["grain:0.5", "sharp"]\nfp8-attention = false\nhole-color = "1,2,3"\n'
    )
    options = parsed(reconstruct, "clip.mp4")
    assert (options.refine_edges, options.mist, options.inverse) == (False, [1.5, 20.0], False)
    options = parsed(generate, "scene")
    assert [(one.name, one.weight) for one in options.loras] == [("grain", 0.5), ("sharp", 1.0)]
    assert (options.fp8_attention, options.hole_color) == (False, (1, 2, 3))
    assert "steps" not in vars(options), "what neither the file nor the user gives is left to the preset"
    (only,) = parsed(generate, "scene", "--loras", "soft").loras
    assert only.name == "soft", "a repeatable option on the command line replaces the file's"


def test_what_is_typed_also_wins_over_what_it_excludes(configure, capsys, tmp_path):
    configure("[serve]\nquiet = true\n")
    keys = ["serve", "--create-keys", "anna", "--keys", str(tmp_path / "keys")]
    assert main(keys) == 0
    assert capsys.readouterr().err == ""
    keys[2] = "bob"
    assert main([*keys, "--verbose"]) == 0
    assert "bob's own secret" in capsys.readouterr().err


def test_actions_have_tables_of_their_own(configure, tmp_path, capsys):
    configure("[models.list]\njson = true\n")
    assert main(["models", "list", "vae", "--models", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["folder"] == str(tmp_path)


def test_the_machines_settings_stand_below_the_environment(configure, tmp_path, monkeypatch):
    for name in ("EX4D_MODELS", "EX4D_LICENCE", "EX4D_VRAM_LIMIT_GB"):
        monkeypatch.delenv(name, raising=False)
    assert MachineSettings.from_environment() == MachineSettings(default_models_folder(), None, None)
    configure('[machine]\nmodels = "~/weights"\nlicence = "research"\nvram_limit_gb = 12\n')
    assert MachineSettings.from_environment() == MachineSettings(Path.home() / "weights", 12, "research")
    monkeypatch.setenv("EX4D_MODELS", str(tmp_path))
    monkeypatch.setenv("EX4D_LICENCE", "commercial")
    monkeypatch.setenv("EX4D_VRAM_LIMIT_GB", "8")
    assert MachineSettings.from_environment() == MachineSettings(tmp_path, 8, "commercial")
    assert MachineSettings.from_environment(tmp_path / "flag", 4).models == tmp_path / "flag"
    assert MachineSettings.from_environment(None, 4).vram_limit_gb == 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[generat]\nsteps = 3", "[generat] is not a verb"),
        ("[render]\nocclusin = 'open'", "[render] has no key 'occlusin': did you mean occlusion"),
        ("[render]\nxyz = 1", "keys are the long options without dashes"),
        ("[render]\nocclusion = 'solid'", "occlusion = 'solid': expected one of watertight, open, thickness"),
        ("[render]\nsize = '3 by 4'", "size = '3 by 4': invalid size"),
        ("[render]\nfirst-frame = -1", "first-frame = -1: invalid number"),
        ("[render]\npreset = true", "preset = true: expected text or a number"),
        ("[render]\nquiet = 1", "quiet = 1: expected true or false"),
        ("[render]\naccept-licence = 'nvdiffrast'", "expected a list"),
        ("[render]\nlicence = 'research'\nlicense = 'research'", "licence and license exclude each other"),
        ("[render]\nquiet = true\nverbose = true", "quiet and verbose exclude each other"),
        ("[generate]\nmodels = '/x'\n[render]\nhelp = true", "[render] has no key 'help'"),
        ("[models]\nyes = true\n[render]\noops = 1", "[render] has no key 'oops'"),
        ("[machine]\nlicense = 'research'\n", "[machine] has no key 'license': expected one of models, model_path"),
        ("[machine]\nmodel_path = '/srv'\n", "[machine] model_path must be a list of folders, not '/srv'"),
        ("[machine]\nlicence = 'free'\n", "invalid licence 'free'"),
        ("[machine]\nvram_limit_gb = 0\n", "[machine] invalid limit of GPU memory 0"),
        ("[machine]\nvram_limit_gb = true\n", "vram_limit_gb must be a number, not True"),
        ("[machine]\nmodels = 3\n", "models must be text, not 3"),
        ("engine = 'wan'\n", "engine stands outside a table"),
        ("[render\n", "is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence_that_names_it(small_scene, configure, capsys, tmp_path, text, told):
    path = configure(text)
    code = main(["render", str(small_scene.folder), "-o", str(tmp_path / "out.npz")])
    said = capsys.readouterr().err
    assert code != 0 and said.count("\n") == 1, said
    assert said.startswith(f"ex4d render: {path}") and told in said
    assert not (tmp_path / "out.npz").exists()


def test_settings_of_the_machine_have_no_place_in_a_verbs_table(configure, capsys):
    """There they would hide the environment variables."""
    configure("[doctor]\nmodels = '/weights'\n")
    assert main(["doctor"]) == 2
    assert "[doctor] models is a setting of the machine: write models in [machine]" in capsys.readouterr().err


def test_help_works_with_a_broken_file(configure, capsys):
    configure("[render\n")
    with pytest.raises(SystemExit) as ended:
        main(["render", "--help"])
    assert ended.value.code == 0 and "--occlusion" in capsys.readouterr().out


def test_a_named_file_must_exist_and_the_users_own_need_not(configure, capsys, monkeypatch, tmp_path):
    configure("").unlink()
    assert main(["completion", "bash"]) == 2
    assert "mine.toml does not exist; EX4D_CONFIG must name a file, or be unset" in capsys.readouterr().err
    monkeypatch.delenv("EX4D_CONFIG")
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path / "own"))
    assert main(["completion", "bash"]) == 0
    assert config_file() == tmp_path / "own" / "ex4d.toml"


@pytest.mark.skipif(sys.platform != "linux", reason="the place is Linux's")
def test_the_users_own_file_is_where_the_system_keeps_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("EX4D_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_file() == tmp_path / "ex4d" / "ex4d.toml"


def test_a_take_made_again_is_what_it_was_whatever_the_file_says(small_scene, configure, tmp_path):
    scene, first, again = str(small_scene.folder), tmp_path / "first", tmp_path / "again"
    assert main(["generate", scene, "--size", "24x16", "--frames", "2", "-o", str(first)]) == 0
    configure("[generate]\nocclusion = 'open'\nlabel = 'other'\nsteps = 3\nwan-preset = 'draft'\npreset = 'orbit'\n")
    assert main(["generate", scene, "--again", str(first), "-o", str(again)]) == 0
    requests = [json.loads((folder / "request.json").read_text()) for folder in (first, again)]
    for name in ("label", "render", "wan", "camera", "engine"):
        assert requests[0].get(name) == requests[1].get(name), name

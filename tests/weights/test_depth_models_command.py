"""`ex4d models` and the depth estimators: what is here, what it may be used for, fetching and checking it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from ex4d.cli.main import main
from ex4d.depth import DEPTH_MODELS
from ex4d.installation import install_command
from ex4d.machine import MachineSettings, default_models_folder
from ex4d.weights.catalogue import DEPTH_PRO, ESTIMATORS
from ex4d.weights.places import fetch_command

DATA = Path(__file__).resolve().parents[1] / "data"


def command(folder: Path, *words: str) -> int:
    return main(["models", *words, "--models", str(folder)])


def test_the_command_line_names_every_estimator_in_the_order_of_auto(capsys):
    assert tuple(model.name for model in DEPTH_MODELS) == ESTIMATORS
    with pytest.raises(SystemExit):
        main(["models", "list", "--help"])
    said = " ".join(capsys.readouterr().out.replace("-\n", "-").split()).replace("- ", "-")
    assert f"tiny_decoder, {', '.join(ESTIMATORS)}" in said


def test_the_list_says_size_place_and_licence(depth_models, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    (depth_models / "stabilityai/stable-video-diffusion-img2vid/vae/config.json").unlink()
    assert command(depth_models, "list") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    for model in DEPTH_MODELS:
        assert model.licence in lines[model.name] and model.part.repositories[0] in lines[model.name]
        assert f" {model.part.bytes / 1e9:.2f} " in lines[model.name]
    assert "7 of 8 files" in lines["depthcrafter"]
    assert " no " in lines["video-depth-anything"] and " yes " in lines["depth-pro"]
    assert "dit" in lines, "the engine's own parts are in the same list"


def test_weights_laid_out_by_name_alone_are_found(depth_models, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    (depth_models / "apple" / "DepthPro-hf").rename(depth_models / "DepthPro-hf")
    assert command(depth_models, "list", "depth-pro") == 0
    assert " yes " in capsys.readouterr().out


def test_files_that_are_here_are_not_fetched_again(depth_models, capsys):
    assert command(depth_models, "fetch", "depth-pro") == 0
    told = capsys.readouterr().out
    assert "depth-pro: Depth Pro, 1.9 GB; Apple's machine learning research model licence" in told
    assert str(depth_models / "apple" / "DepthPro-hf" / "model.safetensors") in told


def test_without_a_network_the_file_and_its_place_are_named(tmp_path, capsys, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert command(tmp_path, "fetch", "depth-anything-v2") == 1
    told = capsys.readouterr().err
    assert "depth-anything/Depth-Anything-V2-Small-hf/config.json" in told
    assert str(tmp_path / "depth-anything" / "Depth-Anything-V2-Small-hf" / "config.json") in told


def test_what_a_missing_model_says_is_the_command_that_fetches_it(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("EX4D_MODELS", raising=False)
    own, other = MachineSettings.from_environment().models, tmp_path / "an other"
    assert fetch_command(own, DEPTH_PRO) == "ex4d models fetch depth-pro"
    assert fetch_command(other, DEPTH_PRO) == f"ex4d models fetch depth-pro --models '{other}'"
    assert command(tmp_path / "my models", "check", "depth-pro") == 1
    assert "ex4d models fetch depth-pro" in capsys.readouterr().out


def test_the_check_loads_every_tensor(depth_models, capsys):
    assert command(depth_models, "check", "depth-pro", "depthcrafter", "--quick") == 0
    assert capsys.readouterr().out.count("loads: every tensor is there and fits") == 2
    weights = depth_models / "apple" / "DepthPro-hf" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    assert command(depth_models, "check", "depth-pro", "--quick") == 1
    assert "fetch it again" in capsys.readouterr().out


def test_the_check_compares_bytes_with_the_hash_noted_when_they_were_fetched(depth_models, capsys):
    (depth_models / "hashes.json").write_text('{"apple/DepthPro-hf/model.safetensors": "' + 64 * "0" + '"}')
    assert command(depth_models, "check", "depth-pro") == 1
    told = capsys.readouterr().out.replace("\n", " ")
    assert "model.safetensors is damaged" in told and "ex4d models fetch depth-pro" in told


def test_a_part_that_there_is_not(tmp_path, capsys):
    assert command(tmp_path, "fetch", "midas") == 1
    assert "unknown part 'midas': expected dit" in capsys.readouterr().err


@pytest.fixture
def plain_install(monkeypatch):
    """As after `pip install ex4d`, without the extra: no transformers, no huggingface_hub."""
    monkeypatch.setattr("ex4d.weights.catalogue.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("ex4d.installation.checkout", lambda: None)


def test_after_a_plain_install_one_sentence_leads_to_depth(plain_install, tmp_path, capsys, monkeypatch):
    clip = str(DATA / "sample" / "footage.mp4")
    monkeypatch.setenv("EX4D_MODELS", str(default_models_folder()))
    monkeypatch.setattr("ex4d.depth.estimator_choice.missing_files", lambda models, part: part.files)
    assert main(["reconstruct", clip, "-o", str(tmp_path / "scene")]) == 1
    assert capsys.readouterr().err.endswith(
        "No depth was given and no estimator is installed. Run pip install 'ex4d[depth]' and ex4d models fetch "
        "depth-anything-v2 (99 MB), or give --depth. (ex4d doctor says what each estimator lacks.)\n"
    )


def test_packages_that_a_download_needs_are_missed_before_its_first_byte(plain_install, tmp_path, capsys):
    assert command(tmp_path / "models", "fetch", "depth-anything-v2") == 1
    assert "needs huggingface_hub" in (told := capsys.readouterr().err) and "Run pip install 'ex4d[depth]'" in told
    assert not (tmp_path / "models").exists()
    assert command(tmp_path / "models", "fetch", "vae") == 1
    assert "Run pip install 'ex4d[wan]'" in capsys.readouterr().err


def test_weights_may_be_fetched_for_another_machine_with_a_note(depth_models, capsys, monkeypatch):
    monkeypatch.setattr("ex4d.weights.catalogue.find_spec", lambda name: None)
    assert command(depth_models, "fetch", "depth-pro") == 0
    assert "note: depth-pro also needs transformers and safetensors here: run pip install" in capsys.readouterr().err


def test_a_checkout_installs_extras_from_itself(monkeypatch, tmp_path):
    root = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(root)
    assert install_command("depth") == "pip install -e '.[depth]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("wan") == f"pip install -e '{root}[wan]'"
    monkeypatch.setattr("ex4d.installation.checkout", lambda: None)
    assert install_command("wan") == "pip install 'ex4d[wan]'"


class Terminal(io.StringIO):
    """Somebody who types this."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "code"), [("n\n", 1), ("", 1), ("yes\n", 0)])
def test_a_fetch_without_a_name_asks_with_the_total_before_82_gigabytes(tmp_path, capsys, monkeypatch, typed, code):
    fetched = []
    monkeypatch.setattr("ex4d.weights.fetch.fetch_part", lambda models, part, *_: fetched.append(part.name) or [])
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert command(tmp_path, "fetch") == code
    told = capsys.readouterr().err
    assert "Download 82.8 GB into" in told
    if code:
        assert not fetched and "For depth alone: ex4d models fetch depth-anything-v2 (99 MB)" in told
    else:
        assert "dit" in fetched

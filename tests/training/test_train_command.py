"""`ex4d train` from a data set to an adapter that the engine wan loads, with the trainer's own result."""

import json
import shutil
from argparse import ArgumentParser, Namespace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench.random_weights import write_models
from ex4d.cli.main import main
from ex4d.cli.report import add_report_arguments
from ex4d.cli.train_look import process_of
from ex4d.generation.wan.denoising import denoise
from ex4d.generation.wan.loaded_networks import LoadedNetworks
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.networks import open_dit
from ex4d.generation.wan.transformer import Transformer
from ex4d.media.video_writer import VideoWriter
from ex4d.training.adapter import published_tensors
from ex4d.training.base_model import base_identity, find_base, open_for_training
from ex4d.training.run_folder import RunConfig, RunFolder
from ex4d.training.sampling import sample_latents
from ex4d.training.schedule import seed_of
from ex4d.training.trainer import conditioned
from ex4d.weights.places import find_adapter
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.wan_settings import wan_preset
from tests.training.toy_runs import SETTINGS, SHAPE, toy_dataset, toy_sample

CPU = torch.device("cpu")
TOY = ["--rank", "4", "--alpha", "4", "--hidden", "8", "--precision", "float32", "--device", "cpu"]
FEW = ["--steps", "4", "--batch", "2", "--warmup", "0", "--keep-every", "2", "--sample-every", "4"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models") / "models", dit_dtype=torch.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, models):
    """A finished run, stopped and resumed on the way."""
    folder = tmp_path_factory.mktemp("training")
    toy_dataset(folder / "data", 3)
    run, where = str(folder / "run"), ["--models", str(models), "-q"]
    rate = ["--learning-rate", "0.01"]
    assert main(["train", "start", str(folder / "data"), run, *TOY, *FEW, *rate, *where, "--until", "3"]) == 0
    assert RunFolder(folder / "run").steps() == [2, 3]
    assert main(["train", "resume", run, *where, "--device", "cpu"]) == 0
    return folder


def test_a_run_leaves_its_states_logs_and_a_sample_video(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert RunFolder(trained / "run").steps() == [3, 4]
    events = EventAccumulator(str(trained / "run" / "logs"))
    events.Reload()
    assert [one.step for one in events.Scalars("loss")] == [1, 2, 3, 4]
    assert events.Tags()["images"] == ["masked video, mask, sample, source"]
    assert [path.name for path in (trained / "run" / "samples").iterdir()] == ["step-00000004.mp4"]


def test_an_exported_adapter_gives_the_trainers_own_result(trained, models, capsys):
    assert main(["train", "export", str(trained / "run"), "--name", "our_look", "--models", str(models)]) == 0
    assert "--adapter our_look" in capsys.readouterr().out
    run = RunFolder(trained / "run")
    config, state = run.config(), run.read_state()
    model = open_for_training(find_base(models), config, "cpu")
    model.adapter.load(state.adapter, run.folder)
    sample = next(toy_dataset(trained / "again", 3).samples(toy_dataset(trained / "same", 3).manifest.shards[0]))
    own = sample_latents(model, sample, config.settings, CPU, steps=3)

    files = find_wan_files(models, {"ex4d": find_adapter(models, "our_look")})
    networks = LoadedNetworks(NetworkChoice(files, (), "cpu", "float32"))
    target, conditioning = conditioned(sample, CPU)
    generator = torch.Generator().manual_seed(seed_of(config.settings.seed, "sample", 0))
    noise = torch.randn(target.shape, generator=generator)
    settings = wan_preset("ex4d-reference", steps=3, shift=config.settings.shift, precision="float32")
    theirs = denoise(networks.transformer, noise, conditioning, settings, precision=networks.precision)
    assert torch.allclose(own, theirs, atol=1e-4)
    plain = LoadedNetworks(NetworkChoice(find_wan_files(models), (), "cpu", "float32"))
    other = denoise(plain.transformer, noise, conditioning, settings, precision=plain.precision)
    assert not torch.allclose(own, other, atol=0.1)


def test_a_ckpt_has_the_published_names_and_continues(trained, models, tmp_path, capsys):
    exported = tmp_path / "look.ckpt"
    assert main(["train", "export", str(trained / "run"), "-o", str(exported), "--step", "3"]) == 0
    tensors = torch.load(exported, weights_only=True)
    published = torch.load(models / "EX-4D" / "ex4d.ckpt", weights_only=True)
    assert {name: value.shape for name, value in tensors.items()} == {
        name: value.shape for name, value in published.items()
    }
    state = RunFolder(trained / "run").read_state(3)
    assert all(torch.equal(tensors[name], state.adapter[name]) for name in tensors)
    assert main(["train", "export", str(trained / "run"), "-o", str(exported)]) == 1
    assert "exists" in capsys.readouterr().err
    where = [str(trained / "data"), str(tmp_path / "next"), *TOY, *FEW, "--models", str(models), "--until", "1"]
    assert main(["train", "start", *where, "--from", str(exported), "--learning-rate", "1e-9", "-q"]) == 0
    following = RunFolder(tmp_path / "next").read_state()
    assert all(torch.allclose(following.adapter[name], value, atol=1e-6) for name, value in tensors.items())


def test_what_would_change_a_run_is_refused_with_the_difference(trained, models, tmp_path, capsys):
    run, where = str(trained / "run"), ["--models", str(models), "--device", "cpu", "-q"]
    assert main(["train", "resume", run, "--learning-rate", "0.02", *where]) == 1
    assert "--learning-rate: 0.01, not 0.02" in capsys.readouterr().err
    assert main(["train", "resume", run, "--keep-states", "5", *where]) == 0
    other = tmp_path / "models"
    write_models(other, seed=1)
    assert main(["train", "resume", run, "--models", str(other), "--device", "cpu", "-q"]) == 1
    assert "base model: " in capsys.readouterr().err
    assert main(["train", "start", str(trained / "data"), run, *TOY, *FEW, *where, "--learning-rate", "0.01"]) == 1
    assert "ex4d train resume" in capsys.readouterr().err


def test_a_run_goes_on_where_its_data_have_moved(trained, models, tmp_path):
    shutil.copytree(trained / "data", tmp_path / "moved")
    shutil.copytree(trained / "run", tmp_path / "run")
    words = ["--dataset", str(tmp_path / "moved"), "--models", str(models), "--device", "cpu", "-q"]
    assert main(["train", "resume", str(tmp_path / "run"), *words]) == 0


def test_a_base_is_known_by_its_values(models, tmp_path):
    files = find_base(models)
    copied = [shutil.copyfile(path, tmp_path / path.name) for path in files]
    assert base_identity(copied) == base_identity(files)
    write_models(tmp_path / "other", seed=1, dit_dtype=torch.float32)
    assert base_identity(find_base(tmp_path / "other")) != base_identity(files)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["start", "nowhere", "run"], "dataset.json"),
        (["resume", "nowhere"], "has no run"),
        (["export", "nowhere", "--name", "mine"], "has no run"),
        (["export", "nowhere"], "--name"),
        (["export", "nowhere", "--name", "../mine"], "invalid name"),
        (["export", "nowhere", "-o", "mine.txt"], "invalid name"),
    ],
)
def test_what_is_missing_is_said(words, said, models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    more = [] if "-o" in words else ["--models", str(models)]
    assert main(["train", *words, *more]) == 1
    assert said in capsys.readouterr().err


def test_results_are_json_for_programs(trained, capsys):
    assert main(["train", "export", str(trained / "run"), "-o", str(trained / "out.safetensors"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["result"] == {"adapter": str(trained / "out.safetensors"), "step": 4}


@pytest.fixture
def clips(tmp_path):
    """Two clips with depth, as a .csv file."""
    for name in ("one", "two"):
        frames = np.random.default_rng(len(name)).integers(0, 256, (5, 6, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
        with VideoWriter(tmp_path / f"{name}.mp4", 64, 48, 24) as video:
            for frame in frames:
                video.write(frame)
        depth = np.linspace(2, 6, 48 * 64, dtype=np.float32).reshape(48, 64)
        np.savez(tmp_path / f"{name}.npz", depth=np.stack([depth] * 5))
    rows = [f"{name}.mp4,a wide street,{name}.npz,50" for name in ("one", "two")]
    (tmp_path / "clips.csv").write_text("\n".join(["clip,caption,depth,fov", *rows]))
    return tmp_path / "clips.csv"


@pytest.mark.parametrize("build", ["checked only", pytest.param("real", marks=pytest.mark.slow)])
def test_one_command_makes_an_adapter_of_clips_and_continues(build, clips, models, tmp_path, monkeypatch, capfd):
    own = shutil.copytree(models, tmp_path / "models")
    ran = []

    def run_here(command, **kwargs):
        ran.append(command[3:5])
        if ran[-1] == ["dataset", "build"] and build != "real":
            options = parse_verb_action("dataset", "build", command[5:])
            assert (options.source, options.frames, options.size) == (clips, 5, (48, 32))
            if not options.out.exists():
                toy_dataset(options.out, 2)
            return SimpleNamespace(returncode=0)
        return SimpleNamespace(returncode=main(command[3:]))

    monkeypatch.setattr("ex4d.cli.train_look.subprocess.run", run_here)
    small = ["--frames", "5", "--size", "48x32", "--models", str(own)]
    words = ["train", "look", str(clips), str(tmp_path / "run"), "--name", "street", *small, *TOY, *FEW, "-q"]
    code = main(words)
    assert code == 0, capfd.readouterr().err
    assert ran == [["dataset", "build"], ["train", "start"], ["train", "export"]]
    exported = find_adapter(own, "street")
    first = exported.read_bytes()
    assert main(words) == 0
    assert ran[3:] == [["dataset", "build"], ["train", "resume"], ["train", "export"]]
    assert exported.read_bytes() == first
    run = RunFolder(tmp_path / "run").config()
    assert run.started_from == str(own / "EX-4D" / "ex4d.ckpt") and run.settings.steps == 4
    assert main([*words[:3], str(tmp_path / "other"), *words[4:]]) == 1
    assert "the adapter street exists" in capfd.readouterr().err
    # What a run continued from need not be there for ever, and an adapter of another run is not replaced unasked.
    (own / "EX-4D" / "ex4d.ckpt").unlink()
    assert main(words) == 0
    exported.write_bytes(b"of another run")
    assert main(words) == 1 and exported.read_bytes() == b"of another run"
    assert "is not of the run" in capfd.readouterr().err
    assert main([*words, "--overwrite"]) == 0 and exported.read_bytes() == first


def test_a_batch_that_the_gpus_cannot_share_is_refused_before_any_work(clips, models, tmp_path, capsys):
    words = ["train", "look", str(clips), str(tmp_path / "run"), "--name", "street", "--models", str(models), *TOY]
    assert main([*words, "--batch", "4", "--gpus", "3"]) == 1
    assert "choose --batch 6" in capsys.readouterr().err and not (tmp_path / "run").exists()


def parse_verb_action(verb: str, action: str, words: list[str]) -> Namespace:
    parser = ArgumentParser()
    import_module(f"ex4d.cli.{verb}").ACTIONS[action].add_arguments(parser)
    add_report_arguments(parser)
    return parser.parse_args(words)


def test_several_gpus_train_through_accelerates_launcher():
    words = ["ex4d", "train", "start", "data", "run", "--steps", "7"]
    command = process_of(words, 4)
    assert command[1:3] == ["-m", "accelerate.commands.launch"] and command[-8:] == ["-m", *words]
    assert command[command.index("--num_processes") + 1] == "4"
    assert process_of(["ex4d", "train", "export", "run"], 4)[1:4] == ["-m", "ex4d", "train"]


def test_an_adapter_that_was_never_trained_changes_no_bit_of_a_final(models, tmp_path):
    files, exported = find_base(models), tmp_path / "zero.ckpt"
    model = open_for_training(files, RunConfig(SETTINGS, SHAPE, "", "", ""), "cpu")
    torch.save(published_tensors(model.adapter.tensors(), SHAPE), exported)
    target, conditioning = conditioned(toy_sample(), CPU)
    velocities = []
    for adapter in (None, exported):
        transformer = Transformer(*open_dit(files, adapter, dtype=torch.float32))
        with torch.inference_mode():
            velocities += transformer.velocities(target, torch.tensor([500.0]), transformer.prepare(conditioning), (0,))
    assert torch.equal(*velocities)

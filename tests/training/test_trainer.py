"""A run from its first step to its last: the loss falls, it resumes exactly, and whatever goes wrong loses nothing."""

import errno
import json
import math
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from ex4d.training import run_folder
from ex4d.training.errors import NotFiniteError, RunDiffersError, ShardError, TrainingError
from ex4d.training.run_folder import RunFolder
from ex4d.training.schedule import FlowMatching, learning_rate
from ex4d.training.trainer import conditioned
from ex4d.weights.errors import CheckpointError
from tests.training.toy_runs import SETTINGS, SHAPE, toy_config, toy_dataset, toy_trainer

CPU = torch.device("cpu")


@pytest.fixture
def dataset(tmp_path):
    return toy_dataset(tmp_path / "data", 3, 2)


def error_of(trainer, dataset) -> float:
    """Mean error over fixed noise."""
    flow = FlowMatching(replace(SETTINGS, loss_weight="uniform"))
    found = []
    for shard in dataset.manifest.shards:
        for number, sample in enumerate(dataset.samples(shard)):
            target, conditioning = conditioned(sample, CPU)
            draw = flow.draw(target.shape, 10_000 + number)
            with torch.no_grad():
                velocity = trainer.model(flow.noisy(target, draw), draw.timestep, conditioning)
            found.append(flow.loss(velocity, target, draw).item())
    return sum(found) / len(found)


def test_the_loss_falls(tmp_path, dataset):
    results = []
    config = toy_config(dataset, steps=40, decay="constant", loss_weight="uniform", keep_every=100)
    trainer = toy_trainer(tmp_path / "run", dataset, config, results.append)
    before = error_of(trainer, dataset)
    trainer.run()
    assert error_of(trainer, dataset) < 0.75 * before
    assert [result.step for result in results] == list(range(1, 41))
    assert all(math.isfinite(result.loss) and result.gradient_norm > 0 for result in results)


def test_an_interrupted_run_continues_bit_for_bit(tmp_path, dataset):
    config = toy_config(dataset)
    whole = toy_trainer(tmp_path / "whole", dataset, config)
    whole.run()
    for until in (2, 3, None):
        parts = toy_trainer(tmp_path / "parts", dataset, config)
        parts.run(until)
    assert parts.step == whole.step == 6
    ours, theirs = (RunFolder(tmp_path / name).read_state() for name in ("parts", "whole"))
    for kind in ("adapter", "optimizer"):
        one, other = getattr(ours, kind), getattr(theirs, kind)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits_again_whether_it_was_interrupted_or_not(tmp_path, dataset):
    from accelerate.state import AcceleratorState

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    config, found = toy_config(dataset, precision="bf16"), []
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        for name, parts in (("whole", [None]), ("again", [None]), ("interrupted", [3, None])):
            for until in parts:
                trainer = toy_trainer(tmp_path / name, dataset, config, device="cuda")
                trainer.run(until)
            found.append(trainer.adapter.tensors())
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert all(torch.equal(value, other[name]) for other in found[1:] for name, value in found[0].items())


def test_ctrl_c_keeps_the_state_of_the_last_step(tmp_path, dataset):
    def interrupt(result):
        if result.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy_trainer(tmp_path / "run", dataset, toy_config(dataset), interrupt).run()
    assert RunFolder(tmp_path / "run").steps() == [2, 3]


def test_only_the_last_states_are_kept(tmp_path, dataset):
    toy_trainer(tmp_path / "run", dataset, toy_config(dataset, keep_every=1, keep_states=2)).run()
    assert RunFolder(tmp_path / "run").steps() == [5, 6]


def test_a_run_on_other_data_or_with_another_setting_is_refused_with_the_difference(tmp_path, dataset):
    run = RunFolder(tmp_path / "run")
    run.start(toy_config(dataset))
    with pytest.raises(RunDiffersError, match=r"learning_rate: 0\.01, not 0\.02") as refused:
        run.require_same(toy_config(dataset, learning_rate=0.02))
    assert "data set" not in str(refused.value)
    with pytest.raises(RunDiffersError, match="data set: "):
        run.require_same(toy_config(toy_dataset(tmp_path / "other", 1)))
    run.require_same(toy_config(dataset, keep_every=50, offload=True))
    with pytest.raises(TrainingError, match="has a run already"):
        run.start(toy_config(dataset))


def test_nan_stops_the_run_and_keeps_the_state_before_it(tmp_path, dataset, monkeypatch):
    trainer = toy_trainer(tmp_path / "run", dataset, toy_config(dataset))
    trainer.run(3)
    good = trainer.adapter.tensors()
    monkeypatch.setattr(FlowMatching, "loss", staticmethod(lambda velocity, sample, draw: velocity.sum() * math.nan))
    with pytest.raises(NotFiniteError, match="step 4") as stopped:
        trainer.run()
    assert "0000000" in str(stopped.value), "the samples are named"
    kept = RunFolder(tmp_path / "run").read_state()
    assert kept.step == 3 and all(torch.equal(kept.adapter[name], good[name]) for name in good)
    monkeypatch.undo()
    resumed = toy_trainer(tmp_path / "run", dataset, toy_config(dataset))
    resumed.run()
    assert resumed.step == 6


def test_a_cut_off_shard_is_named_and_the_run_continues_once_it_is_whole(tmp_path, dataset):
    whole = {path: path.read_bytes() for path in (tmp_path / "data").glob("*.tar")}
    trainer = toy_trainer(tmp_path / "run", dataset, toy_config(dataset))
    trainer.run(2)
    for path, content in whole.items():
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ShardError, match=r"samples-0000\d\.tar"):
        toy_trainer(tmp_path / "run", dataset, toy_config(dataset)).run()
    for path, content in whole.items():
        path.write_bytes(content)
    resumed = toy_trainer(tmp_path / "run", dataset, toy_config(dataset))
    assert resumed.step == 2
    resumed.run()


@pytest.mark.parametrize("when", ["before writing", "while writing"])
def test_a_full_disk_loses_no_earlier_state(when, tmp_path, dataset, monkeypatch):
    trainer = toy_trainer(tmp_path / "run", dataset, toy_config(dataset))
    trainer.run(2)
    if when == "before writing":
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    else:

        def full(tensors, path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(run_folder, "_write_tensors", full)
    with pytest.raises(TrainingError, match=r"full.*state of step 2 is kept"):
        trainer.run()
    monkeypatch.undo()
    run = RunFolder(tmp_path / "run")
    assert run.steps() == [2] and not list(run.folder.glob("partial-*"))
    assert run.read_state().step == 2


def test_a_damaged_state_is_named(tmp_path, dataset):
    toy_trainer(tmp_path / "run", dataset, toy_config(dataset)).run(2)
    path = RunFolder(tmp_path / "run").state_folder(2) / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"adapter\.safetensors"):
        toy_trainer(tmp_path / "run", dataset, toy_config(dataset))


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    with (
        RunFolder(tmp_path).locked(),
        pytest.raises(TrainingError, match="another process"),
        RunFolder(tmp_path).locked(),
    ):
        pass


def test_the_configuration_on_disk_is_the_runs(tmp_path, dataset):
    config, run = toy_config(dataset), RunFolder(tmp_path / "run")
    run.start(config)
    assert run.config() == config and run.config().shape == SHAPE
    (run.folder / "run.json").write_text(json.dumps({"format": 7}))
    with pytest.raises(TrainingError, match=r"run\.json is damaged"):
        run.config()
    with pytest.raises(TrainingError, match="has no run"):
        RunFolder(tmp_path / "nowhere").config()


def test_the_learning_rate_rises_then_falls_to_zero():
    settings = replace(SETTINGS, steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0 and rates[-1] < 0.001
    assert all(a >= b for a, b in pairwise(rates[9:]))
    constant = replace(settings, decay="constant")
    assert learning_rate(constant, 99) == 1.0 and learning_rate(constant, 4) == 0.5


def test_draws_follow_wans_shifted_schedule_and_the_position_alone():
    flow = FlowMatching(replace(SETTINGS, shift=5.0))
    draws = [flow.draw((1, 1, 1, 1, 1), position) for position in range(2000)]
    # Of a uniform u, sigma is above one half where u is above 1 / (1 + shift).
    share = sum(draw.sigma > 0.5 for draw in draws) / len(draws)
    assert abs(share - 5 / 6) < 0.03
    assert all(abs(1000 * draw.sigma - draw.timestep.item()) < 1e-2 for draw in draws)
    again = flow.draw((1, 1, 1, 1, 1), 1234)
    assert torch.equal(again.noise, draws[1234].noise) and again.sigma == draws[1234].sigma
    middle = max(draws, key=lambda draw: draw.weight)
    assert abs(middle.sigma - 0.5) < 0.05
    assert {flow.draw((1,), 0).weight for flow in [FlowMatching(replace(SETTINGS, loss_weight="uniform"))]} == {1.0}

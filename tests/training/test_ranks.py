"""Several processes train one adapter, as accelerate's launcher starts them; here two of them, on the CPU."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.random_weights import write_models
from ex4d.subprocesses import module_environment
from ex4d.training.run_folder import RunFolder
from ex4d.training.session import Session
from ex4d_core.errors import RequestError
from tests.training.toy_runs import toy_config, toy_dataset, toy_trainer

RANK = Path(__file__).with_name("rank_of_toy.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A folder in which two processes have trained, and what each of them said and ended with."""
    folder, port = tmp_path_factory.mktemp("ranks"), free_port()
    toy_dataset(folder / "data", 3, 3)
    models = write_models(folder / "models-0", dit_dtype=torch.float32)
    shutil.copytree(models, folder / "models-1", ignore=shutil.ignore_patterns("*VAE*"))
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(RANK), str(folder)],
            env={**module_environment(), **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return folder, said, [process.returncode for process in processes]


@pytest.mark.parametrize("name", ["copies", "sharded"])
def test_two_processes_train_as_one_does(name, together, tmp_path):
    folder, said, _ = together
    dataset = toy_dataset(tmp_path / "data", 3, 3)
    alone = toy_trainer(tmp_path / "alone", dataset, toy_config(dataset, batch=4, steps=4))
    alone.run()
    state = RunFolder(folder / name).read_state()
    assert state is not None and state.step == 4, said
    expected = alone.adapter.tensors()
    assert state.adapter.keys() == expected.keys()
    # Gradients are summed in another order, which Adam's first steps can amplify.
    assert all(torch.allclose(state.adapter[key], value, atol=1e-4) for key, value in expected.items())


def test_a_process_that_fails_ends_the_others_with_its_reason(together):
    folder, said, codes = together
    assert codes == [1, 1], said
    assert "its GPU fell off the bus" in said[1]
    assert "process 0 ends, since process 1 failed: its GPU fell off the bus" in said[0]
    assert RunFolder(folder / "failing").steps() == [2]


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path, monkeypatch):
    dataset = toy_dataset(tmp_path / "data", 1)
    monkeypatch.setattr("accelerate.Accelerator.num_processes", property(lambda self: 3))
    with pytest.raises(RequestError, match="--batch 6"):
        toy_trainer(tmp_path / "run", dataset, toy_config(dataset, batch=4))
    # A session says so before it loads anything: there are no weights here.
    with pytest.raises(RequestError, match="--batch 6"):
        Session(RunFolder(tmp_path / "run"), toy_config(dataset, batch=4), tmp_path / "models").train("cpu")


def test_all_processes_take_part_in_samples_where_only_the_first_has_the_decoder(together):
    folder, said, _ = together
    assert RunFolder(folder / "sampled").steps() == [1], said
    assert [path.name for path in (folder / "sampled" / "samples").iterdir()] == ["step-00000001.mp4"]

"""The table of `ex4d bench train --part steps`, from measurements that are made up."""

import subprocess

import pytest

pytest.importorskip("accelerate", reason="training needs the extras train and wan")

from bench import training_steps
from bench.training_steps import Measured, StepCase, measure_steps


def test_the_table_tells_parameters_seconds_memory_costs_and_scaling(monkeypatch):
    alone = StepCase("80GB", 49, 512, 512)
    cases = [alone, StepCase("24GB", 25, 384, 384), StepCase("80GB", 49, 512, 512, gpus=2)]

    def run(case):
        if case.card == "24GB":
            raise subprocess.CalledProcessError(1, "python", stderr="torch.OutOfMemoryError: of memory")
        return Measured(3.6 if case.gpus == 1 else 4.0, 55.0, 2.0)

    monkeypatch.setattr(training_steps, "_cases", lambda: cases)
    monkeypatch.setattr(training_steps, "_run", run)
    rows = {row.what: row for row in measure_steps()}
    assert rows["trained parameters"].figure == "99.8 M"
    assert rows["step, --card 80GB"].figure == "3.60 s"
    assert "peak 55.0 GB" in rows["step, --card 80GB"].remark and "TFLOP/s" in rows["step, --card 80GB"].remark
    assert rows["a run of 100,000 samples"].figure == "100 h"
    assert rows["step, --card 24GB"].figure == "failed" and "OutOfMemory" in rows["step, --card 24GB"].remark
    assert rows["2 GPUs, a copy each (DDP)"].figure == "1.80 x"

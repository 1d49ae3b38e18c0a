"""`ex4d evaluate --generate`: takes of a data set's clips by a protocol, made once, and measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ex4d
from ex4d.cli.main import main
from ex4d.evaluation import EvaluationError
from ex4d.evaluation.protocols import Protocol
from ex4d.pipeline import take_folder
from ex4d_core.wan_settings import wan_preset

TWO_SEEDS = """
title = "Two seeds"
frames = 3
size = [48, 32]
seeds = [0, 7]
reference = "source"
metrics = ["seen_psnr"]
"""


@pytest.fixture
def data(tmp_path, write_movie) -> Path:
    """A clip with depth and a camera, one without either, and a protocol beside them."""
    clip = tmp_path / "data" / "street" / "garden"
    clip.mkdir(parents=True)
    columns, rows = np.meshgrid(np.arange(96), np.arange(64))
    picture = np.stack([3 * rows, 2 * columns, 120 + 60 * np.sin(columns / 3)], axis=-1).astype(np.uint8)
    write_movie(clip / "source.mp4", [picture] * 3)
    np.save(clip / "depth.npy", np.repeat((2 + rows / 64)[None], 3, axis=0).astype(np.float32))
    scene = ex4d.reconstruct(clip / "source.mp4", tmp_path / "scene", depth=clip / "depth.npy", fov=50)
    ex4d.render(scene, ex4d.orbit(10), size=(48, 32), frames=3).camera.save(clip / "camera.npz")
    write_movie(tmp_path / "data" / "bare" / "source.mp4", np.full((3, 32, 48, 3), 90, np.uint8))
    (tmp_path / "two.toml").write_text(TWO_SEEDS)
    return tmp_path / "data"


def test_takes_are_made_once_and_what_none_can_be_made_of_is_named(data, tmp_path, monkeypatch):
    command = ["evaluate", str(data), "--generate", "ours", "--protocol", str(tmp_path / "two.toml")]
    command += ["-o", str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 1
    first = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    rows = {row["task"]: row for row in first["results"]}
    for seed in (0, 7):
        take = tmp_path / "out" / "ours" / "street" / "garden" / f"seed-{seed}"
        assert json.loads((take / "request.json").read_text())["wan"]["seed"] == seed
        assert rows[f"street/garden/seed-{seed}"]["figures"]["seen_psnr"] > 25
    assert any("bare has no depth, from which a take is rendered" in problem for problem in first["problems"])

    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(take_folder, "generate_take", refuse)
    assert main(command) == 1
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["results"] == first["results"]


@pytest.mark.parametrize("name", ["cache", "report.html", "..", "a/b"])
def test_names_that_the_report_needs_are_refused(name, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--generate", name, "-o", str(tmp_path / "out")]) == 1
    assert f"--generate: {name!r}" in capsys.readouterr().err


def test_the_protocol_has_the_engine_and_its_settings(tmp_path):
    assert Protocol.load("ex4d-paper").generate.engine == "wan"
    assert Protocol.load("ex4d-paper").generate.wan == wan_preset("ex4d-reference")
    assert Protocol.load("with-truth").generate.engine == "preview"
    own = tmp_path / "own.toml"
    own.write_text(TWO_SEEDS + '[generate]\nengine = "wan"\npreset = "draft"\nsteps = 7\n')
    assert Protocol.load(str(own)).generate.wan == wan_preset("draft", steps=7)
    for wrong in ('engine = "other"', 'preset = "other"', "steps = -1", "colour = 3"):
        own.write_text(TWO_SEEDS + f"[generate]\n{wrong}\n")
        with pytest.raises(EvaluationError, match=r"protocol own: \[generate\]: "):
            Protocol.load(str(own))

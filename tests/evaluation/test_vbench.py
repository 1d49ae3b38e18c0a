"""VBench's figures: its command measures the folders that an evaluation writes, and its files are read back."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from ex4d.evaluation import Method, evaluate
from ex4d.evaluation.protocols import Protocol
from ex4d.evaluation.report_files import heading, markdown
from ex4d.evaluation.vbench import DIMENSIONS
from ex4d.media import probe

PROTOCOL = """
title = "VBench"
frames = 4
size = [32, 32]
seeds = [0]
reference = "source"
metrics = ["vbench"]
"""


@pytest.fixture
def run(tmp_path, write_movie):
    """Evaluates a method with two clips of its own size; returns the evaluation and the method's folder for VBench."""
    (tmp_path / "vbench.toml").write_text(PROTOCOL)
    for name, level in (("one", 60), ("two/deep", 120)):
        write_movie(tmp_path / "data" / name / "source.mp4", np.full((4, 32, 32, 3), level, np.uint8))
        write_movie(tmp_path / "our takes" / f"{name}.mp4", np.full((5, 48, 64, 3), level, np.uint8))

    def evaluated():
        methods, protocol = [Method("our takes", tmp_path / "our takes")], Protocol.load(str(tmp_path / "vbench.toml"))
        found = evaluate(tmp_path / "data", methods, protocol, tmp_path / "work")
        return found, tmp_path / "work" / "vbench" / "our takes"

    return evaluated


def write_results(folder: Path, videos: dict[str, float], dimensions=DIMENSIONS) -> None:
    """A file as VBench's command writes it."""
    stored = {}
    for dimension in dimensions:
        scale = 100 if dimension == "imaging_quality" else 1
        each = [{"video_path": f"videos/{name}", "video_results": scale * value} for name, value in videos.items()]
        stored[dimension] = [sum(videos.values()) / len(videos), each]
    (folder / "results_2025-01-01-10:00:00_eval_results.json").write_text(json.dumps(stored))


def test_videos_are_laid_out_measured_elsewhere_and_read_back(run, tmp_path, write_movie):
    found, folder = run()
    (problem,) = found.problems
    assert problem.startswith("VBench: not measured yet; ") and problem.endswith("(all results)")
    words = shlex.split(problem)
    assert words[words.index("cd") + 1] == str(folder) and "custom_input" in words and " ".join(DIMENSIONS) in words
    videos = sorted((folder / "videos").iterdir())
    assert [video.name.rpartition("-")[0] for video in videos] == ["one", "two__deep"]
    assert {(probe(video).width, probe(video).height, probe(video).frames) for video in videos} == {(32, 32, 4)}
    write_results(folder, {videos[0].name: 0.25, videos[1].name: 0.75})
    found, _ = run()
    assert found.problems == [] and set(found.table[0].figures) == {f"vbench/{name}" for name in DIMENSIONS}
    # Its own means: in percent for single videos of one dimension alone.
    assert all(figure.value == pytest.approx(0.5) for figure in found.table[0].figures.values())
    assert heading("vbench/imaging_quality") == "VBench, imaging quality ↑" and "VBench, motion" in markdown(found)
    # Another result of the same name has not been measured.
    write_movie(tmp_path / "our takes" / "one.mp4", np.full((4, 32, 32, 3), 200, np.uint8))
    found, _ = run()
    assert "(our takes/one)" in found.problems[0] and len(list((folder / "videos").iterdir())) == 2


def test_dimensions_that_are_missing_and_files_that_are_none_of_its_are_named(run):
    _, folder = run()
    videos = {video.name: 0.5 for video in (folder / "videos").iterdir()}
    write_results(folder, videos, DIMENSIONS[:-1])
    found, _ = run()
    assert "--dimension imaging_quality" in found.problems[0]
    assert found.table[0].figures["vbench/aesthetic_quality"].value == 0.5
    (folder / "a_eval_results.json").write_text("[1, 2]")
    found, _ = run()
    assert "a_eval_results.json is not a file of VBench's results" in found.problems[0]

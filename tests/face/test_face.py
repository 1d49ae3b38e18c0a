"""`import ex4d`: cheap to import, and every example in its docstrings does what it says."""

from __future__ import annotations

import doctest
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ex4d
from ex4d_core.errors import RequestError

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests" / "data" / "sample"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with clip.mp4 and depth.npz, as in the docstrings' examples."""
    folder = tmp_path_factory.mktemp("face")
    shutil.copyfile(SAMPLE / "footage.mp4", folder / "clip.mp4")
    shutil.copyfile(SAMPLE / "depth.npz", folder / "depth.npz")
    return folder


@pytest.mark.parametrize("name", ["reconstruct", "open_scene", "render", "generate"])
def test_the_docstrings_examples_do_what_they_say(name, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    if name != "reconstruct" and not Path("clip_scene").exists():  # that example made it, unless it was not selected
        ex4d.reconstruct("clip.mp4", depth="depth.npz", fov=55)
    examples = doctest.DocTestFinder(recurse=False).find(getattr(ex4d, name), name, globs={"ex4d": ex4d})
    assert examples and all(one.examples for one in examples)
    for one in examples:
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(one)
        assert (result.failed, result.attempted) == (0, len(one.examples))


def test_importing_it_loads_nothing_heavy():
    script = "import sys, ex4d; print([name for name in ('torch', 'warp', 'av', 'zmq', 'rich') if name in sys.modules])"
    paths = os.pathsep.join([str(ROOT / "backend"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_progress_is_reported_to_the_end_and_can_stop_the_work(small_scene):
    scene, reports = ex4d.open_scene(small_scene.folder), []
    ex4d.render(scene, ex4d.orbit(10), progress=lambda *report: reports.append(report))
    assert reports == [("render", done, 6) for done in range(1, 7)]

    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ex4d.render(scene, ex4d.orbit(10), progress=stop)


def test_the_identity_camera_gives_the_footage_back(small_scene):
    scene = ex4d.open_scene(small_scene.folder)
    views = ex4d.render(scene, scene.source_camera())
    assert views.mask.all() and np.array_equal(views.color, small_scene.color)


def test_views_are_saved_as_movies_or_as_arrays(small_scene, tmp_path):
    views = ex4d.render(ex4d.open_scene(small_scene.folder), ex4d.move("dolly_in", 0.2), frames=2)
    views.save(tmp_path / "movies", "in")
    assert {path.name for path in (tmp_path / "movies").iterdir()} == {"color_in.mp4", "mask_in.mp4", "camera_in.npz"}
    views.save(tmp_path / "views.npz")
    with np.load(tmp_path / "views.npz") as arrays:
        assert np.array_equal(arrays["color"], views.color) and np.array_equal(arrays["mask"], views.mask)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"occlusion": "closed"}, "occlusion .* 'closed'"),
        ({"steps": 0}, "steps .* 0"),
        ({"shiny": True}, "shiny"),
        ({"frames": 99}, "99 frames"),
    ],
)
def test_a_wrong_setting_is_named(small_scene, tmp_path, settings, names):
    scene = ex4d.open_scene(small_scene.folder)
    with pytest.raises(RequestError, match=names):
        ex4d.generate(scene, ex4d.orbit(10), tmp_path / "take", **settings)
    assert not (tmp_path / "take").exists()


def test_the_same_words_mean_the_same_on_the_command_line(small_scene, tmp_path):
    from ex4d.cli.main import main

    scene = ex4d.open_scene(small_scene.folder)
    settings = {"holes": "mark", "hole_color": (1, 2, 3)}  # both have the same default for occlusion
    take = ex4d.generate(scene, ex4d.orbit(20), tmp_path / "a", **settings)
    command = ["generate", str(small_scene.folder), "--preset", "orbit", "--amount", "20", "-o", str(tmp_path / "b")]
    assert main([*command, "--holes", "mark", "--hole-color", "1,2,3"]) == 0
    for index, frame in enumerate(take.frames):
        ours, theirs = (tmp_path / folder / f"frame_{index:05d}.png" for folder in "ab")
        assert ours.read_bytes() == theirs.read_bytes() and frame.shape == (32, 48, 3)

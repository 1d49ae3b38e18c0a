"""Scenes with ray-cast truth as a data set, and methods' own masks measured against what was really seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.evaluation import EvaluationError, Method
from ex4d.evaluation.clip_scene import ClipInputs, KnownViews
from ex4d.evaluation.clips import Frames
from ex4d.evaluation.datasets import load_clips
from ex4d.evaluation.datasets.true_scenes import shots
from ex4d.evaluation.mask_measures import mask_figures
from ex4d.evaluation.protocols import Protocol
from ex4d.media import write_png
from true_scenes import TrueScene, load_committed, save_scene


@pytest.fixture(scope="module")
def scene() -> TrueScene:
    """A courtyard through which the camera moves, with two views of one name, which are no shot, and another."""
    courtyard = load_committed("courtyard")
    chosen = {view.name: view for view in courtyard.views}
    views = (chosen["orbit 30"], replace(chosen["dolly_out 0.4"], name="orbit 30"), chosen["crane 0.5"])
    return replace(courtyard, views=views)


@pytest.fixture(scope="module")
def data(scene, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    save_scene(scene, folder / "courtyard.npz")
    return folder


def test_each_view_is_a_clip_with_its_truth(data, scene, tmp_path):
    layout, clips = load_clips(data, tmp_path)
    assert layout.name == "true-scenes"
    frames = [view.frame for view in scene.views]
    assert [clip.name.partition("/")[2] for clip in clips] == [
        f"orbit_30_{frames[0]:03d}",
        f"orbit_30_{frames[1]:03d}",
        "crane_0.5",
    ]
    for clip, view in zip(clips, scene.views, strict=True):
        assert clip.source and clip.truth and clip.seen and clip.camera
        assert np.array_equal(Frames(clip.source).array(), scene.color[[view.frame]])
        assert np.array_equal(Frames(clip.truth).array()[0], view.color)
        assert np.array_equal(Frames(clip.seen).array()[0, ..., 0] > 127, view.visible)
        np.testing.assert_allclose(clip.camera.world_to_camera, view.camera.world_to_camera)


def test_the_footage_lands_on_the_true_view_of_a_camera_that_moved(data, tmp_path):
    clip = load_clips(data, tmp_path)[1][-1]
    protocol = replace(Protocol.load("with-truth"), metrics=("seen_psnr",))
    inputs = ClipInputs.prepare(clip, protocol, tmp_path, "cpu")
    assert inputs.scene is not None
    known = KnownViews.of(inputs.tasks[0], inputs.scene, protocol, "cpu")
    assert known.truth and known.render is not None and known.seen is not None and known.rendered is not None
    figures = mask_figures(known.rendered[0], known.seen[0], known.render[0], known.truth.array()[0])
    assert figures["mask_iou"] > 0.9 and figures["mask_psnr"] > 25


def test_views_of_frames_that_follow_each_other_are_one_shot():
    names = ["orbit 30", "crane 0.5", "orbit 30", "orbit 30", "crane 0.5", "crane 0.5"]
    assert list(shots(names, [1, 4, 0, 2, 5, 9])) == [
        ("crane_0.5_004", [1, 4]),
        ("orbit_30", [2, 0, 3]),
        ("crane_0.5_009", [5]),
    ]


def test_shots_whose_names_differ_by_a_space_or_a_capital_have_folders_of_their_own():
    names = ["orbit 30", "orbit_30", "Orbit 30", "orbit 30 004"]
    assert [name for name, _ in shots(names, [4, 4, 9, 1])] == [
        "orbit_30_004",
        "orbit_30_004_2",
        "Orbit_30_009",
        "orbit_30_004_3",
    ]


@pytest.mark.parametrize("name", ["../kept", "{kept}", "..", "", "a\\b", "C:", "a\0b"])
def test_a_name_that_is_a_path_removes_and_writes_nothing(name, scene, tmp_path):
    kept = tmp_path / "work" / "datasets" / "kept"
    kept.mkdir(parents=True)
    (kept / "mine.txt").write_text("mine")
    views = (scene.views[0], replace(scene.views[-1], name=name.format(kept=kept)))
    (tmp_path / "data").mkdir()
    save_scene(replace(scene, views=views), tmp_path / "data" / "courtyard.npz")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EvaluationError, match=r"courtyard\.npz.*invalid name"):
        load_clips(tmp_path / "data", tmp_path / "work")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_scene_is_named(data, tmp_path):
    whole = (data / "courtyard.npz").read_bytes()
    broken = tmp_path / "scenes" / "broken.npz"
    broken.parent.mkdir()
    middle = len(whole) // 2
    broken.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(EvaluationError, match=r"broken\.npz"):
        load_clips(broken.parent, tmp_path / "work")


@pytest.fixture
def results(scene, data, tmp_path) -> Path:
    """What is true, with the true masks; and the same with what lies in the left half called seen."""
    for clip, view in zip(load_clips(data, tmp_path / "work")[1], scene.views, strict=True):
        left = np.zeros_like(view.visible)
        left[:, : left.shape[1] // 2] = True
        for name, mask in (("true", view.visible), ("left", left)):
            for place, image in ((clip.name, view.color), (f"{clip.name}.mask", mask)):
                (tmp_path / name / place).mkdir(parents=True)
                write_png(tmp_path / name / place / "0000.png", image)
    return tmp_path


def test_masks_are_measured_against_what_was_seen(scene, data, results):
    words = [f"--results={name}={results / name}" for name in ("true", "left")]
    out = results / "report"
    assert main(["evaluate", str(data), *words, "--protocol", "masks", "-o", str(out), "--device", "cpu"]) == 0
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    true, left = ({name: one["value"] for name, one in row["figures"].items()} for row in report["table"])
    assert (true["mask_false"], true["mask_missed"], true["mask_iou"], true["mask_psnr"]) == (0, 0, 1, 108)
    halves = [view.visible[:, : view.visible.shape[1] // 2] for view in scene.views]
    rest = [view.visible[:, view.visible.shape[1] // 2 :] for view in scene.views]
    assert left["mask_false"] == pytest.approx(np.mean([50 * (~half).mean() for half in halves]))
    assert left["mask_missed"] == pytest.approx(np.mean([50 * half.mean() for half in rest]))
    both = [half.sum() / (half.size + other.sum()) for half, other in zip(halves, rest, strict=True)]
    assert left["mask_iou"] == pytest.approx(np.mean(both))
    assert left["mask_psnr"] == 108 and left["mask_specks"] == 0


def test_results_without_masks_are_named_and_pictures_measured(data, results, capsys):
    for masks in (results / "true" / "courtyard").glob("*.mask"):
        masks.rename(masks.with_suffix(".other"))
    text = Protocol.load("masks")
    protocol = results / "both.toml"
    metrics = json.dumps([*text.metrics, "psnr"])
    protocol.write_text(
        f'title = "Both"\nframes = 0\nsize = []\nseeds = [0]\nreference = "truth"\nmetrics = {metrics}\n'
    )
    words = [f"--results=true={results / 'true'}", "--protocol", str(protocol), "-o", str(results / "out")]
    assert main(["evaluate", str(data), *words, "--device", "cpu"]) == 1
    report = json.loads((results / "out" / "report.json").read_text(encoding="utf-8"))
    assert any("NAME.mask" in problem for problem in report["problems"])
    assert report["table"][0]["figures"]["psnr"]["value"] == 108


def test_a_take_has_its_masks_in_its_folder(data, results):
    clip = load_clips(data, results / "work")[1][0]
    (task,) = Protocol.load("masks").tasks(clip, None)
    take = results / "takes" / task.name
    take.mkdir(parents=True)
    for name in ("take.mp4", "mask.mp4"):
        (take / name).touch()
    assert Method("takes", results / "takes").find_masks(task) == take / "mask.mp4"
    (take / "mask.mp4").unlink()
    assert Method("takes", results / "takes").find_masks(task) is None

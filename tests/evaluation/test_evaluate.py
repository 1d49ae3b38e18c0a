"""Whole evaluations of a rendered clip whose new view is known: figures, reports, what is missing, and going on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ex4d
from ex4d.cli.main import main
from ex4d.evaluation import EvaluationError, Method, evaluate
from ex4d.evaluation.camera_measures import camera_errors
from ex4d.evaluation.datasets import load_clips
from ex4d.evaluation.measuring import ResultRow
from ex4d.evaluation.protocols import Protocol, protocol_names
from ex4d.evaluation.user_study import Votes, count_votes, pairs_of
from ex4d.machine import MachineSettings
from ex4d_core.cameras import CameraPath, look_at

FRAMES, SIDE = 12, 192
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
TRY = f"""
title = "Try"
frames = {FRAMES}
size = []
seeds = [0]
reference = "truth"
metrics = ["psnr", "seen_psnr", "flicker", "camera_rotation", "camera_translation", "camera_matrix", "fid"]
"""


@pytest.fixture(scope="session")
def place(tmp_path_factory, write_movie) -> Path:
    """A data set of one clip and, beside it, results: the truth itself, and the same four times as dark."""
    place = tmp_path_factory.mktemp("evaluation")
    clip = place / "data" / "street" / "garden"
    clip.mkdir(parents=True)
    shutil.copy(SAMPLE / "footage.mp4", clip / "source.mp4")
    shutil.copy(SAMPLE / "depth.npz", clip / "depth.npz")
    scene = ex4d.reconstruct(clip / "source.mp4", place / "scene", depth=clip / "depth.npz", fov=50, frames=FRAMES)
    views = ex4d.render(scene, ex4d.orbit(12), size=(SIDE, SIDE), frames=FRAMES)
    views.camera.save(clip / "camera.npz")
    write_movie(clip / "truth.mp4", views.color)
    for method, frames in (("same", views.color), ("dark", views.color // 4)):
        write_movie(place / method / "street" / "garden.mp4", frames)
    write_movie(place / "still" / "street" / "garden.mp4", np.repeat(views.color[:1], FRAMES, axis=0))
    (place / "try.toml").write_text(TRY)
    return place


@pytest.fixture(scope="session")
def evaluated(place, random_models):
    """The evaluation of all three methods, and the files of its report."""
    out = place / "report"
    words = [f"--results={name}={place / name}" for name in ("same", "dark", "still")]
    command = ["evaluate", str(place / "data"), *words, "--protocol", str(place / "try.toml"), "-o", str(out)]
    code = main([*command, "--models", str(random_models), "--device", "cpu", "--study"])
    return code, json.loads((out / "report.json").read_text(encoding="utf-8")), out


def figures_of(report: dict, method: str) -> dict[str, float]:
    row = next(row for row in report["results"] if row["method"] == method)
    return row["figures"]


def test_the_truth_has_the_best_figures_and_the_asked_for_camera(evaluated):
    code, report, _ = evaluated
    assert report["problems"] == []
    # Everything was measured, yet one result is suspicious, and FID of few samples: the exit code says so, too.
    assert code == 1 and report["remarks"] == [
        "it is frozen, though its camera should move (still/street/garden)",
        "FID: of 12 samples only; figures are comparable between sets of one size (all results)",
    ]
    same, dark, still = (figures_of(report, method) for method in ("same", "dark", "still"))
    assert same["psnr"] > 60 > 20 > dark["psnr"]
    assert same["seen_psnr"] > dark["seen_psnr"] + 10
    # A camera that is as asked for is found so; one that stands still is said to stand still.
    assert same["camera_rotation"] < 0.5 and same["camera_translation"] < 0.01
    assert still["camera_rotation"] == pytest.approx(6, abs=0.1) and still["camera_translation"] > 0.4
    assert still["flicker"] < 0.1 < same["flicker"]
    table = {row["method"]: row["figures"] for row in report["table"]}
    assert table["same"]["fid"]["value"] == pytest.approx(0, abs=0.01)
    assert table["dark"]["fid"]["value"] > 1
    assert "of 12 samples only" in table["dark"]["fid"]["remark"]
    notes = {row["method"]: row["notes"] for row in report["results"]}
    assert notes["still"] == ["it is frozen, though its camera should move"] and notes["same"] == []


def test_reports_show_the_table_and_stand_alone(evaluated):
    _, _, out = evaluated
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "| same |  | 1 of 1 | **" in text and "PSNR, seen, dB ↑" in text
    assert "## What to mind" in text and "- it is frozen, though its camera should move (still/street/garden)" in text
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<video") == 4 and page.count('src="data:video/mp4;base64,') == 4
    assert "http" not in page.replace("http-equiv", "")
    study = (out / "study.html").read_text(encoding="utf-8")
    assert study.count("<video") == 6 and "http" not in study


def test_what_was_measured_is_not_measured_again(evaluated, place, random_models, monkeypatch):
    from ex4d.evaluation import measuring

    monkeypatch.setattr(
        measuring, "_MEASURES", tuple((_named(measure.__name__), wanted) for measure, wanted in measuring._MEASURES)
    )
    again = evaluate(
        place / "data",
        [Method("same", place / "same")],
        Protocol.load(str(place / "try.toml")),
        place / "report" / "cache",
        machine=MachineSettings(models=random_models),
    )
    assert again.rows[0].figures == figures_of(evaluated[1], "same")


def _named(name: str):
    """A measure of that name that refuses to work."""

    def refuse(*_):
        raise AssertionError("measured again")

    refuse.__name__ = name
    return refuse


def test_everything_that_is_missing_is_named_and_the_rest_measured(place, tmp_path, capsys):
    results = tmp_path / "results" / "street"
    results.mkdir(parents=True)
    (results / "garden.mp4").write_bytes(b"not a movie")
    words = [f"--results={name}={folder}" for name, folder in (("same", place / "same"), ("odd", tmp_path / "results"))]
    empty = tmp_path / "empty"
    empty.mkdir()
    command = ["evaluate", str(place / "data"), *words, f"--results=none={empty}", "-o", str(tmp_path / "out")]
    assert main([*command, "--protocol", str(place / "try.toml"), "--models", str(empty), "--device", "cpu"]) == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert figures_of(report, "same")["psnr"] > 60
    told = " ".join(report["problems"])
    assert "its weights are not here: run ex4d models fetch evaluation-inception (same/street/garden)" in told
    assert "(none/street/garden)" in told and "garden.mp4" in told and "(odd/street/garden)" in told
    assert "evaluation-inception" in capsys.readouterr().err


def test_results_of_other_lengths_and_sizes_are_fitted_and_said(place, tmp_path, write_movie):
    frames = [np.full((64, 128, 3), 90, np.uint8)] * (FRAMES - 3)
    write_movie(tmp_path / "street" / "garden.mp4", frames)
    protocol = tmp_path / "psnr.toml"
    protocol.write_text(TRY.replace(TRY[TRY.index("metrics") :], 'metrics = ["psnr"]\n'))
    found = evaluate(place / "data", [Method("short", tmp_path)], Protocol.load(str(protocol)), tmp_path / "work")
    assert found.rows[0].notes == (
        f"128x64 was cropped to 64x64 and resized to {SIDE}x{SIDE}",
        f"it has {FRAMES - 3} frames in place of {FRAMES}: 3 are missing",
        "it is frozen, though its camera should move",
    )
    assert "psnr" in found.rows[0].figures


def path_with(degrees: float = 0.0, away: float = 0.0) -> CameraPath:
    """An arc, seen from a camera that is off by an angle and by a share of the arc, growing over time."""
    time = np.linspace(0, 1, 20)
    eye = np.stack([np.sin(time) * 2 + away * time * 2, 0 * time, 2 - 2 * np.cos(time)], axis=1)
    poses = look_at(eye, np.array([0.0, 0.0, 2.0]))
    angle = np.radians(degrees) * time
    turn = np.repeat(np.eye(4)[None], 20, axis=0)
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 0, 1], turn[:, 1, 0] = -np.sin(angle), np.sin(angle)
    return CameraPath(turn @ poses, np.array([[100, 0, 50], [0, 100, 50], [0, 0, 1.0]]), 100, 100)


def test_camera_errors_grow_with_the_cameras():
    asked = path_with()
    poses = asked.world_to_camera.copy()
    poses[:, :3, 3] *= 7.3  # a recovered path has no unit
    scaled = CameraPath(poses, asked.intrinsics, *asked.size)
    assert all(value == pytest.approx(0, abs=1e-6) for value in camera_errors(asked, scaled).values())
    turned = [camera_errors(asked, path_with(degrees))["camera_rotation"] for degrees in (1, 3, 10)]
    assert turned == pytest.approx([0.5, 1.5, 5], rel=1e-3)
    away = [camera_errors(asked, path_with(away=share)) for share in (0.05, 0.2, 0.8)]
    for name in ("camera_translation", "camera_matrix"):
        assert [one[name] for one in away] == sorted(one[name] for one in away) and away[0][name] > 0


def test_camera_errors_are_those_of_their_definitions_by_scipy():
    from scipy.spatial.transform import Rotation

    asked, random = path_with(), np.random.default_rng(0)
    noise = np.repeat(np.eye(4)[None], len(asked), axis=0)
    noise[:, :3, :3] = Rotation.from_rotvec(random.normal(0, 0.05, (len(asked), 3))).as_matrix()
    noise[:, :3, 3] = random.normal(0, 0.05, (len(asked), 3))
    other = CameraPath(noise @ asked.world_to_camera, asked.intrinsics, *asked.size)
    there, found = (path.world_to_camera @ np.linalg.inv(path.world_to_camera[0]) for path in (asked, other))
    turns = Rotation.from_matrix(found[:, :3, :3] @ there[:, :3, :3].swapaxes(1, 2))
    here, away = (np.linalg.inv(poses)[:, :3, 3] for poses in (there, found))
    length = np.linalg.norm(np.diff(here, axis=0), axis=1).sum()
    scale = np.linalg.lstsq(away.reshape(-1, 1), here.ravel(), rcond=None)[0][0]
    there[:, :3, 3] /= length
    found[:, :3, 3] *= scale / length
    assert camera_errors(asked, other) == pytest.approx(
        {
            "camera_rotation": np.degrees(turns.magnitude()).mean(),
            "camera_translation": np.linalg.norm(scale * away - here, axis=1).mean() / length,
            "camera_matrix": np.linalg.norm((found - there).reshape(len(asked), -1), axis=1).mean(),
        },
        rel=1e-6,
    )


def test_a_still_camera_is_right_where_one_was_asked_for():
    still = CameraPath(np.repeat(np.eye(4)[None], 5, axis=0), np.diag([100, 100, 1.0]), 100, 100)
    assert camera_errors(still, still) == {"camera_rotation": 0, "camera_translation": 0, "camera_matrix": 0}
    moving = path_with().frames(0, 5)
    assert set(camera_errors(still, moving)) == {"camera_rotation"}


def test_protocols_of_the_package_load_and_say_what_they_leave_open():
    assert protocol_names() == ["ex4d-paper", "masks", "single-views", "with-truth"]
    paper = Protocol.load("ex4d-paper")
    assert [(one.name, one.degrees) for one in paper.ranges] == [
        *(("small", (0, 30)), ("large", (0, 60)), ("extreme", (0, 90)), ("full", (-90, 90)))
    ]
    assert len(paper.open) == 6 and Protocol.load("with-truth").ranges == ()
    with pytest.raises(EvaluationError, match="no protocol 'else'; there are ex4d-paper, masks, single-views, w"):
        Protocol.load("else")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("metrics = 3", "cannot be used"),
        ('metrics = ["beauty"]', "no metric 'beauty'; there are psnr"),
        ("", "'metrics' is missing"),
        ('metrics = ["psnr"]\nspeed = 1', "unknown 'speed'"),
    ],
)
def test_protocols_that_cannot_be_used_are_refused(changed, message, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(TRY[: TRY.index("metrics")] + changed)
    with pytest.raises(EvaluationError, match=message):
        Protocol.load(str(path))


def test_ranges_turn_about_the_subject_from_their_first_angle_to_their_last(place):
    scene = ex4d.open_scene(place / "scene")
    clip = load_clips(place / "data", place)[1][0]
    tasks = {task.name: task for task in Protocol.load("ex4d-paper").tasks(clip, scene)}
    assert list(tasks) == [f"street/garden/{name}" for name in ("small", "large", "extreme", "full")]
    turned = tasks["street/garden/full"].camera.world_to_camera[:, :3, :3]
    between = turned[0] @ turned[-1].T
    assert np.degrees(np.arccos((np.trace(between) - 1) / 2)) == pytest.approx(180, abs=0.01)
    middle = tasks["street/garden/full"].camera.world_to_camera[24]
    assert np.allclose(middle, scene.source_camera().world_to_camera[0], atol=1e-9)
    with pytest.raises(EvaluationError, match="has no depth"):
        list(Protocol.load("ex4d-paper").tasks(clip, None))


def test_a_study_shows_pairs_in_random_order_and_its_answers_are_counted(evaluated, tmp_path, capsys):
    rows = [ResultRow(**row) for row in evaluated[1]["results"]]
    pairs = pairs_of(rows)
    assert {frozenset((pair.left, pair.right)) for pair in pairs} == {
        *(frozenset(("same", "dark")), frozenset(("same", "still")), frozenset(("dark", "still")))
    }
    assert pairs == pairs_of(rows) and any(
        [(one.left, one.right) for one in pairs] != [(one.left, one.right) for one in pairs_of(rows, seed=seed)]
        for seed in range(1, 9)
    )
    answers = tmp_path / "answers.csv"
    with answers.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerows(
            [["task", "left", "right", "choice"], ["a", "same", "dark", "left"], ["a", "dark", "same", "same"]]
        )
    assert count_votes([answers]) == {"same": Votes(1, 1, 2), "dark": Votes(0, 1, 2)}
    assert main(["evaluate", "--votes", str(answers)]) == 0
    assert "preferred in 75.0 % of 2 pairs" in capsys.readouterr().out
    answers.write_text("a,b\n1,2\n")
    with pytest.raises(EvaluationError, match="not a file that the page saves"):
        count_votes([answers])


@pytest.fixture
def quick(tmp_path) -> Path:
    """A protocol of another shape than the clip, without networks and solved cameras."""
    path = tmp_path / "quick.toml"
    wide = TRY.replace("size = []", "size = [256, 128]")
    path.write_text(wide[: wide.index("metrics")] + 'metrics = ["seen_psnr", "temporal_error"]\n')
    return path


def test_clips_of_another_shape_are_cropped_like_their_cameras(place, quick, tmp_path):
    found = evaluate(place / "data", [Method("same", place / "same")], Protocol.load(str(quick)), tmp_path / "work")
    assert found.problems == [] and found.rows[0].figures["seen_psnr"] > 25
    assert found.rows[0].notes == (f"{SIDE}x{SIDE} was cropped to {SIDE}x{SIDE // 2} and resized to 256x128",)


def test_black_and_featureless_results_are_named_and_the_rest_measured(tmp_path, write_movie):
    random, size = np.random.default_rng(0), (FRAMES, 64, 64, 3)
    for name in ("black", "plain"):
        clip = tmp_path / "data" / name
        clip.mkdir(parents=True)
        for kind in ("source", "truth"):
            write_movie(clip / f"{kind}.mp4", random.integers(60, 200, size, dtype=np.uint8))
        path_with().frames(0, FRAMES).save(clip / "camera.npz")
    plain = np.broadcast_to(60 + 9 * np.arange(FRAMES, dtype=np.uint8)[:, None, None, None], size)
    write_movie(tmp_path / "made" / "plain.mp4", plain)
    write_movie(tmp_path / "made" / "black.mp4", np.zeros(size, np.uint8))
    protocol = tmp_path / "own.toml"
    protocol.write_text(TRY[: TRY.index("metrics")] + 'metrics = ["psnr", "camera_rotation"]\n')
    made = [Method("made", tmp_path / "made")]
    found = evaluate(tmp_path / "data", made, Protocol.load(str(protocol)), tmp_path / "work")
    rows = {row.clip: row for row in found.rows}
    assert rows["black"].notes == ("it is black",) and rows["plain"].notes == ()
    for row in rows.values():
        assert set(row.figures) == {"psnr"}
        assert "no camera can be recovered" in row.missing["camera_rotation"]


def test_masks_that_are_too_short_and_single_frames_are_named(place, quick, tmp_path, write_movie):
    clip = tmp_path / "data" / "garden"
    clip.mkdir(parents=True)
    write_movie(clip / "source.mp4", np.zeros((FRAMES, 64, 64, 3), np.uint8))
    write_movie(clip / "truth.mp4", np.full((FRAMES, 64, 64, 3), 99, np.uint8))
    write_movie(tmp_path / "one" / "garden.mp4", np.full((1, 64, 64, 3), 99, np.uint8))
    methods, protocol = [Method("one", tmp_path / "one")], Protocol.load(str(quick))
    row = evaluate(tmp_path / "data", methods, protocol, tmp_path / "work").rows[0]
    assert row.missing["temporal_error"] == "one frame alone has no change in time"
    write_movie(clip / "seen.mp4", np.full((FRAMES - 1, 64, 64, 3), 255, np.uint8))
    row = evaluate(tmp_path / "data", methods, protocol, tmp_path / "work").rows[0]
    assert row.problem == f"one: garden: garden: the masks of what was seen have {FRAMES - 1} frames of {FRAMES}"


def test_a_clips_scene_is_made_anew_where_its_lens_changed(place, quick, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(place / "data", data)
    camera = CameraPath.load(data / "street" / "garden" / "camera.npz")
    methods, protocol = [Method("same", place / "same")], Protocol.load(str(quick))
    before = evaluate(data, methods, protocol, tmp_path / "work").rows[0].figures["seen_psnr"]
    longer = camera.intrinsics * np.array([[1.5, 1, 1], [1, 1.5, 1], [1, 1, 1]])
    CameraPath(camera.world_to_camera, longer, *camera.size).save(data / "street" / "garden" / "camera.npz")
    after = evaluate(data, methods, protocol, tmp_path / "work").rows[0].figures["seen_psnr"]
    assert len([one for one in (tmp_path / "work" / "scenes").iterdir() if one.is_dir()]) == 2 and after != before


def test_data_sets_without_clips_or_with_two_sources_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match="there is no data set"):
        load_clips(tmp_path / "none", tmp_path)
    with pytest.raises(EvaluationError, match="has no known layout"):
        load_clips(tmp_path, tmp_path / "work")
    with pytest.raises(EvaluationError, match=r"there is no layout 'foo': --layout takes one of these \(dycheck: "):
        load_clips(tmp_path, tmp_path / "work", "foo")
    (tmp_path / "clip").mkdir()
    for ending in ("mp4", "mov"):
        (tmp_path / "clip" / f"source.{ending}").touch()
    with pytest.raises(EvaluationError, match="keep one of them"):
        load_clips(tmp_path, tmp_path / "work")

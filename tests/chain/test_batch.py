"""`ex4d batch`: many shots of a file, checked before the work, made once, and reported."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import filelock
import numpy as np
import pytest

from ex4d.cli import batch_locks, batch_run
from ex4d.cli.batch_file import BatchError, read_batch
from ex4d.cli.batch_worker import device_words
from ex4d.cli.main import main
from ex4d.media import VideoWriter, probe
from ex4d.subprocesses import module_environment
from ex4d_core.scene import Scene

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "batch.md"
SIZE, FRAMES = 64, 4


@pytest.fixture
def clips(tmp_path) -> Path:
    """A folder with garden.mp4, its depth garden.npz, and street.mp4, of a near square before a far wall."""
    rng = np.random.default_rng(0)
    for name in ("garden", "street"):
        with VideoWriter(tmp_path / f"{name}.mp4", SIZE, SIZE, Fraction(24)) as movie:
            image = rng.integers(0, 256, (SIZE // 8, SIZE // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            for frame in range(FRAMES):
                movie.write(np.roll(image, frame, axis=1))
    depth = np.full((FRAMES, SIZE, SIZE), 4.0, np.float32)
    depth[:, 20:44, 20:44] = 2.0
    np.savez(tmp_path / "garden.npz", depth=depth)
    return tmp_path


@pytest.fixture
def processes(monkeypatch) -> list:
    """Every worker process that is started."""
    started = []

    class Counted(batch_run.ChildProcess):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(batch_run, "ChildProcess", Counted)
    return started


def write(folder: Path, text: str, name: str = "shots.toml") -> Path:
    (folder / name).write_text('[defaults]\ndepth = "garden.npz"\npreset = "orbit"\nsize = "32x32"\n' + text)
    return folder / name


def shot(name: str, footage: str = "garden.mp4", more: str = "") -> str:
    return f'[[shot]]\nname = "{name}"\nfootage = "{footage}"\n{more}\n'


def states(folder: Path) -> dict[str, str]:
    rows = json.loads((folder / "report.json").read_text())["shots"]
    return {row["name"]: row["state"] for row in rows}


def test_the_example_of_the_page_works_as_it_stands(clips, processes):
    text = re.search(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert text is not None
    (clips / "shots.toml").write_text(text[1])
    assert main(["batch", str(clips / "shots.toml")]) == 0
    out = clips / "shots"
    assert states(out) == {"garden_left": "done", "garden_right": "done", "garden_masks": "done"}
    assert probe(out / "garden_left" / "take.mp4").frames == FRAMES
    assert sorted(path.name for path in (out / "garden_masks").glob("*.mp4")) == ["color_30.mp4", "mask_30.mp4"]
    (scene,) = (out / "scenes").iterdir()
    lens = Scene.open(scene).source_camera().intrinsics[0, 0, 0]
    assert lens == pytest.approx(SIZE / 2 / np.tan(np.radians(55 / 2))), "an option of reconstruct reached it"
    assert json.loads((out / "garden_left" / "request.json").read_text())["label"] == "garden_left"
    assert len(processes) == 1, "all shots and their scene are made by one process"


def test_torch_is_in_the_worker_alone(clips):
    path = write(clips, shot("one"))
    script = "import sys; from ex4d.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "batch", str(path), "-q"],
        env=module_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert (clips / "shots" / "one" / "take.mp4").exists()


def test_what_is_finished_is_skipped_until_something_changes(clips, processes, capsys):
    path, out = write(clips, shot("one") + shot("two", more="amount = 5")), clips / "shots"
    assert main(["batch", str(path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["result"]["shots"]
    assert [row["state"] for row in rows] == ["done", "done"] and rows[0]["scene_state"] == "done"
    made = {one: one.stat().st_mtime_ns for one in out.rglob("*.png")}

    assert main(["batch", str(path)]) == 0
    assert states(out) == {"one": "skipped", "two": "skipped"} and len(processes) == 1, "nothing was started"
    assert made == {one: one.stat().st_mtime_ns for one in out.rglob("*.png")}

    write(clips, shot("one") + shot("two", more="amount = 9"))
    assert main(["batch", str(path)]) == 0
    assert states(out) == {"one": "skipped", "two": "done"}

    shutil.rmtree(out / "one")
    assert main(["batch", str(path)]) == 0
    assert states(out) == {"one": "done", "two": "skipped"}

    np.savez(clips / "garden.npz", depth=np.full((FRAMES, SIZE, SIZE), 3.0, np.float32))
    assert main(["batch", str(path)]) == 0
    assert states(out) == {"one": "done", "two": "done"}, "another depth is another scene"


def test_a_bad_shot_stops_no_other(clips, capsys):
    (clips / "broken.mp4").write_bytes((clips / "garden.mp4").read_bytes()[:100])
    path = write(clips, shot("bad", "broken.mp4") + shot("worse", "broken.mp4", "amount = 3") + shot("good"))
    assert main(["batch", str(path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in document["result"]["shots"]}
    assert {name: row["state"] for name, row in rows.items()} == {"bad": "failed", "worse": "failed", "good": "done"}
    assert "broken.mp4" in rows["bad"]["error"] and "broken.mp4" in rows["worse"]["error"]
    assert document["exit_code"] == 1

    shutil.copyfile(clips / "street.mp4", clips / "broken.mp4")
    assert main(["batch", str(path)]) == 0
    assert states(clips / "shots") == {"bad": "done", "worse": "done", "good": "skipped"}


def test_a_lost_process_costs_one_shot(clips, monkeypatch, processes):
    send = batch_run._Pool.send

    def send_and_kill(pool, worker, work, words):
        send(pool, worker, work, words)
        if work.out.name == "one":
            worker.process.kill()

    monkeypatch.setattr(batch_run._Pool, "send", send_and_kill)
    path = write(clips, shot("one") + shot("two", more="amount = 5"))
    assert main(["batch", str(path)]) == 1
    rows = json.loads((clips / "shots" / "report.json").read_text())["shots"]
    assert [row["state"] for row in rows] == ["failed", "done"] and len(processes) == 2
    assert "SIGKILL" in rows[0]["error"] or "exit code" in rows[0]["error"]
    monkeypatch.undo()
    assert main(["batch", str(path)]) == 0
    assert states(clips / "shots") == {"one": "done", "two": "skipped"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_an_interrupted_batch_keeps_what_is_finished(clips):
    path = write(clips, "".join(shot(f"s{number}", more=f"amount = {number}") for number in range(1, 40)))
    command = [sys.executable, "-m", "ex4d", "batch", str(path)]
    with subprocess.Popen(command, env=module_environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "1 of 39 shots" in line:
                process.send_signal(signal.SIGTERM)  # a shell's background job ignores SIGINT
                break
        process.stderr.read()
        assert process.wait() == 143
    before = states(clips / "shots")
    assert before["s1"] == "done" and "waiting" in before.values()
    assert not list((clips / "shots").rglob("*.partial")), "unfinished files were put away"
    assert main(["batch", str(path)]) == 0
    after = states(clips / "shots")
    assert after["s1"] == "skipped" and set(after.values()) <= {"done", "skipped"}


def test_two_batches_do_not_work_in_one_folder(clips, capsys, monkeypatch):
    monkeypatch.setattr(batch_locks, "LOOKING_SECONDS", 0)
    path = write(clips, shot("one"))
    (clips / "shots").mkdir()
    with filelock.FileLock(clips / "shots" / ".ex4d-batch.lock"):
        assert main(["batch", str(path)]) == 1
    assert "another 'ex4d batch'" in capsys.readouterr().err


def test_processes_make_single_shots_of_one_scene_side_by_side(clips):
    """As tasks of a farm do: both want the scene, which one of them makes."""
    path, out = write(clips, shot("one") + shot("two", more="amount = 5") + shot("three", more="amount = 7")), clips
    command = [sys.executable, "-m", "ex4d", "batch", str(path), "--json", "--device", "cpu", "--only"]
    how: dict = {"env": module_environment(), "stdout": subprocess.PIPE, "text": True}
    tasks = [subprocess.Popen([*command, name], **how) for name in ("one", "2")]
    reports = [json.loads(task.communicate()[0])["result"]["shots"] for task in tasks]
    assert [[row["name"] for row in rows] for rows in reports] == [["one"], ["two"]]
    assert [row["state"] for rows in reports for row in rows] == ["done", "done"]
    assert sorted(rows[0]["scene_state"] for rows in reports) == ["done", "skipped"], "the scene was made once"
    assert not (out / "shots" / "report.json").exists() and not (out / "shots" / "three").exists()
    assert main(["batch", str(path)]) == 0
    assert states(out / "shots") == {"one": "skipped", "two": "skipped", "three": "done"}


def test_scenes_alone_are_made_before_their_shots(clips, capsys):
    path = write(clips, shot("one") + shot("two", more="amount = 5"))
    assert main(["batch", str(path), "--scenes", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["disk"] > 0
    assert main(["batch", str(path), "--scenes", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["result"]["shots"]
    assert row["state"] == "done" and row["verb"] == "reconstruct"
    assert sorted(one.name for one in (clips / "shots").iterdir() if one.is_dir()) == [".ex4d-batch", "scenes"]
    assert main(["batch", str(path), "--only", "two", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["result"]["shots"]
    assert (row["state"], row["scene_state"]) == ("done", "skipped")


def test_a_single_shot_gives_way_to_whoever_makes_it(clips, capsys, monkeypatch):
    monkeypatch.setattr(batch_locks, "LOOKING_SECONDS", 0)
    path, folder = write(clips, shot("one") + shot("two", more="amount = 5")), clips / "shots"
    (folder / ".ex4d-batch").mkdir(parents=True)
    of_one = folder / ".ex4d-batch" / f"{batch_locks.state_name(folder / 'one')}.lock"
    with filelock.FileLock(of_one):
        assert main(["batch", str(path), "--only", "one"]) == 1
        assert "another 'ex4d batch' makes the shot one" in capsys.readouterr().err
        assert main(["batch", str(path)]) == 1
        assert "another 'ex4d batch --only'" in capsys.readouterr().err
    with filelock.FileLock(folder / ".ex4d-batch.lock"):
        assert main(["batch", str(path), "--only", "one"]) == 1
    assert "leave --only out" in capsys.readouterr().err
    assert main(["batch", str(path), "--only", "three"]) == 1
    assert "has no shot three; it has 2: one, two" in capsys.readouterr().err


def test_what_an_earlier_version_has_finished_is_skipped(clips):
    path = write(clips, shot("one"))
    assert main(["batch", str(path)]) == 0
    kept = [json.loads(one.read_text()) for one in (clips / "shots" / ".ex4d-batch").glob("*.json")]
    shutil.rmtree(clips / "shots" / ".ex4d-batch")
    (clips / "shots" / ".ex4d-batch.json").write_text(json.dumps({entry.pop("out"): entry for entry in kept}))
    assert main(["batch", str(path)]) == 0
    assert states(clips / "shots") == {"one": "skipped"}


def test_workers_share_the_shots_of_one_scene(clips, processes):
    path = write(clips, shot("one") + shot("two", more="amount = 5") + shot("three", more="amount = 7"))
    assert main(["batch", str(path), "--device", "cpu", "--device", "cpu"]) == 0
    assert len(processes) == 2
    assert set(states(clips / "shots").values()) == {"done"}
    assert len(list((clips / "shots" / "scenes").iterdir())) == 1


def test_several_gpus_are_for_takes_and_a_backend_has_its_own():
    assert device_words("generate", [], "cuda:0+1") == ["--device=cuda:0+1"]
    assert device_words("reconstruct", [], "cuda:0+1") == ["--device=cuda:0"]
    assert device_words("generate", ["scene", "--backend=tcp://gpu-box:47747"], "cpu") == []


def test_all_mistakes_are_told_before_any_work(clips, capsys):
    text = (
        shot("one", "missing.mp4")
        + shot("two", more='amont = 3\nholes = "glow"')
        + shot("three", more='frames = 0\ncamera = "missing.npz"')
        + shot("three")
        + shot("four", more='out = "shots/five"\ndevice = "cpu"')
        + shot("five")
        + '[[shot]]\nname = "six"\n'
        + shot("a/b")
    )
    assert main(["batch", str(write(clips, text))]) == 1
    told = capsys.readouterr().err
    for part in (
        "shot one: footage:",
        "amont is not an option of generate or reconstruct; do you mean amount?",
        "holes: invalid choice: 'glow'",
        "'0'",
        "shot three: camera:",
        "2 shots have the name three",
        "device is set for the whole batch",
        "shot six: footage is missing",
        "shot a/b: name",
    ):
        assert part in told, part
    assert not (clips / "shots").exists()


def test_two_shots_cannot_have_one_output_or_one_scene_folder_with_other_options(clips):
    with pytest.raises(BatchError, match="2 shots have the output"):
        read_batch(write(clips, shot("one", more='out = "x"') + shot("two", more='out = "x"')), clips / "shots")
    two = shot("one", more='scene = "s"') + shot("two", more='scene = "s"\nfov = 30')
    with pytest.raises(BatchError, match="another shot reconstructs"):
        read_batch(write(clips, two), clips / "shots")


def test_a_csv_says_the_same_as_toml(clips):
    toml = write(clips, shot("one", more="fov = 55\namount = -20\nmesh = true") + shot("two", more="fov = 55"))
    with open(clips / "shots.csv", "w", newline="", encoding="utf-8-sig") as file:
        rows = csv.writer(file)
        rows.writerow(["depth", "preset", "size", "name", "footage", "fov", "amount", "mesh"])
        rows.writerow(["garden.npz", "orbit", "32x32", "one", "garden.mp4", "55", "-20", "yes"])
        rows.writerow(["garden.npz", "orbit", "32x32", "two", "garden.mp4", "55", "", ""])
    assert read_batch(clips / "shots.csv", clips / "out") == read_batch(toml, clips / "out")
    one, two = read_batch(toml, clips / "out")
    assert one.scene != two.scene, "with positions for Blender it is another scene"


def test_an_option_can_go_to_one_of_the_verbs(clips):
    (one,) = read_batch(write(clips, shot("one", more="generate.frames = 2")), clips / "out")
    assert one.scene is not None and one.view.options.frames == 2
    with pytest.raises(BatchError, match=r"reconstruct\.amount is not an option"):
        read_batch(write(clips, shot("one", more="reconstruct.amount = 2")), clips / "out")


def test_a_shot_of_a_scene_that_is_there_needs_no_footage(clips, small_scene):
    path = clips / "shots.toml"
    path.write_text(f'[[shot]]\nname = "one"\nscene = "{small_scene.folder}"\npreset = "truck"\n')
    assert main(["batch", str(path)]) == 0
    assert probe(clips / "shots" / "one" / "take.mp4").frames == len(small_scene.color)
    path.write_text('[[shot]]\nname = "one"\nscene = "nowhere"\n')
    with pytest.raises(BatchError, match="nowhere does not exist"):
        read_batch(path, clips / "out")


def test_nothing_is_replaced_that_the_batch_has_not_made(clips, capsys):
    path = write(clips, shot("one") + shot("two", more='scene = "kept"'))
    plate = clips / "shots" / "one" / "frame_00000.png"
    for file in (plate, clips / "kept" / "manifest.json"):
        file.parent.mkdir(parents=True)
        file.write_text("somebody's")
    assert main(["batch", str(path)]) == 1
    told = capsys.readouterr().err
    assert str(plate.parent) in told and str(clips / "kept") in told
    assert plate.read_text() == "somebody's" and not (clips / "shots" / "report.json").exists()


@pytest.mark.parametrize(
    ("name", "text"), [("a.toml", "[[shot"), ("b.toml", "x = 1"), ("c.toml", ""), ("d.csv", "name\n")]
)
def test_a_file_that_is_no_batch_is_refused(clips, name, text):
    (clips / name).write_text(text)
    with pytest.raises(BatchError, match=re.escape(name)):
        read_batch(clips / name, clips / "out")


def test_a_dry_run_estimates_what_is_left_and_makes_nothing(clips, capsys):
    path = write(clips, shot("one") + shot("two", more="amount = 5"))
    assert main(["batch", str(path), "--dry-run", "--json"]) == 0
    estimated = json.loads(capsys.readouterr().out)["result"]["disk"]
    assert not (clips / "shots").exists()
    assert main(["batch", str(path)]) == 0
    made = [one for folder in ("one", "two", "scenes") for one in (clips / "shots" / folder).rglob("*")]
    assert estimated == pytest.approx(sum(one.stat().st_size for one in made if one.is_file()), rel=0.25)
    capsys.readouterr()
    assert main(["batch", str(path), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["disk"] == 0, "all is done"

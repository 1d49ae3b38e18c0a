"""`ex4d jobs` and `ex4d doctor` against a running backend: what they print is what is so, brackets included."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import pytest

from ex4d.cli.main import main
from ex4d_core.job_status import JobDetails, JobStatus
from ex4d_core.messages import ListJobs, Message

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def table_of(service, capsys, monkeypatch):
    """What a verb prints about the shared service, in one line."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def table(*words: str) -> str:
        assert main([*words, "--backend", service.address]) == 0
        return " ".join(capsys.readouterr().out.split())

    return table


def test_jobs_are_listed_with_labels_and_reasons_as_they_are(wire, scene, shot, table_of):
    wire.upload_scene(scene)
    label = "bracket [/v2] [red]shot[/red] :smile:"
    job = wire.submit(shot(label))
    wire.finish(job)
    assert f"{job} {label} preview done 6/6 preview" in table_of("jobs")
    failed = wire.submit(shot("extra"))
    wire.finish(failed)
    assert "needs pip install 'ex4d[depth]'" in table_of("jobs"), "and not 'ex4d', which would not help"


def test_programs_get_jobs_as_json(wire, scene, shot, table_of):
    wire.upload_scene(scene)
    job = wire.submit(shot("good"))
    status, _ = wire.finish(job)
    listed = json.loads(table_of("jobs", "--json"))["result"]["jobs"][0]
    names = [entry.name for entry in fields(JobDetails) if entry.name != "job"]
    details = JobDetails(job, **{name: listed.pop(name) for name in names})
    assert JobStatus(**listed) == status and status.job == job
    assert details.scene == scene.digest and details.device == "cpu"
    assert status.created <= details.started <= details.ended
    for label in ("good", "good as well"):
        wire.finish(wire.submit(shot(label)))
    other, same = json.loads(table_of("jobs", "--json"))["result"]["jobs"][:2]
    assert same["request"] == details.request != other["request"]
    assert [one["job"] for one in json.loads(table_of("jobs", "--cancel", job, "--json"))["result"]["jobs"]] == [job]


def test_an_older_backend_lists_its_jobs_without_details(wire, scene, shot, table_of, monkeypatch):
    """It answers a message that it does not know, as it does here, with "bad-message"."""
    wire.upload_scene(scene)
    wire.finish(wire.submit(shot("good")))

    @dataclass(frozen=True)
    class DescribeJobsLikeTheNextVersion(Message):
        limit: int = 1

    monkeypatch.setattr("ex4d_core.messages.DescribeJobs", DescribeJobsLikeTheNextVersion)
    listed = json.loads(table_of("jobs", "--json"))["result"]["jobs"]
    assert JobStatus(**listed[0]).state == "done"


def test_a_detached_take_is_submitted_under_a_telling_name_and_fetched_later(service, wire, scene, tmp_path, capsys):
    clip, take = str(scene.path("color").parent), ["--preset", "dolly_in", "--size", "32x24"]
    submit = ["generate", clip, *take, "--backend", service.address, "--detach", "--json"]
    assert main(submit) == 0
    job = json.loads(capsys.readouterr().out)["result"]["job"]
    status, _ = wire.finish(job)
    assert (status.label, status.engine) == ("gradient dolly_in preview", "preview")
    assert main(["jobs", "--backend", service.address, "--fetch", job, "-o", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("frame_*.png"))) == 6
    capsys.readouterr()
    assert main([*submit, "-o", str(tmp_path)]) == 1
    assert "--out has no effect with --detach" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind")
def test_a_live_table_follows_jobs_until_ctrl_c(service, wire, scene, shot, tmp_path):
    wire.upload_scene(scene)
    job = wire.submit(shot(f"wait {tmp_path / 'go'}"))
    wire.wait_for_half(job)
    controller, terminal = os.openpty()
    paths = os.pathsep.join([str(ROOT / "backend"), str(ROOT)])
    variables = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", "LINES": "40", "TERM": "xterm"}
    command = [sys.executable, "-m", "ex4d", "jobs", "--watch", "--backend", service.address]
    # A shell's background job, as these tests may be, ignores Ctrl-C, and so do its children.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    streams = {"stdin": terminal, "stdout": terminal, "stderr": subprocess.PIPE}
    watching = subprocess.Popen(command, **streams, env=variables, preexec_fn=listening)
    os.close(terminal)
    shown = b""

    def row_of_job() -> bytes:
        """The last complete row about the job."""
        return next((row for row in reversed(shown.split(b"\n")[:-1]) if job.encode() in row), b"")

    def read() -> bytes:
        try:
            return os.read(controller, 4096)
        except OSError:  # on Linux, once the command has ended
            pytest.fail(f"it ended: {watching.communicate()[1].decode()}")

    try:
        while b"running" not in row_of_job():
            shown += read()
        (tmp_path / "go").touch()
        while b"done" not in row_of_job():
            shown += read()
        watching.send_signal(signal.SIGINT)
        told = watching.communicate(timeout=240)[1]
    finally:
        (tmp_path / "go").touch()
        watching.kill()
        os.close(controller)
    assert watching.returncode == 130 and told.strip() == b"ex4d jobs: stopped"
    wire.finish(job)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_has_enough_ends_the_command_quietly(service, wire, scene, shot, form):
    """As in `ex4d jobs | head`, once head has gone."""
    wire.upload_scene(scene)
    wire.finish(wire.submit(shot("good")))
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ex4d", "jobs", *form, "--backend", service.address]
    paths = os.pathsep.join([str(ROOT / "backend"), str(ROOT)])
    with open(writer, "wb") as gone:
        done = subprocess.run(
            command, stdout=gone, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_a_job_is_cancelled_and_what_it_made_is_fetched(wire, scene, shot, table_of, tmp_path):
    wire.upload_scene(scene)
    job = wire.submit(shot(f"wait {tmp_path / 'never'}"))
    wire.wait_for_half(job)
    folder = tmp_path / "take [/v2]"
    fetch = ("jobs", "--fetch", job, "-o", str(folder))
    assert table_of(*fetch) == f"3 files in {folder}; the job is running", "there may be more later"
    frames = [f"frame_0000{index}.png" for index in range(3)]
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == frames
    assert f"{job} wait" in table_of("jobs", "--cancel", job)
    assert table_of(*fetch) == f"3 files in {folder}; the job is cancelled: cancelled on request"
    done = wire.submit(shot("good"))
    wire.finish(done)
    elsewhere = tmp_path / "elsewhere"
    assert table_of("jobs", "--fetch", done, "-o", str(elsewhere)) == f"7 files in {elsewhere}"


def test_results_are_not_put_among_other_files(service, wire, scene, shot, tmp_path, capsys):
    wire.upload_scene(scene)
    jobs = [wire.submit(shot("good")), wire.submit(shot("good"))]
    for job in jobs:
        wire.finish(job)
    plate = tmp_path / "plate"
    plate.mkdir()
    (plate / "frame_00000.png").write_bytes(b"the user's")
    fetch = ["jobs", "--backend", service.address, "--fetch"]
    assert main([*fetch, jobs[0], "-o", str(plate), "--overwrite"]) == 1
    assert "frame_00000.png" in capsys.readouterr().err
    assert [path.read_bytes() for path in plate.iterdir()] == [b"the user's"]
    assert main([*fetch, jobs[0], "-o", str(tmp_path / "first")]) == 0
    assert main([*fetch, jobs[1], "-o", str(tmp_path / "first")]) == 1, "it has results of another job"


def test_a_take_that_cannot_be_kept_here_can_be_fetched_elsewhere(service, wire, scene, tmp_path, capsys):
    """The backend generates it all the same, and the command that fetches it is printed."""
    folder, elsewhere = tmp_path / "take", tmp_path / "elsewhere"
    clip = str(scene.path("color").parent)
    assert main(["generate", clip, "--size", "32x24", "--frames", "1", "-o", str(folder)]) == 0
    (folder / "frame_00000.png.partial").mkdir()
    take = ["generate", clip, "--backend", service.address, "--size", "32x24", "-o", str(folder), "--overwrite"]
    assert main(take) == 1
    told = capsys.readouterr().err
    assert f"cannot write frame_00000.png into {folder}" in told
    (fetch,) = re.findall(r"ex4d (jobs .*--fetch .*) -o FOLDER", told)
    wire.finish(fetch.split()[-1])
    assert main([*fetch.split(), "-o", str(elsewhere)]) == 0
    assert capsys.readouterr().out == f"7 files in {elsewhere}\n"


def test_an_unknown_job_and_an_unusable_folder_are_named(service, wire, scene, shot, tmp_path, capsys):
    for verb in (["--cancel", "nobody"], ["--fetch", "nobody", "-o", str(tmp_path)]):
        assert main(["jobs", "--backend", service.address, *verb]) == 1
        assert "unknown job 'nobody'" in capsys.readouterr().err
    wire.upload_scene(scene)
    job = wire.submit(shot("good"))
    wire.finish(job)
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["jobs", "--backend", service.address, "--fetch", job, "-o", str(folder)]) == 1
        told = capsys.readouterr().err.strip()
        assert told.startswith(f"ex4d jobs: {folder}")


def test_doctor_names_the_backend_or_why_there_is_none(service, wire, scene, shot, table_of, capsys, roomy_disk):
    wire.upload_scene(scene)
    wire.finish(wire.submit(shot("good")))  # so that a worker has told its device
    assert f"ex4d 0.1.0 at {service.address}, with CPU, " in table_of("doctor")
    assert main(["doctor", "--backend", "nonsense"]) == 0, "the rest of what it found is told all the same"
    told = " ".join(capsys.readouterr().out.split())
    assert "rasterizer warp" in told and "expected tcp://HOST:PORT" in told


def test_a_backends_take_is_not_put_among_other_files_and_not_even_sent(service, wire, scene, tmp_path, capsys):
    (tmp_path / "frame_00000.png").write_bytes(b"the user's")
    clip, before = str(scene.path("color").parent), sorted(tmp_path.iterdir())
    jobs = wire.ask(ListJobs()).jobs
    generate = ["generate", clip, "--backend", service.address, "-o", str(tmp_path)]
    for also, told in (([], "holds something else"), (["--overwrite"], "holds something else"), (["--resume"], "jobs")):
        assert main([*generate, *also]) == 1
        assert told in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "frame_00000.png").read_bytes() == b"the user's"
    assert wire.ask(ListJobs()).jobs == jobs


def test_a_take_that_could_not_be_fetched_is_fetched_into_its_own_folder(service, scene, tmp_path, capsys):
    folder, clip = tmp_path / "take", str(scene.path("color").parent)
    extra = ["generate", clip, "--backend", service.address, "--label", "refuse", "-o", str(folder)]
    assert main(extra) == 1
    capsys.readouterr()
    assert main(["jobs", "--backend", service.address, "--json"]) == 0
    job = json.loads(capsys.readouterr().out)["result"]["jobs"][0]["job"]
    assert main(["jobs", "--backend", service.address, "--fetch", job, "-o", str(folder)]) == 0
    assert (folder / "frame_00000.png").exists()

"""SIGKILL to the service, a worker or a client while jobs run: nothing that was acknowledged is lost, or made twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from campaigns.outcome import Outcome
from campaigns.runner import frame_text
from campaigns.service import FRAMES, PATIENCE, Service, ask, connected, write_scene
from ex4d_core.client import Client
from ex4d_core.job_status import JobStatus
from ex4d_core.messages import MAX_JOBS, JobsReply, ListJobs
from ex4d_core.take_files import frame_file_name

# So often may a job's worker or service be killed before it may fail.
_KILLS_BEFORE_FAILURE = 3
# A job has so many frames of 50 ms.
_JOB_SECONDS = 0.05 * FRAMES
_TARGETS = ("service", "worker", "client")


def run(seed: int, count: int) -> Outcome:
    """Kill ``count`` times, with two jobs for three kills and at least four, and see everything end."""
    choices, outcome = random.Random(seed), Outcome()
    jobs = max(4, count * 2 // 3)
    with Service.in_workplace() as (service, folder):
        write_scene(folder / "scene")
        labels = [f"slow {number}" for number in range(jobs)]
        (folder / "labels.json").write_text(json.dumps(labels))
        artist = _start_client(service, folder)
        monitor = connected(service.address)
        killed, blamed = Counter(), Counter()
        try:
            while sum(killed.values()) < count:
                running = _wait_for_running(monitor, artist)
                if artist.poll() is not None:
                    break  # all is done: the rest of the kills has nothing to meet
                time.sleep(choices.random() * _JOB_SECONDS)
                target = choices.choice(_TARGETS)
                if target == "client":
                    artist.kill()
                    artist.wait()
                    artist = _start_client(service, folder)
                else:
                    blamed.update(job.job for job in _running(monitor) or running)
                    if target == "service":
                        service.kill()
                        service.start()
                    else:
                        _kill_worker(service, choices)
                killed[target] += 1
            code = artist.wait(PATIENCE + jobs)
            outcome.require(code == 0, f"the client ended with {code}: {(folder / 'client.log').read_text()[-500:]}")
            _check(outcome, monitor, folder, labels, blamed)
        finally:
            artist.kill()
            artist.wait()
            monitor.close()
        outcome.figures = {"jobs": jobs, "kills": sum(killed.values()), **killed, **outcome.figures}
    return outcome


def _check(outcome: Outcome, monitor: Client, folder: Path, labels: list[str], blamed: Counter[str]) -> None:
    """Every acknowledged job is there, once, is done with every frame, or was killed often enough to fail."""
    listed: JobsReply = ask(monitor, ListJobs())
    by_name = {job.job: job for job in listed.jobs}
    states = {path.stem: json.loads(path.read_text()) for path in (folder / "states").glob("*.json")}
    outcome.require(len(states) == len(labels), f"{len(labels)} takes were begun, {len(states)} are known")
    failed = 0
    for number, state in states.items():
        label = labels[int(number)]
        job = by_name.get(state["job"])
        if job is None:  # a list holds the newest only
            outcome.require(
                len(listed.jobs) >= MAX_JOBS, f"job {state['job']!r} of {label!r} was acknowledged, and is lost"
            )
        elif job.state == "failed":
            failed += 1
            times = blamed[job.job]
            outcome.require(times >= _KILLS_BEFORE_FAILURE, f"{label!r} failed after {times} kills: {job.reason[:200]}")
            continue
        else:
            outcome.require(job.state == "done", f"{label!r} is {job.state}")
        for index in range(FRAMES):
            path = folder / "takes" / number / frame_file_name(index)
            there = path.is_file() and path.read_bytes() == frame_text(label, index)
            outcome.require(there, f"frame {index} of {label!r} is missing or wrong")
    twice = [label for label, times in Counter(job.label for job in listed.jobs).items() if times > 1]
    outcome.require(not twice, f"submitted once, and made twice: {twice}")
    outcome.figures["failed"] = failed


def _start_client(service: Service, folder: Path) -> subprocess.Popen[bytes]:
    with open(folder / "client.log", "ab") as log:
        command = [sys.executable, "-m", "campaigns.artist", service.address, str(folder)]
        return subprocess.Popen(command, stdout=log, stderr=log)


def _running(monitor: Client) -> list[JobStatus]:
    reply: JobsReply = ask(monitor, ListJobs())
    return [job for job in reply.jobs if job.state == "running"]


def _wait_for_running(monitor: Client, artist: subprocess.Popen[bytes]) -> list[JobStatus]:
    deadline = time.monotonic() + PATIENCE
    while not (running := _running(monitor)) and artist.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError("no job has been taken up: the service hangs")
        time.sleep(0.02)
    return running


def _kill_worker(service: Service, choices: random.Random) -> None:
    workers = service.workers()
    if workers:
        try:
            choices.choice(workers).kill()
        except psutil.NoSuchProcess:
            return

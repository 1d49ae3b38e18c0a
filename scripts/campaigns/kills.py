"""SIGKILL to the service, a worker or a client while jobs run: nothing that was acknowledged is lost, or made twice.

What bounds a kill is the start of what was killed. Many kills are shared out to rounds of their own service, a few of
which run at a time; clients and services start from a process that has everything loaded (see `campaigns.forked`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil

from campaigns.forked import ForkedProcess
from campaigns.outcome import Outcome
from campaigns.runner import frame_text
from campaigns.service import FRAMES, PATIENCE, Service, ask, connected, write_scene
from ex4d_core.client import Client
from ex4d_core.messages import MAX_JOBS, JobsReply, ListJobs
from ex4d_core.take_files import frame_file_name

# So often may a job's worker or service be killed before it may fail.
_KILLS_BEFORE_FAILURE = 3
# A job has so many frames of 50 ms.
_JOB_SECONDS = 0.05 * FRAMES
# Workers twice: theirs is the promise that depends on counting.
_TARGETS = ("service", "worker", "worker", "client")
# A list of jobs holds the newest 200.
_ROUND_KILLS = 50
_ROUNDS_AT_A_TIME = 6


def run(seed: int, count: int) -> Outcome:
    """Kill ``count`` times, in rounds, and see everything end."""
    rounds = [min(_ROUND_KILLS, count - begun) for begun in range(0, count, _ROUND_KILLS)]
    # A round is a small campaign of its own, so that a breach can be tried again alone.
    seeds = [seed + 1_000_000 * number for number in range(len(rounds))]
    if len(rounds) == 1:
        return play(seed, count)
    outcome, figures = Outcome(), Counter[str]()
    at_a_time = min(_ROUNDS_AT_A_TIME, len(rounds))
    with ProcessPoolExecutor(at_a_time, multiprocessing.get_context("spawn")) as pool:
        for one_seed, one in zip(seeds, pool.map(play, seeds, rounds), strict=True):
            outcome.breaches += [f"--seed {one_seed} --count {_ROUND_KILLS}: {breach}" for breach in one.breaches]
            print(one.line("  round", one_seed), file=sys.stderr, flush=True)
            figures.update({name: int(figure) for name, figure in one.figures.items()})
    outcome.figures = {"rounds": len(rounds), **figures}
    return outcome


def play(seed: int, count: int) -> Outcome:
    """One round: a service, jobs that are not done before the kills are, and their client."""
    choices, outcome = random.Random(seed), Outcome()
    jobs = max(12, count)
    with Service.in_workplace(forked=True) as (service, folder):
        write_scene(folder / "scene")
        labels = [f"slow {number}" for number in range(jobs)]
        (folder / "labels.json").write_text(json.dumps(labels))
        artist = start_client(service, folder)
        killed, blamed = Counter[str](), Counter[str]()
        try:
            while sum(killed.values()) < count:
                wait_for_running(service, folder, artist)
                if not artist.running:
                    break  # all is done: the rest of the kills has nothing to meet
                time.sleep(choices.random() * _JOB_SECONDS)
                target = choices.choice(_TARGETS)
                if target == "client":
                    artist.kill()
                    artist = start_client(service, folder)
                elif target == "service":
                    service.kill()
                    # All its workers have ended: these are what the next start finds.
                    blamed.update(running(service))
                    service.start()
                else:
                    blamed.update(_kill_worker(service, choices))
                killed[target] += 1
            code = artist.wait(PATIENCE + jobs)
            outcome.require(code == 0, f"the client ended with {code}: {(folder / 'client.log').read_text()[-500:]}")
            with closing(connected(service.address)) as monitor:
                check(outcome, monitor, folder, labels, blamed)
        finally:
            artist.kill()
        outcome.figures = {"jobs": jobs, "kills": sum(killed.values()), **killed, **outcome.figures}
    return outcome


def check(outcome: Outcome, monitor: Client, folder: Path, labels: list[str], blamed: Counter[str]) -> None:
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


def start_client(service: Service, folder: Path) -> ForkedProcess:
    """A client that makes the takes of ``labels.json`` in a folder, or continues with them."""
    (folder / "followed").unlink(missing_ok=True)
    return ForkedProcess("campaigns.artist:main", (service.address, folder), folder / "client.log")


def running(service: Service) -> list[str]:
    """Jobs that run, as the database says: what is counted when a worker or the service ends."""
    path = Path(service.settings["data"]) / "jobs.sqlite"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
        return [job for (job,) in database.execute("SELECT id FROM jobs WHERE state = 'running'")]


def begun_since(service: Service, moment: float) -> list[str]:
    """Jobs that a worker took up after a moment, in seconds since 1970, whatever their state is now."""
    path = Path(service.settings["data"]) / "jobs.sqlite"
    with closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
        return [job for (job,) in database.execute("SELECT id FROM jobs WHERE started >= ?", (moment,))]


def wait_for_running(service: Service, folder: Path, artist: ForkedProcess) -> None:
    """Wait until the client follows its takes, and a job runs."""
    deadline = time.monotonic() + PATIENCE
    while artist.running and not ((folder / "followed").exists() and running(service)):
        if time.monotonic() > deadline:
            raise TimeoutError("no job has been taken up: the service hangs")
        time.sleep(0.01)


def _kill_worker(service: Service, choices: random.Random) -> list[str]:
    """Kill a worker; returns the jobs that it held."""
    workers = service.workers()
    if not workers:
        return []
    worker = choices.choice(workers)
    try:
        # Stopped first: between a look and the kill it could end one job and begin another.
        os.kill(worker.pid, signal.SIGSTOP)
        while worker.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)
        held = running(service)
        worker.kill()
    except (psutil.NoSuchProcess, ProcessLookupError):
        return []
    return held

"""Two hundred clients at once with thousands of quick jobs: none is lost, and the service stays as small as it was."""

from __future__ import annotations

import random
import sqlite3
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from campaigns.greeter import greeted
from campaigns.outcome import Outcome
from campaigns.service import PATIENCE, Service, ask, connected, shot, write_scene
from campaigns.usage import Usage
from ex4d_core.client import Client, Conversation, Task
from ex4d_core.job_status import FINAL_STATES
from ex4d_core.messages import EventsReply, GetEvents, ListJobs, Submit, Submitted
from ex4d_core.scene import Scene
from ex4d_core.transfers import Sent, scene_blobs, upload_blobs

_CLIENTS = 200
_JOBS_PER_CLIENT = 10
# The database is to be full at a fifth of the jobs, so that the rest shows what forgetting costs; a job takes about so
# much. The jobs under way must leave room in it, or one would be forgotten before its client hears of its end.
_BYTES_PER_JOB = 1200
_BYTES_PER_CLIENT = 20_000
# By then all clients are connected, and the allocator has what it needs.
_WARM_UP = 0.2
# The allocator keeps freed memory in pieces; a leak of one kilobyte a job would be 16 MB in 16,000.
_MEGABYTES = 12.0
_DESCRIPTORS, _THREADS = 8, 4
_PAUSE_SECONDS = 0.01


def run(seed: int, count: int) -> Outcome:
    """Make ``count`` jobs, a client one at a time each, with a database that holds a fifth of them."""
    choices, outcome = random.Random(seed), Outcome()
    many = min(_CLIENTS, -(-count // _JOBS_PER_CLIENT))
    limit = max(count // 5 * _BYTES_PER_JOB, many * _BYTES_PER_CLIENT)
    with Service.in_workplace(jobs_gb=limit / 1e9) as (service, folder):
        scene = write_scene(folder / "scene")
        monitor = connected(service.address)
        monitor.run(upload_blobs(scene_blobs(scene), Sent()), timeout=PATIENCE)
        shares = [count // many + (number < count % many) for number in range(many)]
        clients = [Client(service.address, f"client {number}") for number in range(many)]
        ended: dict[str, str] = {}
        begun = time.monotonic()
        with greeted(service.address) as greetings:
            tasks = [
                client.start(_jobs(scene, f"quick {number}", share, ended, choices.random() * 0.2))
                for number, (client, share) in enumerate(zip(clients, shares, strict=True))
            ]
            warm = _follow(clients, tasks, service, ended, int(_WARM_UP * count))
        seconds = time.monotonic() - begun
        _check(outcome, monitor, tasks, ended, count)
        Usage.of(service).require_flat(warm, outcome, megabytes=_MEGABYTES, descriptors=_DESCRIPTORS, threads=_THREADS)
        for client in (*clients, monitor):
            client.close()
        service.stop()
        outcome.require(not service.tracebacks(), f"tracebacks in the log: {service.tracebacks()[:3]}")
        kept = _check_forgotten(outcome, folder / "data" / "jobs.sqlite", set(ended), limit)
        outcome.figures = {
            "clients": len(clients),
            "jobs": len(ended),
            "jobs a second": round(len(ended) / seconds, 1),
            "still in the database": kept,
            **outcome.figures,
            **{f"Hello: {name}": value for name, value in greetings.items()},
        }
    return outcome


def _jobs(scene: Scene, label: str, count: int, ended: dict[str, str], pause: float) -> Conversation[None]:
    """Submit jobs one after another, and follow each to its end; ``ended`` gets the state of each."""
    for number in range(count):
        submitted: Submitted = yield Submit(uuid.uuid4().hex, shot(scene, f"{label} {number}").to_wire())
        job, last, state = submitted.job, 0, "queued"
        while state not in FINAL_STATES:
            reply: EventsReply = yield GetEvents(job, last, 2.0 + pause)
            last, state = reply.status.events, reply.status.state
        ended[job] = state


def _follow(
    clients: list[Client], tasks: list[Task[None]], service: Service, ended: dict[str, Any], warm_at: int
) -> Usage:
    """Serve all clients until their conversations are over; returns what the service took after the warm-up."""
    warm, seen, heard = None, 0, time.monotonic()
    while not all(task.done for task in tasks):
        for client in clients:
            client.poll()
        if warm is None and len(ended) >= warm_at:
            warm = Usage.of(service)
        if len(ended) > seen:
            seen, heard = len(ended), time.monotonic()
        elif time.monotonic() - heard > PATIENCE:
            raise TimeoutError(f"no job has ended for {PATIENCE:.0f} s: the service hangs")
        time.sleep(_PAUSE_SECONDS)
    return warm or Usage.of(service)


def _check(outcome: Outcome, monitor: Client, tasks: list[Task[None]], ended: dict[str, str], count: int) -> None:
    for task in tasks:
        outcome.require(task.error is None, f"a client ended with {task.error}")
    outcome.require(len(ended) == count, f"{count} jobs were to be made, {len(ended)} ended")
    others = {job: state for job, state in ended.items() if state != "done"}
    outcome.require(not others, f"{len(others)} jobs are not done: {sorted(set(others.values()))}")
    listed = ask(monitor, ListJobs()).jobs
    strange = [job.job for job in listed if ended.get(job.job) != job.state]
    outcome.require(not strange, f"listed, and not as its client knows it: {strange[:3]}")


def _check_forgotten(outcome: Outcome, database: Path, jobs: set[str], limit: int) -> int:
    """Only jobs that ended before all others may be gone, and only for lack of room; returns how many are left."""
    with closing(sqlite3.connect(database)) as db:
        kept = dict(db.execute("SELECT id, ended FROM jobs"))
        (ends,) = db.execute("SELECT count FROM ends").fetchone()
        pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in _PRAGMAS)
    outcome.require(set(kept) <= jobs, "a job is in the database that nobody submitted")
    outcome.require(ends == len(jobs), f"{len(jobs)} jobs ended, the database counts {ends}")
    last = set(range(ends - len(kept) + 1, ends + 1))
    outcome.require(set(kept.values()) == last, "another job was forgotten than those that ended first")
    used = (pages - free) * size
    if len(kept) < len(jobs):
        outcome.require(used > limit / 2, f"jobs were forgotten at {used / 1e6:.1f} of {limit / 1e6:.1f} MB")
    return len(kept)


_PRAGMAS = ("page_count", "freelist_count", "page_size")

"""A full disk while jobs wait: the queue pauses and says so, no job fails, and all are done once there is room."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from campaigns.disks import small_disk
from campaigns.outcome import Outcome
from campaigns.runner import frame_text
from campaigns.service import FRAMES, PATIENCE, Service, ask, connected, shot, workplace, write_scene
from ex4d_core.client import Client
from ex4d_core.job_status import JobStatus
from ex4d_core.messages import EventsReply, GetEvents, Hello, ListJobs, Submit
from ex4d_core.scene import Scene
from ex4d_core.stages import NO_ROOM_STAGE, PAUSED
from ex4d_core.transfers import Sent, scene_blobs, upload_blobs

_MEGABYTES, _FILES = 32, 3000
_LOOK_SECONDS = 0.1


def run(seed: int, count: int) -> Outcome:
    """Have ``count`` jobs wait, once for bytes and once for files (inodes).

    Raises:
        DiskNeeded: this user cannot mount a small disk.
    """
    choices, outcome = random.Random(seed), Outcome()
    done = restarts = 0
    for what in _FILL:
        with workplace() as folder, small_disk(folder / "disk", _MEGABYTES, _FILES) as disk:
            service = Service(folder, data=str(disk / "data"))
            try:
                restart = choices.random() < 0.5
                done += _one(service, disk, write_scene(folder / "scene"), count, choices, outcome, what, restart)
                restarts += restart
            finally:
                service.stop()
            outcome.require(not service.tracebacks(), f"{what}: tracebacks in the log: {service.tracebacks()[:3]}")
    outcome.figures = {"disks filled": 2, "jobs": 2 * count, "done": done, "restarts on a full disk": restarts}
    return outcome


def _one(
    service: Service,
    disk: Path,
    scene: Scene,
    count: int,
    choices: random.Random,
    outcome: Outcome,
    what: str,
    restart: bool,
) -> int:
    """Fill the disk while jobs wait, and make room again; returns how many jobs are done."""
    client = connected(service.address)
    try:
        client.run(upload_blobs(scene_blobs(scene), Sent()), timeout=PATIENCE)
        labels = [f"slow {what} {number}" for number in range(count)]
        jobs = {ask(client, Submit(label, shot(scene, label).to_wire())).job: label for label in labels}
        before = choices.randrange(max(count // 3, 1))
        _wait(lambda: sum(one.state == "done" for one in _listed(client)) >= before, "jobs begin")
        _FILL[what](disk)
        _wait(lambda: _is_paused(client), f"the queue pauses on a disk without {what}")
        if restart:
            service.kill()
            service.start()
            _wait(lambda: _is_paused(client), "the queue is paused after a restart")
        time.sleep(choices.random() * 2)
        states = {one.state for one in _listed(client)}
        outcome.require(states <= {"queued", "running", "done"}, f"on a disk without {what} jobs are {states}")
        _make_room(disk)
        _wait(lambda: all(one.state not in ("queued", "running") for one in _listed(client)), "all jobs end")
        for one in _listed(client):
            outcome.require(one.state == "done", f"{one.label!r} is {one.state}: {one.reason[:200]}")
            _check_frames(outcome, client, one, jobs[one.job])
        outcome.require(len(_listed(client)) == count, f"{count} jobs were submitted, {len(_listed(client))} are known")
        _wait(lambda: PAUSED not in " ".join(ask(client, Hello()).devices), "the pause is over")
        return sum(one.state == "done" for one in _listed(client))
    finally:
        client.close()


def _check_frames(outcome: Outcome, client: Client, job: JobStatus, label: str) -> None:
    reply: EventsReply = ask(client, GetEvents(job.job, 0, 0.0))
    hashes = {event.index: event.sha256 for event in reply.events if event.kind == "frame"}
    expected = {index: hashlib.sha256(frame_text(label, index)).hexdigest() for index in range(FRAMES)}
    outcome.require(hashes == expected, f"{label!r} has the frames {sorted(hashes)}, or wrong ones")


def _is_paused(client: Client) -> bool:
    """Whether everybody is told: those who ask for the service, and those who ask for jobs."""
    queued = [one for one in _listed(client) if one.state == "queued"]
    told = all(one.stage == NO_ROOM_STAGE and one.reason for one in queued)
    return told and bool(queued) and all(PAUSED in device for device in ask(client, Hello()).devices)


def _listed(client: Client) -> list[JobStatus]:
    return ask(client, ListJobs()).jobs


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:.0f} s in vain until {what}")
        time.sleep(_LOOK_SECONDS)


def _fill_bytes(disk: Path) -> None:
    with open(disk / "ballast", "wb", buffering=0) as ballast:
        size = 1_000_000
        while size:
            try:
                if ballast.write(bytes(size)) < size:
                    size //= 2
            except OSError:
                size //= 2


def _fill_files(disk: Path) -> None:
    (disk / "ballast").mkdir()
    with suppress(OSError):
        for number in range(10 * _FILES):
            (disk / "ballast" / str(number)).touch()


_FILL = {"bytes": _fill_bytes, "files": _fill_files}


def _make_room(disk: Path) -> None:
    ballast = disk / "ballast"
    if ballast.is_dir():
        shutil.rmtree(ballast)
    else:
        os.unlink(ballast)

"""The power is cut at random moments while a service writes: what it acknowledged is there after the next start.

On a file system without a journal the newest files may be missing or damaged; then the service must notice, and never
deliver other content than was announced.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from campaigns.disks import CuttableDisk, DiskNeeded, require_mounts
from campaigns.outcome import Outcome
from campaigns.runner import frame_text
from campaigns.service import PATIENCE, Service, ask, connected, shot, workplace, write_scene
from ex4d_core.client import Client, ConnectionState, Conversation, RequestRefused, Task
from ex4d_core.errors import Ex4dError
from ex4d_core.job_status import FINAL_STATES, JobEvent
from ex4d_core.messages import BlobStatus, EventsReply, GetEvents, Submit
from ex4d_core.scene import Scene
from ex4d_core.transfers import Sent, fetch_blob, scene_blobs, upload_blobs

# Of five cuts so many are on each; the kinds without a journal that this machine cannot make are left out.
_JOURNALED, _OTHERS, _PART_OTHERS = "ext4", ("ext2", "exfat", "vfat"), 0.2
_SECONDS_UNTIL_CUT = 1.5
# A new disk after so many cuts: one of 40 MB fills up.
_CUTS_PER_DISK = 10
_TASKS = 4
# What a service may still answer after the cut counts, too: an answer after a failed write would be a lie.
_SECONDS_AFTER_CUT = 0.2
_LARGEST_UPLOAD = 600_000


@dataclass
class _Known:
    """What a client was told: labels of jobs, whole uploads, announced results, and jobs that ended."""

    jobs: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, int] = field(default_factory=dict)
    events: dict[tuple[str, int], JobEvent] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)


def run(seed: int, count: int) -> Outcome:
    """Cut the power ``count`` times.

    Raises:
        DiskNeeded: this user cannot mount disks.
    """
    require_mounts()
    choices, outcome = random.Random(seed), Outcome()
    others = round(count * _PART_OTHERS)
    figures: dict[str, int] = {}
    kinds = [one for one in _OTHERS if others and _can_make(one)]
    shares = {_JOURNALED: count - others * bool(kinds)}
    for place, kind in enumerate(kinds):
        shares[kind] = others // len(kinds) + (place < others % len(kinds))
    for kind, cuts in shares.items():
        for start in range(0, cuts, _CUTS_PER_DISK):
            lost = _one_disk(kind, min(_CUTS_PER_DISK, cuts - start), choices, outcome, figures)
            if kind != _JOURNALED:
                figures[f"lost on {kind}"] = figures.get(f"lost on {kind}", 0) + lost
        figures[f"cuts on {kind}"] = cuts
    outcome.figures = dict(figures)
    return outcome


def _can_make(kind: str) -> bool:
    with workplace() as folder:
        try:
            CuttableDisk(folder, kind).remove()
        except DiskNeeded:
            return False
    return True


def _one_disk(kind: str, cuts: int, choices: random.Random, outcome: Outcome, figures: dict[str, int]) -> int:
    """Cut the power of one disk several times; returns how much was lost on a file system without a journal."""
    lost, known = 0, _Known()
    with workplace() as folder:
        disk = CuttableDisk(folder, kind)
        service = Service(folder, data=str(disk.folder / "data"))
        try:
            scene = write_scene(folder / "scene")
            for number in range(cuts):
                _work_until_cut(service, disk, scene, known, choices, f"{kind} {number}")
                service.kill()
                disk.restore()
                service.start()
                missing = _missing(service, known, folder / "fetched", outcome)
                if missing is None:
                    reason = service.log.read_text(errors="replace").strip().splitlines()[-1][:300]
                    outcome.require(kind != _JOURNALED, f"cut {number}: the service does not start: {reason}")
                    lost += len(known.jobs)
                    break
                if kind == _JOURNALED:
                    outcome.breaches += [f"cut {number} on {kind}: {what}" for what in missing]
                lost += len(missing)
                if missing:
                    known = _Known()
            for what, told in (("jobs", known.jobs), ("uploads", known.uploads), ("results", known.events)):
                figures[what] = figures.get(what, 0) + len(told)
        finally:
            service.kill()
            disk.remove()
    return lost


def _work_until_cut(
    service: Service, disk: CuttableDisk, scene: Scene, known: _Known, choices: random.Random, name: str
) -> None:
    """Submit, upload and follow jobs until the power is gone, at a random moment."""
    client = connected(service.address, "writer")
    client.run(upload_blobs(scene_blobs(scene), Sent()), timeout=PATIENCE)
    cut = threading.Event()

    def cut_power() -> None:
        disk.cut()
        cut.set()

    timer = threading.Timer(choices.random() * _SECONDS_UNTIL_CUT, cut_power)
    timer.start()
    tasks: list[Task[None]] = []
    number, end = 0, 0.0
    try:
        while not cut.is_set() or time.monotonic() < end:
            tasks = [one for one in tasks if not one.done]
            while len(tasks) < _TASKS and not cut.is_set():
                number += 1
                begin = _upload(known, choices) if choices.random() < 0.5 else _job(known, scene, f"{name} {number}")
                tasks.append(client.start(begin))
            if cut.is_set() and not end:
                end = time.monotonic() + _SECONDS_AFTER_CUT
            client.wait(0.02)
    finally:
        timer.join()
        client.close()


def _upload(known: _Known, choices: random.Random) -> Conversation[None]:
    data = choices.randbytes(choices.randrange(1, _LARGEST_UPLOAD))
    sha256 = hashlib.sha256(data).hexdigest()
    yield from upload_blobs({sha256: data}, Sent())
    known.uploads[sha256] = len(data)


def _job(known: _Known, scene: Scene, label: str) -> Conversation[None]:
    job = (yield Submit(label, shot(scene, label).to_wire())).job
    known.jobs[job] = label
    last, state = 0, "queued"
    while state not in FINAL_STATES:
        reply: EventsReply = yield GetEvents(job, last, 1.0)
        for event in reply.events:
            known.events[job, event.number] = event
        last = max([last, *(event.number for event in reply.events)])
        state = reply.status.state
    known.ended[job] = state


def _missing(service: Service, known: _Known, folder: Path, outcome: Outcome) -> list[str] | None:
    """What was acknowledged, and is not there after a start; None if the service does not start."""
    client = _connected_or_none(service)
    if client is None:
        return None
    missing = []
    try:
        for job, label in known.jobs.items():
            try:
                reply: EventsReply = ask(client, GetEvents(job, 0, 0.0))
            except RequestRefused as refused:
                missing.append(f"job {label!r}: {refused}")
                continue
            numbers = {event.number: event for event in reply.events}
            told = [event for (of, _), event in known.events.items() if of == job]
            missing += [f"event {event} of {label!r}" for event in told if numbers.get(event.number) != event]
            if (ended := known.ended.get(job, reply.status.state)) != reply.status.state:
                missing.append(f"{label!r} was {ended}, and is {reply.status.state}")
        hashes = list(known.uploads)
        for sha256 in hashes:
            if ask(client, BlobStatus([sha256])).received != [-1]:
                missing.append(f"the upload {sha256}")
        wanted = dict(known.uploads) | {one.sha256: one.size for one in known.events.values() if one.sha256}
        folder.mkdir()
        for sha256, size in wanted.items():
            try:
                client.run(fetch_blob(sha256, size, folder / sha256), timeout=PATIENCE)
            except Ex4dError as error:
                missing.append(f"the content of {sha256}: {error}")
                outcome.require("twice" not in str(error), f"damaged, and the service does not notice: {error}")
        frames = [one for one in known.events.items() if one[1].kind == "frame"]
        for (job, _), event in frames:
            expected = hashlib.sha256(frame_text(known.jobs[job], event.index)).hexdigest()
            outcome.require(event.sha256 == expected, f"frame {event.index} of {known.jobs[job]!r} is another one")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        client.close()
    return missing


def _connected_or_none(service: Service) -> Client | None:
    """A client, as soon as the service answers; None if it ends."""
    client, deadline = Client(service.address, "reader"), time.monotonic() + PATIENCE
    while service.running and client.state is not ConnectionState.CONNECTED and time.monotonic() < deadline:
        client.wait(0.05)
    if client.state is ConnectionState.CONNECTED:
        return client
    client.close()
    return None

"""Clients do anything, at random and for long: memory, open files, threads and disk stay within bounds."""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

from campaigns.outcome import Outcome
from campaigns.service import PATIENCE, Service, ask, connected, shot, write_scene
from campaigns.usage import Usage, bytes_below
from ex4d_core.client import Client, Conversation, Task
from ex4d_core.messages import CHUNK_BYTES, Cancel, GetEvents, Hello, ListJobs, PutBlob, Submit, Withdraw
from ex4d_core.scene import Scene
from ex4d_core.transfers import Sent, scene_blobs, upload_blobs
from ex4d_core.view_messages import GetCoverage, GetView

_CLIENTS = 8
# Of a client at a time; a stranger's would be more, which `evil` clients of the tests are.
_TASKS = 3
_WARM_UP = 0.3
_MEGABYTES, _DESCRIPTORS, _THREADS = 30.0, 16, 8
_LARGEST_UPLOAD = 3 * CHUNK_BYTES
# The database of the jobs, logs, and what a job under way has in its folder.
_DISK_BYTES = 20e6
_WEIGHTS = {"job": 6, "slow job": 2, "cancel": 3, "withdraw": 1, "view": 4, "coverage": 3, "upload": 3}
_WEIGHTS |= {"half an upload": 2, "list": 3, "disconnect": 2}


def run(seed: int, count: int) -> Outcome:
    """Do ``count`` things, and wait until the service has nothing more to do."""
    choices, outcome = random.Random(seed), Outcome()
    with Service.in_workplace(jobs_gb=0.005) as (service, folder):
        scene = write_scene(folder / "scene")
        soak = _Soak(service, scene, choices)
        monitor = connected(service.address)
        monitor.run(upload_blobs(scene_blobs(scene), Sent()), timeout=PATIENCE)
        before_all = bytes_below(folder / "data")
        warm = None
        for number in range(count):
            soak.step()
            if number == int(_WARM_UP * count):
                _settle(soak, monitor)
                warm = Usage.of(service)
        _settle(soak, monitor)
        assert warm
        Usage.of(service).require_flat(warm, outcome, megabytes=_MEGABYTES, descriptors=_DESCRIPTORS, threads=_THREADS)
        _check_disk(outcome, folder / "data", before_all, soak)
        soak.close()
        monitor.close()
        service.stop()
        outcome.require(not soak.strange, f"refused, and should not be: {soak.strange[:3]}")
        outcome.require(not service.tracebacks(), f"tracebacks in the log: {service.tracebacks()[:3]}")
        outcome.figures = {"done": count, **dict(sorted(soak.did.items())), **outcome.figures}
    return outcome


class _Soak:
    """Some clients, and what they do.

    Attributes:
        did: how often, by name.
        uploaded: bytes of whole and of begun uploads.
        jobs: that were submitted.
        strange: refusals that no request here deserves.
    """

    def __init__(self, service: Service, scene: Scene, choices: random.Random):
        self._service, self._scene, self._choices = service, scene, choices
        self._clients = [self._connect() for _ in range(_CLIENTS)]
        self._tasks: dict[Client, list[Task[None]]] = {client: [] for client in self._clients}
        self._keys: list[str] = []
        self.did: Counter[str] = Counter()
        self.uploaded = 0
        self.jobs: list[str] = []
        self.strange: list[str] = []

    def step(self) -> None:
        """Let one client do something, and all of them listen."""
        client = self._choices.choice(self._clients)
        name = self._choices.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        self.did[name] += 1
        if name == "disconnect":
            self._disconnect(client)
        else:
            while len(self._tasks[client]) >= _TASKS:
                self.listen()
            self._tasks[client].append(client.start(self._conversation(name)))
        self.listen()

    def listen(self) -> None:
        """Handle what has arrived."""
        for client in self._clients:
            client.poll()
            for task in [one for one in self._tasks[client] if one.done]:
                self._tasks[client].remove(task)
                code = getattr(task.error, "code", "")
                # A newer view replaces an older one, and a job may be forgotten before it is cancelled.
                if task.error and code not in ("superseded", "unknown-job"):
                    self.strange.append(str(task.error))
        time.sleep(0.002)

    @property
    def busy(self) -> bool:
        """Whether any conversation is under way."""
        return any(self._tasks.values())

    def close(self) -> None:
        """Disconnect all."""
        for client in self._clients:
            client.close()

    def _connect(self) -> Client:
        return Client(self._service.address, "soak")

    def _disconnect(self, client: Client) -> None:
        """Close a connection in the middle of whatever it was doing; another client comes."""
        self._clients.remove(client)
        self._tasks.pop(client)
        client.close()
        new = self._connect()
        self._clients.append(new)
        self._tasks[new] = []

    def _conversation(self, name: str) -> Conversation[None]:
        label = f"{'slow' if name == 'slow job' else 'quick'} {self.did[name]}"
        if name in ("job", "slow job"):
            self._keys.append(uuid.uuid4().hex)
            job = (yield Submit(self._keys[-1], shot(self._scene, label).to_wire())).job
            self.jobs.append(job)
            yield GetEvents(job, 0, 1.0)
        elif name == "cancel" and self.jobs:
            yield Cancel(self._choices.choice(self.jobs[-20:]))
        elif name == "withdraw":
            yield Withdraw(self._choice_of_keys())
        elif name in ("view", "coverage"):
            request = shot(self._scene, label)
            one = replace(request, camera=request.camera.frames(0, 1))
            yield GetView(one.to_wire()) if name == "view" else GetCoverage(request.to_wire())
        elif name in ("upload", "half an upload"):
            data = self._choices.randbytes(self._choices.randrange(CHUNK_BYTES + 1, _LARGEST_UPLOAD))
            sha256 = hashlib.sha256(data).hexdigest()
            self.uploaded += len(data)
            if name == "upload":
                yield from upload_blobs({sha256: data}, Sent())
            else:
                yield PutBlob(sha256, len(data), 0, data[:CHUNK_BYTES])
        else:
            yield ListJobs()

    def _choice_of_keys(self) -> str:
        return self._choices.choice(self._keys[-20:]) if self._keys else "none"


def _settle(soak: _Soak, monitor: Client) -> None:
    """Wait until all is answered and no job is left."""
    deadline = time.monotonic() + PATIENCE
    while soak.busy or ask(monitor, Hello("campaign")).busy:
        soak.listen()
        if time.monotonic() > deadline:
            raise TimeoutError(f"the service is busy for {PATIENCE:.0f} s after the last request")


def _check_disk(outcome: Outcome, data: Path, before: int, soak: _Soak) -> None:
    """Uploads and results are kept for a while, and nothing else is."""
    taken = bytes_below(data) - before
    results = 2000 * len(soak.jobs)
    outcome.require(taken <= soak.uploaded + results + _DISK_BYTES, f"the data folder grew by {taken / 1e6:.0f} MB")
    left = [path.name for path in (data / "work").rglob("*") if path.is_file()]
    outcome.require(not left, f"jobs have left files in their folders: {left[:3]}")
    outcome.figures |= {"MB uploaded": round(soak.uploaded / 1e6, 1), "MB on disk": round(taken / 1e6, 1)}

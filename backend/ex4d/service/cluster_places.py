"""`ClusterPlaces`: workers on the nodes of a Ray cluster, as `Workers` sees them.

It runs the driver (`ex4d.service.cluster_driver`), the only process that imports Ray, and replaces one that died: Ray
ends the workers of a driver that is gone, and the jobs that they had are queued again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from ex4d.installation import install_command
from ex4d.service.cluster_coverage import packed, unpacked
from ex4d.service.cluster_head import head_at
from ex4d.service.coverage_parts import Values
from ex4d.service.inbox import Inbox
from ex4d.service.processes import ChildProcess
from ex4d.service.settings import ServiceError, ServiceSettings
from ex4d.service.worker_processes import WorkerEnd, WorkerProcess, ending, last_lines

log = logging.getLogger(__name__)

# A driver that died is replaced after 0.5, 1, 2... seconds, at most this.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_MODE = "RAY_AUTH_MODE"
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_TOKEN_FILE = "~/.ray/auth_token"


def check_cluster(settings: ServiceSettings) -> None:
    """Check what can be known before the cluster is joined.

    Raises:
        ServiceError: Ray is not installed, or whoever reaches the cluster could run code on it.
    """
    if find_spec("ray") is None:
        raise ServiceError(f"--cluster: needs Ray; install it with: {install_command('cluster')}")
    mode = os.environ.get(_MODE, "").lower()
    if mode == "disabled":
        log.warning("%s=disabled: whoever reaches a port of the Ray cluster has its machines", _MODE)
    elif mode != "token" or not _has_token():
        raise ServiceError(
            f"--cluster: whoever reaches a Ray cluster without a token has its machines; run 'ray "
            f"get-auth-token --generate' once, copy {_TOKEN_FILE} to all nodes, and set {_MODE}=token for Ray on each "
            f"and for this service. {_MODE}=disabled is for a network that nobody else reaches"
        )


def _has_token() -> bool:
    return any(os.environ.get(name) for name in _TOKENS) or os.path.exists(os.path.expanduser(_TOKEN_FILE))


class ClusterPlaces:
    """See `ex4d.service.worker_processes.WorkerPlaces`; to be used on the service's loop only."""

    def __init__(self, settings: ServiceSettings, inbox: Inbox):
        """Start nothing yet.

        Raises:
            ServiceError: see `check_cluster`.
        """
        check_cluster(settings)
        self._settings, self._inbox = settings, inbox
        self._log = settings.data / "logs" / "cluster.log"
        self._driver: ChildProcess | None = None
        self._workers: dict[str, _ClusterWorker] = {}
        self._room, self._problem = 0, "connecting"
        self._start_at, self._failed = 0.0, 0
        # Idle workers that can compute coverage, and what to do with the parts that they are asked for.
        self._idle, self._asked, self._questions = 0, 0, dict[int, Callable[[Values], None]]()

    def devices(self) -> Sequence[str]:
        """As many as the nodes have room for; which node each gets is Ray's business."""
        return [f"cluster {self._settings.cluster}"] * self._room

    def problem(self) -> str:
        """Why there are no workers."""
        what = "CPU cores" if self._settings.cluster_cores else "a GPU"
        missing = f"no node has {what} for a worker; join nodes with 'ray start', or give --cluster-cores"
        return "" if self._room else f"cluster {self._settings.cluster} ({self._problem or missing})"

    def start(self, number: int, name: str) -> WorkerProcess:
        """Have the driver start a worker."""
        worker = self._workers[name] = _ClusterWorker(self, name)
        if self._driver is None:
            worker.ended(WorkerEnd("lost the driver of the cluster"))
        else:
            self.tell("start", name)
        return worker

    def tell(self, *words: str) -> None:
        """Send the driver a line; one that has died is replaced."""
        with contextlib.suppress(OSError):
            if self._driver:
                self._driver.input.write(" ".join(words).encode() + b"\n")

    def free(self) -> int:
        """See `ex4d.service.coverage_parts.CoverageHelpers`."""
        return max(self._idle - len(self._questions), 0)

    def cover(self, message: Mapping[str, Any], done: Callable[[Values], None]) -> None:
        """See `ex4d.service.coverage_parts.CoverageHelpers`."""
        self._asked += 1
        self._questions[self._asked] = done
        self.tell("cover", str(self._asked), packed(message))

    def _covered(self, number: int, values: Values | None) -> None:
        done = self._questions.pop(number, None)
        if done and values:
            done(values)

    def _has_idle(self, count: int) -> None:
        self._idle = count

    def tick(self) -> float:
        """Start a driver where there is none."""
        now = time.monotonic()
        if self._driver is None and self._start_at <= now:
            self._start_driver()
        return float("inf") if self._driver else self._start_at - now

    def stop(self) -> None:
        """End the driver, and with it all workers."""
        self._start_at = float("inf")
        if driver := self._driver:
            driver.kill()
            driver.wait()

    def _start_driver(self) -> None:
        settings = self._settings
        names = ("devices", "hang_seconds", "reserve_mb", "runner")
        given = {name: getattr(settings, name) for name in (*names, *_cluster_fields(settings))}
        given |= {"data": str(settings.data), "machine": settings.machine.to_json()}
        # Nothing is reported to Ray's makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options = {"settings": json.dumps(given)}
        driver = self._driver = ChildProcess("ex4d.service.cluster_driver", options, settings.data, self._log)
        log.info("the driver of the cluster %s started as process %d", settings.cluster, driver.pid)
        threading.Thread(target=self._listen, args=(driver,), name="cluster", daemon=True).start()

    def _listen(self, driver: ChildProcess) -> None:
        """In a thread: pass on what the driver says, and its end."""
        for line in driver.output:
            name, _, rest = line.decode().strip().partition(" ")
            if name == "room":
                self._inbox.post(lambda room=int(rest): self._has_room(room))
            elif name == "idle":
                self._inbox.post(partial(self._has_idle, int(rest)))
            elif name == "covered":
                number, _, values = rest.partition(" ")
                self._inbox.post(partial(self._covered, int(number), unpacked(values) if values else None))
            elif worker := self._workers.get(name):
                worker.heard(rest)
        driver.wait()
        # Ray ends a driver whose head has ended, in several ways.
        head = head_at(self._settings.cluster or "")
        with_head = head is not None and not head.answers()
        self._inbox.post(lambda: self._lost(driver, blames=not with_head))

    def _has_room(self, room: int) -> None:
        log.info("the cluster %s has room for %d workers", self._settings.cluster, room)
        self._room, self._problem, self._failed = room, "", 0

    def _lost(self, driver: ChildProcess, *, blames: bool) -> None:
        said = last_lines(self._log, driver.log_start)
        reason = ending(driver.returncode)
        log.warning("the driver of the cluster %s%s", reason, "; its last lines:\n" + "\n".join(said) if said else "")
        driver.close()
        self._driver, self._room, self._idle = None, 0, 0
        self._questions.clear()
        self._problem = said[-1] if said and driver.returncode == 1 else f"its driver {reason}"
        self._start_at = time.monotonic() + min(_FIRST_PAUSE_SECONDS * 2**self._failed, _LONGEST_PAUSE_SECONDS)
        self._failed += 1
        for worker in self._workers.values():
            worker.ended(WorkerEnd(f"lost the driver of the cluster, which {reason}", blames=blames))

    def forget(self, name: str) -> None:
        """A worker has ended."""
        self._workers.pop(name, None)


class _ClusterWorker:
    """See `ex4d.service.worker_processes.WorkerProcess`."""

    def __init__(self, places: ClusterPlaces, name: str):
        self._places, self._name = places, name
        self.device, self.what = "the cluster", "an actor of Ray"
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._end: WorkerEnd | None = None
        self._over = threading.Event()

    @property
    def output(self) -> Iterable[bytes]:
        return iter(self._lines.get, None)

    def heard(self, text: str) -> None:
        """A line of the driver about it."""
        word, _, rest = text.partition(" ")
        if word == "at":
            self.device = rest
        elif word == "over":
            self.ended(WorkerEnd(**json.loads(rest)))
        else:
            self._lines.put(text.encode())

    def ended(self, end: WorkerEnd) -> None:
        self._end = self._end or end
        self._over.set()
        self._lines.put(None)

    def wake(self) -> None:
        self._places.tell("wake", self._name)

    def end(self) -> None:
        """It ends with the driver."""
        self.ended(WorkerEnd("ended with the service"))

    def kill(self) -> None:
        self._places.tell("kill", self._name)

    def wait(self, seconds: float | None = None) -> None:
        if not self._over.wait(seconds):
            raise TimeoutError

    def begin_lines(self, offset: int) -> None:
        """Its reasons come with its end."""

    def shorten_log(self) -> None:
        """The driver's is shortened when one starts."""

    def close(self) -> WorkerEnd:
        self._places.forget(self._name)
        assert self._end, "it has ended"
        return self._end


def _cluster_fields(settings: ServiceSettings) -> list[str]:
    return [name for name in vars(settings) if name.startswith("cluster")]

"""What `Workers` needs of a worker, wherever it runs: `WorkerProcess`, and `WorkerPlaces`, which starts them.

`LocalPlaces` starts one process on this machine for each device; `ex4d.service.cluster_places` has workers on the nodes
of a Ray cluster.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ex4d.service.logs import message_of
from ex4d.service.processes import ChildProcess, shorten_log
from ex4d.service.settings import ServiceSettings

_LOG_LINES = 5
# How processes end by an error in native code; SIGKILL comes from the system or from the service.
_CRASH_SIGNALS = frozenset(
    getattr(signal, name) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL") if hasattr(signal, name)
)


@dataclass(frozen=True)
class WorkerEnd:
    """How a worker ended.

    Attributes:
        reason: behind "the worker on DEVICE": "was killed by SIGKILL".
        last_lines: of its log, about its present work.
        in_native_code: whether it was an error there, which may come a job late.
        blames: whether its job may be the cause.
    """

    reason: str
    last_lines: Sequence[str] = ()
    in_native_code: bool = False
    blames: bool = True


class WorkerProcess(Protocol):
    """A worker that has been started.

    Attributes:
        device: what it works on, for people.
        what: it is, for the log: "process 4711".
    """

    device: str
    what: str

    @property
    def output(self) -> Iterable[bytes]:
        """Its lines, to its end; see `ex4d.service.worker`."""
        ...

    def wake(self) -> None:
        """Tell it that there may be work; it may have ended."""
        ...

    def end(self) -> None:
        """Ask it to end, since the service does."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def wait(self, seconds: float | None = None) -> None:
        """Until it has ended; raises TimeoutError after so many seconds."""
        ...

    def begin_lines(self, offset: int) -> None:
        """Its next job's lines begin so many bytes into its log."""
        ...

    def shorten_log(self) -> None:
        """Cut its log where that has grown too long; to be called between jobs."""
        ...

    def close(self) -> WorkerEnd:
        """Let go of one that has ended, and tell how."""
        ...


class WorkerPlaces(Protocol):
    """Where workers can run."""

    def devices(self) -> Sequence[str]:
        """What there should be a worker on now, for people: each has one; they may come and go."""
        ...

    def problem(self) -> str:
        """Why there are none, for people; "" if there are."""
        ...

    def start(self, number: int, name: str) -> WorkerProcess:
        """Start a worker of a name at one of the `devices`."""
        ...

    def tick(self) -> float:
        """Do what is due; returns the seconds until the next call is."""
        ...

    def stop(self) -> None:
        """End what this has started besides workers."""
        ...


class LocalPlaces:
    """A worker process on this machine for each device of the settings."""

    def __init__(self, settings: ServiceSettings):
        """Start none yet."""
        self._settings = settings

    def devices(self) -> Sequence[str]:
        """See `WorkerPlaces`."""
        return self._settings.devices

    def problem(self) -> str:
        """There are always as many as were asked for."""
        return ""

    def start(self, number: int, name: str) -> WorkerProcess:
        """See `WorkerPlaces`."""
        settings, device = self._settings, self._settings.devices[number]
        options = {"data": str(settings.data), "name": name, "device": device, "runner": settings.runner}
        options["machine"] = settings.machine.to_json()
        options["reserve"] = str(settings.reserve_mb)
        options["preload"] = settings.preload or ""
        log = settings.data / "logs" / f"worker-{number}-{device.replace(':', '')}.log"
        return _LocalWorker(ChildProcess("ex4d.service.worker", options, settings.data, log), device, log)

    def tick(self) -> float:
        """There is nothing to do."""
        return float("inf")

    def stop(self) -> None:
        """There is nothing else."""


class _LocalWorker:
    """See `WorkerProcess`."""

    def __init__(self, process: ChildProcess, device: str, log: Path):
        self._process, self.device, self._log = process, device, log
        self.what = f"process {process.pid}"

    @property
    def output(self) -> Iterable[bytes]:
        return self._process.output

    def wake(self) -> None:
        # It may have died; then its end is on the way to the service.
        with contextlib.suppress(OSError):
            self._process.input.write(b"\n")

    def end(self) -> None:
        self._process.input.close()

    def kill(self) -> None:
        self._process.kill()

    def wait(self, seconds: float | None = None) -> None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def begin_lines(self, offset: int) -> None:
        self._process.log_start = offset

    def shorten_log(self) -> None:
        if shorten_log(self._log):
            self._process.log_start = 0

    def close(self) -> WorkerEnd:
        self._process.close()
        code = self._process.returncode
        lines = last_lines(self._log, self._process.log_start)
        return WorkerEnd(ending(code), lines, -code in _CRASH_SIGNALS)


def ending(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = {"SIGKILL": ", by the system if memory ran out", "SIGSEGV": ", a crash in native code"}.get(name, "")
    return f"was killed by {name}{hint}"


def last_lines(path: Path, start: int) -> list[str]:
    """The last lines of a log, from so many bytes on."""
    try:
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - 4096, start))
            lines = file.read().decode(errors="replace").strip().splitlines()[-_LOG_LINES:]
            return [message_of(line) for line in lines]
    except FileNotFoundError:
        return []

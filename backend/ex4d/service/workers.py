"""The worker processes as the service sees them: started, woken, watched, stopped, replaced.

A worker is told things by its standard input (a byte: there is work; its end: the service is gone) and tells things
by its standard output, a line each (see `ex4d.service.worker`). All that matters is in the job store; the pipes
only save waiting.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore
from ex4d.service.processes import shorten_log, start_process
from ex4d.service.settings import ServiceSettings
from ex4d_core.stages import LOAD_STAGE, WARM_UP_STAGE

log = logging.getLogger(__name__)

# A worker that dies before it first looked for work is replaced after 0.5, 1, 2... seconds, at most this.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
# Importing torch can take this long on a cold disk.
_START_SECONDS = 120.0
# How long workers get to end by themselves when the service stops; they have nothing to put away.
_STOP_SECONDS = 1.0
# A cancelled job's worker gets as long as so many of its longest steps.
_STEPS_OF_PATIENCE = 3
_LOG_LINES = 5


@dataclass
class _Worker:
    """One process.

    Attributes:
        slot: index of its place.
        log_start: where its own lines begin in the log.
        heard: monotonic time of its last line.
        longest: seconds of its longest silence at work; a step of its engine may take so long.
        proven: whether it has looked for work, and so got through its start.
        job: what it works on, "" for nothing.
        kill_at: monotonic time at which it is killed, unless it comes back for work.
        verdict: why it is killed.
    """

    slot: int
    name: str
    process: subprocess.Popen
    log_start: int
    heard: float
    proven: bool = False
    idle: bool = False
    job: str = ""
    longest: float = 0.0
    kill_at: float | None = None
    verdict: str = ""


@dataclass
class _Slot:
    """A device's place: the worker there now, or when to start the next one."""

    device: str
    worker: _Worker | None = None
    start_at: float = 0.0
    deaths: int = 0
    words: str = ""
    engines: dict[str, str] = field(default_factory=dict)
    rasterizers: dict[str, str] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)


class Workers:
    """One worker for each device; to be used on the service's loop only.

    Args:
        job_changed: called with a job's id whenever a worker, or the end of one, has changed it.
    """

    def __init__(self, settings: ServiceSettings, store: JobStore, inbox: Inbox, job_changed: Callable[[str], None]):
        self._settings = settings
        self._store = store
        self._inbox = inbox
        self._job_changed = job_changed
        self._slots = [_Slot(device) for device in settings.devices]
        self._gone: list[_Worker] = []
        self._work = settings.data / "work"
        self._logs = settings.data / "logs"
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(exist_ok=True)
        self._logs.mkdir(exist_ok=True)

    @property
    def devices(self) -> list[str]:
        """The devices in words, for people."""
        return [slot.words or f"{slot.device} (starting)" for slot in self._slots]

    @property
    def engines(self) -> dict[str, str]:
        return {name: text for slot in self._slots for name, text in slot.engines.items()}

    @property
    def rasterizers(self) -> dict[str, str]:
        return {name: text for slot in self._slots for name, text in slot.rasterizers.items()}

    @property
    def lacking(self) -> dict[str, str]:
        """Engines that none of the devices has, and why."""
        engines = self.engines
        return {name: text for slot in self._slots for name, text in slot.lacking.items() if name not in engines}

    def wake(self) -> None:
        """There is a queued job: have the idle workers look for it."""
        for slot in self._slots:
            if slot.worker and slot.worker.idle:
                # Its silence until now was idleness.
                slot.worker.idle, slot.worker.heard = False, time.monotonic()
                # It may have died; then its end is on the way to us.
                with contextlib.suppress(OSError):
                    slot.worker.process.stdin.write(b"\n")

    def cancelled(self, job: str) -> None:
        """A job was cancelled: its worker must come back for other work soon, or is replaced.

        While models are loaded and warm up, only silence for `hang_seconds` speaks against it.
        """
        status = self._store.status(job)
        if status and status.stage in (LOAD_STAGE, WARM_UP_STAGE):
            return
        for slot in self._slots:
            if slot.worker and slot.worker.job == job:
                now = time.monotonic()
                # It can stop after its present step, which may take as long as others did; a killed worker would have
                # to load its models again.
                silence = max(slot.worker.longest, now - slot.worker.heard)
                slot.worker.kill_at = now + max(self._settings.cancel_seconds, _STEPS_OF_PATIENCE * silence)
                slot.worker.verdict = f"went on with the cancelled job {job}"

    def tick(self) -> float:
        """Bury, replace and kill whoever is due; returns the seconds until this is worth calling again."""
        now = time.monotonic()
        while self._gone:
            self._bury(self._gone[0])
            self._gone.pop(0)
        due = [now + _LONGEST_PAUSE_SECONDS]
        for slot in self._slots:
            worker = slot.worker
            if worker is None:
                if slot.start_at <= now:
                    self._start(slot)
                due.append(slot.start_at)
            elif not worker.idle:
                patience = self._settings.hang_seconds if worker.proven else _START_SECONDS
                hung_at = worker.heard + patience
                if worker.kill_at is not None and worker.kill_at <= now:
                    worker.process.kill()
                elif hung_at <= now:
                    worker.verdict = f"made no progress for {patience:g} seconds and was stopped"
                    worker.process.kill()
                else:
                    due.append(hung_at if worker.kill_at is None else min(hung_at, worker.kill_at))
        return max(min(due) - time.monotonic(), 0.0)

    def stop(self) -> None:
        """End all workers; when this returns none is left, and none will be started."""
        workers = [slot.worker for slot in self._slots if slot.worker]
        for worker in workers:
            worker.process.stdin.close()
        deadline = time.monotonic() + _STOP_SECONDS
        for worker in workers:
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._slots.clear()
        shutil.rmtree(self._work, ignore_errors=True)

    def _start(self, slot: _Slot) -> None:
        number = self._slots.index(slot)
        name = f"{number}-{secrets.token_hex(4)}"
        options = {"data": str(self._settings.data), "name": name, "device": slot.device}
        options |= {"runner": self._settings.runner, "machine": self._settings.machine.to_json()}
        log_path = self._log(slot)
        shorten_log(log_path)
        with open(log_path, "ab") as errors:
            log_start = errors.tell()
            process = start_process("ex4d.service.worker", options, self._settings.data, errors)
        slot.worker = _Worker(number, name, process, log_start, heard=time.monotonic())
        log.info("worker %s on %s started as process %d", name, slot.device, process.pid)
        threading.Thread(target=self._listen, args=(slot.worker,), name=f"worker {name}", daemon=True).start()

    def _log(self, slot: _Slot) -> Path:
        return self._logs / f"worker-{self._slots.index(slot)}-{slot.device.replace(':', '')}.log"

    def _listen(self, worker: _Worker) -> None:
        """In a thread: pass on the worker's lines, and then its end."""
        for line in worker.process.stdout:
            self._inbox.post(partial(self._hear, worker, line))
        worker.process.wait()
        self._inbox.post(partial(self._gone.append, worker))

    def _hear(self, worker: _Worker, line: bytes) -> None:
        now = time.monotonic()
        if worker.job:
            worker.longest = max(worker.longest, now - worker.heard)
        worker.heard = now
        word, _, rest = line.decode().strip().partition(" ")
        if word == "ready":
            slot = self._slots[worker.slot]
            introduction = json.loads(rest)
            slot.words, slot.engines, slot.rasterizers, slot.lacking = (
                introduction[key] for key in ("device", "engines", "rasterizers", "lacking")
            )
            log.info("worker %s is ready: %s", worker.name, slot.words)
            for name, reason in slot.lacking.items():
                log.info("worker %s lacks %s: %s", worker.name, name, reason)
        elif word == "idle":
            self._comes_for_work(worker, idle=True)
            # One may have come between its look and its word.
            if self._store.has_queued():
                self.wake()
        elif word == "claimed":
            self._comes_for_work(worker, job=rest)
            log.info("job %s runs on %s", rest, self._slots[worker.slot].device)
            status = self._store.status(rest)
            if status and status.state == "cancelled":
                self.cancelled(rest)
            self._job_changed(rest)
        elif word == "changed":
            self._job_changed(rest)
        elif word == "ended":
            status = self._store.status(rest)
            log.info("job %s is %s %s", rest, status.state, status.reason.partition("\n")[0])
            self._job_changed(rest)

    def _comes_for_work(self, worker: _Worker, *, idle: bool = False, job: str = "") -> None:
        worker.idle, worker.job, worker.kill_at, worker.verdict = idle, job, None, ""
        worker.proven = True
        slot = self._slots[worker.slot]
        slot.deaths = 0
        if shorten_log(self._log(slot)):
            worker.log_start = 0

    def _bury(self, worker: _Worker) -> None:
        """Settle what a dead worker leaves behind, and plan for the next one."""
        slot = self._slots[worker.slot]
        reason = f"the worker on {slot.device} {worker.verdict or _ending(worker.process.returncode)}"
        last = _last_lines(self._log(slot), worker.log_start)
        last_lines = "\n".join(last)
        status = self._store.worker_died(worker.name, f"{reason}\n{last_lines}".strip())
        log.warning("%s%s", reason, f"; its last lines:\n{last_lines}" if last_lines else "")
        shutil.rmtree(self._work / worker.name, ignore_errors=True)
        worker.process.stdin.close()
        worker.process.stdout.close()
        slot.worker = None
        if worker.proven:
            slot.start_at = 0.0
        else:
            slot.start_at = time.monotonic() + min(_FIRST_PAUSE_SECONDS * 2**slot.deaths, _LONGEST_PAUSE_SECONDS)
            slot.deaths += 1
            slot.words = f"{slot.device} (does not start: {last[-1] if last else reason})"
        if status:
            log.info("job %s is %s after attempt %d", status.job, status.state, status.attempt)
            self._job_changed(status.job)
            self.wake()


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = {"SIGKILL": ", by the system if memory ran out", "SIGSEGV": ", a crash in native code"}.get(name, "")
    return f"was killed by {name}{hint}"


def _last_lines(path: Path, start: int) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - 4096, start))
            return file.read().decode(errors="replace").strip().splitlines()[-_LOG_LINES:]
    except FileNotFoundError:
        return []

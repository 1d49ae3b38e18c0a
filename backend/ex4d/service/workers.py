"""`Workers`: starts, wakes, watches, stops and replaces the workers of a service, wherever they run.

They report in lines (see `ex4d.service.worker`); `ex4d.service.worker_processes` starts them. All state is in the job
store; the lines only save polling.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from ex4d.service.disk_room import DiskRoom
from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore
from ex4d.service.kept_finals import drop_kept
from ex4d.service.settings import ServiceSettings
from ex4d.service.worker_processes import LocalPlaces, WorkerPlaces, WorkerProcess
from ex4d_core import __version__
from ex4d_core.job_status import JobSilence, JobStatus
from ex4d_core.messages import Welcome
from ex4d_core.stages import ENCODE_STAGE, LOAD_STAGE, NO_ROOM_STAGE, PAUSED, WARM_UP_STAGE, StageDetails

log = logging.getLogger(__name__)

# A worker that dies before it asked for work is replaced after 0.5, 1, 2... seconds, at most this.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
# Importing torch can take this long from a cold disk.
_START_SECONDS = 120.0
# Time for workers to end by themselves when the service stops; they have nothing to save.
_STOP_SECONDS = 1.0
# The worker of a cancelled job gets the time of this many of its longest steps.
_STEPS_UNTIL_KILLED = 3
# What is known of the room on the disk is at most this old.
_ROOM_SECONDS = 0.2


@dataclass
class _Worker:
    """One worker.

    Attributes:
        process: what runs it.
        name: its name in the job store.
        heard: monotonic time of its last line.
        proven: whether it has asked for work, and so got through its start.
        idle: whether it waits for work.
        job: what it works on, "" for nothing.
        waiting: why it waits for room on the disk, "" if it does not.
        longest: seconds of its longest silence at work; a step of its engine may take as long.
        kill_at: monotonic time at which it is killed, unless it asks for work before.
        kill_reason: why it is killed.
        to_blame: whether its death counts against its job; on a full disk it does not.
        finished: how many jobs it has worked on before.
    """

    process: WorkerProcess
    name: str
    heard: float
    proven: bool = False
    idle: bool = False
    job: str = ""
    waiting: str = ""
    longest: float = 0.0
    kill_at: float | None = None
    kill_reason: str = ""
    to_blame: bool = True
    finished: int = 0


@dataclass
class _Slot:
    """A device's place: the worker there now, or when to start the next one, and what the last one reported."""

    device: str
    worker: _Worker | None = None
    start_at: float = 0.0
    failed_starts: int = 0
    device_name: str = ""
    capabilities: dict[str, dict[str, str]] = field(default_factory=dict)


class Workers:
    """One worker for each place; to be used on the service's loop only."""

    def __init__(
        self,
        settings: ServiceSettings,
        store: JobStore,
        inbox: Inbox,
        job_changed: Callable[[str], None],
        job_left: Callable[[str], None] = lambda job: None,
        places: WorkerPlaces | None = None,
    ):
        """Prepare the folders; `tick` starts the workers.

        Args:
            settings: of the service.
            store: the loop's own connection.
            inbox: of the loop.
            job_changed: called with a job's id whenever a worker, or its end, has changed it.
            job_left: called with a job's id whenever a worker, or its end, has left it.
            places: where workers run; on this machine's devices of the settings by default.
        """
        self._settings = settings
        self._store = store
        self._inbox = inbox
        self._job_changed, self._job_left = job_changed, job_left
        self._ended: list[tuple[_Slot, _Worker]] = []
        self._room = DiskRoom(settings.data, settings.reserve_mb * 1e6)
        self._paused, self._asked_at = "", -_ROOM_SECONDS
        self._work = settings.data / "work"
        self._places = places or LocalPlaces(settings)
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(exist_ok=True)
        drop_kept(settings.data, store)
        (settings.data / "logs").mkdir(exist_ok=True)
        self._slots = [_Slot(device) for device in self._places.devices()]

    def welcome(self, *, busy: bool) -> Welcome:
        """How the service introduces itself: its devices, and what any of them can do."""
        merged = self._merged
        paused = self.paused()
        devices = [
            (slot.device_name or f"{slot.device} (starting)") + (paused and f"{PAUSED}{paused}") for slot in self._slots
        ] or [self._places.problem()]
        engines = merged("engines")
        unavailable = {name: text for name, text in merged("unavailable").items() if name not in engines}
        return Welcome("ex4d", __version__, devices, engines, merged("rasterizers"), busy, unavailable)

    def weights_elsewhere(self) -> tuple[dict[str, str], dict[str, str]]:
        """Parts of the weights that workers found in other programs' folders, and further adapters: a file of each."""
        return self._merged("weights"), self._merged("adapters")

    def _merged(self, kind: str) -> dict[str, str]:
        return {name: text for slot in self._slots for name, text in slot.capabilities.get(kind, {}).items()}

    def paused(self) -> str:
        """Why no queued job is taken up now, for people; "" if they are."""
        # A list of jobs asks for each of them, and the disk may be a network's.
        now = time.monotonic()
        if now >= self._asked_at + _ROOM_SECONDS:
            self._asked_at, self._paused = now, self._room.problem()
        return self._paused

    def shown(self, status: JobStatus) -> JobStatus:
        """A job's status as clients see it: a queued job tells why the queue is paused."""
        if status.state == "queued" and (paused := self.paused()):
            return replace(status, stage=NO_ROOM_STAGE, reason=f"the queue is paused: {paused}")
        return status

    def silences(self, owner: str | None) -> list[JobSilence]:
        """How long ago each running job of an owner, or of everybody, made progress, and when it counts as hung."""
        now, limit = time.monotonic(), self._settings.hang_seconds
        running = [(one, self._store.status(one.job, owner)) for one in self._running() if one.job]
        return [
            JobSilence(one.job, now - one.heard, limit)
            for one, status in running
            if status and status.state == "running"
        ]

    def wake(self) -> None:
        """Have the idle workers ask for work."""
        for worker in self._running():
            if worker.idle:
                # It was silent until now because it was idle.
                worker.idle, worker.heard = False, time.monotonic()
                worker.process.wake()

    def job_cancelled(self, job: str) -> None:
        """Have the worker of a cancelled job ask for other work soon, or replace it.

        While models are loaded, encode and warm up, only silence for `hang_seconds` counts against it.
        """
        drop_kept(self._settings.data, self._store)
        status = self._store.status(job)
        if status and StageDetails.of(status.stage).name in (LOAD_STAGE, ENCODE_STAGE, WARM_UP_STAGE):
            return
        for worker in self._running():
            if worker.job == job:
                now = time.monotonic()
                # It can stop after its present step, which may take as long as earlier ones; a killed worker would have
                # to load its models again.
                silence = max(worker.longest, now - worker.heard)
                worker.kill_at = now + max(self._settings.cancel_seconds, _STEPS_UNTIL_KILLED * silence)
                worker.kill_reason = f"continued the cancelled job {job}"

    def tick(self) -> float:
        """Start, kill and replace workers that are due; returns the seconds until the next call is due."""
        now = time.monotonic()
        while self._ended:
            self._clean_up(*self._ended[0])
            self._ended.pop(0)
        due = [now + min(_LONGEST_PAUSE_SECONDS, self._places.tick())]
        self._fit_to_places()
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
                    worker.kill_reason = f"made no progress for {patience:g} seconds and was stopped"
                    worker.process.kill()
                else:
                    due.append(hung_at if worker.kill_at is None else min(hung_at, worker.kill_at))
        return max(min(due) - time.monotonic(), 0.0)

    def stop(self) -> None:
        """End all workers; when this returns none is left, and none will be started."""
        workers = self._running()
        for worker in workers:
            worker.process.end()
        deadline = time.monotonic() + _STOP_SECONDS
        for worker in workers:
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0.0))
            except TimeoutError:
                worker.process.kill()
                worker.process.wait()
        self._places.stop()
        self._slots.clear()
        shutil.rmtree(self._work, ignore_errors=True)

    def _running(self) -> list[_Worker]:
        return [slot.worker for slot in self._slots if slot.worker]

    def _fit_to_places(self) -> None:
        """Have a slot for each place; one too many goes when its worker has ended, or has no work yet."""
        devices = self._places.devices()
        self._slots += [_Slot(device) for device in devices[len(self._slots) :]]
        for slot in [slot for slot in self._slots if slot.worker is None][::-1]:
            if len(self._slots) > len(devices):
                self._slots.remove(slot)
        for slot in self._slots[len(devices) :][::-1]:
            if slot.worker and not slot.worker.proven:
                slot.worker.kill_reason = "has no place any more"
                slot.worker.process.kill()

    def _start(self, slot: _Slot) -> None:
        number = self._slots.index(slot)
        name = f"{number}-{secrets.token_hex(4)}"
        process = self._places.start(number, name)
        slot.worker = _Worker(process, name, heard=time.monotonic())
        log.info("worker %s on %s started as %s", name, process.device, process.what)
        threading.Thread(target=self._listen, args=(slot, slot.worker), name=f"worker {name}", daemon=True).start()

    def _listen(self, slot: _Slot, worker: _Worker) -> None:
        """In a thread: pass on the worker's lines, and its end."""
        for line in worker.process.output:
            self._inbox.post(partial(self._handle_line, slot, worker, line))
        worker.process.wait()
        self._inbox.post(partial(self._ended.append, (slot, worker)))

    def _handle_line(self, slot: _Slot, worker: _Worker, line: bytes) -> None:
        now = time.monotonic()
        if worker.job:
            worker.longest = max(worker.longest, now - worker.heard)
        worker.heard = now
        word, _, rest = line.decode().strip().partition(" ")
        if word == "waiting":
            self._waits(worker, rest)
            return
        if worker.waiting:
            worker.waiting = ""
            log.info("worker %s continues: there is room again", worker.name)
        if word == "ready":
            slot.device_name, slot.capabilities = json.loads(rest)
            log.info("worker %s is ready: %s", worker.name, slot.device_name)
            for name, reason in slot.capabilities["unavailable"].items():
                log.info("%s is unavailable on worker %s: %s", name, worker.name, reason)
        elif word == "idle":
            self._asks_for_work(slot, worker, idle=True)
            # A job may have been queued between its question and its report.
            if self._store.has_queued():
                self.wake()
        elif word == "claimed":
            self._asks_for_work(slot, worker, job=rest)
            log.info("job %s runs on %s", rest, worker.process.device)
            status = self._store.status(rest)
            if status and status.state == "cancelled":
                self.job_cancelled(rest)
            self._job_changed(rest)
        elif word == "changed":
            self._job_changed(rest)
        elif word == "ended":
            self._ends_job(worker, *rest.split())

    def _ends_job(self, worker: _Worker, job: str, log_bytes: str) -> None:
        # Its lines are never quoted in the reason of another's job.
        worker.process.begin_lines(int(log_bytes))
        worker.finished += 1
        if status := self._store.status(job):
            log.info("job %s is %s %s", job, status.state, status.reason.partition("\n")[0])
        drop_kept(self._settings.data, self._store)
        self._job_changed(job)
        self._job_left(job)

    def _waits(self, worker: _Worker, reason: str) -> None:
        """A worker looks for room on the disk every second, with or without a job."""
        if not worker.waiting:
            log.error("the queue is paused: %s; it continues by itself when there is room", reason)
        worker.waiting, worker.proven = reason, True

    def _asks_for_work(self, slot: _Slot, worker: _Worker, *, idle: bool = False, job: str = "") -> None:
        worker.idle, worker.job, worker.kill_at, worker.kill_reason = idle, job, None, ""
        worker.proven = True
        slot.failed_starts = 0
        worker.process.shorten_log()

    def _clean_up(self, slot: _Slot, worker: _Worker) -> None:
        """Requeue or fail the job of a dead worker, and plan the start of the next worker."""
        end = worker.process.close()
        reason = f"the worker on {worker.process.device} {worker.kill_reason or end.reason}"
        last_lines = "\n".join(end.last_lines)
        # A full disk kills as well (a mapped file without room is a SIGBUS). Asked before its folder makes room, which
        # the record of its end may need.
        # Native code that wrote where it must not may end the process a job later; a second time it is a new process.
        inherited = worker.finished > 0 and end.in_native_code
        worker.to_blame = worker.to_blame and end.blames and not inherited and not self._room.problem()
        shutil.rmtree(self._work / worker.name, ignore_errors=True)
        status = self._store.worker_died(worker.name, f"{reason}\n{last_lines}".strip(), count=worker.to_blame)
        drop_kept(self._settings.data, self._store)
        log.warning("%s%s", reason, f"; its last lines:\n{last_lines}" if last_lines else "")
        slot.worker = None
        if worker.proven:
            slot.start_at = 0.0
        else:
            pause = min(_FIRST_PAUSE_SECONDS * 2**slot.failed_starts, _LONGEST_PAUSE_SECONDS)
            slot.start_at = time.monotonic() + pause
            slot.failed_starts += 1
            slot.device_name = f"{slot.device} (does not start: {end.last_lines[-1] if end.last_lines else reason})"
        if status:
            log.info("job %s is %s after attempt %d", status.job, status.state, status.attempt)
            self._job_changed(status.job)
            self._job_left(status.job)
            self.wake()

"""Runs the commands of a batch: a worker process for each device, scenes before their shots, finished work skipped.

What is finished is kept in a file for each command, written after it, so that a batch that was ended in any way
continues where it was, and several machines may work on one.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ex4d.cli.batch_file import LOG, OLD_STATE, STATE, BatchError, Shot, Work
from ex4d.cli.batch_locks import state_name
from ex4d.cli.main import verb_parser
from ex4d.progress import Progress, ignore_progress
from ex4d.service.processes import ChildProcess, read_messages, write_message
from ex4d_core.durable_files import put_in_place

# A worker that was told to end puts its unfinished files away.
_ENDING_SECONDS = 20.0


@dataclass
class Outcome:
    """What became of a command.

    Attributes:
        state: "done", "skipped" (it was done before), "failed", or "waiting".
        error: why it failed, for people.
        seconds: that it took.
        notes, result: of its report; a skipped one has those of its first run.
    """

    state: str = "waiting"
    error: str = ""
    seconds: float = 0.0
    device: str = ""
    notes: list[str] = field(default_factory=list)
    result: Mapping[str, Any] = field(default_factory=dict)


class BatchState:
    """Which commands of a batch were started and finished, by any process: a file for each, in the batch's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / STATE
        self._old: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError, RecursionError):  # a damaged file: everything is made again
            self._old = json.loads((folder / OLD_STATE).read_text(encoding="utf-8"))

    def finished(self, work: Work) -> Outcome | None:
        """The outcome of a command that was done before, unless its inputs have changed or its outputs are gone."""
        entry = self._entry(work) or {}
        if entry.get("key") != work.key or not entry.get("done"):
            return None
        if not work.out.exists() or not all(map(os.path.exists, entry["files"])):
            return None
        return Outcome("skipped", seconds=entry["seconds"], notes=entry["notes"], result=entry["result"])

    def is_finished(self, work: Work) -> bool:
        """Whether `finished` has an outcome."""
        return self.finished(work) is not None

    def require_ours(self, shots: Sequence[Shot]) -> None:
        """Check that nothing is replaced that this batch has not begun itself.

        Raises:
            BatchError: names what would be.
        """
        works = dict.fromkeys(work for shot in shots for work in (shot.scene, shot.view) if work is not None)
        strange = [
            f"{work.out}"
            for work in works
            if self._entry(work) is None
            and "--overwrite" not in work.words
            and (work.out.is_file() or (work.out.is_dir() and any(work.out.iterdir())))
        ]
        if strange:
            raise BatchError(
                "\n  ".join(
                    ["this batch has not made what is in its outputs; move it away, or give another out:", *strange]
                )
            )

    def further_words(self, work: Work) -> list[str]:
        """Options with which a verb continues with its own unfinished output, or replaces it."""
        known = verb_parser(work.verb)._option_string_actions
        entry = self._entry(work)
        if entry is None or "--overwrite" in work.words:
            return []
        resumes = entry["key"] == work.key and not entry.get("done") and "--resume" in known
        return ["--resume"] if resumes else ["--overwrite"] if "--overwrite" in known else []

    def note_started(self, work: Work) -> None:
        """Before a command: what is in its folder from now on is ours."""
        self._write(work, {"key": work.key})

    def note_done(self, work: Work, outcome: Outcome) -> None:
        """After a command."""
        texts = [value for value in outcome.result.values() if isinstance(value, str)]
        files = [text for text in texts if Path(text).is_absolute() and os.path.exists(text)]
        kept = {"seconds": outcome.seconds, "notes": outcome.notes, "result": dict(outcome.result)}
        self._write(work, {"key": work.key, "done": True, "files": files, **kept})

    def _entry(self, work: Work) -> dict[str, Any] | None:
        path = self._path(work)
        with suppress(OSError, ValueError, RecursionError):
            entry = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(entry, dict) and entry.get("out") == str(work.out):
                return entry
        return None if path.exists() else self._old.get(str(work.out))

    def _path(self, work: Work) -> Path:
        return self._folder / f"{state_name(work.out)}.json"

    def _write(self, work: Work, entry: dict[str, Any]) -> None:
        self._folder.mkdir(exist_ok=True)
        write_json(self._path(work), {"out": str(work.out), **entry})


def write_json(path: Path, document: Any) -> None:
    """Write a document, completely or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
        put_in_place(partial, path)
    finally:  # also when a signal ends the command in the middle
        partial.unlink(missing_ok=True)


def run_shots(
    shots: Sequence[Shot],
    folder: Path,
    devices: Sequence[str],
    *,
    outcomes: dict[Path, Outcome],
    ended: Callable[[Work], None] = lambda work: None,
    log: str = LOG,
    progress: Progress = ignore_progress,
) -> None:
    """Make all shots that are not made yet; one that fails stops only the shots of the scene that it is.

    Args:
        folder: of the batch; exists.
        devices: one for each worker, or "auto" for every GPU, else the processor.
        outcomes: filled in, by the commands' outputs.
        ended: called after each command.
        log: file in the folder for what worker processes print.
        progress: called with shot, device and stage, and with the number of shots that are over.
    """
    state = BatchState(folder)
    for shot in shots:
        outcomes[shot.view.out] = state.finished(shot.view) or Outcome()
        if shot.scene is not None and shot.scene.out not in outcomes:
            outcomes[shot.scene.out] = state.finished(shot.scene) or Outcome()
    run = _Run(shots, state, outcomes, ended, progress)
    if not run.ready:
        return
    pool = _Pool(folder / log)
    try:
        for device in devices:
            pool.start(device)
        while run.ready or pool.busy:
            for worker in pool.idle:
                if run.ready:
                    work = run.ready.popleft()
                    words = [*work.words, *state.further_words(work)]
                    state.note_started(work)
                    pool.send(worker, work, words)
            run.receive(pool)
    finally:
        pool.close()


class _Run:
    """What is ready, what waits for its scene, and how messages change that."""

    def __init__(
        self,
        shots: Sequence[Shot],
        state: BatchState,
        outcomes: dict[Path, Outcome],
        on_end: Callable[[Work], None],
        progress: Progress,
    ) -> None:
        self._shots, self._state, self._outcomes = shots, state, outcomes
        self._on_end, self._progress = on_end, progress
        self._names = {work.out: shot.name for shot in reversed(shots) for work in (shot.view, shot.scene) if work}
        self.ready: deque[Work] = deque()
        for shot in shots:
            if outcomes[shot.view.out].state == "waiting":
                scene = shot.scene
                if scene is None or outcomes[scene.out].state == "skipped":
                    self.ready.append(shot.view)
                elif scene not in self.ready:
                    self.ready.append(scene)

    def receive(self, pool: _Pool) -> None:
        """Take one message of a worker into account."""
        worker, message = pool.messages.get()
        work = worker.work
        if message is None:
            pool.lost(worker, again=bool(self.ready))
            if work is not None:
                self._ended(work, Outcome("failed", worker.death(), device=worker.device))
        elif "devices" in message:
            pool.ready(worker, message["devices"], wanted=len(self.ready))
        elif work is not None and "ended" in message:
            ended = message["ended"]
            code, error = ended["code"], ended["error"] or f"exit code {ended['code']}"
            seconds = time.monotonic() - worker.began
            state, error = ("done", "") if code == 0 else ("failed", error)
            worker.work = None
            self._ended(work, Outcome(state, error, seconds, worker.device, ended["notes"], ended["result"]))
        elif work is not None:
            self._progress(f"{self._names[work.out]} {message['stage']}", message["done"], message["total"])

    def _ended(self, work: Work, outcome: Outcome) -> None:
        self._outcomes[work.out] = outcome
        if outcome.state == "done":
            self._state.note_done(work, outcome)
        waiting = [shot for shot in self._shots if shot.scene == work and self._is_waiting(shot)]
        if outcome.state == "done":
            # Ahead of other scenes, so that shots are finished early.
            self.ready.extendleft(shot.view for shot in reversed(waiting))
        else:
            for shot in waiting:
                self._outcomes[shot.view.out] = Outcome("failed", f"its scene failed: {outcome.error}")
        over = sum(not self._is_waiting(shot) for shot in self._shots)
        if work.verb != "reconstruct" or (waiting and outcome.state != "done"):
            self._progress(f"{over} of {len(self._shots)} shots", 0, 0)
        self._on_end(work)

    def _is_waiting(self, shot: Shot) -> bool:
        return self._outcomes[shot.view.out].state == "waiting"


class _Worker:
    """A worker process, and the thread that reads its messages."""

    def __init__(self, device: str, log: Path, messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        self.device, self._log = device, log
        self.work: Work | None = None
        self.began, self.is_ready = 0.0, False
        # In the folder that this command was started in, as any path without a root is meant.
        self.process = ChildProcess("ex4d.cli.batch_worker", {"device": device}, Path.cwd(), log)

        def read() -> None:
            with suppress(ValueError, OSError):  # it was ended in the middle of a message
                for message in read_messages(self.process.output):
                    messages.put((self, message))
            messages.put((self, None))

        threading.Thread(target=read, daemon=True, name=f"batch {device}").start()

    def death(self) -> str:
        """Why the process has ended, for people."""
        code = self.process.wait()
        reason = f"ended with exit code {code}"
        if code < 0:
            reason = f"was killed by {signal.Signals(-code).name}, by the system if memory ran out"
        return f"the process that made it {reason}; {self._log} has what it printed"


class _Pool:
    """The workers of a run."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._workers: list[_Worker] = []
        self.messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()

    @property
    def idle(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.is_ready and worker.work is None]

    @property
    def busy(self) -> bool:
        return any(worker.work is not None for worker in self._workers)

    def start(self, device: str) -> None:
        self._workers.append(_Worker(device, self._log, self.messages))

    def ready(self, worker: _Worker, devices: Sequence[str], wanted: int) -> None:
        """A worker has started, and knows the devices that it was asked for; no more are started than are wanted."""
        worker.is_ready, worker.device = True, devices[0]
        for device in devices[1:wanted]:
            self.start(device)

    def send(self, worker: _Worker, work: Work, words: Sequence[str]) -> None:
        worker.work, worker.began = work, time.monotonic()
        with suppress(OSError):  # it has just ended, which its reader notices
            write_message(worker.process.input, {"verb": work.verb, "words": list(words)})

    def lost(self, worker: _Worker, *, again: bool) -> None:
        """A worker has ended by itself; another one takes its place if it had worked."""
        self._workers.remove(worker)
        worker.process.wait()
        if again and worker.work is not None:
            self.start(worker.device)
        elif again and not self._workers:
            raise RuntimeError(worker.death())

    def close(self) -> None:
        """End all workers: at once where they are idle, else when they have put their files away."""
        for worker in self._workers:
            worker.process.input.close()
            if worker.work is not None:
                worker.process.terminate()
        for worker in self._workers:
            try:
                worker.process.wait(_ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()

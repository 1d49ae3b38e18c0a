"""The worker processes of a build, one for each device, and the shards that they make."""

from __future__ import annotations

import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ex4d.machine import MachineSettings
from ex4d.service.processes import ChildProcess, read_messages, write_message
from ex4d.subprocesses import stop_process
from ex4d.training.errors import TrainingDataError

LOG = "build.log"
# A worker that was told to end removes its unfinished files.
_ENDING_SECONDS = 20.0
# A shard whose worker dies is made once more; a second time says that it kills them.
_MOST_TRIES = 2


class WorkerError(TrainingDataError):
    """A worker ended, or could not go on; the message says why."""


class _Worker:
    """A worker process, and the thread that reads its messages."""

    def __init__(self, device: str, folder: Path, machine: MachineSettings, messages: queue.Queue[Any]) -> None:
        self.device, self._log = device, folder / LOG
        self.shard: int | None = None
        self.done = 0
        options = {"folder": str(folder.absolute()), "device": device, "machine": machine.to_json()}
        self.process = ChildProcess("ex4d.training.build_worker", options, Path.cwd(), self._log)

        def read() -> None:
            with suppress(ValueError, OSError):  # it was ended in the middle of a message
                for message in read_messages(self.process.output):
                    messages.put((self, message))
            messages.put((self, None))

        threading.Thread(target=read, daemon=True, name=f"build {device}").start()

    def make(self, shard: int) -> None:
        """Have it make a shard."""
        self.shard, self.done = shard, 0
        with suppress(OSError):  # it has just ended, which its reader notices
            write_message(self.process.input, {"shard": shard})

    def death(self) -> str:
        """Why the process has ended, for people."""
        code = self.process.wait()
        reason = f"ended with exit code {code}"
        if code < 0:
            reason = f"was killed by {signal.Signals(-code).name}, by the system if memory ran out"
        return f"the worker on {self.device} {reason}; {self._log} has what it printed"


def make_shards(
    shards: Sequence[int],
    folder: Path,
    devices: Sequence[str],
    machine: MachineSettings,
    on_done: Callable[[int], None],
    on_made: Callable[[int], None],
) -> None:
    """Make shards on all devices.

    Args:
        shards: numbers of those that are not finished.
        folder: of the data set, with the plan.
        devices: one worker each; no more are started than there are shards.
        on_done: called with the samples of unfinished shards that are done.
        on_made: called with the number of each shard that is finished.

    Raises:
        WorkerError: a worker could not go on, or died twice over the same shard; the others have stopped.
    """
    waiting, tries = deque(shards), dict.fromkeys(shards, 0)
    messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
    workers = {_Worker(device, folder, machine, messages) for device in devices[: len(waiting)]}

    def next_shard(worker: _Worker) -> None:
        worker.shard = None
        if waiting:
            shard = waiting.popleft()
            tries[shard] += 1
            worker.make(shard)
        else:
            worker.process.input.close()  # which ends it

    try:
        while workers:
            worker, message = messages.get()
            if message is None:
                workers.discard(worker)
                worker.process.wait()
                worker.process.close()
                if worker.shard is None and worker.process.returncode == 0:
                    continue
                if worker.shard is None or tries[worker.shard] >= _MOST_TRIES:
                    raise WorkerError(worker.death())
                waiting.appendleft(worker.shard)
                workers.add(_Worker(worker.device, folder, machine, messages))
            elif "error" in message:
                raise WorkerError(message["error"])
            elif "done" in message:
                worker.done = message["done"]
                on_done(sum(one.done for one in workers))
            elif "made" in message:
                worker.done = 0
                on_made(message["made"])
                next_shard(worker)
            else:  # it is ready
                next_shard(worker)
    finally:
        for worker in workers:
            stop_process(worker.process, _ENDING_SECONDS)
            worker.process.close()

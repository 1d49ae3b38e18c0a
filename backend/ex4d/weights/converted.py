"""`ConvertedWeights`: networks as the engine uses them (merged, rounded, 8-bit), in files beside the weights.

Loading a network again then reads a third of the bytes, in one file, and computes nothing. A file's name is the hash
of what it was made from. It is a cache: what is missing, damaged or has no room is made from the weights again.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from ex4d.leftovers import CONVERTED_FOLDER
from ex4d.machine import MachineSettings
from ex4d.weights.notes import note_once
from ex4d.weights.parallel_files import write_tensors
from ex4d_core import __version__
from ex4d_core.durable_files import put_in_place
from ex4d_core.sizes import size_text

# To be changed with what is computed from weights before they are used, beside the project's version.
_FORMAT = 2
# Smaller networks load fast enough from any file.
LEAST_BYTES = 128 * 2**20
# What a file may leave of the disk, for the takes that people make on it.
FREE_BYTES = 10 * 2**30
# A partial file that nothing has written to for so long was left by a process that ended.
_ABANDONED_SECONDS = 600.0


def converted_weights(machine: MachineSettings) -> ConvertedWeights | None:
    """The cache beside a machine's weights; None where its owner wants none."""
    return ConvertedWeights(machine.models / CONVERTED_FOLDER, machine.converted_gb) if machine.converted_gb else None


@dataclass(frozen=True)
class ConvertedWeights:
    """The files of one folder.

    Attributes:
        folder: of the files; created when the first is written.
        limit_gb: at most this much (10**9 bytes each) is kept, what was used last; 0 for none.
    """

    folder: Path
    limit_gb: float

    def path(self, network: str, sources: Sequence[Path], *settings: object) -> Path:
        """Where the result of a conversion is, or would be.

        Args:
            network: its name, with which the file's begins.
            sources: what it is made from: another path, size or time is another source.
            settings: on which the result depends as well.
        """
        text = repr((_FORMAT, __version__, [_state(path) for path in sources], settings))
        return self.folder / f"{network}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"

    def find(self, path: Path) -> bool:
        """Whether a result is there; then it counts as used now."""
        if self.limit_gb <= 0 or not path.is_file():
            return False
        with suppress(OSError):  # the folder may belong to another user
            os.utime(path)
        return True

    def discard(self, path: Path, reason: object) -> None:
        """Remove a result that cannot be used."""
        note_once(f"a converted network is made again from its weights: {reason}")
        with suppress(OSError):
            path.unlink()

    def write_later(self, path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        """As `write`, in a thread, if the network is large; the tensors must not change meanwhile."""
        if self.limit_gb > 0 and sum(tensor.nbytes for tensor in tensors.values()) >= LEAST_BYTES:
            WRITER.add(self, path, tensors)

    def write(self, path: Path, tensors: Mapping[str, torch.Tensor], go_on: Callable[[], bool] = lambda: True) -> bool:
        """Write a result, after removing what was used longest ago and has no room beside it.

        Where it cannot be written, that is said once in the log.

        Args:
            path: from `path`.
            tensors: by name, on any device.
            go_on: see `write_tensors`.

        Returns:
            Whether it is there now.
        """
        size = sum(tensor.nbytes for tensor in tensors.values())
        partial = path.with_name(f"{path.name}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._make_room(size) or not _remove_abandoned(partial):
                return False
            try:
                if write_tensors(partial, tensors, go_on):
                    put_in_place(partial, path)
            except FileExistsError:  # another process was faster, and writes the same
                return False
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            partial.unlink(missing_ok=True)
        except OSError as error:
            note_once(
                f"converted weights cannot be kept in {self.folder} ({error}), so that networks load as slowly as the "
                "first time"
            )
            return False
        return path.is_file()

    def _make_room(self, size: int) -> bool:
        """Whether ``size`` more bytes keep to the limit and leave the disk some room; removes older files for them."""
        limit = self.limit_gb * 1e9
        if size > limit:
            note_once(
                f"converted weights of {size_text(size)} are not kept: the limit is {self.limit_gb:g} GB "
                "(converted_gb of the table [machine] in ex4d.toml)"
            )
            return False
        kept = sorted(self.folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        total = sum(file.stat().st_size for file in kept)
        while kept and total + size > limit:
            oldest = kept.pop(0)
            total -= oldest.stat().st_size
            oldest.unlink(missing_ok=True)
        free = shutil.disk_usage(self.folder).free
        if free < size + FREE_BYTES:
            note_once(
                f"converted weights of {size_text(size)} are not kept: the disk of {self.folder} has {size_text(free)} "
                f"free, and {size_text(FREE_BYTES)} are left to others"
            )
            return False
        return True


def _state(path: Path) -> tuple[str, int, int]:
    """A file's path, size and time; one that is gone is an error when it is read."""
    try:
        state = path.stat()
    except OSError:
        return str(path.absolute()), 0, 0
    return str(path.absolute()), state.st_size, state.st_mtime_ns


def _remove_abandoned(partial: Path) -> bool:
    """Whether nobody else is writing a file; removes what a process left that was ended."""
    with suppress(FileNotFoundError):
        if time.time() - partial.stat().st_mtime < _ABANDONED_SECONDS:
            return False
        partial.unlink()
    return True


class BackgroundWriter:
    """Writes results in a thread, while the networks that they belong to are used already."""

    def __init__(self):
        self._queue: queue.Queue[Callable[[], object]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def add(self, cache: ConvertedWeights, path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write a result when those before it are written; the tensors must not change meanwhile."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="write-converted-weights", daemon=True)
            self._thread.start()
            # A process that generates one shot may end before its weights are written.
            atexit.register(self.wait)
        stopped = self._stopped
        self._queue.put(lambda: stopped.is_set() or cache.write(path, tensors, lambda: not stopped.is_set()))

    def stop(self) -> None:
        """Give up what is not written yet, and the tensors with it: their memory is needed."""
        self._stopped.set()
        self.wait()
        self._stopped = threading.Event()

    def wait(self) -> None:
        """Wait until all is written or given up."""
        self._queue.join()

    def _run(self) -> None:
        while True:
            write = self._queue.get()
            # An error of the GPU comes up in the job, too.
            with suppress(RuntimeError):
                write()
            del write
            self._queue.task_done()


WRITER = BackgroundWriter()

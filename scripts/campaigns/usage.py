"""What a service takes of its machine: memory, open files and threads of its processes, and the bytes of its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from campaigns.outcome import Outcome
from campaigns.service import Service


@dataclass(frozen=True)
class Usage:
    """What a service takes at a moment.

    Attributes:
        memory: bytes of the service's own process.
        children_memory: bytes of its workers and its live view process.
        descriptors: open files, sockets and pipes of all of them.
        threads: of all of them.
    """

    memory: int
    children_memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, service: Service) -> Usage:
        """Of a service that runs."""
        own, *children = [_of_process(one) for one in (psutil.Process(service.process.pid), *service.children())]
        return cls(
            own[0],
            sum(one[0] for one in children),
            own[1] + sum(one[1] for one in children),
            own[2] + sum(one[2] for one in children),
        )

    def require_flat(
        self, before: Usage, outcome: Outcome, *, megabytes: float, descriptors: int, threads: int
    ) -> None:
        """Note what has grown by more than this since ``before``, and the figures."""
        grown = (self.memory - before.memory) / 1e6
        children = (self.children_memory - before.children_memory) / 1e6
        more = self.descriptors - before.descriptors
        outcome.require(grown <= megabytes, f"the service grew by {grown:.0f} MB, more than {megabytes:.0f}")
        outcome.require(children <= megabytes, f"its processes grew by {children:.0f} MB, more than {megabytes:.0f}")
        outcome.require(more <= descriptors, f"{more} more open files than before, not at most {descriptors}")
        added = self.threads - before.threads
        outcome.require(added <= threads, f"{added} more threads than before, not at most {threads}")
        outcome.figures |= {
            "MB after the warm-up": round(before.memory / 1e6, 1),
            "MB at the end": round(self.memory / 1e6, 1),
            "MB of its processes, then and at the end": f"{before.children_memory / 1e6:.0f} and "
            f"{self.children_memory / 1e6:.0f}",
            "open files then and at the end": f"{before.descriptors} and {self.descriptors}",
            "threads then and at the end": f"{before.threads} and {self.threads}",
        }


def _of_process(process: psutil.Process) -> tuple[int, int, int]:
    try:
        return process.memory_info().rss, process.num_fds(), process.num_threads()
    except psutil.NoSuchProcess:  # a worker that is being replaced
        return 0, 0, 0


def files_below(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every file below a folder with its bytes; a running service may delete some meanwhile."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                yield path, path.lstat().st_size
            except FileNotFoundError:
                continue


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(size for _, size in files_below(folder))

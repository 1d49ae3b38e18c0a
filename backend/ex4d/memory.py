"""How much memory of the host is free, and a check before work that needs much of it.

A process that takes more than there is makes the system end it, or others; a refusal in advance costs nothing.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from ex4d_core.errors import Ex4dError

# Limits of containers and services, in the two versions of Linux's control groups: (limit, used, statistics).
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


class MemoryRoomError(Ex4dError):
    """The machine has not enough free memory for what is about to be done; the message has both figures."""


def free_memory() -> int:
    """Bytes that this process can still take without swapping: of the machine, or of its container if that has less."""
    free = psutil.virtual_memory().available
    for limit, used, statistics in _CGROUPS:
        try:
            left = int(Path(limit).read_text()) - int(Path(used).read_text())
            cached = dict(line.split() for line in Path(statistics).read_text().splitlines())
        except (OSError, ValueError):  # no such control group, or one without a limit ("max")
            continue
        free = min(free, left + int(cached.get("inactive_file", 0)))
    return max(free, 0)


def total_memory() -> int:
    """Bytes of the machine's memory, or of its container's if that has less."""
    total = psutil.virtual_memory().total
    for limit, _, _ in _CGROUPS:
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):  # as above
            continue
    return total


def require_memory(needed: float, what: str) -> None:
    """Check that there is room.

    Args:
        needed: bytes.
        what: needs them, for people: "footage of 8000x8000 pixels".

    Raises:
        MemoryRoomError: there is not.
    """
    free = free_memory()
    if needed > free:
        raise MemoryRoomError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free on this machine; "
            "scale the footage down, or free memory there"
        )

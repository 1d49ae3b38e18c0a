"""Checks that a disk has room for what is about to be made."""

from __future__ import annotations

import shutil
from pathlib import Path

from ex4d_core.errors import Ex4dError
from ex4d_core.sizes import size_text


class DiskRoomError(Ex4dError):
    """The disk has no room for what is about to be made; the message says how much is needed, and where."""


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which need not exist yet."""
    folder = folder.absolute()
    return shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free


def require_room(folder: Path, needed: int, what: str) -> None:
    """Check that the disk has room.

    Args:
        what: needs it, for people: "a scene of 49 frames".

    Raises:
        DiskRoomError: it has not.
    """
    free = free_bytes(folder)
    if needed > free:
        raise DiskRoomError(
            f"{what} needs about {size_text(needed)}, and {size_text(free)} are free where {folder} is: free some "
            "space, choose another folder, or take fewer frames"
        )

"""`DiskRoom`: whether the disk of a data folder has room for jobs, and whether an error says that it has none.

While there is no room the queue pauses: no job begins, and a job that ran into the full disk is queued again. All
continues by itself once there is room.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ex4d_core.errors import Ex4dError, full_disk_error

# A job begins only where this share of the space that uploads leave free is there, and so many bytes and files.
_SHARE_OF_RESERVE = 0.25
_LEAST_BYTES = 2_000_000
_LEAST_FILES = 64
# A job that ran into the full disk is tried again once there is this much more than it had used.
_GROWTH = 1.05

Result = TypeVar("Result")


class DiskRoom:
    """The room in a folder; asks the system every time."""

    def __init__(self, folder: Path, reserve_bytes: float = 0.0):
        """Of a folder that exists; ``reserve_bytes`` is what uploads leave free."""
        self._folder = folder
        self.least = max(int(reserve_bytes * _SHARE_OF_RESERVE), _LEAST_BYTES)

    def free(self) -> int:
        """Bytes that jobs may write; 0 where the file system can hold no more files."""
        return 0 if self._free_files() < _LEAST_FILES else shutil.disk_usage(self._folder).free

    def problem(self) -> str:
        """Why no job can begin, for people; "" if there is room."""
        if (files := self._free_files()) < _LEAST_FILES:
            return f"{self._folder} has room for {files} more files (inodes); delete some files there"
        free = shutil.disk_usage(self._folder).free
        if free < self.least:
            return f"{self._folder} has {free / 1e6:.0f} MB free, jobs need {self.least / 1e6:.0f} MB; free some space"
        return ""

    def is_lacking(self, error: BaseException) -> bool:
        """Whether an error would not have come with more room.

        A file that is larger than the system allows is not one of them. Libraries report a full disk in their own ways,
        so anything but an error of ours counts while there is no room.
        """
        system = full_disk_error(error)
        if system is not None:
            return system.errno in (errno.ENOSPC, errno.EDQUOT)
        for one in (error, error.__cause__):
            # Without inodes SQLite cannot make its log, and says no more than that.
            if isinstance(one, sqlite3.OperationalError) and ("full" in str(one) or self.problem()):
                return True
        return not isinstance(error, Ex4dError) and bool(self.problem())

    def needed_after(self, used: int) -> int:
        """Bytes that must be free before a job is tried again that had used so many when the disk was full."""
        return max(int(used * _GROWTH), self.least)

    def _free_files(self) -> float:
        if not hasattr(os, "statvfs"):  # Windows, whose file systems have no such limit
            return float("inf")
        found = os.statvfs(self._folder)
        return found.f_favail if found.f_files else float("inf")

    def keep_trying(self, write: Callable[[], Result], wait: Callable[[str], None]) -> Result:
        """The result of ``write`` once there is room for it; ``wait`` is told the reason before each retry, and pauses.

        Raises:
            Exception: what ``write`` raises for another reason.
        """
        while True:
            try:
                return write()
            except Exception as error:
                if not self.is_lacking(error):
                    raise
                reason = self.problem() or f"{self._folder}: {error}"
            wait(reason)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_blocks * 512 if os.name != "nt" else path.lstat().st_size for path in folder.rglob("*"))

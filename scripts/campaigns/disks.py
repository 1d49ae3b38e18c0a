"""Small disks that campaigns mount, fill and cut the power of; Linux, and root."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ex4d_core.errors import Ex4dError

# Linux's FS_IOC_SHUTDOWN, with EXT4_GOING_FLAGS_NOLOGFLUSH: not even the journal is written.
_SHUTDOWN, _WITHOUT_FLUSH = 0x8004587D, 2
# Room for the work of some cuts, and for journals.
_INNER_MEGABYTES, _OUTER_MEGABYTES = 40, 64
_TRIES = 50


class DiskNeeded(Ex4dError):
    """This machine, or this user, cannot mount what a campaign needs."""


def require_mounts() -> None:
    """Check that this process may mount file systems.

    Raises:
        DiskNeeded: it may not.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise DiskNeeded("this campaign mounts small disks, which needs Linux and root: run it as root in a container")


@contextmanager
def small_disk(folder: Path, megabytes: int, files: int) -> Iterator[Path]:
    """A file system in memory of this size and for so many files; gone with its content afterwards.

    Raises:
        DiskNeeded: it cannot be mounted.
    """
    require_mounts()
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,nr_inodes={files}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _unmount(folder)


class CuttableDisk:
    """A disk whose power can be cut at any moment, also in the middle of a write.

    A file system lies in an image, which lies in a second file system, in an image of its own. The inner one's writes
    are in the outer one's memory until it asks for a flush, as those of a disk in the disk's own cache. A cut shuts the
    outer one down without writing anything more, so that what comes back is what was flushed, and what the kernel
    happened to write.
    """

    def __init__(self, folder: Path, kind: str):
        """Make both images in a folder and mount them.

        Args:
            folder: an empty one.
            kind: of the inner file system: "ext4", "ext2", "exfat" or "vfat".

        Raises:
            DiskNeeded: this machine cannot make or mount it.
        """
        require_mounts()
        self.kind, self.folder = kind, folder / "disk"
        self._outer_image, self._outer = folder / "outer.img", folder / "outer"
        self._inner_image = self._outer / "inner.img"
        self.folder.mkdir()
        self._outer.mkdir()
        with open(self._outer_image, "wb") as image:
            image.truncate(_OUTER_MEGABYTES * 2**20)
        _run("mkfs.ext4", "-q", "-F", str(self._outer_image))
        _run("mount", "-o", "loop", str(self._outer_image), str(self._outer))
        try:
            # Written, not only reserved: later writes then change nothing in the outer file system but these blocks.
            self._inner_image.write_bytes(bytes(_INNER_MEGABYTES * 2**20))
            _run(*_MAKE[kind], str(self._inner_image))
            _run("sync", "-f", str(self._outer))
            self._mount_inner()
        except BaseException:
            self.remove()
            raise

    def cut(self) -> None:
        """The power is gone: nothing more is written, and whoever tries gets an error."""
        outer = os.open(self._outer, os.O_RDONLY)
        try:
            fcntl.ioctl(outer, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSH))
        finally:
            os.close(outer)

    def restore(self) -> None:
        """The power is back: mount again what is left; a file system without a journal is repaired, as at each boot."""
        _unmount(self.folder)
        _unmount(self._outer)
        _run("mount", "-o", "loop", str(self._outer_image), str(self._outer))
        if self.kind in _REPAIR:
            subprocess.run([*_REPAIR[self.kind], str(self._inner_image)], capture_output=True)
        self._mount_inner()

    def remove(self) -> None:
        """Unmount all of it."""
        for folder in (self.folder, self._outer):
            if os.path.ismount(folder):
                _unmount(folder)

    def _mount_inner(self) -> None:
        _run("mount", "-o", "loop", "-t", self.kind, str(self._inner_image), str(self.folder))


_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "ext2": ("mkfs.ext2", "-q", "-F"),
    "exfat": ("mkfs.exfat",),
    "vfat": ("mkfs.vfat", "-F", "32"),
}
_REPAIR = {"ext2": ("e2fsck", "-fy"), "exfat": ("fsck.exfat", "-y"), "vfat": ("fsck.vfat", "-a")}


def _unmount(folder: Path) -> None:
    """Unmount, as soon as the last process of a killed service has let go."""
    for _ in range(_TRIES):
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    _run("umount", "-l", str(folder))


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise DiskNeeded(f"this campaign needs {command[0]}, which is not installed") from error
    if done.returncode:
        raise DiskNeeded(f"cannot run {' '.join(command)}: {done.stderr.strip() or done.returncode}")

"""`Users`: what each user of a service has of their own: footage and results, uploads, and room on the disk.

User "" has the data folder's own ``blobs`` and ``partial``, any other those in ``users/NAME``. So no request can learn
of, or touch, what another user has, by a hash or by the time that it takes; two users with the same footage keep it
twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from ex4d.service.accounts import Accounts
from ex4d.service.blob_store import BlobStore
from ex4d.service.downloads import Downloads
from ex4d.service.inbox import Inbox
from ex4d.service.refusals import Later, Refusal
from ex4d.service.request_checks import RequestChecks
from ex4d.service.settings import ServiceSettings, is_client_name
from ex4d.service.shared_folders import SharedFolders
from ex4d.service.uploads import Uploads

# After a tidying that did not make the room, there is none for so long.
_RETRY_SECONDS = 10.0
# A tidying makes this share of the limit more room than it must, so that not every upload begins with one.
_SPARE_SHARE = 0.05


def user_folder(data: Path, user: str) -> Path:
    """Where the blobs and uploads of a user are."""
    return data / "users" / user if user else data


def user_names(data: Path) -> list[str]:
    """The users who have a folder, "" first."""
    folder = data / "users"
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return ["", *sorted(filter(is_client_name, names))]


class User:
    """One user's blobs, uploads, downloads, and checks of requests against them; for the service's loop only."""

    def __init__(
        self,
        name: str,
        settings: ServiceSettings,
        inbox: Inbox,
        tidy: Callable[[str, float, float], int],
        limit: Callable[[], float],
    ):
        """Use the user's folders, and create them if need be; see `Users` and `UserRoom`."""
        self.room = UserRoom(limit, partial(tidy, name), inbox)
        self.blobs = BlobStore(user_folder(settings.data, name))
        self.uploads = Uploads(self.blobs, inbox, settings.reserve_mb * 1e6, self.room)
        self.downloads = Downloads(self.blobs, self.uploads)
        self.checks = RequestChecks(self.blobs, self.uploads)


class Users:
    """The users of a service, each made when they first need it; to be used on the service's loop only.

    Attributes:
        accounts: their roles and limits.
        folders: what they need not send.
    """

    def __init__(self, settings: ServiceSettings, inbox: Inbox, tidy: Callable[[str, float, float], int]):
        """Without any yet.

        Args:
            settings: of the service.
            inbox: of its loop.
            tidy: what `UserRoom` calls, with the name of the user before.

        Raises:
            ServiceError: the accounts, or the list of shared folders, cannot be read.
        """
        self.accounts = Accounts(settings)
        self.folders = SharedFolders.read(settings.folders)
        self._settings, self._inbox, self._tidy = settings, inbox, tidy
        self._users: dict[str, User] = {}

    def of(self, name: str) -> User:
        """The user of a name.

        Raises:
            OSError: their folders cannot be made.
        """
        if name not in self._users:
            limit = partial(self.accounts.bytes, name)
            self._users[name] = User(name, self._settings, self._inbox, self._tidy, limit)
        return self._users[name]

    def stored(self, name: str, size: int) -> None:
        """Note that a job of a user has stored so many bytes of results."""
        if name in self._users:
            self._users[name].room.add(size)

    def tidied(self) -> None:
        """Note that files of any user may have been deleted."""
        for user in self._users.values():
            user.room.measure_again()

    def close(self) -> None:
        """Stop the work of uploads in threads."""
        for user in self._users.values():
            user.uploads.close()


class UserRoom:
    """Counts the bytes that a user has, and has that user's store tidied at the limit; for the loop's thread."""

    def __init__(
        self,
        limit: Callable[[], float],
        tidy: Callable[[float, float], int],
        inbox: Inbox,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Without a count, which the first request makes.

        Args:
            limit: returns the bytes that the user may have now; infinite for no limit.
            tidy: returns the bytes that the user has. If they are over the first number, it deletes what is unneeded
                before, down to the second one. Called in a thread.
            inbox: of the loop.
            clock: seconds since any moment, without jumps.
        """
        self._limit, self._tidy, self._inbox, self._clock = limit, tidy, inbox, clock
        self._used: int | None = None
        self._added = self._reserved = 0
        self._waiting: list[Callable[[BaseException | None], None]] = []
        self._full_until = 0.0

    def add(self, size: int) -> None:
        """Note that the user has so many bytes more."""
        self._added += size
        if self._used is not None:
            self._used += size

    def reserve(self, size: int) -> None:
        """Note that so many bytes are about to come; a negative number takes that back."""
        self._reserved += size

    def measure_again(self) -> None:
        """Forget the count; the next request makes it again."""
        self._used = None

    def require(self, size: int) -> None:
        """Check that a user may have so many bytes more.

        Raises:
            Later: that is known when their store has been tidied.
            Refusal: they may not.
        """
        limit = self._limit()
        if limit == float("inf"):
            return
        size += self._reserved
        if size > limit:  # whatever is deleted for it
            text = f"this, and what is being copied, needs {size / 1e9:.3g} GB, and the limit is {limit / 1e9:g} GB for"
            more = "each user (--user-gb of the backend, or ex4d keys set there); wait for copies, or raise the limit"
            raise Refusal("disk-full", f"{text} {more}")
        if self._used is not None and self._used + size <= limit:
            return
        if self._waiting or self._used is None or self._clock() >= self._full_until:
            raise Later(partial(self._make_room, size))
        raise Refusal(
            "disk-full",
            f"your footage and results take {self._used / 1e9:.2f} GB, this needs {size / 1e9:.2f} GB more, and the "
            f"limit is {limit / 1e9:g} GB for each user (--user-gb of the backend, or ex4d keys set there). What jobs "
            "need, and what was used within the hour, is not deleted: cancel some jobs, wait, or raise the limit",
        )

    def _make_room(self, size: int, call: Callable[[BaseException | None], None]) -> None:
        self._waiting.append(call)
        if len(self._waiting) == 1:
            self._added = 0
            limit = self._limit()
            most = limit - size
            aim = max(most - _SPARE_SHARE * limit, 0.0)
            self._inbox.run_in_thread(partial(self._tidy, most, aim), partial(self._made, most), "requests")

    def _made(self, most: float, outcome: Future[int]) -> None:
        error = outcome.exception()
        if error is None:
            self._used = outcome.result() + self._added
        if error or (self._used or 0) > most:
            self._full_until = self._clock() + _RETRY_SECONDS
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call(error)

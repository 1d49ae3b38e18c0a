"""`Accounts`: the role and the limits of each user, in ``users.json`` of the folder of keys.

`ex4d keys set` writes the file, and a running service reads it again when it has changed. A user who is not in it is an
artist with the limits of `ServiceSettings`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from ex4d.service.settings import ServiceError, ServiceSettings, is_client_name
from ex4d_core.durable_files import put_in_place
from ex4d_core.errors import Ex4dError
from ex4d_core.schema import Option, Range, Settings
from ex4d_core.turn_messages import Role

log = logging.getLogger(__name__)

_FILE = "users.json"
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Account(Settings):
    """What the owner of a service has set for a user.

    Attributes:
        role: an admin lists, cancels and orders the jobs of all.
        jobs: queued and running ones at most; None for `ServiceSettings.user_jobs`.
        running: jobs at once at most; None for `ServiceSettings.user_running`.
        gb: of footage and results at most; None for `ServiceSettings.user_gb`.
    """

    role: Annotated[Role, Option("artist: own jobs; admin: lists, cancels and orders the jobs of all")] = "artist"
    jobs: Annotated[int | None, Range(1), Option("limit of queued and running jobs")] = None
    running: Annotated[int | None, Range(1), Option("limit of jobs that run at once")] = None
    gb: Annotated[float | None, Range(above=0), Option("limit of footage and results")] = None


def read_accounts(folder: Path) -> dict[str, Account]:
    """The accounts of a folder of keys, by the names of users; none where nothing has been set.

    Raises:
        ServiceError: the file cannot be read, or has something else in it.
    """
    file = folder / _FILE
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it has no map of users")
        for name in found:
            if not is_client_name(name):
                raise ValueError(f"{name!r:.80} is not the name of a user")
        return {name: Account.from_wire(values) for name, values in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, Ex4dError) as error:
        raise ServiceError(f"cannot read the users in {file}: {error}; correct it, or delete it") from error


def write_account(folder: Path, name: str, account: Account | None) -> None:
    """Set the account of a user, or with None remove it.

    Raises:
        ServiceError: the accounts that are there cannot be read.
    """
    accounts = {**read_accounts(folder), name: account}
    kept = {one: asdict(values) for one, values in sorted(accounts.items()) if values not in (None, Account())}
    partial = folder / f"{_FILE}.partial"
    partial.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    partial.chmod(0o600)
    put_in_place(partial, folder / _FILE)


class Accounts:
    """The accounts of a service; each thread has its own."""

    def __init__(self, settings: ServiceSettings):
        """Read them.

        Raises:
            ServiceError: the file has something else in it.
        """
        self._settings = settings
        self._folder = settings.keys_folder if settings.many_users else None
        self._mark = self._changed()
        self._accounts = read_accounts(self._folder) if self._folder else {}

    def refresh(self) -> Mapping[str, Account] | None:
        """The accounts if they have changed since they were read; an invalid file changes nothing."""
        mark = self._changed()
        if mark == self._mark or not self._folder:
            return None
        self._mark = mark
        try:
            self._accounts = read_accounts(self._folder)
        except ServiceError as error:
            log.error("%s; until then everybody keeps their role and limits", error)
            return None
        return self._accounts

    def names(self) -> list[str]:
        """Users for whom something is set."""
        return list(self._accounts)

    def role(self, user: str) -> Role:
        """The role of a user; where all are one user they have every right."""
        if not self._settings.many_users or user in self._settings.admins:
            return "admin"
        return self._of(user).role

    def jobs(self, user: str) -> int:
        """How many queued and running jobs a user may have."""
        return self._of(user).jobs or self._settings.user_jobs

    def running(self, user: str) -> int | None:
        """How many jobs of a user may run at once; None for any number."""
        return (self._of(user).running or self._settings.user_running) if self._settings.many_users else None

    def bytes(self, user: str) -> float:
        """How many bytes of footage and results a user may have; infinite where there is one user."""
        gb = self._of(user).gb or self._settings.user_gb
        return gb * 1e9 if self._settings.many_users else float("inf")

    def _of(self, user: str) -> Account:
        return self._accounts.get(user, Account())

    def _changed(self) -> tuple[int, int, int] | None:
        """What changes with the file; None where there is none."""
        if self._folder is None:
            return None
        try:
            status = (self._folder / _FILE).stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

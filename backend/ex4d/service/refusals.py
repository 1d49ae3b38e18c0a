"""`Refusal`, the error reply to a request; `refusal_for`, which turns any exception into one; `Later`: no reply yet."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ex4d.service.corrupt_database import is_corruption
from ex4d_core.errors import Ex4dError, full_disk_error, is_expected, user_message
from ex4d_core.messages import Error
from ex4d_core.wire import ProtocolError

# A reply stays small, however long the invalid value is.
_MAX_TEXT = 2000


class Refusal(Ex4dError):
    """A request that is not served; the text is for people.

    Attributes:
        code: one of the codes of `messages.Error`; "internal" is a bug.
        details: for programs.
    """

    def __init__(self, code: str, text: str, details: Mapping[str, Any] | None = None):
        """See the class."""
        super().__init__(text)
        self.code = code
        self.details = dict(details or {})

    def message(self) -> Error:
        """The reply that a client gets."""
        return Error(self.code, str(self)[:_MAX_TEXT], self.details)


class Later(Exception):
    """A request cannot be answered before work in a thread is done; it is served again then.

    Attributes:
        begin: starts the work, and has a function called with the error that prevented it, or None.
    """

    def __init__(self, begin: Callable[[Callable[[BaseException | None], None]], None]):
        """See the class."""
        super().__init__("the request waits for work in a thread")
        self.begin = begin


def refusal_for(error: BaseException, folder: Path) -> Refusal:
    """The reply to a request, or the reason of a failed job, for an exception.

    Args:
        error: any exception.
        folder: where the backend wrote, which the message about a full disk names.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ProtocolError):
        return Refusal(error.code, str(error))
    full_disk = full_disk_error(error)
    if full_disk or (isinstance(error, sqlite3.OperationalError) and "full" in str(error)):
        free = shutil.disk_usage(folder).free
        return Refusal(
            "disk-full",
            f"the backend cannot write to {folder}, {free / 1e9:.2f} GB are free there: "
            f"{full_disk.strerror if full_disk else error}; free some space there and try again",
            {"folder": str(folder), "free": free},
        )
    if isinstance(error, sqlite3.OperationalError) or is_corruption(error):
        text = f"the backend cannot use its job database: {error}; free some space on its disk, or check the disk"
        return Refusal("storage", text)
    if isinstance(error, OSError) and not isinstance(error, Ex4dError):
        return Refusal("storage", f"the backend cannot use its files: {user_message(error)}")
    return Refusal("bad-request" if is_expected(error) else "internal", user_message(error))

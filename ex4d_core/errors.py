"""The base of all errors that a user can act on, and the one rule that tells them from bugs.

Every error of this project derives from `Ex4dError`: one kind of error for each kind of mistake, raised where the
mistake is visible, with a message that says what is wrong, with which value, and what to do. The operating system's
errors (a full disk, a missing permission) are expected, too. Any other exception is a bug. The command
line, the service and the add-on all ask `is_expected` and show `user_message`, so that they agree.
"""

from __future__ import annotations

import errno

from ex4d_core.plain_text import plain_lines

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Ex4dError(Exception):
    """An error that the user can act on; its text says what is wrong, with which value, and what to do."""


class RequestError(Ex4dError, ValueError):
    """A setting or request with a field that is missing, of the wrong type, or out of range; the message names it."""


def is_expected(error: BaseException) -> bool:
    """Whether the user can act on an error; what is not expected is a bug."""
    return isinstance(error, (Ex4dError, OSError))


def full_disk_error(error: BaseException | None) -> OSError | None:
    """The system's error behind one that comes from a full disk, an exhausted quota or a file that is too large."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL_DISK:
            return error
        error = error.__cause__
    return None


def user_message(error: BaseException) -> str:
    """One sentence about an error for the user, harmless for terminals; it says so if the error is a bug."""
    return plain_lines(_sentence(error))


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, Ex4dError):
        if error.errno in _FULL_DISK:
            return f"the disk is full: {error.filename or 'no space left'}; free some space and try again"
        if error.filename and error.strerror:
            return f"{error.filename}: {error.strerror}; check the path and its permissions"
    if is_expected(error):
        return str(error)
    return f"internal error: {type(error).__name__}: {error}; this is a bug, please report it with the log"

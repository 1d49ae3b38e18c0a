"""Which errors a user can act on: these are shown as one sentence, anything else is a bug and keeps its traceback."""

from __future__ import annotations

import errno

_OUR_PACKAGES = ("backend", "ex4d_core")


def is_for_the_user(error: Exception) -> bool:
    """Whether an error is of a kind that our own packages define, or the operating system's.

    Told by where its class stands: to know all kinds would mean to import every room, and torch with them.
    """
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _OUR_PACKAGES


def explain(error: Exception) -> str:
    """One sentence for people: what was wrong, and what to do."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full: {error.filename or 'no space left'}; free some space and try again"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; check the path and its permissions"
    return str(error)

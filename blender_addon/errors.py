"""Shows errors to the artist: one sentence for those that they can act on, and a notice for bugs.

Operators report an error where they were pressed. Errors in the scheduler's work are shown in the Connection panel,
bugs also with a traceback in Blender's console, and stop nothing else.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TypeVar, cast

from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.errors import is_expected, user_message
from ex4d_core.plain_text import plain_lines

from .blender_types import Context, Operator

_Execute = TypeVar("_Execute", bound=Callable[..., set[str]])

# File, line and type of each error of the scheduler's work, in order, to the error and its traceback.
_reported: dict[tuple[str, int, str], tuple[Exception, str]] = {}


def reports_errors(execute: _Execute) -> _Execute:
    """Let an operator's ``execute`` report errors that the artist can act on, and end as cancelled."""

    @wraps(execute)
    def reporting(self: Operator, context: Context) -> set[str]:
        try:
            return execute(self, context)
        except Exception as error:
            if not is_expected(error):
                raise
            self.report({"ERROR"}, user_message(error))
            return {"CANCELLED"}

    return cast(_Execute, reporting)


@contextmanager
def contained() -> Iterator[None]:
    """Report what is raised inside the block, once, and continue after it.

    One job that fails must not stop the others, and Blender would drop a timer that raises.
    """
    try:
        yield
    except Exception as error:
        note_failure(error)


def note_failure(error: Exception) -> None:
    """What `contained` does about an error; for what runs so often that entering a block counts."""
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    place = (innermost.filename, innermost.lineno or 0, type(error).__name__)
    if place not in _reported:
        _reported[place] = (error, "".join(traceback.format_exception(error)))
        print(plain_lines(_reported[place][1]), file=sys.stderr, end="")


def failure_text() -> str:
    """What the artist should know of the newest failure; "" while all is well."""
    if not _reported:
        return ""
    error, _ = _reported[next(reversed(_reported))]
    if is_expected(error):
        return user_message(error)
    text = iface_(
        "Bug in the add-on: {kind}. The failed step was skipped. If something no longer updates, save and restart "
        "Blender; the system console has the details for a bug report"
    )
    return text.format(kind=type(error).__name__)


def failures() -> tuple[str, ...]:
    """The traceback of each failure, for tests."""
    return tuple(text for _, text in _reported.values())


def forget_failures() -> None:
    """Start over, as after a reconnect."""
    _reported.clear()


def unregister() -> None:
    """Leave no failures behind."""
    forget_failures()

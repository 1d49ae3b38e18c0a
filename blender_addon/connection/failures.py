"""Errors that nobody expected, which are bugs of ours: told once, and kept from stopping what goes well.

The artist reads one sentence in the Connection panel; the traceback goes to Blender's console, for a report to us.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from bpy.app.translations import pgettext_iface as iface_

# Where something failed, and as what, to its whole traceback; in the order in which they were met.
_told: dict[tuple[str, int, str], str] = {}


@contextmanager
def contained() -> Iterator[None]:
    """Let what follows the block go on, whatever is raised inside it.

    The timer's work is done in such blocks, one for each follower and each take: one that fails must not take the
    others with it, and Blender would drop a timer that raises.
    """
    try:
        yield
    except Exception as error:
        _tell(error)


def failure_text() -> str:
    """What the artist should know of the newest failure; "" while all is well."""
    if not _told:
        return ""
    kind = next(reversed(_told))[2]
    text = iface_(
        "The add-on made a mistake ({kind}), and goes on without what failed. If something stands still now, save and "
        "restart Blender; its console has the details for a report"
    )
    return text.format(kind=kind)


def failures() -> tuple[str, ...]:
    """The traceback of each, for the console and for tests."""
    return tuple(_told.values())


def forget_failures() -> None:
    _told.clear()


def _tell(error: Exception) -> None:
    """A failure comes again with every tick; the same one at the same place is told once."""
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    place = (innermost.filename, innermost.lineno or 0, type(error).__name__)
    if place not in _told:
        _told[place] = "".join(traceback.format_exception(error))
        print(_told[place], file=sys.stderr, end="")


def register() -> None:
    forget_failures()


def unregister() -> None:
    forget_failures()

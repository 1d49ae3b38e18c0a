"""Notices in Blender's status bar that a job has ended: seen with the sidebar closed, and a press leads to the result.

A notice stays until the artist presses or dismisses it, or opens another file. A cancelled job has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.remote_job import JobState

from .records import JobRecord

_FAILURES = (JobState.FAILED, JobState.STOPPED)
# A status bar is one line.
_MAX_REASON = 80


@dataclass(frozen=True)
class Notice:
    """The end of a job.

    Attributes:
        collection: the Blender scenes' list that has its record.
        key: of the job.
        text: for the artist, translated.
        failed: whether it ended without a result.
    """

    collection: str
    key: str
    text: str
    failed: bool


# Oldest first.
_notices: list[Notice] = []


def note_end(collection: str, record: JobRecord, title: str) -> None:
    """Add a notice that a record's job has ended, in place of an older one about it.

    Args:
        collection: the Blender scenes' list that has the record.
        record: with the state and reason of the end.
        title: what the artist calls the job.
    """
    dismiss(record.key)
    failed = record.state in _FAILURES
    if not failed:
        text = iface_("{title} is ready").format(title=title)
    elif record.reason:
        reason = record.reason if len(record.reason) <= _MAX_REASON else record.reason[: _MAX_REASON - 1] + "…"
        text = iface_("{title} {state}: {reason}").format(title=title, state=iface_(record.state), reason=reason)
    else:
        text = iface_("{title} {state}").format(title=title, state=iface_(record.state))
    _notices.append(Notice(collection, record.key, text, failed))


def notices() -> tuple[Notice, ...]:
    """All notices, oldest first."""
    return tuple(_notices)


def dismiss(key: str) -> None:
    """Remove the notice about a job, if there is one."""
    _notices[:] = [one for one in _notices if one.key != key]


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _notices.clear()


HANDLERS = (("load_post", _after_load),)


def unregister() -> None:
    """Forget all notices."""
    _notices.clear()

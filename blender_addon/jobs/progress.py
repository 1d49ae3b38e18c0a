"""The state and progress of a job in words, for lists and the status bar."""

from __future__ import annotations

from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.remote_job import JobState
from ex4d_core.stages import DENOISE_STAGE, ENCODE_STAGE, LOAD_STAGE, NO_ROOM_STAGE, WARM_UP_STAGE, StageDetails

from ..connection.session import session
from ..paths import from_blend
from .records import JobRecord
from .tracker import can_cancel, is_paused

STATE_ICONS = {
    "done": "CHECKMARK",
    "imported": "CHECKMARK",
    "failed": "ERROR",
    "stopped": "ERROR",
    "cancelled": "X",
    "running": "PLAY",
    "fetching": "PLAY",
}


def state_icon(record: JobRecord) -> str:
    """The icon that goes with a job's state."""
    return "PAUSE" if is_paused(record) else STATE_ICONS.get(record.state, "SORTTIME")


def state_text(record: JobRecord) -> str:
    """A job's state in a word, as it is now: whether one still runs is unknown while the backend is away."""
    if is_paused(record):
        return iface_("paused")
    if can_cancel(record) and record.cancelling:
        return iface_("cancelling")
    if can_cancel(record) and not session().connected:
        return iface_("waiting")
    return iface_(record.state)


def paused_text(record: JobRecord) -> str:
    """Why a job is paused, and what Resume does, in a sentence; "" where it is not."""
    if not is_paused(record):
        return ""
    text = iface_("Paused, as it was not started on this computer: Resume continues it and writes into {folder}")
    return text.format(folder=from_blend(record.folder))


def progress_text(record: JobRecord, engine: str = "") -> str:
    """The stage and progress of a running job, in a few words.

    Args:
        record: of the job.
        engine: of a take, whose stage of that name counts frames.
    """
    if record.cancelling:
        return iface_("cancelling")
    # The last known stage may be long over; only the reading of files needs no backend.
    if not session().connected and record.stage != "reading":
        return iface_("waiting for the backend") + f" {record.progress:.0%}"
    if record.state == JobState.QUEUED and record.stage == NO_ROOM_STAGE:
        return iface_("waiting for disk space on the backend")
    if record.state == JobState.QUEUED:
        if record.queue_position:
            return iface_("{count} before it").format(count=record.queue_position)
        return iface_("next in the queue")
    text = _stage_text(record, engine)
    return text if record.eta_seconds < 1 else iface_("{step}, {time} left").format(step=text, time=_duration(record))


def _stage_text(record: JobRecord, engine: str) -> str:
    """What is being done, and how far that is."""
    details = StageDetails.of(record.stage)
    if details.name == DENOISE_STAGE:
        text = iface_("step {done} of {total}").format(done=record.done, total=record.total)
        return f"{text} ({details.arithmetic})" if details.arithmetic else text
    if engine and details.name == engine:
        return iface_("frame {done} of {total}").format(done=record.done, total=record.total)
    if details.name == WARM_UP_STAGE:
        return iface_("warming up")
    if not details.name and record.state == JobState.RUNNING:
        return iface_("starting")
    known = {LOAD_STAGE: iface_("loading weights"), ENCODE_STAGE: iface_("encoding")}
    return f"{known.get(details.name) or iface_(details.name or record.state)} {record.progress:.0%}"


def _duration(record: JobRecord) -> str:
    """The ETA, as people say it."""
    seconds = record.eta_seconds
    return f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"

"""The versions of a shot: which of its takes is shown, and the way from a strip to its take and to the next version."""

from __future__ import annotations

from typing import Any

from ..blender_types import current_context
from ..jobs.records import find_record, records_of, set_changed
from ..sequencer.edit_scenes import all_strips_of_take, strip_in_file
from ..sequencer.strip_api import Strip
from ..sequencer.strips import SHOT_KEY, SOUND_OF, SPEED_OF, TAKE_KEY
from .properties import TAKES, EX4D_Take, takes_of_shot


def show_version(record: EX4D_Take) -> None:
    """Show and hear this take of all that its shot has: the others' strips are muted."""
    for one in takes_of_shot(record.id_data, record.shot) or [record]:
        for strip in all_strips_of_take(one.key):
            set_changed(strip, "mute", one.key != record.key)


def take_of_strip(strip: Strip | None) -> EX4D_Take | None:
    """The take that a strip shows, or the shown one of a shot's meta strip; None for the artist's other strips."""
    if strip is None:
        return None
    scene: Any = current_context().scene
    for mark in (TAKE_KEY, SPEED_OF, SOUND_OF):
        found = find_record(TAKES, strip.get(mark, ""), scene)
        if found is not None:
            return found[1]
    shot = strip.get(SHOT_KEY)
    takes = [take for _, take in records_of(TAKES) if shot and take.shot == shot]
    shown = (take for take in takes if (of_take := strip_in_file(take.key)) is not None and not of_take.mute)
    return next(shown, takes[0] if takes else None)


def versions_of(record: EX4D_Take) -> list[EX4D_Take]:
    """The takes of the same shot that have a strip, oldest first."""
    return [take for take in takes_of_shot(record.id_data, record.shot) if strip_in_file(take.key) is not None]


def neighbour_of(record: EX4D_Take, step: int) -> EX4D_Take:
    """The version ``step`` places after this one; after the newest comes the oldest."""
    versions = versions_of(record)
    keys = [take.key for take in versions]
    return versions[(keys.index(record.key) + step) % len(keys)] if record.key in keys else record

"""The memory of a shot: whether unseen areas show what other frames of the footage saw there."""

from __future__ import annotations

import bpy

from ex4d_core.shot import REMEMBERING_ENGINES, EngineName

# Not "none": what a new shot has.
AUTOMATIC = "auto"

_ITEMS = (
    (AUTOMATIC, "Automatic", "On for previews, coverage and views; off for finals"),
    ("on", "On", "Areas that a frame does not see show what other frames of the footage saw there"),
    ("off", "Off", "Each frame shows only what it saw itself"),
)

memory_property = bpy.props.EnumProperty(
    name="Clip Memory",
    description="Whether other frames of the footage fill what a frame does not see, with its true colors",
    items=_ITEMS,
    default=AUTOMATIC,
)


def remember_of(chosen: str, engine: EngineName, convention: str) -> bool:
    """Whether a request has a memory.

    Args:
        chosen: the shot's property.
        engine: coverage and views are previews.
        convention: of the scene package; "reference" has no memory.
    """
    wanted = engine in REMEMBERING_ENGINES if chosen == AUTOMATIC else chosen == "on"
    return wanted and convention != "reference"


def remember_on_wire(chosen: str, engine: EngineName, convention: str) -> bool | None:
    """The field of a request; None, which older backends understand, where it is what the engine does by itself."""
    wanted = remember_of(chosen, engine, convention)
    return None if wanted == remember_of(AUTOMATIC, engine, convention) else wanted


def memory_from(remember: bool | None) -> str:
    """The shot's property that gives a request's field again."""
    return AUTOMATIC if remember is None else "on" if remember else "off"

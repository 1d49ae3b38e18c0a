"""The occlusion model of a shot: what the space behind a silhouette counts as, in takes, coverage and views."""

from __future__ import annotations

from typing import cast

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_

from ex4d_core.render_settings import OcclusionModel, default_occlusion
from ex4d_core.shot import EngineName

# Not "none": the identifiers are those of the wire.
AUTOMATIC = "auto"

_ITEMS = (
    (AUTOMATIC, "Automatic", "Plausible Depth for previews, coverage and views; Solid for finals"),
    (
        "thickness",
        "Plausible Depth",
        "Objects are about half as deep as they are wide; the footage shows again behind them",
    ),
    ("watertight", "Solid", "Everything behind a silhouette is unseen, as in EX-4D's training"),
    ("open", "Empty", "Objects have no depth; the footage shows right behind their silhouettes"),
)
_MEANINGS = {
    "thickness": mark_("Objects are about half as deep as they are wide; behind them the footage shows again"),
    "watertight": mark_("Everything behind a silhouette is unseen, as in EX-4D's training"),
    "open": mark_("Objects have no depth: the footage shows right behind their silhouettes"),
    AUTOMATIC: mark_("Plausible Depth for previews, coverage and views; Solid for finals, as in EX-4D's training"),
}
_REFERENCE_MEANING = mark_("Solid: this scene has the reference convention, which has no Plausible Depth")

occlusion_property = bpy.props.EnumProperty(
    name="Occlusion",
    description="What the space behind an object's silhouette counts as; decides what is unseen",
    items=_ITEMS,
    default=AUTOMATIC,
)


def occlusion_of(chosen: str, engine: EngineName, convention: str) -> OcclusionModel:
    """The occlusion model of a request.

    Args:
        chosen: the shot's property.
        engine: coverage and views are previews.
        convention: of the scene package; "reference" has no thickness, so Automatic is watertight there.
    """
    if chosen != AUTOMATIC:
        return cast(OcclusionModel, chosen)
    return default_occlusion(engine, convention)


def chosen_from(occlusion: OcclusionModel, engine: EngineName, convention: str) -> str:
    """The shot's property that gives a request's occlusion model again."""
    return AUTOMATIC if occlusion == occlusion_of(AUTOMATIC, engine, convention) else occlusion


def meaning_of(chosen: str, convention: str) -> str:
    """What a choice means, in one line for the panel."""
    if chosen == AUTOMATIC and convention == "reference":
        return iface_(_REFERENCE_MEANING)
    return iface_(_MEANINGS[chosen])

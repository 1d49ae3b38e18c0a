"""The add-on's keys, which are free in Blender's own key map; the artist changes them in the add-on's preferences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import bpy
import rna_keymap_ui
from bpy.app.translations import pgettext_n as mark_

from ..blender_types import Context, current_context
from ..translations import CONTEXT


@dataclass(frozen=True)
class Key:
    """A key of the add-on.

    Attributes:
        name: what it does, for people.
        key_map: name of Blender's key map that it is in.
        space: type of the editor, as that key map has it.
        operator: what it runs.
        key: Blender's name of the key.
        modifiers: held with it.
        settings: of the operator.
    """

    name: str
    key_map: str
    space: Any
    operator: str
    key: Any
    modifiers: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


KEYS = (
    Key(mark_("Pie Menu"), "3D View", "VIEW_3D", "wm.call_menu_pie", "X", ("shift", "alt"), {"name": "EX4D_MT_pie"}),
    Key(
        mark_("Previous Version"),
        "Sequencer",
        "SEQUENCE_EDITOR",
        "ex4d.flip_version",
        "PAGE_UP",
        ("shift",),
        {"step": -1},
    ),
    Key(
        mark_("Next Version"), "Sequencer", "SEQUENCE_EDITOR", "ex4d.flip_version", "PAGE_DOWN", ("shift",), {"step": 1}
    ),
)

# The key maps that they were added to, with their items.
_added: list[tuple[bpy.types.KeyMap, bpy.types.KeyMapItem]] = []


def draw_keys(layout: bpy.types.UILayout, context: Context) -> None:
    """Draw the keys as Blender's own preferences do, with what the artist has made of them."""
    user = context.window_manager.keyconfigs.user
    if user is None:  # without a window
        return
    box = layout.box()
    box.label(text="Keys", text_ctxt=CONTEXT, icon="EVENT_K")
    for key in KEYS:
        key_map = user.keymaps.get(key.key_map)
        item = find_item(key_map, key) if key_map is not None else None
        if item is not None:
            column = box.column()
            column.label(text=key.name)
            column.context_pointer_set("keymap", key_map)
            rna_keymap_ui.draw_kmi([], user, key_map, item, column, 0)


def find_item(key_map: bpy.types.KeyMap, key: Key) -> bpy.types.KeyMapItem | None:
    """The item of a key in a key map, whatever the artist has set it to."""
    for item in key_map.keymap_items:
        settings: Any = item.properties
        if item.idname == key.operator and all(
            getattr(settings, name, None) == value for name, value in key.settings.items()
        ):
            return item
    return None


def register() -> None:
    """Add the keys to Blender's key map of add-ons."""
    configuration = current_context().window_manager.keyconfigs.addon
    if configuration is None:  # Blender without any window has none
        return
    for key in KEYS:
        key_map = configuration.keymaps.new(name=key.key_map, space_type=key.space)
        held = {name: True for name in key.modifiers}
        item = key_map.keymap_items.new(key.operator, key.key, "PRESS", **held)
        for name, value in key.settings.items():
            setattr(item.properties, name, value)
        _added.append((key_map, item))


def unregister() -> None:
    """Remove them; what the artist has changed stays in Blender's preferences."""
    for key_map, item in _added:
        key_map.keymap_items.remove(item)
    _added.clear()

"""Sidebar: state of the connection; and how all panels draw longer texts."""

from __future__ import annotations

import re
import textwrap
from unicodedata import east_asian_width

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.client import ConnectionState
from ex4d_core.messages import command_in
from ex4d_core.plain_text import plain_line

from ..blender_types import SidebarPanel
from ..errors import failure_text
from .local_backend import local_backend
from .operators import EX4D_OT_copy_text, EX4D_OT_preferences, EX4D_OT_reconnect, EX4D_OT_start_backend
from .preferences import is_loopback
from .session import session

# A character that no text has, from Unicode's private use area.
_WIDE = "\uf8ff"
# Persian letters in the shapes of the screen, which the catalogue of translations has.
_DRAWN_TO_THE_LEFT = re.compile("[\ufb50-\ufdff\ufe70-\ufefc]")
# Letters that the borders of panels, and of boxes in them, take of a region's width, with the icon.
PANEL_MARGIN, BOX_MARGIN = 6, 9
# Of dialogs that ask something, in pixels at scale 1.
DIALOG_WIDTH = 420
_ICONS = {ConnectionState.CONNECTED: "LINKED", ConnectionState.CONNECTING: "SORTTIME"}


class EX4D_PT_connection(SidebarPanel, bpy.types.Panel):
    """State of the connection, and buttons to fix it."""

    bl_label = "Connection"
    bl_order = 0

    def draw(self, context: bpy.types.Context) -> None:
        client = session().client
        state = client.state if client is not None else ConnectionState.UNREACHABLE
        draw_text(self.layout, session().state_text(), context, _ICONS.get(state, "UNLINKED"), lines=3)
        row = self.layout.row(align=True)
        row.operator(EX4D_OT_reconnect.bl_idname, icon="FILE_REFRESH")
        row.operator(EX4D_OT_preferences.bl_idname, text="", icon="PREFERENCES")
        apart = state in (ConnectionState.CONNECTING, ConnectionState.UNREACHABLE)
        if client is not None and is_loopback(client.address):
            # There also while it has nothing to do, so that no button moves when the backend answers.
            start = self.layout.row()
            start.enabled = apart and not local_backend.running
            start.operator(EX4D_OT_start_backend.bl_idname, icon="PLAY")
            text = local_backend.text() if apart else ""
            if text:
                draw_text(self.layout, text, context, "INFO" if local_backend.running else "ERROR")
        if text := failure_text():
            draw_text(self.layout, text, context, "ERROR")


def draw_text(
    layout: bpy.types.UILayout,
    text: str,
    context: bpy.types.Context,
    icon: str = "NONE",
    lines: int = 0,
    margin: int = PANEL_MARGIN,
) -> None:
    """Draw a text in as many labels as the width of the sidebar needs.

    Args:
        layout: where.
        text: what to say; may be empty.
        context: of the panel.
        icon: before the first line.
        lines: room for so many at least, so that buttons below stay where they are when the text changes by itself.
        margin: letters that borders and icon take of the region's width.
    """
    scale = context.preferences.system.ui_scale
    letters = max(14, int(context.region.width / (7 * scale)) - margin)
    column = layout.column(align=True)
    column.scale_y = 0.8
    shown = wrapped(iface_(text), letters) if text else []
    for number, line in enumerate(shown):
        column.label(text=line, translate=False, icon=icon if number == 0 else "BLANK1" if icon != "NONE" else "NONE")
    for _ in range(lines - len(shown)):
        column.label(text="")


def draw_lines(layout: bpy.types.UILayout, text: str, width: int) -> None:
    """Draw a text that is translated already, in a dialog of so many pixels at scale 1."""
    column = layout.column(align=True)
    column.scale_y = 0.8
    for line in wrapped(text, width // 7):
        column.label(text=line, translate=False)


def wrapped(text: str, letters: int) -> list[str]:
    """Lines of at most ``letters`` characters; Chinese, Japanese and Korean ones count for two.

    A text may come from a stranger's file; marks that reverse its direction would make it read otherwise.
    """
    text = plain_line(text)
    if _DRAWN_TO_THE_LEFT.search(text):
        # Such texts are in the order of the screen: what is read first stands last.
        lines = textwrap.wrap(_reversed_words(text), letters)
        return [_reversed_words(line) for line in lines]
    # While lines are broken a mark stands behind each wide letter, so that it counts for two.
    marked = "".join(letter + (_WIDE if east_asian_width(letter) in "WF" else "") for letter in text)
    lines = (line.replace(_WIDE, "") for line in textwrap.wrap(marked, letters))
    return [line for line in lines if line]


def _reversed_words(text: str) -> str:
    return " ".join(reversed(text.split()))


def draw_problem(
    layout: bpy.types.UILayout,
    text: str,
    context: bpy.types.Context,
    icon: str = "ERROR",
    margin: int = PANEL_MARGIN,
) -> None:
    """Draw what is wrong, and a button that copies the command that fixes it, or else the text."""
    draw_text(layout, text, context, icon, margin=margin)
    command = command_in(text)
    label = iface_("Copy Command") if command else iface_("Copy Message")
    layout.operator(EX4D_OT_copy_text.bl_idname, text=label, icon="COPYDOWN").text = command or text


CLASSES = (EX4D_PT_connection,)

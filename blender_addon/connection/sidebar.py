"""Opens the add-on's tab in a 3D viewport's sidebar."""

from __future__ import annotations

import bpy

from ..blender_types import Context, SidebarPanel
from ..scheduler import scheduler

# A sidebar has no tabs before it is drawn; after so many ticks it will not be.
_TRIES = 100
_FOLLOW_SECONDS = 0.0002

# Viewports whose sidebar was opened and whose tab is not chosen yet, with the number of tries that are left.
_waiting: list[tuple[bpy.types.Area, int]] = []


def open_tab(context: Context) -> bool:
    """Open the sidebar of the viewport that the artist is in, or of the largest one, at the add-on's tab.

    Returns:
        Whether there is a viewport.
    """
    here = context.area
    if here is None or here.type != "VIEW_3D":
        found = [area for window in context.window_manager.windows for area in window.screen.areas]
        viewports = [area for area in found if area.type == "VIEW_3D"]
        here = max(viewports, key=lambda area: area.width * area.height, default=None)
    if here is None:
        return False
    open_tab_in(here)
    return True


def open_tab_in(viewport: bpy.types.Area) -> None:
    """Open the sidebar of a 3D viewport at the add-on's tab."""
    space = viewport.spaces.active
    if isinstance(space, bpy.types.SpaceView3D):
        space.show_region_ui = True
        viewport.tag_redraw()
        _waiting.append((viewport, _TRIES))
        scheduler.tick_soon()


def _choose_tabs() -> None:
    if not _waiting:
        return
    areas = [area for screen in bpy.data.screens for area in screen.areas]
    still_waiting = [(area, tries - 1) for area, tries in _waiting if area in areas and not _choose_tab(area)]
    _waiting[:] = [one for one in still_waiting if one[1]]
    scheduler.tick_soon()


def _choose_tab(area: bpy.types.Area) -> bool:
    """Show the tab of an open sidebar; returns whether it is shown."""
    sidebar = next((region for region in area.regions if region.type == "UI"), None)
    try:
        sidebar.active_panel_category = SidebarPanel.bl_category  # pyright: ignore[reportOptionalMemberAccess]
    except (AttributeError, TypeError):  # it has no tabs yet
        return False
    return True


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    _waiting.clear()


HANDLERS = (("load_post", _after_load),)


def register() -> None:
    """Choose tabs in every tick."""
    _waiting.clear()
    scheduler.every_tick(_choose_tabs, _FOLLOW_SECONDS)

"""EX-4D for Blender: import a reconstructed scene, choreograph a camera, send the shot, watch the frames arrive.

One folder per feature, each with thin operators over plain functions; this module only puts them in order. Everything
talks to the backend through `connection.session`, in ticks of `scheduler`; nothing here imports the backend or waits
for it.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import ModuleType

import bpy

from . import errors, saving, scheduler
from .cameras import operators as camera_operators
from .cameras import panel as camera_panel
from .cameras import saved as camera_saved
from .connection import local_backend, preferences, session
from .connection import operators as connection_operators
from .connection import panel as connection_panel
from .coverage import drawing as coverage_drawing
from .coverage import live_coverage
from .coverage import panel as coverage_panel
from .footage import operators as footage_operators
from .footage import panel as footage_panel
from .footage import properties as footage_properties
from .footage import scene_jobs
from .jobs import tracker
from .live import query as live_query
from .scenes import curtains as scene_curtains
from .scenes import link as scene_link
from .scenes import operators as scene_operators
from .scenes import panel as scene_panel
from .scenes import place_operators as scene_place_operators
from .sequencer import operators as sequencer_operators
from .shots import final as shot_final
from .shots import operators as shot_operators
from .shots import panel as shot_panel
from .shots import properties as shot_properties
from .shots import take_panels as shot_take_panels
from .takes import disk as take_disk
from .takes import operators as take_operators
from .takes import panel as take_panel
from .takes import properties as take_properties
from .takes import take_jobs
from .takes import thumbnails as take_thumbnails
from .views import estimates as view_estimates
from .views import live_view
from .views import panel as view_panel

# Registered from top to bottom, unregistered from bottom to top. A module may have CLASSES, `register` (called after
# its classes exist) and `unregister` (called before they go).
MODULES: tuple[ModuleType, ...] = (
    errors,
    scheduler,
    preferences,
    local_backend,
    session,
    tracker,
    live_query,
    connection_operators,
    connection_panel,
    scene_link,
    scene_curtains,
    scene_operators,
    scene_place_operators,
    scene_panel,
    shot_final,
    shot_properties,
    camera_saved,
    camera_operators,
    camera_panel,
    shot_operators,
    shot_panel,
    take_properties,
    take_thumbnails,
    take_jobs,
    take_operators,
    take_panel,
    shot_take_panels,
    take_disk,
    sequencer_operators,
    coverage_panel,
    live_coverage,
    coverage_drawing,
    view_panel,
    live_view,
    view_estimates,
    footage_properties,
    scene_jobs,
    footage_operators,
    footage_panel,
    saving,
)


def register() -> None:
    """Register every module; what fails half-way is taken back, so that the add-on can be enabled again."""
    with ExitStack() as so_far:
        for module in MODULES:
            for kind in getattr(module, "CLASSES", ()):
                bpy.utils.register_class(kind)
                so_far.callback(bpy.utils.unregister_class, kind)
            if hasattr(module, "register"):
                module.register()
            if hasattr(module, "unregister"):
                so_far.callback(module.unregister)
        so_far.pop_all()


def unregister() -> None:
    """Unregister every module."""
    for module in reversed(MODULES):
        if hasattr(module, "unregister"):
            module.unregister()
        for kind in reversed(getattr(module, "CLASSES", ())):
            bpy.utils.unregister_class(kind)

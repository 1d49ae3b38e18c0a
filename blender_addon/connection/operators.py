"""Operators on the connection."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..blender_types import ImportHelper
from ..errors import forget_failures, reports_errors
from .backend_setup import INSTALL_COMMAND, backend_test, command_of, find_program, is_installed
from .local_backend import StartError, local_backend, words_of
from .preferences import ADDON_PACKAGE, connection_settings, is_loopback, log_folder, preferences
from .session import session

WALK_THROUGH = Path(__file__).resolve().parent.parent / "walkthrough" / "index.html"


class EX4D_OT_reconnect(bpy.types.Operator):
    """Close the connection to the EX-4D backend and open it again, with the address in the preferences."""

    bl_idname = "ex4d.reconnect"
    bl_label = "Reconnect"

    def execute(self, context: bpy.types.Context) -> set[str]:
        forget_failures()
        session().reconnect()
        return {"FINISHED"}


class EX4D_OT_preferences(bpy.types.Operator):
    """Set the backend's address, its keys and the folder for takes."""

    bl_idname = "ex4d.preferences"
    bl_label = "EX-4D Preferences"

    def execute(self, context: bpy.types.Context) -> set[str]:
        bpy.ops.preferences.addon_show(module=ADDON_PACKAGE)
        return {"FINISHED"}


class EX4D_OT_walk_through(bpy.types.Operator):
    """Read how to get from footage to a new camera move; opens in the web browser, works offline."""

    bl_idname = "ex4d.walk_through"
    bl_label = "EX-4D in Five Minutes"

    def execute(self, context: bpy.types.Context) -> set[str]:
        bpy.ops.wm.url_open(url=WALK_THROUGH.as_uri())
        return {"FINISHED"}


class EX4D_OT_start_backend(bpy.types.Operator):
    """Run the backend command of the preferences on this computer; it ends with Blender."""

    bl_idname = "ex4d.start_backend"
    bl_label = "Start Local Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if local_backend.running:
            cls.poll_message_set(iface_("The backend that was started from here is already running"))
            return False
        if not is_loopback(connection_settings().address):
            cls.poll_message_set(iface_("The preferences name a backend on another computer; start it there"))
            return False
        return True

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        chosen = preferences()
        command = chosen.serve_command if chosen else "ex4d serve"
        words_of(command)
        if not is_installed(command):
            if context.window is not None:
                bpy.ops.ex4d.preferences()
            raise StartError(
                f"{command!r} is not installed on this computer; the add-on's preferences say how to install it, and "
                "where to choose it"
            )
        local_backend.start(command, connection_settings().address, log_folder() / "backend.log")
        session().redraw()
        return {"FINISHED"}


class EX4D_OT_pick_backend(ImportHelper, bpy.types.Operator):
    """Choose the installed ex4d program, which runs the backend on this computer."""

    bl_idname = "ex4d.pick_backend"
    bl_label = "Choose Backend Command"

    filter_glob: bpy.props.StringProperty(default="*ex4d*", options={"HIDDEN"})

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        program = Path(bpy.path.abspath(self.filepath))
        if not program.is_file():
            raise StartError(f"{program} does not exist; choose the ex4d program")
        _use(program)
        return {"FINISHED"}


class EX4D_OT_use_found_backend(bpy.types.Operator):
    """Use the ex4d program that was found on this computer."""

    bl_idname = "ex4d.use_found_backend"
    bl_label = "Use the One Found Here"

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        program = find_program()
        if program is None:
            raise StartError(f"no ex4d program was found; install the backend with: {INSTALL_COMMAND}")
        _use(program)
        return {"FINISHED"}


class EX4D_OT_test_backend(bpy.types.Operator):
    """Ask the backend command what this computer can do with it."""

    bl_idname = "ex4d.test_backend"
    bl_label = "Test"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if backend_test.running:
            cls.poll_message_set(iface_("A test is under way"))
            return False
        return True

    @reports_errors
    def execute(self, context: bpy.types.Context) -> set[str]:
        chosen = preferences()
        backend_test.start(chosen.serve_command if chosen else "ex4d serve")
        return {"FINISHED"}


class EX4D_OT_stop_backend(bpy.types.Operator):
    """Stop the backend that was started from here; its jobs resume when it is started again."""

    bl_idname = "ex4d.stop_backend"
    bl_label = "Stop Local Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not local_backend.running:
            cls.poll_message_set(iface_("No backend was started from here"))
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        local_backend.ask_to_end()
        session().redraw()
        return {"FINISHED"}


class EX4D_OT_copy_text(bpy.types.Operator):
    """Copy this to the clipboard, to paste it into a terminal or a message."""

    bl_idname = "ex4d.copy_text"
    bl_label = "Copy"

    text: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.window_manager.clipboard = self.text
        return {"FINISHED"}


def _use(program: Path) -> None:
    """Let the preferences' backend command run a program."""
    chosen = preferences()
    if chosen is not None:
        chosen.serve_command = command_of(program)


CLASSES = (
    EX4D_OT_reconnect,
    EX4D_OT_preferences,
    EX4D_OT_walk_through,
    EX4D_OT_start_backend,
    EX4D_OT_stop_backend,
    EX4D_OT_pick_backend,
    EX4D_OT_use_found_backend,
    EX4D_OT_test_backend,
    EX4D_OT_copy_text,
)

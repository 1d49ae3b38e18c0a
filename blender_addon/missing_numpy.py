"""What is registered in place of the add-on where Blender's Python lacks numpy: the reason, and the way out.

Blender's own builds have numpy; packages of Linux distributions leave it to a package of its own, which may be missing.
This module is imported without the rest of the add-on and without `ex4d_core`, which need numpy.
"""

from __future__ import annotations

import platform
import shutil
import textwrap

import bpy
from bpy.app.translations import pgettext_iface as iface_

from .blender_types import Context, Operator, Panel, SidebarPanel

# Programs that install packages, with the command for numpy.
_COMMANDS = {
    "apt-get": "sudo apt-get install python3-numpy",
    "dnf": "sudo dnf install python3-numpy",
    "zypper": "sudo zypper install python3-numpy",
    "pacman": "sudo pacman -S python-numpy",
}


def reason() -> str:
    """What is missing, and what to install."""
    text = iface_(
        "EX-4D needs numpy, which the Python {version} of this Blender lacks. Install the package {package}, then "
        "restart Blender; or use Blender's own build, which has it"
    )
    return text.format(version=platform.python_version(), package=install_command().split()[-1])


def install_command() -> str:
    """The command that installs numpy on this system; Debian's where it is unknown."""
    found = (command for program, command in _COMMANDS.items() if shutil.which(program))
    return next(found, _COMMANDS["apt-get"])


def _draw(layout: bpy.types.UILayout, context: Context) -> None:
    column = layout.column(align=True)
    column.scale_y = 0.8
    letters = max(16, int(context.region.width / (7 * context.preferences.system.ui_scale)) - 6)
    for number, line in enumerate(textwrap.wrap(reason(), letters)):
        column.label(text=line, translate=False, icon="BLANK1" if number else "ERROR")
    layout.label(text=install_command(), translate=False)
    layout.operator(EX4D_OT_copy_install_command.bl_idname, icon="COPYDOWN")


class EX4D_OT_copy_install_command(Operator):
    """Copy the command that installs numpy, to paste it into a terminal."""

    bl_idname = "ex4d.copy_install_command"
    bl_label = "Copy Command"

    def execute(self, context: Context) -> set[str]:
        context.window_manager.clipboard = install_command()
        return {"FINISHED"}


class EX4D_PT_missing_numpy(SidebarPanel, Panel):
    """Says why the add-on's tab is empty."""

    bl_label = "EX-4D Cannot Start"

    def draw(self, context: Context) -> None:
        _draw(self.layout, context)


class EX4D_NumpyPreferences(bpy.types.AddonPreferences):
    """The preferences' page, with the same."""

    bl_idname = __package__ or ""

    def draw(self, context: Context) -> None:
        _draw(self.layout, context)


CLASSES = (EX4D_OT_copy_install_command, EX4D_PT_missing_numpy, EX4D_NumpyPreferences)

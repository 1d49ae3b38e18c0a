"""The project's website and issues, as the add-on's manifest states them.

Whoever builds the add-on for others states both (`ex4d addon --website --issues`); other builds have no links.
"""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core import __version__

from ..blender_types import Context, Operator, ops
from ..errors import failures

MANIFEST = Path(__file__).resolve().parent.parent / "blender_manifest.toml"


@cache
def manifest_link(key: str) -> str:
    """A link in the manifest, "website" or "issues"; "" if it has none."""
    # Blender 4.2's Python has tomllib, but the manifest's top level is all that is asked for.
    found = re.search(rf'^{key}\s*=\s*"([^"]*)"', MANIFEST.read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1) if found else ""


def bug_report() -> str:
    """What a bug report needs: versions, system, and what failed last."""
    lines = [
        f"EX-4D {__version__}, Blender {bpy.app.version_string}, Python {platform.python_version()}",
        f"{platform.system()} {platform.release()}, {platform.machine()}",
    ]
    if met := failures():
        lines += ["", *met[-1].strip().splitlines()]
    return "\n".join(lines)


class EX4D_OT_website(Operator):
    """Open the project's website in the web browser."""

    bl_idname = "ex4d.website"
    bl_label = "Website"

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not manifest_link("website"):
            cls.poll_message_set(iface_("This build of the add-on states no website; ask whoever gave it to you"))
            return False
        return True

    def execute(self, context: Context) -> set[str]:
        ops.wm.url_open(url=manifest_link("website"))
        return {"FINISHED"}


class EX4D_OT_report_bug(Operator):
    """Copy versions and the last failure to the clipboard, and open the project's issues if the add-on states them."""

    bl_idname = "ex4d.report_bug"
    bl_label = "Report a Bug"

    def execute(self, context: Context) -> set[str]:
        context.window_manager.clipboard = bug_report()
        if issues := manifest_link("issues"):
            ops.wm.url_open(url=issues)
        self.report({"INFO"}, "Copied versions and the last failure; paste them into your report")
        return {"FINISHED"}


CLASSES = (EX4D_OT_website, EX4D_OT_report_bug)

"""Says what the backend's texts call by flags of the command line with the names of Blender's fields."""

from __future__ import annotations

import re

from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_n as mark_

from ex4d_core.messages import command_in

_FIELDS = {
    "--depth": mark_("Depth Files"),
    "--depth-scale": mark_("Depth Scale"),
    "--depth-inverse": mark_("Inverse Depth"),
    "--depth-offset": mark_("Depth Offset"),
    "--no-camera-fit": mark_("Fit to Camera"),
    "--estimator": mark_("Estimator"),
    "--fov": mark_("Field of View"),
    "--camera": mark_("Camera File"),
    "--camera-scale": mark_("Camera Scale"),
    "--licence": mark_("License in the add-on's preferences"),
    "--accept-licence": mark_("License in the add-on's preferences"),
}
_FLAG = re.compile("|".join(sorted(map(re.escape, _FIELDS), key=len, reverse=True)) + r"(?![\w-])")


def in_field_names(text: str) -> str:
    """A text of the backend with Blender's names; a command at its end stays as it is, to be copied."""
    command = command_in(text)
    told = text.removesuffix(command) if command else text
    return _FLAG.sub(lambda found: iface_(_FIELDS[found[0]]), told) + command

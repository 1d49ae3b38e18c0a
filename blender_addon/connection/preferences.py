"""Add-on preferences: the backend's address and keys, and where files go while the .blend is not saved.

Blender forgets an add-on's preferences when it is uninstalled, and artists update by uninstalling; so they are kept in
the user's own folder of settings, too.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import bpy

from ex4d_core.client_socket import ClientKeys
from ex4d_core.licences import Licence
from ex4d_core.messages import DEFAULT_ADDRESS

from ..shortcuts.key_map import draw_keys
from ..user_settings import CHOICES_FILE, read_settings, write_settings
from .backend_setup import draw_setup

ADDON_PACKAGE = (__package__ or "").rpartition(".")[0]
# In the file of choices, and what is kept there; the project folder has its own entry.
_PREFERENCES = "preferences"
_KEPT = ("address", "client_secret", "server_public", "serve_command", "licence")


@dataclass(frozen=True)
class ConnectionSettings:
    """The settings of a connection; others mean another connection.

    Attributes:
        address: a ZeroMQ address, tcp://HOST:PORT.
        keys: for a backend on another machine; None for one on this machine.
        allowed: whether Blender's online access permits this address.
    """

    address: str
    keys: ClientKeys | None
    allowed: bool


def _keep(chosen: bpy.types.AddonPreferences, _: bpy.types.Context) -> None:
    """Keep what the artist has set."""
    values = {name: getattr(chosen, name) for name in _KEPT if chosen.is_property_set(name)}
    with suppress(OSError):  # then Blender's own preferences alone have it
        write_settings(CHOICES_FILE, {**read_settings(CHOICES_FILE), _PREFERENCES: values})


class EX4D_Preferences(bpy.types.AddonPreferences):
    """The add-on's preferences."""

    bl_idname = ADDON_PACKAGE

    address: bpy.props.StringProperty(
        name="Backend Address",
        description="Where the EX-4D backend listens, as tcp://HOST:PORT",
        default=DEFAULT_ADDRESS,
        update=_keep,
    )
    client_secret: bpy.props.StringProperty(
        name="Client Key",
        description="Secret certificate of this computer (.key_secret), for a backend on another machine",
        subtype="FILE_PATH",
        update=_keep,
    )
    server_public: bpy.props.StringProperty(
        name="Server Key",
        description="Public certificate of the backend (.key), for a backend on another machine",
        subtype="FILE_PATH",
        update=_keep,
    )
    serve_command: bpy.props.StringProperty(
        name="Backend Command",
        description="Command that starts a backend on this computer; the address is appended",
        default="ex4d serve",
        update=_keep,
    )
    licence: bpy.props.EnumProperty(
        name="License",
        description="Intended use of the results; decides which parts of the backend may be used",
        items=(
            (
                "ANY",
                "Commercial",
                "Any use, commercial included; excludes research-only parts of the backend",
            ),
            ("RESEARCH", "Research", "Research only; the backend may also use research-only parts"),
        ),
        default="ANY",
        update=_keep,
    )
    output_folder: bpy.props.StringProperty(
        name="Project Folder",
        description="Folder for scenes and takes while the .blend is not saved; saved files keep theirs beside them",
        subtype="DIR_PATH",
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "address")
        if is_loopback(self.address):
            draw_setup(layout, self)
        else:
            layout.prop(self, "client_secret")
            layout.prop(self, "server_public")
        layout.prop(self, "licence")
        layout.prop(self, "output_folder", placeholder="Asked for at the first Reconstruct")
        row = layout.split(factor=0.4)
        row.label()
        row = row.row(align=True)
        row.operator("ex4d.measure_files", icon="FILE_REFRESH")
        row.operator("ex4d.delete_old_files", icon="TRASH")
        if text := context.window_manager.ex4d_files_on_disk:
            layout.label(text=text, icon="INFO", translate=False)
        row = layout.row(align=True)
        row.operator("ex4d.walk_through", icon="HELP")
        row.operator("ex4d.manual", icon="HELP")
        row.operator("ex4d.website", icon="URL")
        row.operator("ex4d.report_bug", icon="URL")
        draw_keys(layout, context)


CLASSES = (EX4D_Preferences,)


def preferences() -> EX4D_Preferences | None:
    """The add-on's preferences, or None where it was registered without them."""
    addon = bpy.context.preferences.addons.get(ADDON_PACKAGE)
    return addon.preferences if addon else None


def connection_settings() -> ConnectionSettings:
    """The connection that the preferences ask for now."""
    chosen = preferences()
    if chosen is None:
        return ConnectionSettings(DEFAULT_ADDRESS, None, True)
    local = is_loopback(chosen.address)
    keys = None
    if not local and chosen.client_secret and chosen.server_public:
        keys = ClientKeys(
            Path(bpy.path.abspath(chosen.client_secret)),
            Path(bpy.path.abspath(chosen.server_public)),
        )
    # An invalid address goes nowhere, and the client explains it better.
    allowed = local or bpy.app.online_access or "://" not in chosen.address
    return ConnectionSettings(chosen.address.strip(), keys, allowed)


@cache  # every tick asks
def is_loopback(address: str) -> bool:
    """Whether an address stays on this machine, so that Blender's online-access setting does not concern it."""
    try:
        parts = urlsplit(address.strip())
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme in ("ipc", "inproc"):
        return True
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # the name of a machine
        return False


def chosen_licence() -> Licence:
    """The purpose of results, as requests state it."""
    chosen = preferences()
    return "research" if chosen is not None and chosen.licence == "RESEARCH" else "commercial"


def log_folder() -> Path:
    """Where the log of a backend goes that is started from Blender: the add-on's own folder in Blender's user data."""
    if ADDON_PACKAGE.startswith("bl_ext."):
        return Path(bpy.utils.extension_path_user(ADDON_PACKAGE))
    return Path(bpy.utils.user_resource("DATAFILES", path="ex4d"))


def recall_preferences() -> None:
    """Give preferences that are new, as after the add-on was installed again, the values that the artist had set."""
    chosen, kept = preferences(), read_settings(CHOICES_FILE).get(_PREFERENCES)
    if chosen is None or not isinstance(kept, dict):
        return
    for name in _KEPT:
        if isinstance(kept.get(name), str) and not chosen.is_property_set(name):
            with suppress(TypeError):  # an item of an enum that this version does not have
                setattr(chosen, name, kept[name])


def register() -> None:
    """Recall what was set before the add-on was uninstalled."""
    recall_preferences()

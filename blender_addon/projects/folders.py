"""Where scenes and takes go: beside a saved .blend, else into the project folder that the artist chose.

Never into a folder of the extension, which Blender deletes with it. The choice and the folders that were moved are kept
in the user's own folder of settings, so that they outlive the extension, too.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import bpy

from ..connection.preferences import ADDON_PACKAGE, preferences
from ..user_settings import CHOICES_FILE, read_settings, write_settings

_CHOICE = "project_folder"


def work_folder() -> Path:
    """The folder for new scenes (in ``scenes``) and takes (in ``takes``) of the open file."""
    saved = bpy.data.filepath
    return Path(saved).parent if saved else project_folder()


def project_folder() -> Path:
    """The folder for scenes and takes of unsaved files: the artist's choice, else one in the user's documents."""
    return chosen_project_folder() or documents_folder() / "EX-4D"


def chosen_project_folder() -> Path | None:
    """The artist's choice, from the preferences or as it was remembered; None before the first one."""
    chosen = preferences()
    text = chosen.output_folder if chosen is not None else ""
    text = text or str(read_settings(CHOICES_FILE).get(_CHOICE) or "")
    return Path(os.path.abspath(bpy.path.abspath(text))) if text else None


def choose_project_folder(folder: Path) -> None:
    """Remember the artist's choice.

    Raises:
        OSError: the folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = preferences()
    if chosen is not None:
        chosen.output_folder = str(folder)
    with suppress(OSError):  # then the preferences alone remember it
        write_settings(CHOICES_FILE, {**read_settings(CHOICES_FILE), _CHOICE: str(folder)})


def former_folders() -> list[Path]:
    """Where earlier versions put takes and scenes of unsaved files: the extension's folder, or Blender's data."""
    folders = [Path(bpy.utils.user_resource("DATAFILES", path="ex4d")) / "takes"]
    if ADDON_PACKAGE.startswith("bl_ext."):
        folders.append(Path(bpy.utils.extension_path_user(ADDON_PACKAGE, path="takes")))
    return folders


def documents_folder() -> Path:
    """The user's documents, where the system says they are; the home folder otherwise."""
    home = Path.home()
    if sys.platform == "win32":
        found = _windows_documents()
    elif sys.platform == "darwin":
        found = home / "Documents"
    else:
        found = _xdg_documents(home)
    return found if found is not None and found.is_dir() else home


def _windows_documents() -> Path | None:
    """The folder that the registry names; many users have it in a synchronised folder."""
    import winreg

    place = r"Software\Microsoft\Windows\CurrentVersion\Explorer\User Shell Folders"
    try:
        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, place) as key:
            return Path(os.path.expandvars(winreg.QueryValueEx(key, "Personal")[0]))
    except OSError:
        return None


def _xdg_documents(home: Path) -> Path:
    """The folder in ``user-dirs.dirs``, whose lines are XDG_DOCUMENTS_DIR="$HOME/..."."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "user-dirs.dirs"
    with suppress(OSError, UnicodeDecodeError):
        for line in config.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "XDG_DOCUMENTS_DIR":
                return Path(value.strip().strip('"').replace("$HOME", str(home)))
    return home / "Documents"

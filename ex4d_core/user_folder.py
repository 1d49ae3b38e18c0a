"""Finds the user's own folders of EX-4D, the same for every Blender and the command line.

They are where `platformdirs` has them, which Blender's Python lacks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_folder(kind: str = "config") -> Path:
    """A folder of the user, which need not exist.

    Args:
        kind: "config" for settings and secrets, where `ex4d.toml` is, too; "data" for what programs keep. Only Linux
            tells them apart.
    """
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        variable, usual = _XDG[kind]
        named = Path(os.environ.get(variable, "").strip())
        # The specification of these folders: a relative path is ignored.
        base = named if named.is_absolute() else home / usual
    return base / "ex4d"


_XDG = {"config": ("XDG_CONFIG_HOME", ".config"), "data": ("XDG_DATA_HOME", ".local/share")}

"""What the add-on keeps in the user's own folder of settings, so that it outlives the extension and this Blender."""

from __future__ import annotations

import json
import os
from typing import Any

from ex4d_core.durable_files import put_in_place
from ex4d_core.user_folder import user_folder

# The artist's choices: project folder and preferences.
CHOICES_FILE = "blender.json"


def read_settings(name: str) -> dict[str, Any]:
    """A JSON file of the user's folder; empty where it is missing or damaged."""
    try:
        values = json.loads((user_folder() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_settings(name: str, values: dict[str, Any]) -> None:
    """Replace a JSON file of the user's folder.

    Raises:
        OSError: it cannot be written.
    """
    path = user_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f"{name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(values, indent=1), encoding="utf-8")
    put_in_place(partial, path)

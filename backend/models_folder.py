"""Where weights lie on this machine, for the engine wan and for the depth estimators alike."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import platformdirs

from backend.variables import MODELS_VARIABLE


def models_folder() -> Path:
    """The folder that the environment's `MODELS_VARIABLE` names, or one in the user's own data."""
    named = os.environ.get(MODELS_VARIABLE)
    return Path(named).expanduser() if named else _default_folder()


def fetch_command(folder: Path, *parts: str) -> str:
    """The command that fetches parts into ``folder``, in any shell of this machine.

    The folder is left out only where it is the user's own: the shell that the command is pasted into need not have the
    variable, or the option, that this process was given.
    """
    elsewhere = "" if folder == _default_folder() else f" --models {shlex.quote(str(folder))}"
    return f"ex4d models fetch {' '.join(parts)}{elsewhere}"


def _default_folder() -> Path:
    return Path(platformdirs.user_data_dir("ex4d", appauthor=False)) / "models"

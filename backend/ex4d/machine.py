"""What a machine's owner sets for the models that run on it, by environment variables that worker processes inherit.

The service and the command line import this, so nothing here may need torch.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import platformdirs

MODELS_VARIABLE = "EX4D_MODELS"
VRAM_LIMIT_VARIABLE = "EX4D_VRAM_LIMIT_GB"


def models_folder() -> Path:
    """Where weights lie, of the engine wan and of the depth estimators: as `MODELS_VARIABLE` says, or in one's data."""
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

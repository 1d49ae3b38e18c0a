"""Where weights lie on this machine, for the engine wan and for the depth estimators alike."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from backend.variables import MODELS_VARIABLE


def models_folder() -> Path:
    """The folder that the environment's `MODELS_VARIABLE` names, or one in the user's own data."""
    named = os.environ.get(MODELS_VARIABLE)
    return Path(named).expanduser() if named else Path(platformdirs.user_data_dir("ex4d", appauthor=False)) / "models"

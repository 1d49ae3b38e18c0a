"""What a machine's owner sets for the models that run on it, by environment variables that worker processes inherit.

The service and the command line import this, so nothing here may need torch.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

MODELS_VARIABLE = "EX4D_MODELS"
VRAM_LIMIT_VARIABLE = "EX4D_VRAM_LIMIT_GB"


def models_folder() -> Path:
    """Where weights lie, of the engine wan and of the depth estimators: as `MODELS_VARIABLE` says, or in one's data."""
    named = os.environ.get(MODELS_VARIABLE)
    return Path(named).expanduser() if named else Path(platformdirs.user_data_dir("ex4d", appauthor=False)) / "models"

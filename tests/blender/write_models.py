"""Writes small models with random weights, as tests/generate has them, for a backend that shall offer finals.

Run by the backend's Python, which has torch and diffsynth:

    python write_models.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.generate.conftest import write_toy_models

if __name__ == "__main__":
    write_toy_models(Path(sys.argv[1]))

"""Lets the tests of this folder import the scripts, which are programs and no package."""

from __future__ import annotations

import sys
from pathlib import Path

# Last, so that scripts/test.py does not hide the standard library's `test`.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

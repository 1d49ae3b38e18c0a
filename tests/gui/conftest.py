"""Lets the tests of this folder build the add-on as scripts/build_addon.py does."""

from __future__ import annotations

import sys
from pathlib import Path

# Last, so that scripts/test.py does not hide the standard library's `test`.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

"""Loads `ex4d.addon` from this checkout by itself: `import ex4d` would need numpy, which is not installed yet."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parent.parent
_FOLDER = _ROOT / "backend" / "ex4d" / "addon"


def addon_module(name: str) -> ModuleType:
    """A module of `ex4d.addon`, such as "zip_file", under the package name `ex4d_addon`."""
    if "ex4d_addon" not in sys.modules:
        # For `ex4d_core`, whose first modules need nothing either; last, so that it hides nothing.
        sys.path.append(str(_ROOT))
        spec = importlib.util.spec_from_file_location(
            "ex4d_addon", _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
        )
        package = importlib.util.module_from_spec(spec)
        sys.modules["ex4d_addon"] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"ex4d_addon.{name}" if name else "ex4d_addon")

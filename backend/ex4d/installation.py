"""How this package was installed, and the command that adds an extra to it."""

from __future__ import annotations

import shlex
from pathlib import Path


def checkout() -> Path | None:
    """The source checkout that this package runs from; None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "backend" / "ex4d").is_dir() else None


def install_command(extra: str) -> str:
    """The command that installs an extra of this package ("depth", "wan") beside it, in this Python's environment."""
    root = checkout()
    if root is None:
        return f"pip install 'ex4d[{extra}]'"
    place = "." if Path.cwd() == root else root
    return f"pip install -e {shlex.quote(f'{place}[{extra}]')}"

"""Reads the user's configuration file, ex4d.toml: a table for each verb of the command line, and [machine].

It stands below flags and environment variables. `ex4d.machine` takes [machine], `ex4d.cli.parsing` the tables of verbs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import platformdirs

from ex4d_core.errors import Ex4dError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

CONFIG_VARIABLE = "EX4D_CONFIG"
MACHINE_TABLE = "machine"


class ConfigError(Ex4dError):
    """The configuration file cannot be read, or holds something invalid; the message names the file."""


def config_file() -> Path:
    """The file that is read: $EX4D_CONFIG, else ex4d.toml in the user's configuration folder, which need not exist."""
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named).expanduser().absolute()
    return Path(platformdirs.user_config_dir("ex4d", appauthor=False)) / "ex4d.toml"


def read_config() -> dict[str, dict[str, Any]]:
    """The tables of the configuration file; none where the user has no such file.

    Raises:
        ConfigError: $EX4D_CONFIG names no file, or the file is not TOML made of tables.
    """
    path = config_file()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if os.environ.get(CONFIG_VARIABLE):
            raise ConfigError(f"{path} does not exist; {CONFIG_VARIABLE} must name a file, or be unset") from error
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name} stands outside a table: put it below [VERB] or [{MACHINE_TABLE}]")
    return tables

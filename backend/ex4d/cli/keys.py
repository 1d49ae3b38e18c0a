"""Create, list and remove the keys of a backend's users, and set their roles and limits.

  ex4d keys create anna                   create keys, and the service's own if there are none yet
  ex4d keys list                          who may connect, as what, and within which limits
  ex4d keys set anna --running 1          set a role or limits; "default" as a limit is that of ex4d serve
  ex4d keys remove anna                   refuse the next connection; jobs and footage stay

The name of a key is that of its user. A running service follows at once, without a restart. The folder is that of this
machine: --keys, or keys in the data folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

from ex4d.cli.report import Report
from ex4d_core.errors import RequestError
from ex4d_core.turn_messages import ROLES

SUMMARY = "create, list and remove the keys of a backend's users, and set their roles and limits"

_LIMITS = {"jobs": int, "running": int, "gb": float}
_DEFAULT = "default"


def create(options: argparse.Namespace, report: Report) -> int:
    """Create keys for a client of this name, and the service's own if there are none yet."""
    from ex4d.service import create_keys

    report_created(create_keys(_folder(options), options.name), options.name, report)
    return 0


def report_created(files: tuple[Path, Path], name: str, report: Report) -> None:
    """Say which files go to the client of new keys: its own secret, and the server's public one."""
    report.note(
        f"copy these two files to the computer of {name}, then delete the first one here. It is {name}'s own "
        f"secret: the sentence in it, 'DO NOT PROVIDE THIS FILE TO OTHER USERS', means anyone but {name}"
    )
    report.add("client_secret", files[0])
    report.add("server_public", files[1])


def show(options: argparse.Namespace, report: Report) -> int:
    """List the users who may connect, with their roles and limits."""
    from rich.table import Table

    from ex4d.service.accounts import Account, read_accounts
    from ex4d.service.keys import list_clients

    folder = _folder(options)
    accounts = read_accounts(folder)
    told = [{"name": one.name, **asdict(accounts.get(one.name, Account()))} for one in list_clients(folder)]
    table = Table("user", "role", "jobs", "running", "GB", box=None)
    for row in told:
        table.add_row(*(_DEFAULT if value is None else str(value) for value in row.values()))
    nobody = f"nobody may connect: {folder} has no keys; create them with 'ex4d keys create NAME'"
    report.show(table if told else nobody)
    report.add("users", told, "")
    return 0


def change(options: argparse.Namespace, report: Report) -> int:
    """Set the role or the limits of a user; what is not given stays."""
    from ex4d.service.accounts import Account, read_accounts, write_account
    from ex4d.service.keys import require_client

    folder = _folder(options)
    require_client(folder, options.name)
    given = {name: value for name in ("role", *_LIMITS) if (value := getattr(options, name)) is not None}
    if not given:
        raise RequestError("nothing to set: give --role, --jobs, --running or --gb")
    before = read_accounts(folder).get(options.name, Account())
    account = replace(before, **{name: None if value == _DEFAULT else value for name, value in given.items()})
    write_account(folder, options.name, account)
    described = ", ".join(
        f"{field.name} {_DEFAULT if (value := getattr(account, field.name)) is None else value}"
        for field in fields(account)
    )
    report.say(f"{options.name}: {described}")
    report.add("users", [{"name": options.name, **asdict(account)}], "")
    return 0


def remove(options: argparse.Namespace, report: Report) -> int:
    """Remove the keys of a user here, with their role and limits: the next connection is refused."""
    from ex4d.service.accounts import write_account
    from ex4d.service.keys import remove_client

    folder = _folder(options)
    remove_client(folder, options.name)
    write_account(folder, options.name, None)
    report.say(f"{options.name} cannot connect any more; jobs and footage stay, also for new keys of this name")
    report.add("removed", options.name, "")
    return 0


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", type=Path, metavar="FOLDER", help="folder of keys; default: keys in the data folder")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="data folder of the service; default: the user's")


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="CLIENT", help="name of the key, which is that of its user")
    _add_folder(parser)


def _add_change(parser: argparse.ArgumentParser) -> None:
    _add_name(parser)
    parser.add_argument("--role", choices=ROLES, help="artist: own jobs; admin: lists, cancels and orders all jobs")
    told = {"jobs": "queued and running jobs", "running": "jobs that run at once", "gb": "footage and results"}
    for name, kind in _LIMITS.items():
        parser.add_argument(f"--{name}", type=_limit(kind), metavar="LIMIT", help=f"limit of {told[name]}, or default")


def _limit(kind: type[int] | type[float]) -> Callable[[str], int | float | str]:
    def limit(text: str) -> int | float | str:
        return text if text == _DEFAULT else kind(text)

    limit.__name__ = "limit"  # what argparse calls an invalid one
    return limit


def _folder(options: argparse.Namespace) -> Path:
    from ex4d.service import ServiceSettings

    settings = ServiceSettings() if options.data is None else ServiceSettings(data=options.data)
    return (options.keys.expanduser().absolute() if options.keys else None) or settings.data / "keys"


ACTIONS = {
    name: SimpleNamespace(SUMMARY=summary, __doc__=run.__doc__, add_arguments=add_arguments, run=run)
    for name, summary, add_arguments, run in (
        ("create", "create keys for a client", _add_name, create),
        ("list", "list the users who may connect, with their roles and limits", _add_folder, show),
        ("set", "set the role or the limits of a user", _add_change, change),
        ("remove", "refuse a client from now on", _add_name, remove),
    )
}

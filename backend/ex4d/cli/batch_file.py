"""Reads a batch file, TOML or CSV, into shots: for each the command lines of the verbs that make it.

A field of a shot is the long name of an option of reconstruct, render or generate. The verbs' own parsers check it, so
nothing is declared twice. All mistakes of a file are found before any work, and told together.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import difflib
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ex4d.cli.flags import settings_from
from ex4d.cli.main import parse_verb, verb_parser
from ex4d.cli.options import refuse_useless_lead_in, wan_settings
from ex4d_core.errors import Ex4dError, RequestError
from ex4d_core.scene_manifest import MANIFEST
from ex4d_core.trajectories import Trajectory

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

VIEW_VERBS = ("generate", "render")
_VERBS = ("reconstruct", *VIEW_VERBS)
# Fields that say what a shot is, and not how a verb works.
_OF_THE_SHOT = ("name", "verb", "footage", "scene", "out")
# Options that the batch sets for all of its shots.
_OF_THE_BATCH = ("device", "dry-run", "resume", "json", "quiet", "verbose", "help")
_WORDS_OF_YES, _WORDS_OF_NO = ("true", "yes", "1"), ("false", "no", "0")
# Names in the batch's folder that no shot can have.
SCENES, REPORT, LOG = "scenes", "report.json", "batch.log"
# Folder of what is kept about each command, and the file of it that earlier versions wrote.
STATE, OLD_STATE = ".ex4d-batch", ".ex4d-batch.json"


class BatchError(Ex4dError):
    """A batch file with mistakes; the message lists all of them."""


@dataclass(frozen=True)
class Work:
    """One command of a shot.

    Attributes:
        verb: "reconstruct", "render" or "generate".
        words: its command line, without the device.
        out: the folder or file that it writes.
        key: changes with the command line and with the files that it reads.
    """

    verb: str
    words: tuple[str, ...]
    out: Path
    key: str

    @property
    def options(self) -> argparse.Namespace:
        """As the verb gets them."""
        return parse_verb(self.verb, self.words)


@dataclass(frozen=True)
class Shot:
    """A shot of the file.

    Attributes:
        scene: reconstructs its scene; the same one for all shots with equal footage and depth. None if it is there.
        view: renders or generates it.
    """

    name: str
    scene: Work | None
    view: Work


def read_batch(path: Path, folder: Path) -> list[Shot]:
    """The shots of a file.

    Args:
        path: ends in .toml or .csv.
        folder: of the batch, for shots that name no place of their own.

    Raises:
        BatchError: the file cannot be read, or has mistakes.
    """
    defaults, rows = _tables(path)
    mistakes = [f"[defaults]: {text}" for text in _unknown(defaults, _VERBS)]
    shots: list[Shot] = []
    scenes: dict[Path, Work] = {}
    readers = [_Row(path.absolute().parent, folder, defaults, row) for row in rows]
    if not rows:
        mistakes.append("no shots; write [[shot]], or in a CSV a row for each below the names of options")
    for number, reader in enumerate(readers, start=1):
        shot = reader.shot()
        where = f"shot {reader.name or number}"
        mistakes += [f"{where}: {text}" for text in dict.fromkeys(reader.mistakes)]
        if shot is not None:
            if shot.scene is not None and scenes.setdefault(shot.scene.out, shot.scene) != shot.scene:
                mistakes.append(f"{where}: another shot reconstructs {shot.scene.out} with other options")
            shots.append(shot)
    names = Counter(reader.name for reader in readers if reader.name)
    mistakes += [f"{count} shots have the name {name}" for name, count in names.items() if count > 1]
    outputs = Counter(reader.out for reader in readers if names[reader.name] == 1)
    mistakes += [f"{count} shots have the output {out}" for out, count in outputs.items() if count > 1]
    if mistakes:
        count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise BatchError("\n  ".join([f"{path} has {count}, nothing was started:", *mistakes]))
    return shots


def _tables(path: Path) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """The defaults of a file, and its shots."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
        if path.suffix.lower() == ".csv":
            rows = csv.DictReader(io.StringIO(text), strict=True, restkey="")
            return {}, [{name.strip(): (value or "").strip() for name, value in row.items() if name} for row in rows]
        document = tomllib.loads(text)
    except OSError as error:
        raise BatchError(f"cannot read {path}: {error.strerror}; name a .toml or .csv file of shots") from error
    except (ValueError, csv.Error) as error:
        raise BatchError(f"{path} is not valid {path.suffix.lstrip('.').upper() or 'TOML'}: {error}") from error
    shots, defaults = document.pop("shot", []), document.pop("defaults", {})
    if document or not isinstance(shots, list) or not all(isinstance(row, dict) for row in (defaults, *shots)):
        raise BatchError(f"{path} must have [[shot]] for each shot, and may have [defaults]; it has {list(document)}")
    return defaults, shots


class _Row:
    """One row of a file on its way to a shot; mistakes are collected."""

    def __init__(self, base: Path, folder: Path, defaults: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        self.base, self.folder, self.mistakes = base, folder, []
        row = {name: value for name, value in row.items() if value != ""}
        self.fields = {**_flat(defaults), **_flat(row)}
        self.own = _flat(row)
        self.name = str(self.fields.get("name", ""))
        self.out = self._path(self.fields["out"]) if "out" in self.fields else folder / self.name

    def shot(self) -> Shot | None:
        """The shot, or None where the row has mistakes."""
        fields = self.fields
        name, verb = self.name, fields.get("verb", "generate")
        if not name or name.startswith(".") or set(name) & set("/\\") or name in (SCENES, REPORT, LOG):
            self.mistakes.append(f"name must be text without slashes that can name a folder, not {name!r}")
        if verb not in VIEW_VERBS:
            self.mistakes.append(f"verb must be {' or '.join(VIEW_VERBS)}, not {verb!r}")
            return None
        if "footage" not in fields and "scene" not in fields:
            self.mistakes.append("footage is missing; or give scene, the folder of one that is there")
            return None
        verbs = (verb, *(["reconstruct"] if "footage" in fields else []))
        self.mistakes += _unknown(self.own, verbs)
        scene = self._scene() if "footage" in fields else None
        folder = scene.out if scene else self._path(fields.get("scene", ""))
        if "footage" not in fields and not folder.exists():
            self.mistakes.append(f"scene: {folder} does not exist; give footage to have it made")
        label = [f"--label={name}"] if verb == "generate" and "label" not in fields else []
        view = self._work(verb, [str(folder), f"--out={self.out}", *label], self.out, scene)
        return None if self.mistakes or view is None else Shot(name, scene, view)

    def _scene(self) -> Work | None:
        """The reconstruction; its folder is named after what it is made from, so that others find it again."""
        footage = self._path(self.fields["footage"])
        if not _exists(footage):
            self.mistakes.append(f"footage: {footage} does not exist")
            return None
        named = self.fields.get("scene")
        unnamed = self._work("reconstruct", [str(footage)], self.folder, None)
        if unnamed is None:
            return None
        out = self._path(named) if named else self.folder / SCENES / f"{footage.stem}-{unnamed.key[:8]}"
        return Work("reconstruct", (*unnamed.words, f"--out={out}"), out, unnamed.key)

    def _work(self, verb: str, positional: list[str], out: Path, scene: Work | None) -> Work | None:
        """A command with this row's options, each checked by the verb's own parser."""
        words, inputs = [], [Path(positional[0])] if scene is None else []
        before = len(self.mistakes)
        for name, value in self.fields.items():
            prefix, _, option = name.rpartition(".")
            action = None if name in _OF_THE_SHOT or prefix not in ("", verb) else _action(verb, option)
            if action is None or option in _OF_THE_BATCH:
                continue
            try:
                given = list(self._words(option, action, value))
                _parsed(verb, [*positional, *given])
            except RequestError as error:
                self.mistakes.append(str(error))
                continue
            words += given
            if action.type is Path and action.dest not in ("out", "models", "model_path"):
                inputs.append(self._path(value))
                if not _exists(inputs[-1]):
                    self.mistakes.append(f"{option}: {inputs[-1]} does not exist")
        if len(self.mistakes) > before:
            return None
        try:
            _check_settings(verb, _parsed(verb, [*positional, *words]))
        except RequestError as error:
            self.mistakes.append(str(error))
            return None
        words = [*positional, *words]
        facts = [verb, words, [_identity(path) for path in inputs], scene.key if scene else ""]
        return Work(verb, tuple(words), out, hashlib.sha256(json.dumps(facts).encode()).hexdigest())

    def _words(self, option: str, action: argparse.Action, value: Any) -> Iterator[str]:
        """What stands on the command line for a field."""
        flag = f"--{option}"
        if action.nargs == 0:
            text = str(value).lower()
            if text not in (*_WORDS_OF_YES, *_WORDS_OF_NO):
                raise RequestError(f"{option} must be true or false, not {value!r}")
            if text in _WORDS_OF_YES:
                yield flag
            elif f"--no-{option}" in action.option_strings:
                yield f"--no-{option}"
            return
        if isinstance(action.nargs, int):
            yield from (flag, *map(str, value.split() if isinstance(value, str) else value))
            return
        for one in value if isinstance(value, list) else [value]:
            yield f"{flag}={self._path(one) if action.type is Path else one}"

    def _path(self, value: Any) -> Path:
        """A path, relative to the file."""
        return self.base / Path(str(value)).expanduser()


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """``reconstruct.frames`` is a name in a CSV, and a table within a table in TOML."""
    flat = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            flat[name] = value
    return flat


def _unknown(fields: Mapping[str, Any], verbs: Iterable[str]) -> Iterator[str]:
    """Mistakes in the names of fields."""
    known = {option[2:] for verb in verbs for option in verb_parser(verb)._option_string_actions if option[:2] == "--"}
    for name in _flat(fields):
        verb, _, option = name.rpartition(".")
        if option in _OF_THE_BATCH:
            yield f"{option} is set for the whole batch; see ex4d batch --help"
        elif verb and (verb not in verbs or _action(verb, option) is None):
            yield f"{name} is not an option of {' or '.join(verbs)}"
        elif not verb and name not in _OF_THE_SHOT and option not in known:
            near = difflib.get_close_matches(option, [*known, *_OF_THE_SHOT], 1)
            hint = f"; do you mean {near[0]}?" if near else ""
            yield f"{name} is not an option of {' or '.join(verbs)}{hint}"


def _action(verb: str, option: str) -> argparse.Action | None:
    return verb_parser(verb)._option_string_actions.get(f"--{option}")


def _parsed(verb: str, words: list[str]) -> argparse.Namespace:
    """Options by the verb's own parser.

    Raises:
        RequestError: with its words.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return parse_verb(verb, [*words, *([] if any(one.startswith("--out=") for one in words) else ["--out=."])])
    except SystemExit as ended:
        text = told.getvalue().strip().removeprefix(f"ex4d {verb}: ").removesuffix(f"; see ex4d {verb} --help")
        raise RequestError(text.removeprefix("argument ") or f"ex4d {verb} refuses it") from ended


def _check_settings(verb: str, options: argparse.Namespace) -> None:
    """Raises RequestError where options do not go together."""
    if verb == "reconstruct":
        from ex4d.cli.reconstruct import settings_of

        settings_of(options, options.footage)
        return
    settings_from(options, Trajectory)
    if verb == "generate":
        refuse_useless_lead_in(options, wan_settings(options))


def _exists(path: Path) -> bool:
    """Whether a file, a folder, or anything that a pattern may match, is there."""
    return path.exists() or (any(letter in path.name for letter in "*%#") and path.parent.is_dir())


def _identity(path: Path) -> list[Any]:
    """Changes when a file, or a file of a folder, is written again."""
    if (path / MANIFEST).exists():
        found = [path / MANIFEST]  # which has the hashes of all others
    elif path.is_dir():
        found = sorted(one for one in path.iterdir() if one.is_file())
    else:
        found = [path] if path.exists() else sorted(path.parent.iterdir())
    return [str(path), *([one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in found)]

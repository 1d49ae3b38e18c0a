"""Parses a verb's command line, with defaults from the configuration file, and notes which options were typed.

The parsed options have one more attribute, ``typed``: the flags on the command line, by the names of their values. It
tells an option that the user asked for from a default, for `refuse_without_effect`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ex4d.config import MACHINE_TABLE, ConfigError, config_file, read_config
from ex4d_core.errors import RequestError

# Values of [machine], which environment variables go before. In a verb's table they would hide the variables.
_OF_THE_MACHINE = {"models": "models", "model-path": "model_path", "vram-limit": "vram_limit_gb"}


def parse(
    parser: argparse.ArgumentParser, verb: str, words: Sequence[str], verbs: Iterable[str] = ()
) -> argparse.Namespace:
    """Parse a verb's command line.

    Args:
        parser: of the verb; not to be used again.
        verb: its name, such as "generate" or "models fetch".
        words: behind the name.
        verbs: names of all verbs, which may have tables in the configuration file. Other verbs read no file.

    Raises:
        ConfigError: the configuration file is invalid.
    """
    built_in = {action.dest: action.default for action in parser._actions}
    # Help must not depend on the file, above all not on a broken one.
    if verb.split()[0] in verbs and not {"-h", "--help"} & set(words):
        _set_defaults(parser, verb, _table_of(verb, verbs))
    # Positional arguments may come before, between or behind options.
    options = parser.parse_intermixed_args(words)
    for action in parser._actions:
        if action.option_strings:
            action.default = argparse.SUPPRESS
    given = vars(parser.parse_intermixed_args(words))
    flags = [action for action in parser._actions if action.option_strings]
    options.typed = {action.dest: _long_name(action) for action in flags if action.dest in given}
    for name in options.typed:  # a repeatable option replaces the file's values, and does not add to them
        setattr(options, name, given[name])
    # What is typed also goes before what the file has for an option that excludes it.
    for group in parser._mutually_exclusive_groups:
        if any(action.dest in options.typed for action in group._group_actions):
            for action in group._group_actions:
                if action.dest not in options.typed:
                    setattr(options, action.dest, built_in[action.dest])
    return options


def refuse_without_effect(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Refuse options that were typed and would change nothing.

    Args:
        options: parsed.
        names: of values, as in ``options``.
        why: completes "--flag has no effect ".

    Raises:
        RequestError: one of them was typed.
    """
    typed: Mapping[str, str] = getattr(options, "typed", {})
    useless = [typed[name] for name in names if name in typed]
    if useless:
        have = "has" if len(useless) == 1 else "have"
        raise RequestError(f"{' and '.join(useless)} {have} no effect {why}")


def _long_name(action: argparse.Action) -> str:
    return next((name for name in action.option_strings if name.startswith("--")), action.option_strings[0])


def _table_of(verb: str, verbs: Iterable[str]) -> Mapping[str, Any]:
    """A verb's table; [models.fetch] for `ex4d models fetch`."""
    tables = read_config()
    known = (*verbs, MACHINE_TABLE)
    if unknown := [name for name in tables if name not in known]:
        raise ConfigError(f"{config_file()}: [{unknown[0]}] is not a verb: expected one of {', '.join(known)}")
    name, _, action = verb.partition(" ")
    table = tables.get(name, {})
    if not action:
        return table
    below = table.get(action, {})
    if loose := [key for key, value in table.items() if not isinstance(value, dict)]:
        raise ConfigError(f"{config_file()}: {loose[0]} in [{name}] belongs to an action, such as [{name}.{action}]")
    return below


def _set_defaults(parser: argparse.ArgumentParser, verb: str, table: Mapping[str, Any]) -> None:
    where = f"{config_file()}: [{verb.replace(' ', '.')}]"
    known = {name[2:]: action for action in parser._actions for name in action.option_strings if name[:2] == "--"}
    del known["help"]
    # A flag's aliases exclude each other, too.
    exclusive = [{action.dest} for action in known.values()]
    exclusive += [{one.dest for one in group._group_actions} for group in parser._mutually_exclusive_groups]
    seen: dict[str, str] = {}
    for key, value in table.items():
        if key in _OF_THE_MACHINE:
            raise ConfigError(f"{where} {key} is a setting of the machine: write {_OF_THE_MACHINE[key]} in [machine]")
        if key not in known:
            raise ConfigError(f"{where} has no key {key!r}: {_options_like(key, known)}; see ex4d {verb} --help")
        action = known[key]
        if rivals := [name for name, dest in seen.items() if any({dest, action.dest} <= names for names in exclusive)]:
            raise ConfigError(f"{where} {rivals[0]} and {key} exclude each other; keep one of them")
        seen[key] = action.dest
        try:
            action.default = _default(action, value)
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise ConfigError(f"{where} {key} = {_shown(value)}: {error}") from error
        action.required = False


def _default(action: argparse.Action, value: Any) -> Any:
    """A value of the file as the option's own type and choices make it.

    Raises:
        ValueError, argparse.ArgumentTypeError: it is invalid.
    """
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return action.const if value else not action.const
    if isinstance(action, argparse._AppendAction) or isinstance(action.nargs, int):
        if not isinstance(value, list) or (isinstance(action.nargs, int) and len(value) != action.nargs):
            raise ValueError(f"expected a list{f' of {action.nargs}' if action.nargs else ''}")
        return [_checked(action, one) for one in value]
    return _checked(action, value)


def _checked(action: argparse.Action, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("expected text or a number, as on the command line")
    kind: Any = action.type or str
    try:
        # The shell does this to what is typed.
        result = Path(str(value)).expanduser() if kind is Path else kind(str(value))
    except ValueError as error:
        raise ValueError(f"expected {getattr(kind, '__name__', 'another value')}") from error
    if action.choices is not None and result not in action.choices:
        raise ValueError(f"expected one of {', '.join(map(str, action.choices))}")
    return result


def _options_like(key: str, known: Collection[str]) -> str:
    import difflib

    similar = difflib.get_close_matches(key, known, n=3)
    return f"did you mean {' or '.join(similar)}?" if similar else "keys are the long options without dashes"


def _shown(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def under_flags(message: str, parser: argparse.ArgumentParser | None) -> str:
    """An error of the library, which names fields of settings, with the names of the flags that set them."""
    if parser is None:
        return message
    flags = {
        action.dest: next((flag for flag in action.option_strings if flag.startswith("--")), "")
        for action in parser._actions
    }
    named = sorted((dest for dest, flag in flags.items() if "_" in dest and flag), key=len, reverse=True)
    if not named:
        return message
    # Not a part of a path, nor of a longer name.
    pattern = rf"(?<![\w./\\-])({'|'.join(map(re.escape, named))})(=(?=\S)|(?![\w/\\=-]|\.\w))"
    return re.sub(pattern, lambda found: flags[found[1]] + (" " if found[2] else ""), message)

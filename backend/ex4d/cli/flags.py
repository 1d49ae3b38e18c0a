"""Derives command-line flags from settings types, and settings from parsed flags.

See `ex4d_core.schema.Option`. Every field with an Option becomes a flag whose type, choices, default and help follow
from the field, and whose checks are the field's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from typing import Any, TypeVar, get_args, get_origin

from ex4d_core.errors import RequestError
from ex4d_core.schema import Field, Settings, choices, fields_of

S = TypeVar("S", bound=Settings)


def add_flags(
    parser: argparse._ActionsContainer,
    kind: type[Settings],
    *,
    skip: Collection[str] = (),
    unset: bool = False,
    **defaults: Any,
) -> None:
    """Add a flag for each field of a settings type that has an Option.

    Args:
        skip: names of fields to leave out.
        unset: leave flags that are not given out of the parsed options, instead of giving them their defaults.
        defaults: other defaults than the fields', by name.
    """
    for entry in fields_of(kind):
        if entry.option is None or entry.name in skip:
            continue
        default = defaults.get(entry.name, entry.default)
        if isinstance(default, tuple) and not default:
            default = []  # to which repeated flags are appended
        flags = (entry.option.flag or f"--{entry.name.replace('_', '-')}", *entry.option.aliases)
        described: dict[str, Any] = {"dest": entry.name, "help": entry.option.help.replace("%", "%%")}
        described["default"] = argparse.SUPPRESS if unset else default
        parser.add_argument(*flags, **described, **_value(entry))


def flag_of(kind: type[Settings], name: str) -> str:
    """The flag that a field is given by."""
    entry = next(entry for entry in fields_of(kind) if entry.name == name)
    return (entry.option.flag if entry.option else "") or f"--{name.replace('_', '-')}"


def given(options: argparse.Namespace, kind: type[Settings]) -> dict[str, Any]:
    """The values of a settings type's fields among parsed options, by name."""
    known = {entry.name for entry in fields_of(kind) if entry.option is not None}
    return {name: value for name, value in vars(options).items() if name in known}


def settings_from(options: argparse.Namespace, kind: type[S], **others: Any) -> S:
    """Settings from parsed options.

    Args:
        others: fields that no flag gives, by name.

    Raises:
        RequestError: fields that do not go together.
    """
    return kind(**{**given(options, kind), **others})


def _value(entry: Field) -> dict[str, Any]:
    """How argparse reads a field's value: arguments of `add_argument`."""
    annotation = _without_none(entry.annotation)
    if annotation is bool and entry.default is None:
        return {"action": argparse.BooleanOptionalAction}
    if annotation is bool:
        return {"action": "store_false" if entry.default is True else "store_true"}
    described: dict[str, Any] = {}
    if entry.option and entry.option.metavar:
        described["metavar"] = entry.option.metavar
    if names := choices(annotation):
        return {**described, "choices": names}
    if get_origin(annotation) is tuple:
        element = _without_annotation(get_args(annotation)[0])
        if get_args(annotation)[1:] == (...,):
            return {**described, "action": "append", "type": getattr(element, "from_text", element)}
        return {**described, "type": _checked(entry, lambda text: [element(part) for part in text.split(",")])}
    parse = entry.option.read if entry.option and entry.option.read else getattr(annotation, "from_text", annotation)
    return {**described, "type": _checked(entry, parse)}


def _checked(entry: Field, parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Parse a text and check what it says as the field is checked."""

    def read(text: str) -> Any:
        try:
            value = parse(text)
        except RequestError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        except ValueError:
            value = text
        try:
            return entry.checked(value)
        except RequestError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _without_none(annotation: Any) -> Any:
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return _without_annotation(parts[0]) if type(None) in get_args(annotation) else _without_annotation(annotation)


def _without_annotation(annotation: Any) -> Any:
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation

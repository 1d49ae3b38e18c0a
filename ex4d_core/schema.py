"""One validator and one codec for everything typed: settings, requests, and the messages of the wire.

The annotations of a frozen dataclass describe its fields completely: the checks, the plain form for msgpack and JSON,
and the flags of the command line follow from them.

    @dataclass(frozen=True)
    class Denoising(Settings):
        steps: Annotated[int, Range(1, 200), Option("number of denoising steps", metavar="N")] = 25
        precision: Literal["bf16", "fp8"] = "fp8"

`Settings` check themselves when they are constructed, so an instance is always valid; other dataclasses are checked
when they are decoded. Supported are bool, int, float, str, bytes, Any, Literal, optional values, tuples, lists, dicts
with text as keys, nested dataclasses, and any type with a `Codec`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ex4d_core.errors import RequestError
from ex4d_core.plain_text import plain_line, plain_lines, shortened

T = TypeVar("T")
S = TypeVar("S", bound="Settings")

# What a check returns for a value of the wrong type or out of range.
_INVALID = object()
_COUNTS = {2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class Range:
    """Bounds of a number: ``minimum`` and ``maximum`` are included, ``above`` and ``below`` are not."""

    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def contains(self, value: float) -> bool:
        """Whether a finite number lies within the bounds."""
        return self.minimum <= value <= self.maximum and self.above < value < self.below

    def __str__(self) -> str:
        words = (("from", self.minimum), ("to", self.maximum), ("above", self.above), ("below", self.below))
        known = [f" {word} {_exact(bound)}" for word, bound in words if math.isfinite(bound)]
        return (" and" if self.above > -math.inf else "").join(known)


@dataclass(frozen=True)
class Length:
    """The most characters of a text, or elements of a sequence, and the fewest."""

    maximum: int
    minimum: int = 0


@dataclass(frozen=True)
class Shown:
    """Text from the other side that people read: it is made plain (see `ex4d_core.plain_text`) and cut, not refused.

    Attributes:
        maximum: characters that are kept.
        lines: whether its line breaks are kept, too.
    """

    maximum: int
    lines: bool = False

    def __call__(self, text: str) -> str:
        """The text as it is shown."""
        # Cut before it is made plain, so that a long one takes no time; nothing becomes longer.
        text = shortened(text, self.maximum)
        return plain_lines(text) if self.lines else plain_line(text)


@dataclass(frozen=True)
class Option:
    """How the command line offers a field.

    Attributes:
        help: what the field does, or, of a field that is true by default, what turning it off does.
        aliases: further flags.
        metavar: what stands for the value in the help.
        flag: "" for ``--field-name``.
        read: the value from its text, where that is more than the type's own form; raises `RequestError`.
    """

    help: str
    aliases: tuple[str, ...] = ()
    metavar: str = ""
    flag: str = ""
    read: Callable[[str], Any] | None = None


@dataclass(frozen=True)
class Codec:
    """How a value that is not plain is encoded.

    Attributes:
        kind: instances of it are taken as they are; None decodes every value.
        encode: from an instance to plain values.
        decode: and back; raises `RequestError`.
    """

    kind: type | None
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


class Settings:
    """Base of frozen dataclasses that check themselves; see the module's example.

    Sequences become tuples, numbers of float fields floats, and maps of nested settings instances.

    Raises:
        RequestError: a field of the wrong type or out of range; names the field, the value, and what is expected.
    """

    def __post_init__(self) -> None:
        for entry in fields_of(type(self)):
            object.__setattr__(self, entry.name, entry.checked(getattr(self, entry.name)))

    def to_wire(self) -> dict[str, Any]:
        """Plain values for msgpack and JSON."""
        return encode(self)

    @classmethod
    def from_wire(cls: type[S], values: object) -> S:
        """Check and rebuild what `to_wire` gave; fields with a default may be missing.

        Raises:
            RequestError: any field is missing, unknown, of the wrong type or out of range.
        """
        return decode(cls, values)


@dataclass(frozen=True)
class _Type:
    """What a value must be: in words, one and many of it, its check, and its plain form (None: as it is)."""

    one: str
    many: str
    check: Callable[[Any], Any]
    encode: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Field:
    """One field of a dataclass, as its annotation describes it.

    Attributes:
        name: of the field.
        annotation: its bare type.
        option: how the command line offers it, or None.
        required: whether it has no default.
    """

    name: str
    annotation: Any
    option: Option | None
    required: bool
    type: _Type
    _make_default: Callable[[], Any]

    @property
    def default(self) -> Any:
        """The default, or None for a field that must be given."""
        return None if self.required else self._make_default()

    def checked(self, value: Any) -> Any:
        """The value, normalised.

        Raises:
            RequestError: it is of the wrong type or out of range.
        """
        result = self.type.check(value)
        if result is _INVALID:
            raise RequestError(f"{self.name} must be {self.type.one}, not {value!r:.80}")
        return result


@cache
def fields_of(kind: type) -> tuple[Field, ...]:
    """The fields of a dataclass, in order."""
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for entry in fields(kind):
        annotation, notes = _split(hints[entry.name])
        option = next((note for note in notes if isinstance(note, Option)), None)
        required = entry.default is MISSING and entry.default_factory is MISSING
        make = (lambda value=entry.default: value) if entry.default_factory is MISSING else entry.default_factory
        found.append(Field(entry.name, annotation, option, required, _type_of(annotation, notes), make))
    return tuple(found)


def encode(value: Any) -> dict[str, Any]:
    """The plain form of a dataclass: a map of its fields."""
    plain = {}
    for entry in fields_of(type(value)):
        item = getattr(value, entry.name)
        plain[entry.name] = item if entry.type.encode is None or item is None else entry.type.encode(item)
    return plain


def decode(kind: type[T], values: object) -> T:
    """Check and rebuild a dataclass from its plain form.

    Raises:
        RequestError: any field is missing, unknown, of the wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise RequestError(f"{kind.__name__} must be a map of fields, not {type(values).__name__}")
    known = fields_of(kind)
    if unknown := set(values) - {entry.name for entry in known}:
        name = min(map(str, unknown))
        raise RequestError(f"{kind.__name__} has no field {name[:40]!r}; update the backend if the client is newer")
    missing = [entry.name for entry in known if entry.required and entry.name not in values]
    if missing:
        raise RequestError(f"{kind.__name__} is incomplete: {', '.join(missing)} missing")
    if issubclass(kind, Settings):  # checks its fields itself
        return kind(**values)
    return kind(**{entry.name: entry.checked(values[entry.name]) for entry in known if entry.name in values})


def split_fields(values: Mapping[str, Any], *kinds: type[Settings]) -> list[dict[str, Any]]:
    """Sort values by the settings type that has a field of that name; the first type that has it takes it.

    Raises:
        RequestError: none of the types has such a field.
    """
    parts: list[dict[str, Any]] = [{} for _ in kinds]
    names = [{entry.name for entry in fields_of(kind)} for kind in kinds]
    for name, value in values.items():
        place = next((place for place, known in enumerate(names) if name in known), None)
        if place is None:
            known = ", ".join(sorted(set().union(*names)))
            raise RequestError(f"unknown setting {name!r:.80}: expected one of {known}")
        parts[place][name] = value
    return parts


def choices(annotation: Any) -> tuple[str, ...]:
    """The values of a Literal type, also of an optional one; () of any other type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := choices(part))), ())


def _split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0], annotation.__metadata__
    return annotation, ()


def _type_of(annotation: Any, notes: Sequence[Any] = ()) -> _Type:
    if codec := next((note for note in notes if isinstance(note, Codec)), None):
        return _coded(codec)
    if shown := next((note for note in notes if isinstance(note, Shown)), None):
        return _Type("text", "text", lambda value: shown(value) if isinstance(value, str) else _INVALID)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_of(*_split(annotation))
    if origin in (Union, UnionType):
        return _optional(_type_of(next(one for one in arguments if one is not NoneType), notes))
    if origin is Literal:
        allowed = f"one of {', '.join(map(str, arguments))}"
        return _Type(allowed, allowed, lambda value: value if _is_hashable_in(value, arguments) else _INVALID)
    length = next((note for note in notes if isinstance(note, Length)), None)
    if origin in (tuple, list):
        return _sequence(origin, arguments, length)
    if origin is dict:
        return _map(_type_of(arguments[0]), _type_of(arguments[1]))
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _nested(annotation)
    return _scalar(annotation, next((note for note in notes if isinstance(note, Range)), Range()), length)


def _scalar(annotation: Any, bounds: Range, length: Length | None) -> _Type:
    if annotation is Any:
        return _Type("anything", "anything", lambda value: value)
    if annotation is bool:
        return _Type("true or false", "true or false", lambda value: value if isinstance(value, bool) else _INVALID)
    if annotation is int:
        return _Type(
            f"a whole number{bounds}",
            f"whole numbers{bounds}",
            lambda value: value if _is_whole(value) and bounds.contains(value) else _INVALID,
        )
    if annotation is float:
        return _Type(
            f"a number{bounds}",
            f"numbers{bounds}",
            lambda value: float(value) if _is_number(value) and bounds.contains(value) else _INVALID,
        )
    if annotation not in (str, bytes):
        raise TypeError(f"no check for values of type {annotation!r}: give its field a Codec")
    what = "text" if annotation is str else "bytes"
    if length is not None:
        least = f"{length.minimum} to" if length.minimum else "at most"
        what += f" of {least} {length.maximum} characters"

    def check(value: Any) -> Any:
        if not isinstance(value, annotation):
            return _INVALID
        return value if length is None or length.minimum <= len(value) <= length.maximum else _INVALID

    return _Type(what, what, check)


def _coded(codec: Codec) -> _Type:
    def check(value: Any) -> Any:
        return value if codec.kind is not None and isinstance(value, codec.kind) else codec.decode(value)

    name = codec.kind.__name__ if codec.kind else "its plain form"
    return _Type(name, name, check, codec.encode)


def _optional(inner: _Type) -> _Type:
    return _Type(inner.one, inner.many, lambda value: None if value is None else inner.check(value), inner.encode)


def _nested(kind: type) -> _Type:
    def check(value: Any) -> Any:
        return value if isinstance(value, kind) else decode(kind, value)

    return _Type(f"a map of the fields of {kind.__name__}", f"maps of the fields of {kind.__name__}", check, encode)


def _sequence(origin: type, arguments: tuple[Any, ...], length: Length | None) -> _Type:
    element = _type_of(arguments[0])
    count = None if origin is list or arguments[1:] == (...,) else len(arguments)
    words = element.many if count is None else f"{_COUNTS.get(count, count)} {element.many}"
    what = f"a list of {words}" if count is None else words
    if length is not None:
        what = f"a list of at most {length.maximum} {element.many}"

    def check(value: Any) -> Any:
        fits = isinstance(value, (list, tuple)) and (count is None or len(value) == count)
        if not fits or (length is not None and len(value) > length.maximum):
            return _INVALID
        items = [element.check(item) for item in value]
        return _INVALID if any(item is _INVALID for item in items) else origin(items)

    inner = element.encode
    return _Type(what, what, check, None if inner is None else lambda value: [inner(item) for item in value])


def _map(name: _Type, element: _Type) -> _Type:
    def check(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return _INVALID
        items = {name.check(key): element.check(item) for key, item in value.items()}
        return _INVALID if _INVALID in items or any(item is _INVALID for item in items.values()) else items

    what = f"a map of text to {element.many}"
    inner = element.encode
    encoder = None if inner is None else lambda value: {key: inner(item) for key, item in value.items()}
    return _Type(what, what, check, encoder)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _is_hashable_in(value: Any, allowed: tuple[Any, ...]) -> bool:
    return isinstance(value, str) and value in allowed


def _exact(bound: float) -> str:
    return f"{bound:.15g}" if abs(bound) < 1e15 else str(int(bound))

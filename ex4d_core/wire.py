"""Messages as bytes, checked before they are believed.

A message is a ZeroMQ multipart message: a small msgpack header ``{"v": version, "type": name, "id": number, ...}``
and, for the types that carry a blob, one raw part. Lists of floats, which may be as long as a clip, travel as bytes of
little-endian float64: the lists of a header are short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgpack
import numpy as np

from ex4d_core.errors import Ex4dError
from ex4d_core.messages import MAX_HEADER_BYTES, PROTOCOL_VERSION, JobEvent, JobStatus, Message

# A list of 200 jobs is the largest that has a reason to be.
_MAX_CONTAINERS = 1024
# Fields that hold other records, and what to rebuild them with.
_RECORDS = {"status": JobStatus, "jobs": JobStatus, "events": JobEvent}
_TYPES = {"int": int, "str": str, "bool": bool, "float": (float, int), "bytes": bytes}


class ProtocolError(Ex4dError, ValueError):
    """Bytes that are no message of ours. ``code`` tells programs, the text tells people."""

    def __init__(self, code: str, text: str, request_id: int = 0):
        super().__init__(text)
        self.code = code
        self.request_id = request_id


def encode(message: Message, request_id: int) -> list[bytes]:
    """The parts to send for a message."""
    header: dict[str, Any] = {"v": PROTOCOL_VERSION, "type": type(message).__name__, "id": request_id}
    header.update(_plain(message))
    payload = header.pop("payload", None)
    parts = [msgpack.packb(header, use_bin_type=True)]
    return parts if payload is None else [*parts, payload]


def decode(parts: Sequence[bytes], kinds: dict[str, type[Message]]) -> tuple[int, Message]:
    """Check and rebuild a message.

    Args:
        parts: as received, without routing parts.
        kinds: what may come: `REQUESTS` or `REPLIES`.

    Returns:
        The request's id and the message.

    Raises:
        ProtocolError: with code "too-large", "bad-message" or "version".
    """
    if not parts or len(parts) > 2:
        raise ProtocolError("bad-message", f"a message has one or two parts, not {len(parts)}")
    if len(parts[0]) > MAX_HEADER_BYTES:
        raise ProtocolError("too-large", f"a header of {len(parts[0])} bytes is over the limit of {MAX_HEADER_BYTES}")
    try:
        header = _unpack(parts[0])
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError("bad-message", f"the header is not msgpack or is cut off: {error}") from error
    if not isinstance(header, dict):
        raise ProtocolError("bad-message", f"the header must be a map, not {type(header).__name__}")
    version, name, request_id = header.pop("v", None), header.pop("type", None), header.pop("id", None)
    request_id = request_id if isinstance(request_id, int) and 0 <= request_id < 2**63 else 0
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            "version",
            f"this side speaks protocol version {PROTOCOL_VERSION}, the other {version!r}; install matching versions "
            "of add-on and backend",
            request_id,
        )
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError("bad-message", f"unknown message type {str(name)[:40]!r}", request_id)
    if (len(parts) == 2) != (kind.max_payload > 0):
        raise ProtocolError("bad-message", f"{name} has {len(parts)} parts", request_id)
    if kind.max_payload:
        if len(parts[1]) > kind.max_payload:
            text = f"a payload of {len(parts[1])} bytes is over the limit of {kind.max_payload}"
            raise ProtocolError("too-large", text, request_id)
        header["payload"] = bytes(parts[1])
    return request_id, _rebuild(kind, header, request_id)


def _unpack(data: bytes) -> Any:
    """Unpack a header, whose bytes may be many (a camera path) but whose maps and lists are few.

    Without that bound 24 MB of empty maps would become 1.7 GB of objects.
    """
    containers = 0

    def count(container: Any) -> Any:
        nonlocal containers
        containers += 1
        if containers > _MAX_CONTAINERS:
            raise ValueError(f"more than {_MAX_CONTAINERS} maps and lists")
        return container

    return msgpack.unpackb(
        data, raw=False, strict_map_key=True, object_hook=count, list_hook=count, max_array_len=1024, max_map_len=256
    )


def _plain(value: Any) -> dict[str, Any]:
    plain = {}
    for entry in fields(value):
        item = getattr(value, entry.name)
        if isinstance(item, (JobStatus, JobEvent)):
            item = _plain(item)
        elif isinstance(item, list) and item and isinstance(item[0], (JobStatus, JobEvent)):
            item = [_plain(one) for one in item]
        elif entry.type == "list[float]":
            item = np.asarray(item, "<f8").tobytes()
        plain[entry.name] = item
    return plain


def _rebuild(kind: type, values: dict[str, Any], request_id: int) -> Any:
    declared = {entry.name: str(entry.type) for entry in fields(kind)}
    if unknown := set(map(str, values)) - set(declared):
        raise ProtocolError("bad-message", f"{kind.__name__} has no field {min(unknown)[:40]!r}", request_id)
    for name, value in values.items():
        expected = declared[name]
        record = _RECORDS.get(name)
        if record and expected.startswith("list["):
            if not isinstance(value, list):
                raise ProtocolError("bad-message", f"{kind.__name__}.{name} must be a list", request_id)
            values[name] = [_rebuild_record(record, one, request_id) for one in value]
        elif record and expected == record.__name__:
            values[name] = _rebuild_record(record, value, request_id)
        elif expected == "list[float]":
            if not isinstance(value, bytes) or len(value) % 8:
                raise ProtocolError("bad-message", f"{kind.__name__}.{name} must be bytes of float64", request_id)
            values[name] = np.frombuffer(value, "<f8").tolist()
        else:
            _require_type(kind, name, value, expected, request_id)
    try:
        return kind(**values)
    except TypeError as error:
        raise ProtocolError("bad-message", f"{kind.__name__} is incomplete: {error}", request_id) from error


def _rebuild_record(record: type, value: object, request_id: int) -> Any:
    if not isinstance(value, dict):
        raise ProtocolError("bad-message", f"{record.__name__} must be a map", request_id)
    return _rebuild(record, value, request_id)


def _require_type(kind: type, name: str, value: object, expected: str, request_id: int) -> None:
    if expected.startswith("list["):
        element = _TYPES[expected[5:-1]]
        right = isinstance(value, list) and all(isinstance(one, element) for one in value)
    elif expected.startswith("dict["):
        right = isinstance(value, dict)
    else:
        right = isinstance(value, _TYPES[expected]) and (expected == "bool" or not isinstance(value, bool))
    if not right:
        raise ProtocolError(
            "bad-message", f"{kind.__name__}.{name} must be {expected}, not {type(value).__name__}", request_id
        )

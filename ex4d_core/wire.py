"""Encodes messages as bytes, and decodes and checks what arrives.

A message is a ZeroMQ multipart message: a small msgpack header ``{"v": version, "type": name, "id": number, ...}``
and, for the types that carry a blob, one raw part. `ex4d_core.schema` checks the header's fields by their types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from ex4d_core import schema
from ex4d_core.errors import Ex4dError, RequestError
from ex4d_core.message_base import MAX_HEADER_BYTES, Message
from ex4d_core.messages import PROTOCOL_VERSION

# The deepest message has 6: a reconstruction's settings of its depth's files.
_MAX_DEPTH = 12
# The largest list that a message needs has 200 jobs.
_MAX_CONTAINERS = 1024


class ProtocolError(Ex4dError, ValueError):
    """Bytes that are not a valid message. ``code`` tells programs, the text tells people."""

    def __init__(self, code: str, text: str, request_id: int = 0):
        super().__init__(text)
        self.code = code
        self.request_id = request_id


def encode(message: Message, request_id: int) -> list[bytes]:
    """The parts to send for a message."""
    header: dict[str, Any] = {"v": PROTOCOL_VERSION, "type": type(message).__name__, "id": request_id}
    header.update(schema.encode(message))
    payload: bytes | None = header.pop("payload", None)
    head: bytes = msgpack.packb(header, use_bin_type=True) or b""
    return [head] if payload is None else [head, payload]


def decode(parts: Sequence[bytes], kinds: Mapping[str, type[Message]]) -> tuple[int, Message]:
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
    request_id = request_id if type(request_id) is int and 0 <= request_id < 2**63 else 0
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise ProtocolError(
            "version",
            f"this side speaks protocol version {PROTOCOL_VERSION}, the other {version!r}; install matching versions "
            "of add-on and backend",
            request_id,
        )
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError("bad-message", f"unknown message type {str(name)[:40]!r}", request_id)
    if len(parts[0]) > kind.max_header:
        text = f"a header of {len(parts[0])} bytes is over the limit of {kind.max_header} for {name}"
        raise ProtocolError("too-large", text, request_id)
    if (len(parts) == 2) != (kind.max_payload > 0):
        raise ProtocolError("bad-message", f"{name} must not have {len(parts)} parts", request_id)
    if kind.max_payload:
        if len(parts[1]) > kind.max_payload:
            text = f"a payload of {len(parts[1])} bytes is over the limit of {kind.max_payload}"
            raise ProtocolError("too-large", text, request_id)
        header["payload"] = bytes(parts[1])
    try:
        return request_id, schema.decode(kind, header)
    except RequestError as error:
        raise ProtocolError("bad-message", f"{name}: {error}", request_id) from error


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

    header = msgpack.unpackb(
        data, raw=False, strict_map_key=True, object_hook=count, list_hook=count, max_array_len=1024, max_map_len=256
    )
    level, depth = [header], 0
    while level:
        if depth > _MAX_DEPTH:
            raise ValueError(f"maps and lists are nested more than {_MAX_DEPTH} deep")
        within = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level, depth = [item for items in within for item in items if isinstance(item, (dict, list))], depth + 1
    return header

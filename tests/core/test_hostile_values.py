"""Whatever stands in a field of a request, a manifest or a message is refused as such, or taken; it is never a bug."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.errors import Ex4dError
from ex4d_core.messages import PROTOCOL_VERSION, REQUESTS
from ex4d_core.plain_text import plain_json, plain_line, plain_lines
from ex4d_core.reconstruction import DepthSettings, ReconstructionRequest, ReconstructionSettings, request_from_wire
from ex4d_core.scene_manifest import SceneError, SceneManifest
from ex4d_core.shot import ShotRequest
from ex4d_core.sources import SourceFile
from ex4d_core.wire import ProtocolError, decode

HASH = "ab" * 32
PLAIN: list[Any] = [True, False, None, 1.5, -1, 0, 1, 2**63, "x", "\0", "1", "true", "x" * 5000, [], [1], [True], [[]]]
PLAIN += [{}, {"a": 1}, [{}], 1e308, -1e308, "\x1b]0;title\x07", "two\nlines", HASH]
BYTES = [b"", b"\xff", bytes(16), b"\xff" * 16, float("nan"), float("inf"), -float("inf")]


def places(value: Any, within: tuple = ()) -> Iterator[tuple]:
    """Every place in nested maps and lists, the whole included."""
    yield within
    if isinstance(value, dict):
        for name, item in value.items():
            yield from places(item, (*within, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*within, index))


def changed(value: Any, place: tuple, to: Any) -> Any:
    if not place:
        return to
    value = copy.copy(value)
    value[place[0]] = changed(value[place[0]], place[1:], to)
    return value


def require_no_bug(document: Any, hostile: list[Any], read: Callable[[Any], Any]) -> None:
    for place in places(document):
        for value in hostile:
            try:
                read(changed(document, place, value))
            except Ex4dError as error:
                assert str(error)
            except Exception as error:
                raise AssertionError(f"{value!r:.60} at {place}") from error


def shot() -> ShotRequest:
    camera = CameraPath(np.repeat(np.eye(4)[None], 6, axis=0), intrinsics_matrix(30.0, 30.0, 16.0, 12.0), 32, 24)
    return ShotRequest(HASH, camera, label="a shot")


def manifest() -> dict[str, Any]:
    entry = {"sha256": HASH, "size": 10}
    parts = ("color", "depth", "source_camera")
    values = {"name": "a scene", "frames": 6, "width": 32, "height": 24, "fps": [24, 1], "convention": "centered"}
    values |= {"depth_range": [1.0, 2.0], "subject_distance": 1.5, "middle_distance": 1.6}
    values["files"] = {part: dict(entry) for part in parts}
    return {"format": "ex4d-scene", "version": 3, **values, "origin": {"name": "clip.mp4"}}


def test_a_shot():
    require_no_bug(shot().to_wire(), PLAIN + BYTES, request_from_wire)


def test_a_reconstruction():
    settings = ReconstructionSettings(depth=DepthSettings("exr"), name="a scene")
    request = ReconstructionRequest(settings, (SourceFile(HASH, 5, "a.mp4"),), (SourceFile(HASH, 5, "a.exr"),))
    require_no_bug(request.to_wire(), PLAIN + BYTES, request_from_wire)


def test_a_manifest():
    SceneManifest.from_json(json.dumps(manifest()).encode())

    def read(document: Any) -> None:
        shot().require_footage(SceneManifest.from_json(json.dumps(document).encode()).frames)

    require_no_bug(manifest(), [*PLAIN, 10**400, 2**70, float("nan"), float("inf")], read)


@pytest.mark.parametrize(
    "place", [("frames",), ("width",), ("height",), ("subject_distance",), ("middle_distance",), ("version",)]
)
def test_true_is_not_a_number(place):
    with pytest.raises(SceneError, match="True"):
        SceneManifest.from_json(json.dumps(changed(manifest(), place, True)).encode())


def test_true_is_no_size_of_a_file_and_no_version_of_the_wire():
    with pytest.raises(SceneError, match="True"):
        SceneManifest.from_json(json.dumps(changed(manifest(), ("files", "color", "size"), True)).encode())
    for values in ({"id": 1, "v": float(PROTOCOL_VERSION)}, {"id": 1, "v": True}):
        with pytest.raises(ProtocolError) as refused:
            decode([msgpack.packb({"type": "Hello", **values})], REQUESTS)
        assert refused.value.code == "version"
    assert type(decode([msgpack.packb({"v": PROTOCOL_VERSION, "type": "Hello", "id": True})], REQUESTS)[0]) is int


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_a_message(name):
    fields = {"client": "me", "hashes": [HASH], "sha256": HASH, "size": 5, "offset": 0, "key": "k", "job": "j"}
    fields |= {"request": shot().to_wire(), "limit": 3, "after": 0, "wait": 0.5, "length": 5}
    kind = REQUESTS[name]
    header = {field: value for field, value in fields.items() if field in kind.__dataclass_fields__}
    payload = [b"data"] if kind.max_payload else []
    require_no_bug(
        {"v": PROTOCOL_VERSION, "type": name, "id": 7, **header},
        PLAIN + BYTES,
        lambda value: decode([msgpack.packb(value), *payload], REQUESTS),
    )


@pytest.mark.parametrize("depth", [20, 400, 100_000])
def test_deep_maps_and_lists_are_refused(depth):
    start = msgpack.packb({"v": PROTOCOL_VERSION, "type": "Submit", "id": 7, "key": "k", "request": 0})[:-1]
    with pytest.raises(ProtocolError) as refused:
        decode([start + b"\x81\xa1x" * depth + b"\x01"], REQUESTS)
    assert refused.value.code == "bad-message"


@pytest.mark.parametrize(
    "hostile", ["\x1b]0;title\x07", "\x9b31m", "\u202egnp.exe", "\ud800", "\x7f\x08", "a\r2026 ERROR b"]
)
def test_text_from_elsewhere_does_not_act_on_a_terminal(hostile):
    for shown in (plain_line(hostile), plain_lines(hostile)):
        shown.encode()
        assert shown.isprintable(), ascii(shown)
    document = json.dumps({"label": hostile}, ensure_ascii=False, indent=1)
    escaped = plain_json(document)
    assert json.loads(escaped) == {"label": hostile} and escaped.replace("\n", "").isprintable()


def test_text_that_does_no_harm_stays_as_it_is():
    for text in ("Größe: 3 m", "日本語", "مرحبا", "a 😀 b", "tab\tand\nlines"):
        assert plain_lines(text) == text
        assert plain_line(text) == text.replace("\t", " ").replace("\n", " ")

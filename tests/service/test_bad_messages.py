"""Invalid messages, and requests for unknown things, get an error that says so; the service stays up."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import msgpack
import pytest

from ex4d_core.message_base import MAX_HEADER_BYTES
from ex4d_core.messages import (
    CHUNK_BYTES,
    PROTOCOL_VERSION,
    REPLIES,
    Cancel,
    Error,
    GetEvents,
    Hello,
    ListJobs,
    Submit,
    Welcome,
)
from ex4d_core.scene_manifest import SceneManifest
from ex4d_core.wire import decode, encode

PATIENCE = 240.0


def packed(**fields) -> bytes:
    return msgpack.packb({"v": PROTOCOL_VERSION, "id": 7, **fields})


def ask_raw(wire, *parts: bytes) -> tuple[int, Error]:
    wire.socket.send_multipart(parts)
    return wire.receive()


def test_the_service_introduces_itself(wire):
    welcome = wire.ask(Hello("a test"))
    assert isinstance(welcome, Welcome)
    assert welcome.service == "ex4d" and welcome.version and len(welcome.devices) == 1


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1, "1", None, b"\xff"])
def test_another_protocol_version_is_told_so_with_the_remedy(wire, version):
    request_id, error = ask_raw(wire, msgpack.packb({"v": version, "type": "Hello", "id": 7, "client": "x"}))
    assert (request_id, error.code) == (7, "version")
    assert str(PROTOCOL_VERSION) in error.text and "install matching versions" in error.text


WHOLE = encode(Hello("somebody"), 7)[0]


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([b""], "bad-message"),
        ([b"\xc1"], "bad-message"),
        ([b"GET / HTTP/1.1\r\n\r\n"], "bad-message"),
        ([WHOLE[:-1]], "bad-message"),
        ([WHOLE[: len(WHOLE) // 2]], "bad-message"),
        ([WHOLE + b"\0"], "bad-message"),
        ([b"\x91" * 100_000], "bad-message"),
        ([b"\xdf\xff\xff\xff\xff"], "bad-message"),
        ([msgpack.packb([1, 2, 3])], "bad-message"),
        ([msgpack.packb(None)], "bad-message"),
        ([WHOLE, b"x"], "bad-message"),
        ([WHOLE, b"x", b"y"], "bad-message"),
        ([packed(type="Nonsense")], "bad-message"),
        ([packed(type="Welcome", service="I am one too")], "bad-message"),
        ([packed(type=["Hello"])], "bad-message"),
        ([packed(type="Hello", color="red")], "bad-message"),
        ([packed(type="Hello", client=5)], "bad-message"),
        ([packed(type="Cancel")], "bad-message"),
        ([packed(type="BlobStatus", hashes=[1])], "bad-message"),
        ([packed(type="GetEvents", job="x", wait="long")], "bad-message"),
        ([packed(type="PutBlob", sha256="ab" * 32, size=1, offset=0)], "bad-message"),
        ([packed(type="PutBlob", sha256="ab" * 32, size=2**20, offset=0), bytes(CHUNK_BYTES + 1)], "too-large"),
        ([bytes(MAX_HEADER_BYTES + 1)], "too-large"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_invalid_message_gets_an_error(wire, parts, code):
    _, error = ask_raw(wire, *parts)
    assert isinstance(error, Error) and error.code == code, error
    assert 0 < len(error.text) <= 2000
    assert isinstance(wire.ask(Hello()), Welcome)


def test_an_error_bears_the_id_of_its_request(wire):
    assert ask_raw(wire, packed(type="Nonsense"))[0] == 7
    assert ask_raw(wire, packed(type="N" * 100_000))[0] == 7
    assert ask_raw(wire, b"\xc1")[0] == 0, "none could be read"


def test_a_giant_is_cut_off_before_it_takes_memory_and_others_do_not_notice(service, connect):
    giant, other = connect(service), connect(service)
    assert isinstance(giant.ask(Hello()), Welcome)
    giant.socket.send(bytes(MAX_HEADER_BYTES + 8 * 1024 * 1024))
    assert isinstance(other.ask(Hello()), Welcome)
    # The connection was dropped without an answer; a new one is made by itself and works.
    deadline = time.monotonic() + PATIENCE
    giant.send(Hello())
    while not giant.socket.poll(500):
        assert time.monotonic() < deadline
        giant.send(Hello())
    assert isinstance(decode(giant.socket.recv_multipart(), REPLIES)[1], Welcome)


def test_unknown_jobs_are_said_to_be_unknown(wire):
    for message in (GetEvents("0123456789abcdef"), Cancel("nothing"), GetEvents("x" * 5000), Cancel("'; DROP TABLE")):
        error = wire.ask(message)
        assert isinstance(error, Error) and error.code == "unknown-job", error


@pytest.mark.parametrize("after", [-1, 2**63, 2**64 - 1])
def test_numbers_of_events_out_of_range_do_no_harm(wire, scene, shot, after):
    wire.upload_scene(scene)
    job = wire.submit(shot())
    wire.finish(job)
    reply = wire.ask(GetEvents(job, after=after))
    assert getattr(reply, "code", "bad-request") == "bad-request"
    assert len(wire.ask(GetEvents(job)).events) > 0


def test_waits_and_limits_that_make_no_sense_do_no_harm(wire, scene, shot, tmp_path):
    wire.upload_scene(scene)
    job = wire.submit(shot(f"wait {tmp_path / 'never'}"))
    wire.wait_for_half(job)
    last = wire.ask(GetEvents(job)).status.events
    for wait in (float("nan"), float("-inf"), float("inf")):
        assert wire.ask(GetEvents(job, after=last, wait=wait)).code == "bad-message"
    assert wire.ask(GetEvents(job, after=last, wait=-1.0)).events == []
    wire.cancel(job)
    assert wire.ask(ListJobs(limit=-5)).jobs == []
    assert len(wire.ask(ListJobs(limit=2**64 - 1)).jobs) >= 1


def test_a_scene_that_is_not_here_is_named_with_what_is_missing(wire, scene, shot):
    nowhere = replace(shot(), scene="12" * 32)
    error = wire.ask(Submit("k1", nowhere.to_wire()))
    assert (error.code, error.details) == ("unknown-scene", {"missing": ["manifest"]})

    # The same scene but for its name and its depth, which is never sent.
    fields = {**scene.manifest.__dict__, "name": "half"}
    lacking = replace(scene.manifest.files["depth"], sha256="34" * 32)
    manifest = SceneManifest(**{**fields, "files": {**scene.manifest.files, "depth": lacking}}).to_json()
    wire.upload_scene(scene)
    error = wire.ask(Submit("k2", replace(shot(), scene=wire.upload(manifest)).to_wire()))
    assert (error.code, error.details) == ("unknown-scene", {"missing": ["depth"]})
    assert "half" in error.text and "depth" in error.text


def test_an_invalid_manifest_is_refused(wire, shot):
    for data in (b"not json", b"{}", b"[" * 60_000, b'{"format": "ex4d-scene", "version": 99}', bytes(70_000)):
        error = wire.ask(Submit("k3", replace(shot(), scene=wire.upload(data)).to_wire()))
        assert isinstance(error, Error) and error.code == "bad-request", error


def test_a_manifest_that_lies_about_sizes_is_refused(wire, scene, shot):
    wire.upload_scene(scene)
    entries = {**scene.manifest.files, "color": replace(scene.manifest.files["color"], size=5)}
    manifest = SceneManifest(**{**scene.manifest.__dict__, "files": entries}).to_json()
    error = wire.ask(Submit("k4", replace(shot(), scene=wire.upload(manifest)).to_wire()))
    assert error.code == "bad-request" and "5" in error.text


def change_camera(**changes):
    return lambda fields: fields["camera"].update(changes)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda fields: fields.pop("camera"), "camera"),
        (lambda fields: fields.update(engine="magic"), "magic"),
        (lambda fields: fields.update(scene="../../x"), "../../x"),
        (lambda fields: fields.update(first_frame=1), "footage frame 1"),
        (lambda fields: fields.update(first_frame=-1), "first_frame"),
        (lambda fields: fields.update(surprise=1), "surprise"),
        (lambda fields: fields.update(render={"rasterizer": "povray"}), "povray"),
        (change_camera(frames=7), "896"),
        (change_camera(frames=10**9), "frames"),
        (change_camera(width=10**6), "width"),
        (change_camera(intrinsics=b"\xff" * 6 * 72), "intrinsics"),
    ],
)
def test_a_request_that_cannot_be_made_names_the_field(wire, scene, shot, spoil, says):
    wire.upload_scene(scene)
    fields = shot().to_wire()
    spoil(fields)
    error = wire.ask(Submit("k5", fields))
    assert isinstance(error, Error) and error.code == "bad-request" and says in error.text, error


@pytest.mark.parametrize("key", ["", "k" * 129])
def test_a_key_has_a_sensible_length(wire, shot, key):
    assert wire.ask(Submit(key, shot().to_wire())).code == "bad-request"


def test_a_blob_may_be_too_large_for_a_manifest(wire, shot):
    data = hashlib.sha256(b"").digest() * 4000
    error = wire.ask(Submit("k6", replace(shot(), scene=wire.upload(data)).to_wire()))
    assert error.code == "bad-request" and "over the limit" in error.text

"""Blobs over the wire: sent in chunks, verified, resumed after an interruption, refused if they cannot be stored."""

from __future__ import annotations

import hashlib
import os
import resource

import psutil
import pytest
import zmq

from ex4d_core.job_status import MAX_BLOB_BYTES
from ex4d_core.messages import (
    CHUNK_BYTES,
    BlobChunk,
    BlobStatus,
    BlobStatusReply,
    Error,
    GetBlob,
    Hello,
    PutBlob,
    PutBlobReply,
    Welcome,
)


def random_blob(chunks: float = 2.5) -> tuple[bytes, str]:
    data = os.urandom(int(chunks * CHUNK_BYTES))
    return data, hashlib.sha256(data).hexdigest()


def chunk_of(data: bytes, sha256: str, number: int) -> PutBlob:
    offset = number * CHUNK_BYTES
    return PutBlob(sha256, len(data), offset, data[offset : offset + CHUNK_BYTES])


def test_a_blob_goes_up_in_pieces_and_comes_back_the_same(wire):
    data, sha256 = random_blob()
    assert wire.ask(BlobStatus([sha256])) == BlobStatusReply([0])
    assert wire.ask(chunk_of(data, sha256, 0)) == PutBlobReply(sha256, CHUNK_BYTES)
    assert wire.ask(BlobStatus([sha256])) == BlobStatusReply([CHUNK_BYTES])
    assert wire.ask(chunk_of(data, sha256, 1)) == PutBlobReply(sha256, 2 * CHUNK_BYTES)
    assert wire.ask(chunk_of(data, sha256, 2)) == PutBlobReply(sha256, -1)
    assert wire.ask(BlobStatus([sha256])) == BlobStatusReply([-1])
    assert wire.download(sha256) == data
    assert wire.ask(chunk_of(data, sha256, 1)) == PutBlobReply(sha256, -1), "sent again by a client in doubt"


def test_several_pieces_may_be_under_way_and_only_the_last_answer_waits_for_the_disk(wire):
    data, sha256 = random_blob()
    sent = [wire.send(chunk_of(data, sha256, number)) for number in range(3)]
    status = wire.send(BlobStatus([sha256]))
    answers = dict(wire.receive() for _ in range(4))
    assert [answers[one].received for one in sent] == [CHUNK_BYTES, 2 * CHUNK_BYTES, -1]
    assert answers[status].received == [-1], "never 'all bytes, but not whole', which would leave nothing to send"


def test_a_piece_out_of_order_is_answered_with_what_is_here(wire):
    data, sha256 = random_blob()
    assert wire.ask(chunk_of(data, sha256, 1)) == PutBlobReply(sha256, 0)
    wire.ask(chunk_of(data, sha256, 0))
    assert wire.ask(chunk_of(data, sha256, 0)) == PutBlobReply(sha256, CHUNK_BYTES)
    assert wire.upload(data) == sha256
    assert wire.download(sha256) == data


def test_an_upload_interrupted_by_a_killed_service_resumes(start_service, connect):
    data, sha256 = random_blob(4.5)
    service = start_service()
    wire = connect(service)
    for number in range(3):
        wire.ask(chunk_of(data, sha256, number))
    service.kill()
    service.start()

    wire = connect(service)
    (received,) = wire.ask(BlobStatus([sha256])).received
    # The last piece may not have reached the disk, so it is sent again.
    assert received == 2 * CHUNK_BYTES
    assert [wire.ask(chunk_of(data, sha256, number)).received for number in (2, 3, 4)][-1] == -1
    assert wire.download(sha256) == data


def test_bytes_that_are_not_what_their_name_says_are_dropped(wire):
    data, sha256 = random_blob(1.5)
    wrong = bytes([data[0] ^ 1]) + data[1:]
    wire.ask(chunk_of(wrong, sha256, 0))
    reply = wire.ask(chunk_of(wrong, sha256, 1))
    assert isinstance(reply, Error) and reply.code == "bad-blob"
    assert hashlib.sha256(wrong).hexdigest() in reply.text
    assert wire.ask(BlobStatus([sha256])) == BlobStatusReply([0])
    assert wire.upload(data) == sha256, "the right bytes are welcome after that"


def test_an_empty_blob_is_one_too(wire):
    assert wire.download(wire.upload(b"")) == b""


@pytest.mark.parametrize(
    ("size", "offset", "payload", "code"),
    [
        (MAX_BLOB_BYTES + 1, 0, b"x", "too-large"),
        (2**64 - 1, 0, b"x", "too-large"),
        (-1, 0, b"", "bad-request"),
        (10, -1, b"x", "bad-request"),
        (10, 8, b"xyz", "bad-request"),
    ],
)
def test_impossible_sizes_are_refused(wire, size, offset, payload, code):
    reply = wire.ask(PutBlob("ab" * 32, size, offset, payload))
    assert isinstance(reply, Error) and reply.code == code, reply


def test_a_smaller_size_than_has_arrived_restarts_the_upload(wire):
    data, sha256 = random_blob()
    wire.ask(chunk_of(data, sha256, 0))
    reply = wire.ask(PutBlob(sha256, 10, 0, b"0123456789"))
    assert isinstance(reply, Error) and reply.code == "bad-blob"
    assert wire.upload(data) == sha256


@pytest.mark.parametrize(
    "name",
    ["../../../../etc/passwd", "..", "", "a/" * 32, "AB" * 32, "ab" * 31, "ab" * 32 + "\n", "\0" * 64, "é" * 64],
)
def test_only_hashes_are_names_of_blobs(wire, name):
    for message in (GetBlob(name, 0), BlobStatus([name]), PutBlob(name, 1, 0, b"x")):
        reply = wire.ask(message)
        assert isinstance(reply, Error) and reply.code == "bad-request" and "SHA-256" in reply.text, reply


def test_reading_is_bounded(wire):
    data, _ = random_blob(1.5)
    sha256 = wire.upload(data)
    assert wire.ask(GetBlob(sha256, 10, 20)) == BlobChunk(sha256, len(data), 10, data[10:30])
    assert len(wire.ask(GetBlob(sha256, 0, 2**40)).payload) == CHUNK_BYTES
    assert wire.ask(GetBlob(sha256, len(data))).payload == b""
    for offset, length in ((len(data) + 1, 1), (-1, 1), (0, 0), (0, -5), (2**64 - 1, 1)):
        assert wire.ask(GetBlob(sha256, offset, length)).code == "bad-request"
    assert wire.ask(GetBlob("00" * 32, 0)).code == "unknown-blob"
    assert wire.ask(BlobStatus(["00" * 32] * 65)).code == "bad-request"


def test_a_client_that_stops_reading_costs_nobody_anything(start_service, connect):
    service = start_service()
    sha256 = connect(service).upload(os.urandom(CHUNK_BYTES))
    stalled = connect(service, lambda socket: socket.setsockopt(zmq.RCVHWM, 1))
    asked = [stalled.send(GetBlob(sha256, 0)) for _ in range(400)]
    before, other = psutil.Process(service.process.pid).memory_info().rss, connect(service)
    # The service takes one request of each client in turn, so after these it has dealt with all of the other's.
    assert all(isinstance(other.ask(Hello()), Welcome) for _ in asked)
    assert psutil.Process(service.process.pid).memory_info().rss - before < 100 * CHUNK_BYTES
    answered, greetings = [], set()
    while not greetings & set(answered):
        # Replies that waited for the client come first; a greeting may be dropped while they fill its queue.
        greetings.add(stalled.send(Hello()))
        while stalled.socket.poll(1000) and not greetings & set(answered):
            answered.append(stalled.receive()[0])
    blobs = [one for one in answered if one in asked]
    assert 0 < len(blobs) < len(asked) and answered == sorted(answered)


def test_a_full_disk_stops_an_upload_which_resumes_when_there_is_room(start_service, connect, tmp_path):
    """The system refuses the service's writes, as on a full disk, and later allows them again."""
    data, sha256 = random_blob(4.5)
    service = start_service()
    wire = connect(service)
    before = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (int(2.3 * CHUNK_BYTES), before[1]))
    replies = [wire.ask(chunk_of(data, sha256, number)) for number in range(3)]
    assert [reply.received for reply in replies[:2]] == [CHUNK_BYTES, 2 * CHUNK_BYTES]
    assert isinstance(replies[2], Error) and replies[2].code == "disk-full"
    assert str(tmp_path / "data" / "partial") in replies[2].text and "GB are free" in replies[2].text

    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, before)
    assert wire.ask(BlobStatus([sha256])) == BlobStatusReply([2 * CHUNK_BYTES]), "what had arrived is kept"
    assert wire.upload(data) == sha256
    assert wire.download(sha256) == data


def test_an_upload_that_cannot_fit_is_refused_at_its_first_piece(start_service, connect):
    service = start_service(reserve_mb=1e12)
    data, sha256 = random_blob()
    reply = connect(service).ask(chunk_of(data, sha256, 0))
    assert isinstance(reply, Error) and reply.code == "disk-full"
    assert reply.details["folder"] in reply.text and reply.details["free"] > 0

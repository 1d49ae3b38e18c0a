"""The wire's bytes: what goes in comes out, and nothing else gets in."""

import msgpack
import pytest

from ex4d_core.job_status import JobDetails, JobEvent, JobStatus
from ex4d_core.message_base import MAX_HEADER_BYTES
from ex4d_core.messages import (
    CHUNK_BYTES,
    PROTOCOL_VERSION,
    REPLIES,
    REQUESTS,
    BlobStatus,
    DescribeJobs,
    EventsReply,
    GetEvents,
    Hello,
    JobsDescribed,
    JobsReply,
    PutBlob,
    Submit,
    Welcome,
    Withdraw,
    Withdrawn,
)
from ex4d_core.view_messages import Coverage
from ex4d_core.wire import ProtocolError, decode, encode

STATUS = JobStatus("j1", "Take", "preview", "running", "render", 3, 49)


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        (Hello("Blender"), REQUESTS),
        (BlobStatus(["a" * 64, "b" * 64]), REQUESTS),
        (PutBlob("a" * 64, 5, 0, b"hello"), REQUESTS),
        (Submit("key", {"camera": {"frames": 3, "bytes": b"\x00\xff"}}), REQUESTS),
        (GetEvents("j1", 4, 2.5), REQUESTS),
        (Withdraw("key"), REQUESTS),
        (Withdrawn("j1"), REPLIES),
        (Welcome("gpu", "0.1.0", ["cpu"], {"preview": "free"}, {}, True, {"wan": "no weights"}), REPLIES),
        (JobsReply([STATUS, STATUS]), REPLIES),
        (JobsReply([]), REPLIES),
        (DescribeJobs(3), REQUESTS),
        (JobsDescribed([JobDetails("j1", "a" * 64, "b" * 64, 1.5, 0.0, "cuda:0"), JobDetails("j2")]), REPLIES),
        (EventsReply(STATUS, [JobEvent(1, "frame", index=0, sha256="c" * 64, size=9)]), REPLIES),
        (Coverage([0.1 + k / 1e6 for k in range(100_000)], [0.0, float("inf")]), REPLIES),
        (Coverage([], []), REPLIES),
    ],
)
def test_messages_survive_the_wire(message, kinds):
    assert decode(encode(message, 17), kinds) == (17, message)


def header(**fields) -> bytes:
    return msgpack.packb({"v": PROTOCOL_VERSION, "type": "Hello", "id": 5, **fields})


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([], "bad-message"),
        ([b"", b"", b""], "bad-message"),
        ([b"not msgpack \xc1"], "bad-message"),
        ([header(client="Blender")[:-3]], "bad-message"),
        ([msgpack.packb([1, 2, 3])], "bad-message"),
        ([b"\x81" * 2000], "bad-message"),
        ([msgpack.packb([[{}] * 1000] * 1000)], "bad-message"),
        ([msgpack.packb([0] * 100_000)], "bad-message"),
        ([header(type="Reboot")], "bad-message"),
        ([header(type=["Hello"])], "bad-message"),
        ([header(client=3)], "bad-message"),
        ([header(shell="rm")], "bad-message"),
        ([header(), b"payload"], "bad-message"),
        ([header(type="GetBlob", sha256="x")], "bad-message"),
        ([header(type="GetBlob", sha256="x", offset=True)], "bad-message"),
        ([header(type="PutBlob", sha256="x", size=1, offset=0)], "bad-message"),
        ([header(type="PutBlob", sha256="x", size=1, offset=0), bytes(CHUNK_BYTES + 1)], "too-large"),
        ([bytes(MAX_HEADER_BYTES + 1)], "too-large"),
        ([header(v=99)], "version"),
        ([msgpack.packb({"type": "Hello"})], "version"),
    ],
)
def test_anything_else_is_refused_with_a_code(parts, code):
    with pytest.raises(ProtocolError) as refused:
        decode(parts, REQUESTS)
    assert refused.value.code == code


def test_a_refusal_bears_the_requests_id_so_that_the_asker_learns_of_it():
    with pytest.raises(ProtocolError) as refused:
        decode([header(client=3)], REQUESTS)
    assert refused.value.request_id == 5
    with pytest.raises(ProtocolError, match="matching versions") as refused:
        decode([header(v=PROTOCOL_VERSION + 1)], REQUESTS)
    assert refused.value.request_id == 5


@pytest.mark.parametrize("seen", [[0.5], "0.5", b"seven b"])
def test_long_lists_of_numbers_are_bytes_of_float64(seen):
    parts = [msgpack.packb({"v": PROTOCOL_VERSION, "type": "Coverage", "id": 5, "seen": seen, "view_angle": b""})]
    with pytest.raises(ProtocolError, match=r"Coverage: .* bytes of float64"):
        decode(parts, REPLIES)


def test_a_client_cannot_send_replies():
    with pytest.raises(ProtocolError, match="unknown message type"):
        decode(encode(JobsReply([]), 1), REQUESTS)

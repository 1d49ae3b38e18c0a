"""The lies of the campaign `evil_server`: what a server answers in place of what a backend would."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from ex4d_core import messages
from ex4d_core.job_status import JobEvent, JobStatus
from ex4d_core.messages import Message
from ex4d_core.wire import encode

_WELCOME = messages.Welcome("ex4d", "0", ["cpu"], {"preview": "any"}, {})
_RUNNING = JobStatus("j1", "arc", "preview", "running", "preview", 1, 6)

# Parts to send for a request: a message, or bytes as they are; several answers, endlessly many, or none.
Answers = list[Message | list[bytes]] | Iterator[Message | list[bytes]]
Lie = Callable[[Message, int, random.Random], Answers | None]


def honest(message: Message) -> list[Message | list[bytes]]:
    """What a backend answers that has everything, and works on a job that makes no progress."""
    if isinstance(message, messages.Hello):
        return [_WELCOME]
    if isinstance(message, messages.BlobStatus):
        return [messages.BlobStatusReply([-1] * len(message.hashes))]
    if isinstance(message, messages.PutBlob):
        return [messages.PutBlobReply(message.sha256, -1)]
    if isinstance(message, messages.Submit):
        return [messages.Submitted("j1")]
    if isinstance(message, messages.GetEvents):
        return [messages.EventsReply(_ended(), [])]
    if isinstance(message, messages.GetBlob):
        return [messages.BlobChunk(message.sha256, 5, message.offset, b"12345"[message.offset :])]
    return [messages.Error("bad-request", "no")]


def _ended(events: int = 0, **changes: Any) -> JobStatus:
    return JobStatus(**{**_RUNNING.__dict__, "state": "failed", "reason": "it was a lie", "events": events, **changes})


def _raw(number: int, name: str, **fields: Any) -> list[bytes]:
    """A reply with any fields, right or wrong."""
    header = {"v": messages.PROTOCOL_VERSION, "type": name, "id": number, **fields}
    return [msgpack.packb(header, use_bin_type=True, unicode_errors="surrogatepass") or b""]


def _to(kind: type[Message], make: Callable[[Any, int, random.Random], Answers]) -> Lie:
    """A lie in answer to one kind of request; the others are answered honestly."""
    return lambda message, number, choices: make(message, number, choices) if isinstance(message, kind) else None


def _events(*events: JobEvent, **status: Any) -> Lie:
    """Announce events over and over, as a job that runs."""

    def answer(message: messages.GetEvents, number: int, choices: random.Random) -> Answers:
        after = [JobEvent(**{**one.__dict__, "number": message.after + 1 + place}) for place, one in enumerate(events)]
        return [messages.EventsReply(_ended(message.after + len(events), **status), after)]

    return _to(messages.GetEvents, answer)


def _numbered(event: JobEvent, number: int) -> JobEvent:
    return JobEvent(**{**event.__dict__, "number": number})


def _status(**fields: Any) -> Lie:
    """A status with fields that are wrong."""
    plain = {**_ended().__dict__, **fields}
    return _to(messages.GetEvents, lambda _, number, __: [_raw(number, "EventsReply", status=plain, events=[])])


def _everything(make: Callable[[int, random.Random], list[bytes]]) -> Lie:
    """The same in answer to everything but a greeting."""
    return lambda message, number, choices: None if isinstance(message, messages.Hello) else [make(number, choices)]


def _endless_parts(number: int) -> list[bytes]:
    return [*encode(_WELCOME, number), *[bytes(1000)] * 10_000]


_HASH = "ab" * 32
_FRAME = JobEvent(1, "frame", index=0, sha256=_HASH, size=5)
_HUGE = JobEvent(1, "file", "take.mp4", sha256=_HASH, size=2**62)

LIES: dict[str, Lie] = {
    "greets and is silent": lambda message, *_: None if isinstance(message, messages.Hello) else [],
    "random bytes": _everything(lambda number, choices: [choices.randbytes(choices.randrange(200))]),
    "another kind of reply": _everything(lambda number, choices: encode(messages.JobsReply([]), number)),
    "no such kind": _everything(lambda number, choices: _raw(number, "Surprise")),
    "a reply without fields": _everything(lambda number, choices: _raw(number, "EventsReply")),
    "deep maps": _everything(lambda number, choices: [b"\x81\xa1x" * 100_000 + b"\xc0"]),
    "many maps": _everything(lambda number, choices: [b"\xdc\xff\xff" + b"\x80" * 65_535]),
    "endless parts": _everything(lambda number, choices: _endless_parts(number)),
    "replies to nothing": _to(messages.Submit, lambda *_: iter(lambda: encode(messages.JobsReply([]), 10**9), None)),
    "endless greetings": _to(messages.Submit, lambda *_: iter(lambda: encode(_WELCOME, 0), None)),
    "a greeting of 20 MB": _to(
        messages.Hello, lambda _, number, __: [messages.Welcome("x" * 20_000_000, "0", [], {}, {})]
    ),
    "control characters": _status(reason="\x1b[2J\x1b]0;title\x07\n\rgone"),
    "a reason of 20 MB": _status(reason="x" * 20_000_000),
    "an unknown state": _status(state="excellent"),
    "a state that is no text": _status(state=5),
    "fewer blobs than asked": _to(messages.BlobStatus, lambda *_: [messages.BlobStatusReply([])]),
    "more blobs than asked": _to(messages.BlobStatus, lambda *_: [messages.BlobStatusReply([0] * 1000)]),
    "more of a blob than there is": _to(
        messages.BlobStatus, lambda message, *_: [messages.BlobStatusReply([2**60] * len(message.hashes))]
    ),
    "a blob that is never whole": lambda message, *_: (
        [messages.BlobStatusReply([0] * len(message.hashes))]
        if isinstance(message, messages.BlobStatus)
        else [messages.PutBlobReply(message.sha256, 0)]
        if isinstance(message, messages.PutBlob)
        else None
    ),
    "a negative upload": lambda message, *_: (
        [messages.BlobStatusReply([0] * len(message.hashes))]
        if isinstance(message, messages.BlobStatus)
        else [messages.PutBlobReply(message.sha256, -(2**62))]
        if isinstance(message, messages.PutBlob)
        else None
    ),
    "a wrong hash": _events(_FRAME),
    "a result of 4 EB": lambda message, number, choices: (
        [messages.BlobChunk(message.sha256, 2**62, message.offset, bytes(messages.CHUNK_BYTES))]
        if isinstance(message, messages.GetBlob)
        else _events(_HUGE)(message, number, choices)
    ),
    "a result of negative size": _events(JobEvent(1, "file", "take.mp4", sha256=_HASH, size=-1)),
    "chunks of another place": lambda message, number, choices: (
        [messages.BlobChunk(message.sha256, 5, message.offset + 1, b"2")]
        if isinstance(message, messages.GetBlob)
        else _events(_FRAME)(message, number, choices)
    ),
    "empty chunks": lambda message, number, choices: (
        [messages.BlobChunk(message.sha256, 5, message.offset, b"")]
        if isinstance(message, messages.GetBlob)
        else _events(_FRAME)(message, number, choices)
    ),
    "names that are paths": _events(
        JobEvent(1, "file", "../../x", sha256=_HASH, size=5), JobEvent(2, "file", "/tmp/x", sha256=_HASH, size=5)
    ),
    "frames beyond the shot": _events(JobEvent(1, "frame", index=10**9, sha256=_HASH, size=5)),
    "events without end": _to(
        messages.GetEvents,
        lambda message, *_: [
            messages.EventsReply(
                JobStatus(**{**_RUNNING.__dict__, "events": 2**31 - 1}),
                [JobEvent(message.after + 1 + place, "state", "running") for place in range(messages.MAX_EVENTS)],
            )
        ],
    ),
    "events that go backwards": _to(
        messages.GetEvents,
        lambda message, *_: [
            messages.EventsReply(JobStatus(**{**_RUNNING.__dict__, "events": 5}), [JobEvent(-(2**40), "state", "x")])
        ],
    ),
    "many events at once": _to(
        messages.GetEvents,
        lambda message, *_: [
            messages.EventsReply(_ended(900), [JobEvent(one, "state", "x" * 20_000) for one in range(1, 900)])
        ],
    ),
    "a job that is over and has more": _to(messages.GetEvents, lambda *_: [messages.EventsReply(_ended(1000), [])]),
    "a job that is over and goes on": _to(
        messages.GetEvents,
        lambda message, *_: [messages.EventsReply(_ended(2**31 - 1), [JobEvent(message.after + 1, "state", "x")])],
    ),
    "an event that is told again": _to(
        messages.GetEvents, lambda *_: [messages.EventsReply(_RUNNING, [JobEvent(1, "state", "running")])]
    ),
    "a frame that is announced again": _to(
        messages.GetEvents,
        lambda message, *_: [messages.EventsReply(_ended(2**31 - 1), [_numbered(_FRAME, message.after + 1)])],
    ),
    "a result of 60 GB": _events(JobEvent(1, "file", "take.mp4", sha256=_HASH, size=60 * 10**9)),
    "a chunk of another size": lambda message, number, choices: (
        [messages.BlobChunk(message.sha256, 10**9, message.offset, bytes(messages.CHUNK_BYTES))]
        if isinstance(message, messages.GetBlob)
        else _events(_FRAME)(message, number, choices)
    ),
    "a long reason": _status(reason="x" * 500_000),
    "text that runs backwards": _status(reason="\u202egnihtyreve si \u2028\u2066well"),
    "a time beyond calendars": _status(created=1e300),
    "more steps than numbers": _status(done=2**62, total=-1),
    "a job without a name": _to(messages.Submit, lambda *_: [messages.Submitted("")]),
    "another answer to the question about progress": lambda message, number, choices: (
        [messages.EventsReply(_RUNNING, [])]
        if isinstance(message, messages.GetEvents)
        else [messages.JobsReply([])]
        if isinstance(message, messages.AskSilence)
        else None
    ),
    "an error of 900 kB": _everything(
        lambda number, choices: encode(messages.Error("\x1b[2J", "no " * 300_000), number)
    ),
}

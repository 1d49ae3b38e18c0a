"""A server that lies to the client: its memory and its files stay bounded, and it ends with a sentence.

Each lie is told to a client in a process of its own, which sends and fetches a take as the command line does.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import psutil
import zmq

from campaigns.outcome import Outcome
from campaigns.service import workplace, write_scene
from ex4d_core import messages
from ex4d_core.job_status import JobEvent, JobStatus
from ex4d_core.messages import Message
from ex4d_core.wire import ProtocolError, decode, encode

# What a client may take above what it has when it starts, and put into its folder.
MAX_MEMORY = 200e6
MAX_DISK = 50e6
# A lie is over when the client has given up; the client's own limits are far below.
SECONDS = 60.0
# A server may always keep a client waiting, which the user ends; only memory and disk are looked at then.
STALLING_SECONDS = 10.0
STALLING = frozenset(
    (
        "greets and is silent",
        "replies to nothing",
        "endless greetings",
        "events without end",
        "events that go backwards",
    )
)
_EXPECTED = frozenset(("scene", "take", "tokens", "said", "log"))
_WELCOME = messages.Welcome("ex4d", "0", ["cpu"], {"preview": "any"}, {})
_RUNNING = JobStatus("j1", "arc", "preview", "running", "preview", 1, 6)

# Parts to send for a request: a message, or bytes as they are; several answers, endlessly many, or none.
Answers = list[Message | list[bytes]] | Iterator[Message | list[bytes]]
Lie = Callable[[Message, int, random.Random], Answers | None]


def run(seed: int, count: int) -> Outcome:
    """Tell every lie ``count`` times."""
    outcome, told = Outcome(), 0
    most_memory = most_disk = 0.0
    for number in range(count):
        for name in LIES:
            one = tell(name, seed + number)
            told += 1
            outcome.breaches += one.breaches
            most_memory = max(most_memory, float(one.figures["MB of memory"]))
            most_disk = max(most_disk, float(one.figures["MB of disk"]))
    outcome.figures = {"lies": told, "most MB of memory": most_memory, "most MB of disk": most_disk}
    return outcome


def tell(name: str, seed: int) -> Outcome:
    """Tell one lie to a client of its own, and see what becomes of it."""
    outcome, choices = Outcome(), random.Random(f"{name} {seed}")
    with workplace() as folder:
        write_scene(folder / "scene")
        socket = zmq.Context.instance().socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 100)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        victim = [sys.executable, "-m", "campaigns.victim", f"tcp://127.0.0.1:{port}", str(folder)]
        # Into files, which hold nobody up.
        with open(folder / "said", "wb") as said, open(folder / "log", "wb") as log:
            client = subprocess.Popen(victim, stdout=said, stderr=log)
            try:
                memory = _lie(socket, client, name, choices, folder / "take")
            finally:
                client.kill()
                client.wait()
                socket.close()
        end, trace = (folder / "said").read_text(errors="replace"), (folder / "log").read_text(errors="replace")
        disk = _size(folder / "take")
        strange = [path.name for path in folder.iterdir() if path.name not in _EXPECTED]
    ended = bool(end) or name in STALLING
    outcome.require(ended, f"{name}: the client did not end within {SECONDS:.0f} s {trace[-300:]!r}")
    outcome.require("internal error" not in end, f"{name}: {end[:300]}")
    outcome.require(end.isprintable(), f"{name}: control characters reach the terminal: {end[:300]!r}")
    outcome.require(len(end) < 3000, f"{name}: an end of {len(end)} letters")
    outcome.require(memory < MAX_MEMORY, f"{name}: the client took {memory / 1e6:.0f} MB")
    outcome.require(disk < MAX_DISK, f"{name}: the client wrote {disk / 1e6:.0f} MB")
    outcome.require(not strange, f"{name}: the client wrote {strange} outside its folder")
    outcome.figures = {"MB of memory": round(memory / 1e6), "MB of disk": round(disk / 1e6), "end": end}
    return outcome


def _lie(
    socket: zmq.Socket[bytes], client: subprocess.Popen[bytes], name: str, choices: random.Random, folder: Path
) -> float:
    """Answer a client until it ends, or has gone too far; returns the most memory that it took above its beginning."""
    process, begin, most = psutil.Process(client.pid), 0.0, 0.0
    lie, deadline = LIES[name], time.monotonic() + (STALLING_SECONDS if name in STALLING else SECONDS)
    endless: list[tuple[bytes, int, Iterator[Message | list[bytes]]]] = []
    while client.poll() is None and time.monotonic() < deadline:
        try:
            memory = float(process.memory_info().rss)
        except psutil.Error:
            break
        most = max(most, memory - begin if begin else 0.0)
        if most > MAX_MEMORY or _size(folder) > MAX_DISK:
            break
        if socket.poll(0 if endless else 50):
            who, *parts = socket.recv_multipart()
            # Its modules are loaded by now.
            begin = begin or memory
            try:
                number, message = decode(parts, messages.REQUESTS)
            except ProtocolError:
                continue
            answers = lie(message, number, choices)
            if answers is None:
                answers = honest(message)
            endless.append((who, number, iter(answers)))
        for one in list(endless):
            who, number, answers = one
            answer = next(answers, None)
            if answer is None:
                endless.remove(one)
                continue
            parts = answer if isinstance(answer, list) else encode(answer, number)
            try:
                socket.send_multipart([who, *parts], zmq.NOBLOCK)
            except zmq.ZMQError:
                time.sleep(0.001)  # it does not read as fast as that
    return most


def _size(folder: Path) -> float:
    return sum(os.lstat(os.path.join(parent, name)).st_size for parent, _, names in os.walk(folder) for name in names)


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
                JobStatus(**{**_RUNNING.__dict__, "events": 2**40}),
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
    "a job that is over and has more": _to(messages.GetEvents, lambda *_: [messages.EventsReply(_ended(2**40), [])]),
}

"""Messages that are nearly right: every field of every request gets values that it must not have.

A message is built from real parts (a scene and jobs that are there), then one to three of its fields are changed,
dropped or added, or its bytes are. The service must answer each, never with "internal", and log no traceback.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgpack

from campaigns.outcome import Outcome
from campaigns.service import PATIENCE, Service, ask, connected, shot, write_scene
from ex4d_core import messages
from ex4d_core.client_socket import ClientSocket
from ex4d_core.local_token import read_token
from ex4d_core.reconstruction import ReconstructionRequest, ReconstructionSettings
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene
from ex4d_core.sources import DepthSettings, SourceFile
from ex4d_core.transfers import Sent, scene_blobs, upload_blobs
from ex4d_core.wire import ProtocolError, decode, encode

# Requests without an answer at a time; the service drops answers beyond 64 for one client.
_IN_FLIGHT = 24
# Requests for events are held back for 10 s at most.
_SILENCE = 15
_SILENCES = 5
# More than any answer has.
_ANSWER_BYTES = 20 * 1024 * 1024
# A key of its own for each valid submission would fill the queue.
_KEYS = 20


def run(seed: int, count: int) -> Outcome:
    """Send ``count`` messages."""
    choices, outcome = random.Random(seed), Outcome()
    with Service.in_workplace() as (service, folder):
        scene = write_scene(folder / "scene")
        client = connected(service.address)
        client.run(upload_blobs(scene_blobs(scene), Sent()), PATIENCE)
        job = client.run(RemoteTake(folder / "take", shot(scene, "whole"), scene).submission(), PATIENCE)
        answers = _send_all(service, _Builder(choices, scene, job), count, outcome)
        outcome.require(service.running, "the service ended")
        if service.running:
            welcome = ask(client, messages.Hello())
            outcome.require(isinstance(welcome, messages.Welcome), f"a greeting is answered by {welcome}")
        client.close()
        for line, times in Counter(service.tracebacks()).items():
            outcome.require(False, f"{times} tracebacks in the log: {line[:300]}")
    outcome.figures = {"messages": count, "answers": answers.total(), **outcome.figures, **dict(answers.most_common())}
    return outcome


def _send_all(service: Service, builder: _Builder, count: int, outcome: Outcome) -> Counter[str]:
    """Send on a connection with the service's token; count the answers by kind or code."""
    socket, answers = ClientSocket(service.address, None, read_token(service.address)), Counter[str]()
    socket.guard.allowed = _IN_FLIGHT * _ANSWER_BYTES
    asked: dict[int, list[bytes]] = {}
    sent = gone = silences = 0
    while sent < count or sent - gone > answers.total():
        while sent < count and sent - gone - answers.total() < _IN_FLIGHT:
            sent += 1
            asked[sent] = builder.message(sent)
            _send(socket, asked[sent])
        if not socket.wait(_SILENCE if service.running else 0.0):
            # A connection that fell takes what is under way with it, so clients ask again; see `Client`.
            left = [number for number, parts in asked.items() if _number(parts) == number]
            gone, silences = sent - answers.total() - len(left), silences + 1
            if not service.running or silences > _SILENCES:
                break
            outcome.figures["asked again"] = outcome.figures.get("asked again", 0) + len(left)
            for number in left:
                _send(socket, asked[number])
        while (parts := socket.receive()) is not None:
            try:
                number, reply = decode(parts, messages.REPLIES)
            except ProtocolError as error:
                outcome.require(False, f"an answer that is none: {error}")
                answers["none"] += 1
                continue
            kind = reply.code if isinstance(reply, messages.Error) else type(reply).__name__
            answers[kind] += 1
            # Of a damaged number, the wrong one.
            wrong = asked.pop(number, None)
            if kind in ("internal", "storage"):
                outcome.require(False, f"{reply} to {_readable(wrong)}")
    # Those whose number is damaged are answered under another.
    left = [_readable(parts) for number, parts in asked.items() if _number(parts) == number]
    outcome.require(not left, f"{len(left)} messages of {sent} have no answer: {left[:2]}")
    outcome.figures["silences"] = silences
    socket.close()
    return answers


def _send(socket: ClientSocket, parts: list[bytes]) -> None:
    """Send a message; a connection that fell comes back."""
    deadline = time.monotonic() + PATIENCE
    while not socket.send(parts):
        if time.monotonic() > deadline:
            raise TimeoutError("the service takes no messages")
        time.sleep(0.01)


def _number(parts: list[bytes]) -> int:
    """The number under which the service answers a message."""
    try:
        return decode(parts, messages.REQUESTS)[0]
    except ProtocolError as error:
        return error.request_id


def _readable(parts: list[bytes] | None) -> str:
    try:
        return repr(msgpack.unpackb(parts[0], strict_map_key=False))[:400] if parts else "an unknown message"
    except (ValueError, TypeError):
        return repr(parts)[:400]


class _Builder:
    """Makes messages; the same choices make the same ones."""

    def __init__(self, choices: random.Random, scene: Scene, job: str):
        self._choices = choices
        self._request = shot(scene, "whole").to_wire()
        self._manifest = scene.manifest_bytes
        self._follow_up: messages.Message | None = None
        hashes = [scene.digest, *(entry.sha256 for entry in scene.manifest.files.values())]
        entry = scene.manifest.files["color"]
        walk = _reconstruction(entry.sha256, entry.size)
        pick = choices.choice
        known = messages.GetBlob(scene.digest, 0)
        self._makers: list[Callable[[], messages.Message]] = [
            lambda: messages.Hello("somebody"),
            lambda: messages.BlobStatus(choices.sample(hashes, 2)),
            lambda: messages.PutBlob(_random_hash(choices), pick((1, 5, 2**40)), 0, b"x"),
            lambda: messages.PutBlob(pick(hashes), 5, 0, b"12345"),
            lambda: known,
            lambda: messages.GetBlob(pick(hashes), pick((0, 1, 100)), pick((1, 2**30))),
            lambda: messages.Submit(f"key {choices.randrange(_KEYS)}", self._request),
            lambda: messages.Submit(f"scene {choices.randrange(_KEYS)}", walk),
            lambda: messages.Cancel(pick((job, "0" * 32))),
            lambda: messages.Withdraw(f"key {choices.randrange(_KEYS)}"),
            lambda: messages.ListJobs(pick((1, 200))),
            lambda: messages.DescribeJobs(pick((1, 200))),
            lambda: messages.GetEvents(pick((job, "0" * 32)), pick((0, 3, 1000)), 0.0),
            lambda: messages.GetView(self._request),
            lambda: messages.GetCoverage({**self._request, "scene": "12" * 32}),
        ]

    def message(self, number: int) -> list[bytes]:
        """The parts of a message, most likely a wrong one."""
        choices = self._choices
        if self._follow_up is not None:
            follow_up, self._follow_up = self._follow_up, None
            return encode(follow_up, number)
        if choices.random() < 0.08:
            return encode(self._wrong_manifest(), number)
        parts = encode(choices.choice(self._makers)(), number)
        header = msgpack.unpackb(parts[0])
        for _ in range(choices.choice((1, 1, 1, 2, 3))):
            _spoil(header, choices)
        if choices.random() < 0.9:
            header.setdefault("id", number)
        parts[0] = msgpack.packb(header, use_bin_type=True, unicode_errors="surrogatepass") or b""
        if choices.random() < 0.08:
            parts[0] = _spoil_bytes(parts[0], choices)
        if choices.random() < 0.03:
            parts = choices.choice(([*parts, b"more"], parts[:1], [parts[0], b""], [b""]))
        return parts

    def _wrong_manifest(self) -> messages.PutBlob:
        """A manifest that is nearly right, as a blob; the next message is a shot of its scene."""
        values = json.loads(self._manifest)
        for _ in range(self._choices.choice((1, 1, 2))):
            _spoil(values, self._choices)
        data = json.dumps(values, default=repr).encode(errors="replace")[: messages.CHUNK_BYTES]
        sha256 = hashlib.sha256(data).hexdigest()
        self._follow_up = messages.Submit(sha256, {**self._request, "scene": sha256})
        return messages.PutBlob(sha256, len(data), 0, data)


def _random_hash(choices: random.Random) -> str:
    return choices.randbytes(32).hex()


def _reconstruction(sha256: str, size: int) -> dict[str, Any]:
    """A request for a scene from one video, of which the service has something of the right size."""
    settings = ReconstructionSettings("walk", DepthSettings("array"))
    file = SourceFile(sha256, size, "walk.mp4")
    return ReconstructionRequest(settings, (file,), (SourceFile(sha256, size, "walk_depth.npz"),)).to_wire()


def _spoil(header: dict[str, Any], choices: random.Random) -> None:
    """Change one field somewhere in a message, but for its number, by which the answer is known."""
    place: dict[str, Any] = header
    while True:
        names = [name for name in place if name not in ("id", "v", "type")] or list(place)
        if not names:
            return
        name = choices.choice(names)
        if isinstance(place[name], dict) and place[name] and choices.random() < 0.9:
            place = place[name]
            continue
        inner = [one for one in place[name] if isinstance(one, dict)] if isinstance(place[name], list) else []
        if inner and choices.random() < 0.9:
            place = choices.choice(inner)
            continue
        break
    kind = choices.random()
    if kind < 0.1:
        del place[name]
    elif kind < 0.2:
        place[choices.choice(("surprise", "", "__class__", "v", "payload", "x" * 300))] = _strange(choices)
    elif kind < 0.23:
        header[choices.choice(("v", "type"))] = _strange(choices)
    else:
        place[name] = _near(place[name], choices) if choices.random() < 0.4 else _strange(choices)


def _strange(choices: random.Random) -> Any:
    """A value that few fields may have."""
    return choices.choice(
        (
            *(None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5),
            *(float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, -0.0),
            *("", "x", "../../x", "/etc/passwd", "nul\0byte", "\x1b[2J\x1b]0;title\x07", "a\r\nb", "\ud800", "\u202e"),
            *("x" * 5000, "0" * 32, "ab" * 32, "AB" * 32, "tcp://127.0.0.1:1", "wan", "cuda:0"),
            *(b"", b"x", b"\xff" * 9, b"\0" * 72, bytes(8) * 1000, [], {}, [[]], [None], [True], [1, "x", b"y"]),
            *([0] * 1024, [[0]] * 500, {"x": {}}, {"": None}, {"frames": True}, _deep(20), _deep(400)),
        )
    )


def _near(value: Any, choices: random.Random) -> Any:
    """A value of the same type that is near to the right one, or at an end."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        near = choices.choice((value + 1, value - 1, -value, value * 2**20, bool(value), float(value), str(value)))
        return near if not isinstance(near, int) or -(2**63) <= near < 2**64 else 2**64 - 1
    if isinstance(value, float):
        return choices.choice((value + 1.0, -value, value * 1e30, float(f"{value:.0f}"), str(value)))
    if isinstance(value, str):
        return choices.choice(
            (value + "x", value[:-1], value.upper(), value * 50, value.encode(errors="replace"), [value])
        )
    if isinstance(value, bytes):
        place = choices.randrange(len(value) + 1)
        return choices.choice((value[:-1], value + b"\0", value[:place] + b"\xff\xf8" + value[place + 2 :], value * 2))
    if isinstance(value, list):
        return choices.choice((value * 2, value[:-1], [*value, None], {"0": value}, [value]))
    return _strange(choices)


def _deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"x": value}
    return value


def _spoil_bytes(data: bytes, choices: random.Random) -> bytes:
    if not data:
        return b"\xc1"
    place = choices.randrange(len(data))
    return choices.choice(
        (
            data[:place],
            data[:place] + bytes([choices.randrange(256)]) + data[place + 1 :],
            data + choices.randbytes(3),
            data[place:] + data[:place],
        )
    )

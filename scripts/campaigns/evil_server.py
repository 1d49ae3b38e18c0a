"""A server that lies to the client: its memory and its files stay bounded, and it ends with a sentence.

Each lie is told to a client in a process of its own, which sends and fetches a take as the command line does.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import zmq

from campaigns.endless_server import EndlessServer
from campaigns.forked import ForkedProcess
from campaigns.lies import LIES, Lie, honest
from campaigns.outcome import Outcome
from campaigns.service import workplace, write_scene
from ex4d_core import messages
from ex4d_core.job_status import MAX_REASON
from ex4d_core.messages import Message
from ex4d_core.wire import ProtocolError, decode, encode

# What a client may take above what it has when it starts, and put into its folder.
MAX_MEMORY = 200e6
MAX_DISK = 50e6
# A failed job's reason may be as long as a backend's, and stands behind its state.
MOST_LETTERS = MAX_REASON + 100
# A lie is over when the client has given up; the client's own limits are far below.
SECONDS = 60.0
# A server may always keep a client waiting, which the user ends; only memory and disk are looked at then.
STALLING_SECONDS = 10.0
STALLING = frozenset(("events without end",))
# Messages that never end, by the size of their parts.
ENDLESS = {
    f"an endless message of {name}": size for name, size in (("empty parts", 0), ("1 kB", 1000), ("20 MB", 20 * 2**20))
}
# More requests a second than this is a loop: a window of chunks, and what keeps a connection.
MOST_REQUESTS = 200.0
_LOOP_REQUESTS = 500
_EXPECTED = frozenset(("scene", "take", "tokens", "said", "log", "ready"))


def run(seed: int, count: int) -> Outcome:
    """Tell every lie ``count`` times."""
    outcome, told = Outcome(), 0
    most_memory = most_disk = 0.0
    for number in range(count):
        for name in (*LIES, *ENDLESS):
            one = tell(name, seed + number)
            told += 1
            outcome.breaches += one.breaches
            most_memory = max(most_memory, float(one.figures["MB of memory"]))
            most_disk = max(most_disk, float(one.figures["MB of disk"]))
    outcome.figures = {"lies": told, "most MB of memory": most_memory, "most MB of disk": most_disk}
    return outcome


def tell(name: str, seed: int, seconds: float = 10.0) -> Outcome:
    """Tell one lie to a client of its own, and see what becomes of it.

    Args:
        name: of the lie.
        seed: of the server's choices.
        seconds: for which the client waits for an answer while greetings are answered; a user's waits longer.
    """
    outcome, choices = Outcome(), random.Random(f"{name} {seed}")
    with workplace() as folder:
        write_scene(folder / "scene")
        server = EndlessServer(ENDLESS[name]) if name in ENDLESS else _Liar(LIES[name], choices)
        client = ForkedProcess("campaigns.victim:main", (server.address, folder, seconds), folder / "log")
        try:
            memory = _watch(server, client, name, folder)
        finally:
            client.kill()
            server.close()
        said = folder / "said"
        end = said.read_text("utf-8") if said.exists() else ""
        trace = (folder / "log").read_text(errors="replace")
        disk = _size(folder / "take")
        strange = [path.name for path in folder.iterdir() if path.name not in _EXPECTED]
    ended = bool(end) or name in STALLING
    outcome.require(ended, f"{name}: the client did not end within {SECONDS:.0f} s {trace[-300:]!r}")
    outcome.require("internal error" not in end, f"{name}: {end[:300]}")
    outcome.require(
        end.replace("\n", " ").isprintable(), f"{name}: control characters reach the terminal: {end[:300]!r}"
    )
    outcome.require(len(end) < MOST_LETTERS, f"{name}: an end of {len(end)} letters")
    if isinstance(server, _Liar):
        outcome.require(server.quickest < MOST_REQUESTS, f"{name}: asked {server.quickest:.0f} times a second")
    outcome.require(memory < MAX_MEMORY, f"{name}: the client took {memory / 1e6:.0f} MB")
    outcome.require(disk < MAX_DISK, f"{name}: the client wrote {disk / 1e6:.0f} MB")
    outcome.require(not strange, f"{name}: the client wrote {strange} outside its folder")
    outcome.figures = {"MB of memory": round(memory / 1e6), "MB of disk": round(disk / 1e6), "end": end}
    return outcome


class _Liar:
    """A server that lies in one way.

    Attributes:
        address: where it listens.
    """

    def __init__(self, lie: Lie, choices: random.Random):
        self._lie, self._choices = lie, choices
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 100)
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._endless: list[tuple[bytes, int, Iterator[Message | list[bytes]]]] = []
        self._asked: list[float] = []

    @property
    def quickest(self) -> float:
        """Requests a second over the last seconds, if there were many."""
        last = self._asked[-_LOOP_REQUESTS:]
        return len(last) / max(last[-1] - last[0], 1e-3) if len(last) == _LOOP_REQUESTS else 0.0

    def step(self) -> None:
        """Receive a request, if there is one, and send one answer to each that has more."""
        if self._socket.poll(0 if self._endless else 50):
            who, *parts = self._socket.recv_multipart()
            try:
                number, message = decode(parts, messages.REQUESTS)
            except ProtocolError:
                return
            self._asked.append(time.monotonic())
            answers = self._lie(message, number, self._choices)
            self._endless.append((who, number, iter(honest(message) if answers is None else answers)))
        for one in list(self._endless):
            who, number, answers = one
            answer = next(answers, None)
            if answer is None:
                self._endless.remove(one)
                continue
            parts = answer if isinstance(answer, list) else encode(answer, number)
            try:
                self._socket.send_multipart([who, *parts], zmq.NOBLOCK)
            except zmq.ZMQError:
                time.sleep(0.001)  # it does not read as fast as that

    def close(self) -> None:
        """End."""
        self._socket.close()


def _watch(server: _Liar | EndlessServer, client: ForkedProcess, name: str, folder: Path) -> float:
    """Wait until a client ends, or has gone too far; returns the most memory that it took above its beginning."""
    process, begin, most = psutil.Process(client.pid), 0.0, 0.0
    deadline = time.monotonic() + (STALLING_SECONDS if name in STALLING else SECONDS)
    while client.running and time.monotonic() < deadline:
        if isinstance(server, _Liar):
            server.step()
        else:
            time.sleep(0.005)
        try:
            memory = float(process.memory_info().rss)
        except psutil.Error:
            break
        # Its modules are loaded by then.
        if not begin and (folder / "ready").exists():
            begin = memory
        most = max(most, memory - begin if begin else 0.0)
        if most > MAX_MEMORY or _size(folder / "take") > MAX_DISK:
            break
    return most


def _size(folder: Path) -> float:
    return sum(os.lstat(os.path.join(parent, name)).st_size for parent, _, names in os.walk(folder) for name in names)

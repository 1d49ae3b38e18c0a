"""A real service process, a client that sends the wire's messages one by one, and a tiny scene."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zmq
from zmq.auth import load_certificate

from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.job_status import FINAL_STATES, JobEvent, JobStatus
from ex4d_core.local_token import USER, read_token
from ex4d_core.messages import (
    CHUNK_BYTES,
    REPLIES,
    BlobStatus,
    Cancel,
    Error,
    GetBlob,
    GetEvents,
    Hello,
    Message,
    PutBlob,
    PutBlobReply,
    Submit,
)
from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.scene_manifest import RENDER_FILES, SceneManifest
from ex4d_core.shot import ShotRequest
from ex4d_core.wire import decode, encode

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FRAMES = 6
# Nothing here should take a second; a busy machine must not fail a test.
PATIENCE = 240.0


class ServiceProcess:
    """A service in a process of its own."""

    def __init__(self, data: Path, **settings: Any):
        self.data = data
        self.settings = {
            "address": "tcp://127.0.0.1:0",
            "data": str(data),
            "runner": "shot_runners:perform",
            "reserve_mb": 0,
            "stalled_view_seconds": PATIENCE,  # tests stop that process to look at what waits for it
            **settings,
        }
        self.log: list[str] = []
        self._logged = threading.Condition()
        self.start()

    def start(self) -> None:
        path = os.pathsep.join([str(ROOT / "backend"), str(ROOT), str(HERE)])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "serve.py"), json.dumps(self.settings)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.log = []
        self._reader = threading.Thread(target=self._read_log, args=(self.process.stderr, self.log), daemon=True)
        self._reader.start()
        self.address = self.wait_for_log(r"listening on (tcp://[^\s\"]+)")[1]

    def _read_log(self, stream, lines: list[str]) -> None:
        for line in stream:
            with self._logged:
                lines.append(line.rstrip())
                self._logged.notify_all()

    def wait_for_log(self, pattern: str) -> re.Match:
        """The first line of the log that matches, once it is there."""

        def match() -> re.Match | None:
            return next((found for line in self.log if (found := re.search(pattern, line))), None)

        with self._logged:
            assert self._logged.wait_for(match, PATIENCE), f"no {pattern!r} in the log:\n" + "\n".join(self.log)
        return match()

    def worker_pids(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    @contextmanager
    def live_views_paused(self) -> Iterator[None]:
        """Stop the live view process for a block, so that requests pile up before it however fast it is."""
        (process,) = (
            child
            for child in psutil.Process(self.process.pid).children()
            if "ex4d.service.live_view_process" in child.cmdline()
        )
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def kill(self) -> None:
        """As a power failure does."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """As the system does; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stderr.close()
        return code


class Wire:
    """Sends messages and waits for answers, one at a time."""

    def __init__(self, address: str, set_up: Callable[[zmq.Socket], None] = lambda socket: None):
        self.context = zmq.Context.instance()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        if token := read_token(address):
            self.socket.plain_username, self.socket.plain_password = USER.encode(), token.encode()
        set_up(self.socket)
        self.socket.connect(address)
        self._id = 0

    def send(self, message: Message) -> int:
        self._id += 1
        self.socket.send_multipart(encode(message, self._id))
        return self._id

    def receive(self, patience: float = PATIENCE) -> tuple[int, Message]:
        assert self.socket.poll(patience * 1000), "the service did not answer"
        return decode(self.socket.recv_multipart(), REPLIES)

    def ask(self, message: Message) -> Message:
        request_id = self.send(message)
        answered, reply = self.receive()
        assert answered == request_id
        return reply

    def collect(self, asked: list[int]) -> dict[int, Message]:
        """The replies to some requests; to no others, and one each."""
        last = self.send(Hello())
        replies: dict[int, Message] = {}
        while last not in replies or not replies.keys() >= set(asked):
            answered, reply = self.receive()
            assert answered not in replies
            replies[answered] = reply
        del replies[last]
        assert replies.keys() == set(asked)
        return replies

    def close(self) -> None:
        self.socket.close()

    def upload(self, data: bytes) -> str:
        """Put a whole blob; returns its hash."""
        sha256 = hashlib.sha256(data).hexdigest()
        (received,) = self.ask(BlobStatus([sha256])).received
        while received >= 0:
            chunk = data[received : received + CHUNK_BYTES]
            reply = self.ask(PutBlob(sha256, len(data), received, chunk))
            assert isinstance(reply, PutBlobReply), reply
            received = reply.received
        return sha256

    def download(self, sha256: str) -> bytes:
        data = b""
        while True:
            chunk = self.ask(GetBlob(sha256, len(data)))
            data += chunk.payload
            if len(data) == chunk.size:
                return data

    def upload_scene(self, scene: Scene) -> None:
        self.upload(scene.manifest_bytes)
        for part in RENDER_FILES:
            self.upload(scene.path(part).read_bytes())

    def submit(self, request: ShotRequest, key: str = "") -> str:
        """Returns the job."""
        reply = self.ask(Submit(key or uuid.uuid4().hex, request.to_wire()))
        assert not isinstance(reply, Error), reply
        return reply.job

    def follow(self, job: str, until: Callable[[JobStatus, list[JobEvent]], bool]) -> tuple[JobStatus, list[JobEvent]]:
        """All events of a job from the first on, as soon as ``until`` says that they are enough."""
        events: list[JobEvent] = []
        deadline = time.monotonic() + PATIENCE
        while True:
            reply = self.ask(GetEvents(job, len(events), wait=0.5))
            events += reply.events
            if until(reply.status, events):
                return reply.status, events
            assert time.monotonic() < deadline, (reply.status, events)

    def finish(self, job: str) -> tuple[JobStatus, list[JobEvent]]:
        """The final status and all events."""
        return self.follow(job, lambda status, events: status.state in FINAL_STATES and len(events) == status.events)

    def wait_for_half(self, job: str) -> None:
        """Until the runner has generated half of the frames, and waits or does what its label says."""
        self.follow(job, lambda status, events: status.stage == "halfway" and len(events) == status.events)

    def cancel(self, job: str) -> JobStatus:
        return self.ask(Cancel(job)).status


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """Start a service of one's own, with `ServiceSettings` as wanted."""
    services = []

    def start(**settings: Any) -> ServiceProcess:
        settings.setdefault("data", tmp_path / "data")
        services.append(ServiceProcess(**settings))
        return services[-1]

    yield start
    for service in services:
        service.stop()


@pytest.fixture(scope="session")
def service_process() -> type[ServiceProcess]:
    """For a service that the tests of one module share."""
    return ServiceProcess


@pytest.fixture(scope="session")
def with_key() -> Callable[[Path, str], Callable[[zmq.Socket], None]]:
    """How a socket gets the key of a user, from the folder where `create_keys` has put it."""

    def with_key(folder: Path, user: str) -> Callable[[zmq.Socket], None]:
        def set_up(dealer: zmq.Socket) -> None:
            dealer.curve_serverkey, _ = load_certificate(folder / "server.key")
            dealer.curve_publickey, dealer.curve_secretkey = load_certificate(folder / f"{user}.key_secret")

        return set_up

    return with_key


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service that all tests share; nothing that they do may harm it."""
    service = ServiceProcess(tmp_path_factory.mktemp("service") / "data")
    yield service
    assert service.process.poll() is None, "a test brought the service down"
    assert service.stop() == 0


@pytest.fixture
def connect() -> Iterator[Callable[..., Wire]]:
    wires = []

    def connect(service: ServiceProcess, *arguments: Any) -> Wire:
        wires.append(Wire(service.address, *arguments))
        return wires[-1]

    yield connect
    for wire in wires:
        wire.close()


@pytest.fixture
def wire(service: ServiceProcess, connect: Callable[..., Wire]) -> Wire:
    """A client of the shared service."""
    return connect(service)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Six frames of 32x24 pixels: a gradient at depth 2."""
    width, height = 32, 24
    color = np.zeros((FRAMES, height, width, 3), np.uint8)
    color[..., 0] = np.arange(width) * 8
    depth = np.full((FRAMES, height, width), 2.0, np.float32)
    manifest = SceneManifest("gradient", FRAMES, width, height, Fraction(24), "centered", (2.0, 2.0), 2.0)
    with SceneWriter(tmp_path_factory.mktemp("scene") / "gradient") as writer:
        writer.array("color", color.shape, np.uint8).write(color)
        writer.array("depth", depth.shape, np.float32).write(depth)
        still_camera(FRAMES, width, height).save(writer.path("source_camera"))
        return writer.finish(manifest)


def still_camera(frames: int, width: int, height: int) -> CameraPath:
    intrinsics = intrinsics_matrix(30.0, 30.0, width / 2, height / 2)
    return CameraPath(np.repeat(np.eye(4)[None], frames, axis=0), intrinsics, width, height)


@pytest.fixture
def shot(scene: Scene) -> Callable[[str], ShotRequest]:
    """A request for all frames of the scene, with a label for the runner."""
    return lambda label="good": ShotRequest(scene.digest, still_camera(FRAMES, 32, 24), label=label)

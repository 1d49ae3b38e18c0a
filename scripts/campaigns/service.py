"""A service in a process of its own, with small shots that take a moment, and a folder for all that it writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from campaigns.forked import ForkedProcess
from campaigns.ray_nodes import RayNodes
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.client import Client, ConnectionState
from ex4d_core.messages import Hello, Message
from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.scene_manifest import SceneManifest
from ex4d_core.shot import ShotRequest

ROOT = Path(__file__).resolve().parents[2]
FRAMES, WIDTH, HEIGHT = 6, 32, 24
# Nothing here should take a second; a busy machine must not look like a breach.
PATIENCE = 240.0


# Settings of every service, while its workers are on a cluster.
_CLUSTER: dict[str, Any] = {}


@contextmanager
def on_cluster(nodes: int) -> Iterator[None]:
    """Have the workers of all services on a Ray cluster of so many nodes of one core."""
    with workplace() as folder, closing(RayNodes(folder, ROOT / "scripts")) as ray_nodes:
        os.environ.update(ray_nodes.environment)
        for _ in range(nodes):
            ray_nodes.add()
        _CLUSTER.update(cluster=ray_nodes.address, cluster_cores=1, cluster_shared=False)
        try:
            yield
        finally:
            _CLUSTER.clear()


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder, and nothing of the user's own settings."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="ex4d-campaign-", ignore_cleanup_errors=True) as name:
        os.environ.update(EX4D_CONFIG=os.devnull, EX4D_TOKENS=str(Path(name) / "tokens"))
        ours = [str(ROOT / folder) for folder in ("backend", "", "scripts")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*ours, before.get("PYTHONPATH")]))
        try:
            yield Path(name)
        finally:
            os.environ.clear()
            os.environ.update(before)


class Service:
    """A service under trial; it keeps its address and its data over restarts."""

    def __init__(self, folder: Path, *, forked: bool = False, **settings: Any):
        """Start it in a folder, with `ex4d.service.ServiceSettings` as wanted.

        Args:
            folder: for all that it writes.
            forked: whether it starts from a process that has everything loaded, in no time.
            settings: of the service.
        """
        self._forked = forked
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{one.getsockname()[1]}"
        self.log = folder / "service.log"
        self.settings = {
            "address": self.address,
            "data": str(folder / "data"),
            "runner": "campaigns.runner:perform",
            "reserve_mb": 0,
            **_CLUSTER,
            **settings,
        }
        self.start()

    @classmethod
    @contextmanager
    def in_workplace(cls, **settings: Any) -> Iterator[tuple[Service, Path]]:
        """One in a temporary folder, and that folder; both are gone afterwards."""
        with workplace() as folder:
            service = cls(folder, **settings)
            try:
                yield service, folder
            finally:
                service.stop()

    def start(self) -> None:
        """Start it, again after a kill."""
        if self._forked:
            self.process = ForkedProcess("campaigns.serve:main", (json.dumps(self.settings),), self.log)
            return
        with open(self.log, "ab") as log:
            command = [sys.executable, "-m", "campaigns.serve", json.dumps(self.settings)]
            self.process = subprocess.Popen(command, stderr=log, stdout=log)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.running if isinstance(self.process, ForkedProcess) else self.process.poll() is None

    def children(self) -> list[psutil.Process]:
        """Its worker processes, and the one for live views."""
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        found = []
        for child in self.children():
            try:
                if "ex4d.service.worker" in child.cmdline():
                    found.append(child)
            except psutil.Error:
                continue
        return found

    def memory(self) -> int:
        """Bytes that it has in memory, without its workers."""
        return psutil.Process(self.process.pid).memory_info().rss

    def kill(self) -> None:
        """As a power failure does, and wait until its workers have noticed."""
        children = self.children()
        self.process.kill()
        self.process.wait(PATIENCE)
        _, alive = psutil.wait_procs(children, PATIENCE)
        for one in alive:
            one.kill()

    def stop(self) -> None:
        """End it, whatever its state."""
        children = self.children()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        if self.running:
            self.process.kill()
            self.process.wait(PATIENCE)
        for one in psutil.wait_procs(children, 10)[1]:
            one.kill()

    def tracebacks(self) -> list[str]:
        """The last line of each traceback in its log."""
        found, inside = [], False
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Traceback"):
                inside = True
            elif inside and line and not line[0].isspace():
                found.append(line)
                inside = False
        return found


def connected(address: str, name: str = "campaign") -> Client:
    """A client whose service answers."""
    client = Client(address, name)
    client.ask(Hello(name), timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while client.state is not ConnectionState.CONNECTED and time.monotonic() < deadline:
        client.wait()
    return client


def ask(client: Client, message: Message) -> Any:
    """A reply, also from a service that is killed and started again meanwhile."""
    return client.ask(message, timeout=PATIENCE)


def write_scene(folder: Path) -> Scene:
    """A gradient at depth 2, six frames of 32x24 pixels."""
    color = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    color[..., 0] = np.arange(WIDTH) * 8
    depth = np.full((FRAMES, HEIGHT, WIDTH), 2.0, np.float32)
    manifest = SceneManifest("gradient", FRAMES, WIDTH, HEIGHT, Fraction(24), "centered", (2.0, 2.0), 2.0)
    with SceneWriter(folder) as writer:
        writer.array("color", color.shape, np.uint8).write(color)
        writer.array("depth", depth.shape, np.float32).write(depth)
        _still_camera().save(writer.path("source_camera"))
        return writer.finish(manifest)


def shot(scene: Scene, label: str) -> ShotRequest:
    """All frames of the scene, with a label for the runner."""
    return ShotRequest(scene.digest, _still_camera(), label=label)


def _still_camera() -> CameraPath:
    lens = intrinsics_matrix(30.0, 30.0, WIDTH / 2, HEIGHT / 2)
    return CameraPath(np.repeat(np.eye(4)[None], FRAMES, axis=0), lens, WIDTH, HEIGHT)

"""Benchmarks the life of a job over a loopback socket of a real service: `ex4d bench jobs`.

The service runs in processes of its own, as `ex4d serve` starts them, and its folder lies in the folder for temporary
files. The clip is small, so that the service and the wire are measured, and not the images.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import numpy as np

from bench.measuring import Row
from bench.views import write_scene
from ex4d.raster.speed import synthetic_camera
from ex4d.service.local_service import local_service
from ex4d_core.client import Client
from ex4d_core.messages import Hello
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene
from ex4d_core.shot import ShotRequest
from ex4d_core.transfers import Sent, upload_blobs

_CLIP = (8, 128, 128)
_TAKES = 30
_GREETINGS = 200
_UPLOAD_BYTES = 64 << 20
_UPLOADS = 5
_TIMEOUT_SECONDS = 180.0


def measure_jobs() -> Iterator[Row]:
    """Rows for a service on this machine's devices."""
    with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as name:
        folder = Path(name)
        scene = write_scene(folder / "clip", *_CLIP)
        with (
            local_service(folder / "service", "--device", "cpu") as service,
            closing(Client(service.address)) as client,
        ):
            service.wait_until_ready()
            greetings = [_seconds(client, Hello("bench")) for _ in range(_GREETINGS)]
            yield _row("Hello", greetings)
            _take(client, scene, folder / "first")  # uploads the scene, and warms the worker up
            takes = [_take(client, scene, folder / f"{number}") for number in range(_TAKES)]
            for what, times in zip(("submit", "first frame", "end of the job"), zip(*takes, strict=True), strict=True):
                yield _row(f"{what}, {_CLIP[0]} frames of {_CLIP[1]}x{_CLIP[2]}", list(times))
            uploads = [_upload(client) for _ in range(_UPLOADS)]
            rate = f"{_UPLOAD_BYTES / np.median(uploads) / 1e6:.0f} MB/s"
            yield Row(f"upload of {_UPLOAD_BYTES >> 20} MiB", rate, f"median of {_UPLOADS}, on disk and verified")


def _row(what: str, seconds: list[float]) -> Row:
    remark = f"median of {len(seconds)}; least {1000 * min(seconds):.2f} ms, most {1000 * max(seconds):.1f} ms"
    return Row(what, f"{1000 * np.median(seconds):.2f} ms", remark)


def _seconds(client: Client, question: Hello) -> float:
    started = time.perf_counter()
    client.ask(question, timeout=_TIMEOUT_SECONDS)
    return time.perf_counter() - started


def _take(client: Client, scene: Scene, folder: Path) -> tuple[float, float, float]:
    """Seconds until a take has the backend's name, until its first frame is in its file, and until all is over."""
    request = ShotRequest(scene.digest, synthetic_camera(*_CLIP, 10))
    take = RemoteTake(folder, request=request, scene=scene)
    started, named, first = time.perf_counter(), 0.0, 0.0
    while not take.over:
        take.advance(client)
        client.wait()
        now = time.perf_counter() - started
        named = named or (now if take.job else 0.0)
        first = first or (now if take.frames else 0.0)
    if take.error or not first:
        raise take.error or RuntimeError(f"the take ended without frames: {take.reason}")
    return named, first, time.perf_counter() - started


def _upload(client: Client) -> float:
    data = os.urandom(_UPLOAD_BYTES)
    name = sha256(data).hexdigest()
    started = time.perf_counter()
    client.run(upload_blobs({name: data}, Sent()), timeout=_TIMEOUT_SECONDS)
    return time.perf_counter() - started

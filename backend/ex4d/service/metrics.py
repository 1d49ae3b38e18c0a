"""`Metrics`: what a service does, counted and timed for Prometheus, on an HTTP port of its own.

The loop tells of jobs that have changed and of bytes; what is true at the moment (jobs by state, disk, GPU memory) is
looked up when somebody asks, in the thread that answers. Labels are names of users, engines, stages and devices, all
of them few.
"""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from ex4d.service.job_store import JobStore
from ex4d.service.processes import ChildProcess
from ex4d.service.pruning import stores_of
from ex4d.service.settings import ServiceError, ServiceSettings, host_and_port
from ex4d_core.job_status import FINAL_STATES, JOB_STATES, JobStatus
from ex4d_core.stages import StageDetails

# From a moment to a working day.
_WAIT_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 8 * 3600)
# A driver that hangs must not keep Prometheus waiting for long.
_GPU_SECONDS = 5.0
# Walking through a million files takes seconds.
_STORED_EVERY = 60.0
_GPU_EVERY = 5.0
_MAX_EVENTS = 10_000
# Jobs whose end is remembered, so that it counts once: the worker of a cancelled one tells of it again.
_MAX_ENDED = 10_000
# Whoever reaches the port, which has no keys, must not take the service's threads and files.
_MAX_CONNECTIONS = 16
_CONNECTION_SECONDS = 10.0
_COUNTED = "SELECT owner, state, count(*), min(created) FROM jobs GROUP BY owner, state"

Result = TypeVar("Result")


@dataclass
class _Seen:
    """What is known of a job that runs.

    Attributes:
        stage: its stage, since a monotonic time.
        events: the number of its newest event.
    """

    stage: str
    since: float
    events: int


class Metrics:
    """The numbers of a service; its methods are for the service's loop only."""

    def __init__(
        self,
        settings: ServiceSettings,
        store: JobStore,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ):
        """Without counts.

        Args:
            settings: of the service.
            store: the loop's own connection.
            clock: seconds since any moment, without jumps.
            wall_clock: seconds since 1970.
        """
        self._store, self._clock, self._wall_clock = store, clock, wall_clock
        self.registry = registry = CollectorRegistry()
        self._seen: dict[str, _Seen] = {}
        self._over: dict[str, None] = {}
        self._waits = Histogram(
            "ex4d_wait_seconds",
            "From a job's submission until a worker takes it up",
            ["engine"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self._ended = Counter("ex4d_jobs_ended", "Jobs that have ended", ["engine", "state"], registry=registry)
        self._stages = Counter("ex4d_stage_seconds", "Time in stages of jobs", ["engine", "stage"], registry=registry)
        self._frames = Counter("ex4d_frames", "Frames that are finished", ["engine"], registry=registry)
        self._bytes = Counter("ex4d_bytes", "Bytes of files sent and fetched", ["user", "direction"], registry=registry)
        registry.register(_Present(settings))
        ProcessCollector(namespace="ex4d", registry=registry)

    def job_changed(self, job: str) -> None:
        """Note that a job may have another state, stage or frame."""
        status = self._store.status(job)
        if status is None:
            self._seen.pop(job, None)
            return
        now, seen = self._clock(), self._seen.get(job)
        if seen is None and status.state == "running":
            seen = self._seen[job] = _Seen("", now, status.events if status.attempt > 1 else 0)
            if status.attempt == 1:
                self._waits.labels(status.engine).observe(max(self._wall_clock() - status.created, 0.0))
        if seen:
            self._count(seen, status, now)
        if status.state != "running":
            self._seen.pop(job, None)
        if status.state in FINAL_STATES and job not in self._over:
            self._over[job] = None
            if len(self._over) > _MAX_ENDED:
                del self._over[next(iter(self._over))]
            self._ended.labels(status.engine, status.state).inc()

    def _count(self, seen: _Seen, status: JobStatus, now: float) -> None:
        if seen.stage:
            self._stages.labels(status.engine, seen.stage).inc(now - seen.since)
        seen.stage, seen.since = StageDetails.of(status.stage).name, now
        if status.events > seen.events:
            events = self._store.events(status.job, seen.events, _MAX_EVENTS)
            self._frames.labels(status.engine).inc(sum(event.kind == "frame" for event in events))
            seen.events = status.events

    def counted(self, event: str, user: str, amounts: dict[str, int]) -> None:
        """Note bytes of files, as the audit log does; see `ex4d.service.audit.Audit.count`."""
        if event in ("upload", "fetch"):
            self._bytes.labels(user, event).inc(amounts.get("bytes", 0))

    def serve(self, address: str) -> tuple[int, Callable[[], None]]:
        """Answer Prometheus on ``HOST:PORT`` from now on; returns the port, and what ends it.

        Raises:
            ServiceError: the address is in use, or is none of this machine.
        """
        host, port = host_and_port(address)
        try:
            server = make_server(host, port, make_wsgi_app(self.registry), _server_for(host), _Handler)
        except OSError as error:
            raise ServiceError(f"--metrics: cannot listen on {address}: {error}; choose another port") from error

        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return server.server_port, stop


class _Handler(WSGIRequestHandler):
    """Answers one request, unless its client is silent for too long."""

    timeout = _CONNECTION_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class _Server(ThreadingWSGIServer):
    """Serves some connections at a time, and closes any more."""

    def __init__(self, *args: Any):
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that are silent, or gone."""


def _server_for(host: str) -> type[_Server]:
    """The server for a host's kind of address.

    Raises:
        OSError: there is no such host.
    """
    family, *_ = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    return type("_FamilyServer", (_Server,), {"address_family": family})


class _Present(Collector):
    """What is true when somebody asks; each answer in a thread of its own."""

    def __init__(self, settings: ServiceSettings):
        self._settings = settings
        self._stored = _Kept(self._stored_bytes, _STORED_EVERY)
        self._gpus = _Kept(gpu_memory, _GPU_EVERY)

    def describe(self) -> list[Metric]:
        """Nothing, so that registering looks nothing up."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Jobs, disk, GPUs and processes."""
        yield from self._jobs()
        disk = GaugeMetricFamily("ex4d_disk_bytes", "The disk of the data folder", labels=["kind"])
        usage = shutil.disk_usage(self._settings.data)
        for kind in ("total", "free"):
            disk.add_metric([kind], getattr(usage, kind))
        yield disk
        stored = GaugeMetricFamily("ex4d_stored_bytes", "Footage, results and uploads of each user", labels=["user"])
        for user, size in self._stored.value().items():
            stored.add_metric([user], size)
        yield stored
        memory = GaugeMetricFamily("ex4d_gpu_memory_bytes", "Memory of the GPUs", labels=["gpu", "kind"])
        for gpu, used, total in self._gpus.value():
            memory.add_metric([gpu, "used"], used)
            memory.add_metric([gpu, "total"], total)
        yield memory
        starts = CounterMetricFamily("ex4d_process_starts", "Starts of the service's processes", labels=["process"])
        for module, count in ChildProcess.started.items():
            starts.add_metric([module.rpartition(".")[2]], count)
        yield starts

    def _jobs(self) -> Iterator[Metric]:
        """Read in a connection that cannot write, since the service must not wait for this one."""
        rows: list[tuple[str, str, int, float]] = []
        readable = True
        try:
            with closing(sqlite3.connect(f"{self._settings.database.as_uri()}?mode=ro", uri=True, timeout=1)) as db:
                rows = db.execute(_COUNTED).fetchall()
        except sqlite3.Error:
            readable = False
        yield GaugeMetricFamily("ex4d_job_database_readable", "Whether jobs could be counted", value=int(readable))
        jobs = GaugeMetricFamily("ex4d_jobs", "Jobs that the service remembers", labels=["user", "state"])
        oldest = GaugeMetricFamily("ex4d_oldest_queued_seconds", "Age of the oldest queued job", labels=["user"])
        counts = {(owner, state): count for owner, state, count, _ in rows}
        for owner in sorted({owner for owner, _ in counts}):
            for state in JOB_STATES:
                jobs.add_metric([owner, state], counts.get((owner, state), 0))
        for owner, state, _, created in rows:
            if state == "queued":
                oldest.add_metric([owner], max(time.time() - created, 0.0))
        yield from (jobs, oldest)

    def _stored_bytes(self) -> dict[str, int]:
        return {user: blobs.total_bytes() for user, blobs in stores_of(self._settings).items()}


class _Kept(Generic[Result]):
    """A value that takes long to look up, and is kept for some seconds."""

    def __init__(self, look_up: Callable[[], Result], seconds: float):
        self._look_up, self._seconds = look_up, seconds
        self._lock, self._until = threading.Lock(), 0.0

    def value(self) -> Result:
        with self._lock:
            if time.monotonic() >= self._until:
                self._value = self._look_up()
                self._until = time.monotonic() + self._seconds
            return self._value


def gpu_memory() -> list[tuple[str, float, float]]:
    """The number of each GPU, and its memory in use and in all, in bytes; none without NVIDIA's driver."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=_GPU_SECONDS).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpu_memory(told)


def parse_gpu_memory(text: str) -> list[tuple[str, float, float]]:
    """The answer of nvidia-smi, in MiB; lines of GPUs that tell nothing ("[N/A]") are left out."""
    rows = [[word.strip() for word in line.split(",")] for line in text.splitlines()]
    told = [row for row in rows if len(row) == 3 and all(word.isdigit() for word in row)]
    return [(gpu, int(used) * 2.0**20, int(total) * 2.0**20) for gpu, used, total in told]

"""Starts `ex4d serve` in a process of its own on a free loopback port, for the demo and the benchmarks."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ex4d.service.settings import ServiceError
from ex4d.subprocesses import module_command, module_environment, stop_process
from ex4d_core.client import Client

# Importing torch can take minutes from a cold disk.
_READY_SECONDS = 180.0
_STOP_SECONDS = 10.0


class LocalService(NamedTuple):
    """A running service: its address, its log and its process."""

    address: str
    log: Path
    process: subprocess.Popen[bytes]

    def require_running(self) -> None:
        """Check that the process runs.

        Raises:
            ServiceError: it has ended.
        """
        if self.process.poll() is not None:
            raise ServiceError(f"the backend ended with exit code {self.process.returncode}; see its log {self.log}")

    def wait_until_ready(self) -> None:
        """Return when the first worker is ready.

        Raises:
            ServiceError: the process has ended, or takes too long.
        """
        client, deadline = Client(self.address), time.monotonic() + _READY_SECONDS
        try:
            while not (client.server and client.server.engines):
                self.require_running()
                if time.monotonic() > deadline:
                    raise ServiceError(f"the backend is not ready after {_READY_SECONDS:.0f} s; see its log {self.log}")
                client.wait()
        finally:
            client.close()


@contextmanager
def local_service(folder: Path, *options: str) -> Iterator[LocalService]:
    """A service that ends with the block.

    Args:
        folder: for its data and log; created.
        options: further words for `ex4d serve`.
    """
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    folder.mkdir(exist_ok=True)
    command = module_command("ex4d", "serve", "--address", address, "--data", str(folder), *options)
    environment = {**module_environment(), "PYTHONUNBUFFERED": "1"}
    with open(folder / "serve.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
    try:
        yield LocalService(address, folder / "serve.log", process)
    finally:
        stop_process(process, _STOP_SECONDS)

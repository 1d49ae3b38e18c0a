"""What a service is started with. The command line fills it in; every other module of this room reads it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from ex4d.devices import Devices
from ex4d.machine import MachineSettings
from ex4d_core.errors import Ex4dError
from ex4d_core.messages import DEFAULT_ADDRESS

_ADDRESS = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:/]+):(?P<port>\d{1,5})")


class ServiceError(Ex4dError, RuntimeError):
    """The service cannot start, or not like this; the message says what to do."""


def default_data_folder() -> Path:
    """Where the service keeps everything unless told otherwise."""
    return Path(platformdirs.user_data_dir("ex4d", appauthor=False)) / "service"


@dataclass(frozen=True)
class ServiceSettings:
    """How a service runs.

    Attributes:
        address: ``tcp://HOST:PORT`` to listen on; port 0 takes any free one.
        data: folder for jobs, blobs, logs and work in progress; one service at a time uses it.
        devices: one worker process each, "cpu" or "cuda:N"; "cuda:0+1" is one worker whose engine wan uses both.
        machine: weights, memory and licence of the workers and the viewer.
        hang_seconds: a worker that reports no progress for this long is stopped and replaced.
        cancel_seconds: a worker that goes on with a cancelled job for this long is stopped and replaced.
        keys: folder made by `keys.create_keys`. None: no keys on loopback, ``data/keys`` on any other address.
        cache_gb: blobs that nobody needs any more are dropped, oldest use first, above this.
        keep_days: finished jobs are remembered, and their results needed, for this long.
        reserve_mb: disk space that uploads leave free, so that jobs and their records still have room.
        runner: ``module:function`` that makes a shot, called like `ex4d.pipeline.take.generate_take`.

    Raises:
        ServiceError, DeviceError: a value that cannot work.
    """

    address: str = DEFAULT_ADDRESS
    data: Path = field(default_factory=default_data_folder)
    devices: tuple[str, ...] = ("cpu",)
    machine: MachineSettings = field(default_factory=MachineSettings.from_environment)
    hang_seconds: float = 300.0
    cancel_seconds: float = 2.0
    keys: Path | None = None
    cache_gb: float = 50.0
    keep_days: float = 30.0
    reserve_mb: float = 256.0
    runner: str = "ex4d.pipeline.take:generate_take"

    def __post_init__(self) -> None:
        match = _ADDRESS.fullmatch(self.address)
        if not match or int(match["port"]) > 65535:
            raise ServiceError(f"the address {self.address!r} is none; it looks like {DEFAULT_ADDRESS}")
        object.__setattr__(self, "data", Path(self.data).expanduser().absolute())
        if self.keys is not None:
            object.__setattr__(self, "keys", Path(self.keys).expanduser().absolute())
        object.__setattr__(self, "devices", tuple(self.devices))
        names = [name for device in self.devices for name in Devices.parse(device).names]
        if not names or {"auto", "cuda"} & set(names):
            raise ServiceError(f"devices must be cpu or cuda:N, at least one, not {', '.join(self.devices) or 'none'}")
        for name in ("hang_seconds", "cancel_seconds", "cache_gb"):
            if not getattr(self, name) > 0:
                raise ServiceError(f"{name} must be above 0, not {getattr(self, name)!r}")
        for name in ("keep_days", "reserve_mb"):
            if not getattr(self, name) >= 0:
                raise ServiceError(f"{name} must not be negative, not {getattr(self, name)!r}")
        if not re.fullmatch(r"[\w.]+:\w+", self.runner):
            raise ServiceError(f"the runner {self.runner!r} must look like module:function")

    @property
    def host(self) -> str:
        """The address's host, an IPv6 one in brackets."""
        return _ADDRESS.fullmatch(self.address)["host"]

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine can reach the address."""
        host = self.host.strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def keys_folder(self) -> Path | None:
        """Where the keys must be, or None if clients need none."""
        if self.keys is not None:
            return self.keys
        return None if self.loopback else self.data / "keys"

    @property
    def database(self) -> Path:
        return self.data / "jobs.sqlite"

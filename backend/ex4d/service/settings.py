"""`ServiceSettings`: the checked settings of a backend service, which the command line fills in."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import platformdirs

from ex4d.devices import Devices
from ex4d.machine import MachineSettings
from ex4d_core.errors import Ex4dError, RequestError
from ex4d_core.messages import DEFAULT_ADDRESS
from ex4d_core.schema import Codec, Length, Option, Range, Settings
from ex4d_core.wan_settings import WanPreset

_ADDRESS = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:/]+):(?P<port>\d{1,5})")


_CLUSTER = re.compile(r"auto|(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):\d{1,5}")
_CLIENT_NAME = re.compile(r"[\w-]{1,64}")


class ServiceError(Ex4dError):
    """The service cannot start or continue; the message says what to do."""


def is_client_name(name: str) -> bool:
    """Whether a client's key may have this name, which is also its user's, and that of a folder."""
    return bool(_CLIENT_NAME.fullmatch(name)) and name != "server"


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of ``HOST:PORT``; the host of a port alone is this machine.

    Raises:
        RequestError: it is no such address.
    """
    found = re.fullmatch(r"(?:(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):)?(\d{1,5})", address)
    if not found or int(found[2]) > 65535:
        raise RequestError(f"invalid metrics {address!r:.200}: expected HOST:PORT or a port, such as 127.0.0.1:9747")
    return (found[1] or "127.0.0.1").strip("[]"), int(found[2])


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_data_folder() -> Path:
    """Where the service keeps everything by default."""
    return Path(platformdirs.user_data_dir("ex4d", appauthor=False)) / "service"


Folder = Annotated[Path, Codec(Path, str, Path)]


@dataclass(frozen=True)
class ServiceSettings(Settings):
    """How a service runs.

    Attributes:
        address: ``tcp://HOST:PORT`` to listen on; port 0 takes any free one.
        data: folder for jobs, blobs, logs and work in progress; one service at a time uses it.
        devices: one worker process each, "cpu" or "cuda:N"; "cuda:0+1" is one worker whose engine wan uses both.
        machine: weights, memory and licence of the workers and of the live view process.
        hang_seconds: a worker that reports no progress for this long is stopped and replaced.
        cancel_seconds: a worker that continues a cancelled job for this long is stopped and replaced.
        stalled_view_seconds: a live view process that owes a result and has neither computed nor waited for a disk for
            this long is stopped or deadlocked, and replaced.
        keys: folder of `keys.create_keys`. None: no keys on loopback, ``data/keys`` on any other address.
        cache_gb: above this size footage and results that no queued or running job needs are deleted, least recently
            used first; the results of a job go together. What was used within the hour stays.
        jobs_gb: above this size of the job database the jobs that ended first are forgotten; queued and running ones
            may take as much.
        keep_days: finished jobs are forgotten after this time.
        shared: whether all holders of keys are one user, named "".
        admins: users who also list, cancel and order the jobs of the others; `ex4d.service.accounts` may name more.
        user_jobs: queued and running jobs of each user.
        user_running: jobs of each user that run at once; None for any number.
        user_gb: footage, results and uploads in progress of each user.
        user_requests: a second, of each user; any more wait.
        reserve_mb: disk space that uploads leave free, so that jobs and their records still have room.
        fetch_weights: whether clients may have weights downloaded; "auto" allows it where no keys are needed, to this
            user's own programs.
        folders: file that lists folders which clients reach, too; see `ex4d.service.shared_folders`. None for none.
        metrics: ``HOST:PORT`` on which Prometheus reads metrics, or a port of this machine; None for none.
        preload: the preset of the engine wan whose weights each worker loads before the first job asks for them.
        cluster: address of a Ray cluster whose nodes have the workers, "auto" for this machine's own; None: they are
            here, one for each device.
        cluster_cores: workers there run on the CPU, on so many cores each; None: one on each GPU.
        cluster_gpu_memory: GB of the nodes' resource ``gpu_memory_gb`` that each worker takes; 0: none.
        cluster_cache_gb: footage and scenes that a node's machine keeps; above it the least recently used go.
        cluster_idle_minutes: a worker that was idle so long leaves its node, so that an autoscaler can end that; None:
            it stays.
        cluster_shared: whether nodes that see the data folder read and write there, and are sent nothing.
        runner: ``module:function`` that generates a shot, called like `ex4d.pipeline.take.generate_take`.

    Raises:
        RequestError, DeviceError: an invalid value.
    """

    address: Annotated[str, Option("where to listen", metavar="tcp://HOST:PORT")] = DEFAULT_ADDRESS
    data: Annotated[Folder, Option("folder for jobs, blobs and keys")] = field(default_factory=default_data_folder)
    devices: tuple[str, ...] = ("cpu",)
    machine: MachineSettings = field(default_factory=MachineSettings.from_environment)
    hang_seconds: Annotated[float, Range(above=0), Option("stop a job without progress for this many seconds")] = 300.0
    cancel_seconds: Annotated[float, Range(above=0)] = 2.0
    stalled_view_seconds: Annotated[float, Range(above=0)] = 4.0
    keys: Annotated[Folder | None, Option("folder of CURVE keys; default: keys in the data folder")] = None
    cache_gb: Annotated[
        float,
        Range(above=0),
        Option("limit of unused footage and results, which are deleted above it"),
    ] = 50.0
    jobs_gb: Annotated[
        float, Range(above=0), Option("limit of the job database, which forgets the oldest finished jobs above it")
    ] = 1.0
    keep_days: Annotated[float, Range(0), Option("forget finished jobs after this many days")] = 30.0
    fetch_weights: Annotated[
        Literal["auto", "always", "never"],
        Option("whether clients may download weights to this machine; auto: only where they need no keys"),
    ] = "auto"
    reserve_mb: Annotated[float, Range(0)] = 256.0
    shared: Annotated[
        bool,
        Option("let all clients see and cancel each other's jobs, and use each other's footage; no limits for each"),
    ] = False
    admins: Annotated[
        tuple[Annotated[str, Length(64, 1)], ...],
        Option(
            "a client who also lists, cancels and orders the jobs of all others; repeatable",
            metavar="CLIENT",
            flag="--admin",
        ),
    ] = ()
    user_jobs: Annotated[
        int, Range(1), Option("limit of queued and running jobs for each user, where clients have keys")
    ] = 200
    user_running: Annotated[
        int | None, Range(1), Option("limit of jobs of each user that run at once, where clients have keys")
    ] = None
    user_gb: Annotated[
        float, Range(above=0), Option("limit of footage and results for each user, where clients have keys")
    ] = 25.0
    user_requests: Annotated[
        int, Range(1), Option("requests a second for each user, where clients have keys; any more wait")
    ] = 2000
    folders: Annotated[
        Folder | None,
        Option("TOML file that lists folders which clients reach, too, so that their files need not be sent"),
    ] = None
    metrics: Annotated[
        str | None,
        Option("where Prometheus reads metrics over HTTP; a port alone is on 127.0.0.1", metavar="[HOST:]PORT"),
    ] = None
    preload: Annotated[
        WanPreset | None, Option("load the weights of this preset of the engine wan when the service starts")
    ] = None
    cluster: Annotated[
        str | None,
        Length(256, 1),
        Option("have the workers on the nodes of this Ray cluster; auto: the one of this machine", metavar="HOST:PORT"),
    ] = None
    cluster_cores: Annotated[
        int | None, Range(1), Option("with --cluster: workers on the CPU, with so many cores each; default: a GPU each")
    ] = None
    cluster_gpu_memory: Annotated[
        float,
        Range(0),
        Option("with --cluster: GB of the nodes' resource gpu_memory_gb that each worker takes; default: none"),
    ] = 0.0
    cluster_cache_gb: Annotated[
        float, Range(above=0), Option("with --cluster: footage and scenes that a node keeps, the oldest out")
    ] = 50.0
    cluster_idle_minutes: Annotated[
        float | None,
        Range(above=0),
        Option("with --cluster: a worker that was idle so long leaves its node to Ray's autoscaler; default: it stays"),
    ] = None
    cluster_shared: bool = True
    runner: str = "ex4d.pipeline.take:generate_take"

    def __post_init__(self) -> None:
        """Check every value, and make paths absolute."""
        super().__post_init__()
        match = _ADDRESS.fullmatch(self.address)
        if not match or int(match["port"]) > 65535:
            raise RequestError(f"invalid address {self.address!r}: expected tcp://HOST:PORT, such as {DEFAULT_ADDRESS}")
        for name in ("data", "keys", "folders"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, path.expanduser().absolute())
        if not self.devices:
            raise RequestError("devices must be cpu, cuda:N or cuda:N+M, at least one")
        for device in self.devices:
            if {"auto", "cuda"} & set(Devices.parse(device).names):
                raise RequestError(f"invalid device {device!r}: expected cpu, cuda:N or cuda:N+M")
        if not re.fullmatch(r"[\w.]+:\w+", self.runner):
            raise RequestError(f"invalid runner {self.runner!r}: expected module:function")
        if self.metrics is not None:
            host_and_port(self.metrics)
        self._check_users()
        self._check_cluster()

    def _check_cluster(self) -> None:
        if self.cluster is not None and not _CLUSTER.fullmatch(self.cluster):
            raise RequestError(
                f"--cluster: invalid address {self.cluster!r}: expected HOST:PORT of the cluster's head, as 'ray "
                "start' prints it, or auto"
            )
        for one in fields(self):
            if one.name.startswith("cluster_") and self.cluster is None and getattr(self, one.name) != one.default:
                flag = "--" + one.name.replace("_", "-")
                raise RequestError(f"{flag} {getattr(self, one.name)} has no effect without --cluster; leave it out")
        if self.cluster and self.preload:
            raise RequestError(f"--preload {self.preload} has no effect with --cluster; leave it out")

    def _check_users(self) -> None:
        for name in self.admins:
            if not is_client_name(name):
                raise RequestError(f"invalid --admin {name!r}: expected the name of a client's key, such as 'anna'")
        if self.admins and not self.many_users:
            why = "--shared makes all clients one user" if self.shared else "without keys there is one user"
            raise RequestError(f"--admin {self.admins[0]} has no effect, since {why}; leave it out")

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine can reach the address."""
        return is_loopback(self.address.removeprefix("tcp://").rpartition(":")[0].strip("[]"))

    @property
    def keys_folder(self) -> Path | None:
        """The folder that must hold keys, or None if clients need none."""
        if self.keys is not None:
            return self.keys
        return None if self.loopback else self.data / "keys"

    @property
    def many_users(self) -> bool:
        """Whether each key is a user of its own; otherwise there is one, named ""."""
        return self.keys_folder is not None and not self.shared

    @property
    def weights_allowed(self) -> bool:
        """Whether clients may have weights downloaded."""
        return self.keys_folder is None if self.fetch_weights == "auto" else self.fetch_weights == "always"

    @property
    def database(self) -> Path:
        """The file of the job database."""
        return self.data / "jobs.sqlite"

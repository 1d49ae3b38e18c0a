"""What the driver of a cluster and its workers on the nodes send each other through Ray: plain, frozen values.

Nothing from a client's wire is among them but requests that the service has checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class VersionError(Exception):
    """A node has another version of ex4d than the service."""


@dataclass(frozen=True)
class Greeting:
    """What a worker says of itself before anything else is asked of it.

    Attributes:
        version: of its ex4d.
        node: address of its node.
        node_id: Ray's id of it.
        device: as `ex4d.devices.Devices` takes it, on its node.
        model: of the processor or GPU; equal ones compute equal images.
    """

    version: str
    node: str
    node_id: str
    device: str
    model: str

    def require_version(self, version: str) -> None:
        """Raise `VersionError` unless this is the service's."""
        if self.version != version:
            raise VersionError(
                f"has ex4d {self.version}, and the service {version}: install ex4d=={version} on node {self.node} with "
                "the Python that runs Ray there, and restart Ray"
            )


@dataclass(frozen=True)
class WorkerSettings:
    """What the service decides for its workers on the nodes.

    Attributes:
        runner: as in `ServiceSettings`.
        machine: of the service, as JSON; folders that a node does not have are the node's own.
        cache_gb: see `ServiceSettings.cluster_cache_gb`.
    """

    runner: str
    machine: str
    cache_gb: float


@dataclass(frozen=True)
class JobOrder:
    """A job, or a part of one.

    Attributes:
        name: unique for each attempt.
        request: a checked shot or reconstruction, in the wire's form.
        inputs: SHA-256 and bytes of every file that it reads.
        folder: of the service, for files on their way; the worker uses it if it sees ``mark`` there.
        blobs: of the owner, likewise.
        mark: name and content of a file in ``folder``; "" where nothing is shared.
        ranges: first frames of the ranges that are rendered apart, and the frames' number; () for all at once.
        finished: SHA-256 of the first frames of a final, which an earlier attempt has made; they are ``inputs``, too.
        state: of the service, its file with the engine's state for a final that continues; "" for other jobs.
    """

    name: str
    request: dict[str, Any]
    inputs: tuple[tuple[str, int], ...]
    folder: str
    blobs: str
    mark: str = ""
    ranges: tuple[int, ...] = ()
    finished: tuple[str, ...] = ()
    state: str = ""


@dataclass(frozen=True)
class Progressed:
    """See `ex4d.pipeline.take.TakeSink.progress`."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Delivered:
    """A frame, estimate, file or engine's state is finished; its `Piece`s follow, unless the driver sees it itself.

    Attributes:
        kind: "frame", "estimate", "file" or "state".
        number: of a frame or estimate; -1 otherwise.
        name: of the file in the job's folder.
        take_name: of a file of the take, "" otherwise.
        sha256: of its content where that is known.
        size: bytes that follow; -1 where the driver sees the file.
    """

    kind: str
    number: int
    name: str
    take_name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Piece:
    """The next bytes of what was delivered last."""

    data: bytes


@dataclass(frozen=True)
class Wanted:
    """The worker needs a range of rendered frames next, by its number."""

    number: int


@dataclass(frozen=True)
class Failed:
    """The job failed; see `ex4d.service.refusals.Refusal`."""

    code: str
    text: str

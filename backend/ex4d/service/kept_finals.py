"""What a final has finished when its worker dies: the next attempt, by any worker, continues behind its last window.

    kept/JOB-VERSION.pt     what the engine needs of the finished windows (see `ex4d.generation.EngineState`)

The finished frames are results in the job store. Both are on disk before the next window begins, the frames first. The
file goes when its job ends; those of ended jobs and of other versions go with it, and the oldest above a limit.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ex4d.service.blob_store import BlobStore
from ex4d.service.job_queries import JobQueries
from ex4d_core import __version__
from ex4d_core.job_status import FINAL_STATES
from ex4d_core.reconstruction import AnyRequest
from ex4d_core.shot import ShotRequest

log = logging.getLogger(__name__)

# Of all jobs. One of 832x480 takes about 0.1 GB; without it a job starts again at its first window.
_MOST_BYTES = 8e9
_EVENTS_AT_A_TIME = 10_000


@dataclass(frozen=True)
class KeptFinal:
    """What there is of a final.

    Attributes:
        frames: SHA-256 of the first frames, all whole, up to the first one that is missing.
        state: file of the engine's state; it need not exist yet.
    """

    frames: tuple[str, ...]
    state: Path


def kept_final(store: JobQueries, blobs: BlobStore, data: Path, job: str, request: AnyRequest) -> KeptFinal | None:
    """What earlier attempts have left of a job; None for jobs that always start at their beginning.

    Args:
        blobs: of the job's owner.
        data: the service's folder.
    """
    if not isinstance(request, ShotRequest) or request.engine != "wan":
        return None
    folder = data / "kept"
    folder.mkdir(exist_ok=True)
    state = folder / f"{job}-{__version__}.pt"
    output = request.output
    if output.is_deep and not output.is_sequence:  # a movie of more than 8 bits is made in one go
        return KeptFinal((), state)
    frames, files = _results(store, job)
    images, whole = request.deep_files, []
    for index in range(len(request.camera)):
        sha256 = frames.get(index, "")
        if not sha256 or (images and images[index] not in files) or not blobs.verify(sha256):
            break
        whole.append(sha256)
    return KeptFinal(tuple(whole), state)


def engine_options(
    frames: Sequence[Path], earlier: Path, work_folder: Path, keep: Callable[[Path], None]
) -> dict[str, Any]:
    """Arguments of `ex4d.pipeline.take.generate_take` that continue a final.

    Args:
        frames: files of the finished frames.
        earlier: file of the engine's state, which need not exist.
        work_folder: of the job.
        keep: takes the file of each new state away.
    """
    # Imported here, since a service without torch has jobs, too.
    from ex4d.generation import EngineState

    class HandedOverState(EngineState):
        """Loads what an earlier attempt has left, and hands over what it saves."""

        def save(self, values: Mapping[str, Any]) -> None:
            saved = EngineState(work_folder / "engine.pt")
            saved.save(values)
            keep(saved.path)

    return {"finished": frames, "state": HandedOverState(earlier)}


def drop_kept(data: Path, store: JobQueries, most_bytes: float = _MOST_BYTES) -> None:
    """Delete what was kept of jobs that have ended or are gone, or by other versions, and the oldest above a limit.

    Args:
        data: the service's folder.
        most_bytes: that stay, of all jobs.
    """
    folder = data / "kept"
    if not folder.is_dir():
        return
    left = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another has deleted it, or Windows has it open
            job, _, version = path.stem.partition("-")
            status = store.status(job)
            if version != __version__ or status is None or status.state in FINAL_STATES:
                path.unlink()
            else:
                left.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    total = 0
    for _, size, path in sorted(left, reverse=True):
        total += size
        if total > most_bytes:
            log.warning("deleted %s, since %.1f GB are kept of unfinished finals", path, most_bytes / 1e9)
            path.unlink(missing_ok=True)


def _results(store: JobQueries, job: str) -> tuple[dict[int, str], set[str]]:
    """SHA-256 of a job's frames by their index, and the names of its files."""
    frames: dict[int, str] = {}
    files: set[str] = set()
    after = 0
    while events := store.events(job, after, _EVENTS_AT_A_TIME):
        frames |= {event.index: event.sha256 for event in events if event.kind == "frame"}
        files |= {event.name for event in events if event.kind == "file"}
        after = events[-1].number
    return frames, files

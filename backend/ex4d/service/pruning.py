"""Prunes a data folder: forgets jobs that ended long ago and deletes blobs that nothing needs.

A service prunes by itself, `ex4d jobs --prune` on request; also while a service uses the folder.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

from ex4d.service.blob_store import BlobStore
from ex4d.service.corrupt_database import corruption_reported
from ex4d.service.job_store import JobStore
from ex4d.service.settings import ServiceError, ServiceSettings

_DAY_SECONDS = 86_400.0
# A client may be about to hear of a job that ended a moment ago.
_LEAST_SECONDS = 3600.0


@dataclass(frozen=True)
class Pruned:
    """The number of jobs forgotten, and of bytes of blobs deleted."""

    jobs: int
    bytes: int


def prune_to_limits(settings: ServiceSettings) -> Pruned:
    """Forget jobs after ``keep_days`` and keep the blobs within ``cache_gb``, as a service does from time to time."""
    return _prune(settings, settings.keep_days, settings.cache_gb * 1e9, 0.0)


def prune(settings: ServiceSettings, days: float) -> Pruned:
    """Forget every job that ended more than ``days`` days ago, an hour at least, and every blob unused for as long.

    Raises:
        ServiceError: the folder has no service's data, or its job database is corrupt.
    """
    if not settings.database.is_file():
        raise ServiceError(f"{settings.data} has no jobs; give the data folder of 'ex4d serve' with --data")
    return _prune(settings, days, 0.0, days * _DAY_SECONDS)


def prunable(settings: ServiceSettings, days: float) -> Pruned:
    """What `prune` would forget and delete; nothing where the folder has no service's data.

    Raises:
        ServiceError: its job database is corrupt.
    """
    if not settings.database.is_file():
        return Pruned(0, 0)
    before = _ended_before(days)
    with corruption_reported(settings.database), closing(JobStore(settings.database)) as store:
        jobs, needed = store.forgettable(ended_before=before), store.needed_blobs(finished_since=before)
    blobs = BlobStore(settings.data).unneeded(needed, days * _DAY_SECONDS)
    return Pruned(jobs, sum(size for size, _ in blobs))


def _ended_before(days: float) -> float:
    return time.time() - max(days * _DAY_SECONDS, _LEAST_SECONDS)


def _prune(settings: ServiceSettings, days: float, limit_bytes: float, unused_seconds: float) -> Pruned:
    before = _ended_before(days)
    with corruption_reported(settings.database), closing(JobStore(settings.database)) as store:
        jobs = store.forget(ended_before=before)
        needed = store.needed_blobs(finished_since=before)
    return Pruned(jobs, BlobStore(settings.data).drop_unneeded(limit_bytes, needed, unused_seconds))

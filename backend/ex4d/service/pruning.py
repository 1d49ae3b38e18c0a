"""Forgetting jobs that ended long ago, and blobs that nobody needs: a service does so by itself, `ex4d jobs` when told.

Database and blobs may be in use by a service meanwhile: each is changed only as a running service could change it.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

from ex4d.service.blob_store import BlobStore
from ex4d.service.damage import damage_explained
from ex4d.service.job_store import JobStore
from ex4d.service.settings import ServiceError, ServiceSettings

_DAY_SECONDS = 86_400.0
# A job that ended a moment ago may be about to be told to its client.
_LEAST_SECONDS = 3600.0


@dataclass(frozen=True)
class Pruned:
    """What is gone: jobs, and bytes of blobs."""

    jobs: int
    bytes: int


def keep_in_bounds(settings: ServiceSettings) -> Pruned:
    """What a service does from time to time: forget jobs after ``keep_days``, keep its blobs within ``cache_gb``."""
    return _prune(settings, settings.keep_days, settings.cache_gb * 1e9, 0.0)


def prune(settings: ServiceSettings, days: float) -> Pruned:
    """Forget every job that ended more than ``days`` days ago, an hour at least, and every blob not used for as long.

    Raises:
        ServiceError: there is no service's data in the folder, or its job database is damaged.
    """
    if not settings.database.is_file():
        raise ServiceError(f"{settings.data} holds no jobs; name the folder of 'ex4d serve' with --data")
    return _prune(settings, days, 0.0, days * _DAY_SECONDS)


def _prune(settings: ServiceSettings, days: float, limit_bytes: float, unused_seconds: float) -> Pruned:
    before = time.time() - max(days * _DAY_SECONDS, _LEAST_SECONDS)
    with damage_explained(settings.database), closing(JobStore(settings.database)) as store:
        jobs = store.forget(ended_before=before)
        needed = store.needed_blobs(finished_since=before)
    return Pruned(jobs, BlobStore(settings.data).drop_unneeded(limit_bytes, needed, unused_seconds))

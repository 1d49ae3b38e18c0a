"""Prunes a data folder: forgets jobs that ended long ago and deletes blobs that nothing needs.

A service prunes by itself (`Tidying`), `ex4d jobs --prune` on request; also while a service uses the folder.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass

from ex4d.service.accounts import Accounts
from ex4d.service.blob_store import BlobStore
from ex4d.service.corrupt_database import corruption_reported
from ex4d.service.job_store import JobStore
from ex4d.service.settings import ServiceError, ServiceSettings
from ex4d.service.users import user_folder, user_names

_DAY_SECONDS = 86_400.0
# Jobs that are forgotten at once until the database is within its limit.
_JOBS_PER_STEP = 10
# A full database is emptied to this share of its limit; to just the limit, every further job would need a tidying.
_SHARE_LEFT = 0.9
# A client may be about to hear of a job that ended a moment ago.
_LEAST_SECONDS = 3600.0
# A machine without a battery for its clock starts with a wrong time, which the network corrects within minutes.
_TRUST_CLOCK_SECONDS = 3600.0


@dataclass(frozen=True)
class Pruned:
    """The number of jobs forgotten, and of bytes of blobs deleted."""

    jobs: int
    bytes: int


@dataclass(frozen=True)
class Used:
    """Bytes that a data folder takes, and their limits."""

    blobs: int
    jobs: int
    blobs_limit: float
    jobs_limit: float

    def __str__(self) -> str:
        return (
            f"footage and results take {self.blobs / 1e9:.2f} GB (limit {self.blobs_limit / 1e9:g} GB, --cache-gb), "
            f"the job database {self.jobs / 1e9:.3f} GB (limit {self.jobs_limit / 1e9:g} GB, --jobs-gb)"
        )


def used(settings: ServiceSettings) -> Used:
    """What a data folder takes now; nothing where there is none."""
    limits = settings.cache_gb * 1e9, settings.jobs_gb * 1e9
    if not settings.database.is_file():
        return Used(0, 0, *limits)
    log = settings.database.with_name(f"{settings.database.name}-wal")
    jobs = sum(path.stat().st_size for path in (settings.database, log) if path.exists())
    return Used(sum(blobs.total_bytes() for blobs in stores_of(settings).values()), jobs, *limits)


def stores_of(settings: ServiceSettings) -> dict[str, BlobStore]:
    """The blobs of each user."""
    return {user: BlobStore(user_folder(settings.data, user)) for user in user_names(settings.data)}


class Tidying:
    """Keeps a running service's folder within its limits; jobs that ended first go first.

    Where all users together have too much, those give who have more than an equal level, down to it, so that nobody
    loses footage to another's hunger.

    A clock that is wrong for a moment must not cost anybody's results. So a job of before this service is forgotten by
    its age only if the clock, and the clock of the start plus the time since, both say so; and a job that ended since,
    if it is old enough by the time since alone.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        wall_clock: Callable[[], float] = time.time,
        steady_clock: Callable[[], float] = time.monotonic,
    ):
        """Begin with the service.

        Args:
            settings: of the service.
            wall_clock: the time in seconds since 1970, which may jump.
            steady_clock: seconds since any moment, without jumps.

        Raises:
            ServiceError: the accounts cannot be read.
        """
        self._settings, self._wall_clock, self._steady_clock = settings, wall_clock, steady_clock
        self._offset, self._began = wall_clock() - steady_clock(), steady_clock()
        self._accounts = Accounts(settings)
        with closing(JobStore(settings.database)) as store:
            self._ended_before = store.ends()
        # How many jobs had ended at which steady time, the oldest first.
        self._marks = deque([(self._began, self._ended_before)])

    def run(self) -> Pruned:
        """Forget and delete what is over the limits; for a thread, since it may take long."""
        settings, steady = self._settings, self._steady_clock()
        clocks = self._wall_clock(), self._offset + steady
        with corruption_reported(settings.database), closing(JobStore(settings.database)) as store:
            jobs = self._forget_old(store, steady, min(clocks))
            limit = settings.jobs_gb * 1e9
            if store.used_bytes() > limit:
                limit *= _SHARE_LEFT
                jobs += store.forget_while(lambda: store.used_bytes() > limit, _JOBS_PER_STEP)
            store.shrink()
            stores, freed = stores_of(settings), 0
            if steady - self._began >= _TRUST_CLOCK_SECONDS:
                freed += sum(blobs.drop_abandoned(clocks) for blobs in stores.values())
            sizes = {user: blobs.total_bytes() for user, blobs in stores.items()}
            level = _level(sizes.values(), settings.cache_gb * 1e9)
            # A file that somebody is editing must not end the tidying.
            self._accounts.refresh()
            for user, blobs in stores.items():
                most = min(level, self._accounts.bytes(user))
                if sizes[user] > most:
                    freed += _drop(blobs, store, user, most, clocks)
        return Pruned(jobs, freed)

    def tidy_user(self, user: str, most: float, aim: float) -> int:
        """Where a user's blobs take more than ``most`` bytes, delete unneeded ones until they take ``aim`` at most.

        For a thread, since it may take long; also while `run` runs.

        Returns:
            The bytes that they take then.
        """
        settings, clocks = self._settings, (self._wall_clock(), self._offset + self._steady_clock())
        blobs = BlobStore(user_folder(settings.data, user))
        if blobs.total_bytes() > most:
            with corruption_reported(settings.database), closing(JobStore(settings.database)) as store:
                _drop(blobs, store, user, aim, clocks)
        return blobs.total_bytes()

    def _forget_old(self, store: JobStore, steady: float, now: float) -> int:
        self._marks.append((steady, store.ends()))
        keep = max(self._settings.keep_days * _DAY_SECONDS, _LEAST_SECONDS)
        old = None
        while self._marks and self._marks[0][0] <= steady - keep:
            old = self._marks.popleft()
        jobs = 0
        if old:
            self._marks.appendleft(old)
            jobs = store.forget(up_to=old[1])
        if steady - self._began >= _TRUST_CLOCK_SECONDS:
            jobs += store.forget(ended_before=now - keep, up_to=self._ended_before)
        return jobs


def _drop(blobs: BlobStore, store: JobStore, user: str, limit: float, clocks: tuple[float, ...]) -> int:
    """Delete what a user does not need, down to a limit; returns the bytes freed."""
    needed, groups = store.needed_blobs(owner=user), store.results(user)
    return blobs.drop_unneeded(limit, needed, groups=groups, clocks=clocks)


def _level(sizes: Iterable[float], total: float) -> float:
    """The level that takes what is above it from each of some sizes so that ``total`` is left; infinite if they fit."""
    left = sorted(sizes)
    while left and left[0] * len(left) <= total:
        total -= left.pop(0)
    return total / len(left) if left else float("inf")


def prune(settings: ServiceSettings, days: float) -> Pruned:
    """Forget every job that ended more than ``days`` days ago, an hour at least, and every blob unused for as long.

    Raises:
        ServiceError: the folder has no service's data, or its job database is corrupt.
    """
    if not settings.database.is_file():
        raise ServiceError(f"{settings.data} has no jobs; give the data folder of 'ex4d serve' with --data")
    before = _ended_before(days)
    with corruption_reported(settings.database), closing(JobStore(settings.database)) as store:
        jobs = store.forget(ended_before=before)
        store.shrink()
        stores = stores_of(settings)
        needed = {user: store.needed_blobs(finished_since=before, owner=user) for user in stores}
    unused = days * _DAY_SECONDS
    return Pruned(jobs, sum(blobs.drop_unneeded(0.0, needed[user], unused) for user, blobs in stores.items()))


def prunable(settings: ServiceSettings, days: float) -> Pruned:
    """What `prune` would forget and delete; nothing where the folder has no service's data.

    Raises:
        ServiceError: its job database is corrupt.
    """
    if not settings.database.is_file():
        return Pruned(0, 0)
    before = _ended_before(days)
    with corruption_reported(settings.database), closing(JobStore(settings.database)) as store:
        jobs, stores = store.forgettable(ended_before=before), stores_of(settings)
        needed = {user: store.needed_blobs(finished_since=before, owner=user) for user in stores}
    unused = days * _DAY_SECONDS
    found = [size for user, blobs in stores.items() for size, _ in blobs.unneeded(needed[user], unused)]
    return Pruned(jobs, sum(found))


def _ended_before(days: float) -> float:
    return time.time() - max(days * _DAY_SECONDS, _LEAST_SECONDS)

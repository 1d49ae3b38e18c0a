"""The service as a whole: `run_service` puts front, workers and stores together, and takes them apart again."""

from __future__ import annotations

import errno
import logging
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import zmq

from ex4d.service.blob_store import BlobStore
from ex4d.service.damage import damage_explained
from ex4d.service.folder_lock import locked
from ex4d.service.front import Front, bind_router
from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore
from ex4d.service.keys import check_keys, require_keys
from ex4d.service.pruning import Pruned, keep_in_bounds
from ex4d.service.settings import ServiceError, ServiceSettings
from ex4d.service.uploads import Uploads
from ex4d.service.views import Views
from ex4d.service.workers import Workers

log = logging.getLogger(__name__)

_CLEAN_SECONDS = 600.0
# After a write failed for want of disk space, say.
_RETRY_SECONDS = 1.0


def run_service(settings: ServiceSettings) -> int:
    """Serve until SIGTERM or SIGINT; to be called in the main thread.

    Jobs that run at the end are queued again, and go on when the service is started again.

    Returns:
        0, the exit code of an orderly end.

    Raises:
        ServiceError: it cannot start: folder or port in use, no keys where they are needed, a foreign database; or
            it cannot go on, since the job database is damaged.
    """
    if settings.keys_folder:
        check_keys(settings.keys_folder)
    with damage_explained(settings.database), ExitStack() as stack:
        _make_folder(settings.data)
        stack.enter_context(locked(settings.data))
        store = JobStore(settings.database)
        stack.callback(store.close)
        store.check()
        blobs = BlobStore(settings.data)
        inbox = Inbox()
        stack.callback(inbox.close)
        uploads = Uploads(blobs, inbox, settings.reserve_mb * 1e6)
        stack.callback(uploads.close)
        socket, address = stack.enter_context(_listening(settings))

        for job in store.requeue_running(count_attempt=True):
            log.info("job %s was interrupted and is queued again", job)
        views = Views(settings, inbox)
        stack.callback(views.stop)
        front = Front(socket, store, blobs, uploads, views)
        workers = front.workers = Workers(settings, store, inbox, front.job_changed)
        stack.callback(workers.stop)
        stop = stack.enter_context(_stopped_by_signals(inbox))
        workers.tick()
        log.info("listening on %s", address)
        _loop(settings, front, workers, views, inbox, socket, stop)

        log.info("stopping")
        workers.stop()
        for job in store.requeue_running(count_attempt=False):
            log.info("job %s is queued again for the next start", job)
    return 0


def _make_folder(folder: Path) -> None:
    try:
        # Footage is nobody else's business.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ServiceError(f"cannot use the data folder {folder}: {error.strerror}; choose another") from error


def _loop(
    settings: ServiceSettings,
    front: Front,
    workers: Workers,
    views: Views,
    inbox: Inbox,
    socket: zmq.Socket,
    stop: threading.Event,
) -> None:
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(inbox.alarm, zmq.POLLIN)
    clean_at = time.monotonic()
    more = False
    told = ""
    while not stop.is_set():
        if time.monotonic() >= clean_at:
            clean_at = time.monotonic() + _CLEAN_SECONDS
            inbox.aside(partial(keep_in_bounds, settings), _cleaned)
        try:
            inbox.deliver()
            pause = min(front.tick(), workers.tick(), views.tick(), clean_at - time.monotonic())
            told = ""
        except (sqlite3.OperationalError, OSError) as error:
            if str(error) != told:  # once, and not every second of a night with a full disk
                log.error("the service cannot go on: %s; trying again every second", error)
            pause, told = _RETRY_SECONDS, str(error)
            # A worker's word may have been lost in this; there may be work for it.
            workers.wake()
        poller.poll(0 if more else max(pause, 0.0) * 1000 + 1)
        more = front.serve()


@contextmanager
def _listening(settings: ServiceSettings) -> Iterator[tuple[zmq.Socket, str]]:
    with ExitStack() as stack:
        context = zmq.Context()
        stack.callback(context.term)
        socket = context.socket(zmq.ROUTER)
        stack.callback(socket.close)
        if settings.keys_folder:
            authenticator = require_keys(context, socket, settings.keys_folder)
            stack.callback(authenticator.stop)
        try:
            address = bind_router(socket, settings.address)
        except zmq.ZMQError as error:
            raise ServiceError(_bind_failure(settings.address, error)) from error
        yield socket, address


def _bind_failure(address: str, error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{address} is in use by another program, perhaps another 'ex4d serve'; stop it, or choose another port "
            "with --address"
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return f"{address} is no address of this machine; tcp://127.0.0.1:PORT and tcp://0.0.0.0:PORT always are"
    return f"cannot listen on {address}: {error.strerror}"


@contextmanager
def _stopped_by_signals(inbox: Inbox) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, waking the loop."""
    stop = threading.Event()
    before = {kind: signal.signal(kind, lambda *_: stop.set()) for kind in (signal.SIGTERM, signal.SIGINT)}
    bell = signal.set_wakeup_fd(inbox.bell.fileno(), warn_on_full_buffer=False)
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(bell)
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _cleaned(outcome: Future[Pruned]) -> None:
    error = outcome.exception()
    if error:
        log.error("cannot tidy jobs and blobs up: %s", error)
        return
    gone = outcome.result()
    if gone.jobs:
        log.info("forgot %d jobs that ended long ago", gone.jobs)
    if gone.bytes:
        log.info("dropped %.2f GB of blobs that nobody needs", gone.bytes / 1e9)

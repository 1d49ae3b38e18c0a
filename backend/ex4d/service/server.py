"""`run_service`: starts front, workers and stores, runs the service's loop, and stops them."""

from __future__ import annotations

import errno
import logging
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import zmq

from ex4d.installation import install_command
from ex4d.service.audit import Audit
from ex4d.service.cluster_places import ClusterPlaces
from ex4d.service.connections import ConnectionGuard, bind_router, raise_descriptor_limit
from ex4d.service.corrupt_database import corruption_reported
from ex4d.service.disk_room import DiskRoom
from ex4d.service.folder_lock import locked
from ex4d.service.front import Front
from ex4d.service.inbox import Inbox
from ex4d.service.job_store import JobStore
from ex4d.service.keys import check_keys, require_keys, require_token
from ex4d.service.live_views import LiveViewQueue
from ex4d.service.logs import kept_log
from ex4d.service.private_files import private_files, tighten_data
from ex4d.service.pruning import Pruned, Tidying, used
from ex4d.service.settings import ServiceError, ServiceSettings, host_and_port, is_loopback
from ex4d.service.supervision import Supervision
from ex4d.service.users import Users
from ex4d.service.waiting_front import StoppedWaiting, WaitingFront
from ex4d.service.weight_fetches import WeightFetches
from ex4d.service.worker_processes import LocalPlaces
from ex4d.service.workers import Workers
from ex4d_core.local_token import new_token, remove_token, write_token

if TYPE_CHECKING:
    from ex4d.service.metrics import Metrics

log = logging.getLogger(__name__)

_PRUNE_SECONDS = 600.0
# The loop waits so long for others who write into the job database, since all clients wait for the loop.
_PATIENCE_SECONDS = 0.05
_LAST_PATIENCE_SECONDS = 10.0
# After a write failed, on a full disk for one.
_RETRY_SECONDS = 1.0
_START_RETRY_SECONDS = 2.0


def run_service(settings: ServiceSettings) -> int:
    """Serve until SIGTERM or SIGINT; to be called in the main thread.

    Jobs that run at the end are queued again and resume at the next start.

    Returns:
        0, the exit code of an orderly end.

    Raises:
        ServiceError: it cannot start (folder or port in use, missing keys, another program's database), or it cannot
            continue, since the job database is corrupt.
    """
    if settings.keys_folder:
        check_keys(settings.keys_folder)
    with corruption_reported(settings.database), private_files(), ExitStack() as stack:
        stack.enter_context(locked(settings.data))
        tighten_data(settings.data)
        stack.enter_context(kept_log(settings.data / "logs"))
        room = DiskRoom(settings.data, settings.reserve_mb * 1e6)
        inbox = Inbox()
        stack.callback(inbox.close)
        stop = stack.enter_context(_stopped_by_signals(inbox))
        # Before anything that a full disk may prevent, so that clients are told of it.
        socket, guard, user_of, address = stack.enter_context(_listening(settings, room))
        supervision = Supervision()
        supervision.ready(f"listening on {address}")
        waiting = WaitingFront(socket, address, stop)

        def wait(reason: str) -> None:
            supervision.tick()
            waiting.wait(reason)

        try:
            store, tidying = room.keep_trying(lambda: _open_jobs(settings), wait)
            stack.callback(store.close)
            users = Users(settings, inbox, tidying.tidy_user)
            room.keep_trying(lambda: users.of(""), wait)
        except StoppedWaiting:
            return 0
        stack.callback(users.close)
        log.info("%s", used(settings))

        store.set_patience(_PATIENCE_SECONDS)
        cluster = ClusterPlaces(settings, inbox) if settings.cluster else None
        views = LiveViewQueue(settings, inbox, cluster)
        stack.callback(views.stop)
        places = cluster or LocalPlaces(settings)
        told = (lambda job: front.job_changed(job), lambda job: front.job_left(job))
        workers = Workers(settings, store, inbox, *told, places)
        logs, allowed = settings.data / "logs", settings.weights_allowed
        weights = WeightFetches(settings.machine, logs, allowed, workers.weights_elsewhere)
        stack.callback(weights.stop)
        chores = _Chores(store, tidying, users, inbox)
        metrics = _metrics(settings, store, stack)
        audit = Audit(logs, counted=metrics.counted) if metrics else Audit(logs)
        stack.callback(audit.close)
        audit.record("start", "", address=address)
        stack.callback(audit.record, "stop", "")
        front = Front(
            *(socket, store, users, views, workers, settings, inbox, weights, guard),
            tidy=chores.tidy_soon,
            user_of=user_of,
            audit=audit,
            **({"observe": metrics.job_changed} if metrics else {}),
        )
        stack.callback(workers.stop)
        log.info("listening on %s", address)
        _loop(chores, front, workers, views, inbox, supervision, socket, stop)

        log.info("stopping")
        supervision.stopping()
        workers.stop()
        store.set_patience(_LAST_PATIENCE_SECONDS)
        try:
            for job in store.requeue_running(count_attempt=False):
                log.info("queued job %s again, for the next start", job)
        except sqlite3.OperationalError as error:
            log.error("cannot record the end of the service: %s; the next start takes it for a crash", error)
    return 0


class _Chores:
    """What the loop does besides: takes over from an earlier service, and tidies from time to time in a thread."""

    def __init__(self, store: JobStore, tidying: Tidying, users: Users, inbox: Inbox):
        self._store, self._tidying, self._users, self._inbox = store, tidying, users, inbox
        self._taken_over = self._busy = False
        self._tidy_at = time.monotonic()

    def tick(self) -> float:
        """Returns the seconds until the next call is due.

        Raises:
            sqlite3.OperationalError: the jobs of an earlier service cannot be queued, on a full disk for one; no worker
                may start before.
        """
        if not self._taken_over:
            for job in self._store.requeue_running(count_attempt=True):
                status = self._store.status(job)
                assert status, "it was there a moment ago"
                log.info("job %s was interrupted, and is %s %s", job, status.state, status.reason)
            self._taken_over = True
        if time.monotonic() >= self._tidy_at and not self._busy:
            self._busy, self._tidy_at = True, time.monotonic() + _PRUNE_SECONDS
            self._inbox.run_in_thread(self._tidying.run, self._tidied, "tidying")
        return max(self._tidy_at - time.monotonic(), 0.0) if not self._busy else _PRUNE_SECONDS

    def tidy_soon(self) -> None:
        """Tidy as soon as a tidying under way is over."""
        self._tidy_at = time.monotonic()

    def _tidied(self, outcome: Future[Pruned]) -> None:
        self._busy = False
        self._users.tidied()
        _log_pruned(outcome)


def _loop(
    chores: _Chores,
    front: Front,
    workers: Workers,
    views: LiveViewQueue,
    inbox: Inbox,
    supervision: Supervision,
    socket: zmq.Socket[bytes],
    stop: threading.Event,
) -> None:
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(inbox.readable, zmq.POLLIN)
    more = False
    reported = ""
    while not stop.is_set():
        try:
            inbox.run_calls()
            pause = min(front.tick(), chores.tick(), workers.tick(), views.tick())
            reported = ""
        except (sqlite3.OperationalError, OSError) as error:
            if str(error) != reported:  # once, and not every second of a night with a full disk
                log.error("cannot continue: %s; trying again every second", error)
            pause, reported = _RETRY_SECONDS, str(error)
            # This may have lost a worker's report; there may be work for it.
            workers.wake()
        pause = min(pause, supervision.tick())
        poller.poll(0 if more else int(max(pause, 0.0) * 1000) + 1)
        more = front.serve()


def _metrics(settings: ServiceSettings, store: JobStore, stack: ExitStack) -> Metrics | None:
    """The metrics, which Prometheus can read from now on; None if nobody wants them."""
    if settings.metrics is None:
        return None
    try:
        from ex4d.service.metrics import Metrics
    except ImportError as error:
        text = f"--metrics: Python's package prometheus_client is missing ({error}); install it with"
        raise ServiceError(f"{text}: {install_command('metrics')}") from error
    metrics = Metrics(settings, store)
    port, end = metrics.serve(settings.metrics)
    stack.callback(end)
    host, _ = host_and_port(settings.metrics)
    log.info("metrics on http://%s:%d/metrics", host, port)
    if not is_loopback(host):
        log.warning("whoever reaches %s reads there who has how many jobs; keep it in your own network", host)
    return metrics


def _open_jobs(settings: ServiceSettings) -> tuple[JobStore, Tidying]:
    """Open and check the job database, and note what is in it."""
    store = JobStore(settings.database)
    try:
        store.check()
        try:
            store.make_shrinkable()
        except sqlite3.OperationalError as error:
            log.warning("the job database stays as large as it is: %s; the next start tries again", error)
        return store, Tidying(settings)
    except BaseException:
        store.close()
        raise


def _wait_for_token(reason: str) -> None:
    log.error("cannot write the token that clients need: %s; the service waits for room", reason)
    time.sleep(_START_RETRY_SECONDS)


@contextmanager
def _listening(
    settings: ServiceSettings, room: DiskRoom
) -> Iterator[tuple[zmq.Socket[bytes], ConnectionGuard, Callable[[zmq.Frame], str], str]]:
    """The socket, its guard, whose a frame is, and the address."""
    with ExitStack() as stack:
        context = zmq.Context()
        stack.callback(context.term)
        socket = context.socket(zmq.ROUTER)
        stack.callback(socket.close)
        token = new_token()
        user_of: Callable[[zmq.Frame], str] = _nobody_else
        if settings.keys_folder:
            authenticator, clients = require_keys(context, socket, settings.keys_folder)
            if settings.many_users:
                user_of = clients.name_of
        else:
            authenticator = require_token(context, socket, token)
        stack.callback(authenticator.stop)
        guard = ConnectionGuard(socket, raise_descriptor_limit(), many_users=settings.many_users)
        stack.callback(guard.close)
        try:
            address = bind_router(socket, settings.address)
        except zmq.ZMQError as error:
            raise ServiceError(_bind_failure(settings.address, error)) from error
        if not settings.keys_folder:
            # Only now: another service that listens here keeps its own.
            try:
                file = room.keep_trying(lambda: write_token(address, token), _wait_for_token)
            except OSError as error:
                text = f"cannot write the token that clients need ({error}); set EX4D_TOKENS to another folder"
                raise ServiceError(text) from error
            stack.callback(remove_token, address, token)
            log.info("clients of this user find their token in %s", file)
        yield socket, guard, user_of, address


def _nobody_else(frame: zmq.Frame) -> str:
    """The one user where there are not many."""
    return ""


def _bind_failure(address: str, error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"another program uses {address}, perhaps another 'ex4d serve'; stop it, or choose another port with "
            "--address"
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return f"{address} is not an address of this machine; give tcp://127.0.0.1:PORT or tcp://0.0.0.0:PORT"
    return f"cannot listen on {address}: {error.strerror}"


@contextmanager
def _stopped_by_signals(inbox: Inbox) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; they also wake the loop."""
    stop = threading.Event()
    before = {kind: signal.signal(kind, lambda *_: stop.set()) for kind in (signal.SIGTERM, signal.SIGINT)}
    wakeup = signal.set_wakeup_fd(inbox.wakeup.fileno(), warn_on_full_buffer=False)
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup)
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _log_pruned(outcome: Future[Pruned]) -> None:
    error = outcome.exception()
    if error:
        log.error("cannot prune jobs and blobs: %s", error)
        return
    pruned = outcome.result()
    if pruned.jobs:
        log.info("forgot %d jobs that ended long ago", pruned.jobs)
    if pruned.bytes:
        log.info("deleted %.2f GB of unneeded blobs", pruned.bytes / 1e9)

"""What one user may take of a service that others use, too: jobs, disk, requests a second, connections."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from contextlib import ExitStack, closing

import pytest
import zmq

from ex4d.service import ServiceSettings, create_keys
from ex4d.service.blob_store import BlobStore
from ex4d.service.connections import ConnectionGuard, bind_router
from ex4d.service.held_requests import HeldRequest, HeldRequests
from ex4d.service.job_store import JobStore, QueueFullError
from ex4d.service.pruning import Pruned, Tidying, prunable, prune, used
from ex4d.service.request_turns import Arrived, RequestTurns
from ex4d.service.users import user_folder
from ex4d_core.job_status import JobStatus
from ex4d_core.messages import BlobStatus, Error, Hello, ListJobs, PutBlob, Submit, Welcome

PATIENCE = 240.0
HOUR = 3600.0
USERS = ("anna", "bob", "carl", "dora")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for user in USERS:
        create_keys(folder, user)
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory, keys, service_process):
    """A service with some users and tight limits."""
    data = tmp_path_factory.mktemp("limits") / "data"
    service = service_process(data, keys=str(keys), user_jobs=2, user_gb=1e-3, user_requests=150)
    yield service
    assert service.stop() == 0


@pytest.fixture
def client_of(service, keys, connect, with_key):
    """A connection of a user."""
    return lambda user: connect(service, with_key(keys, user))


@pytest.fixture
def store(tmp_path):
    with closing(JobStore(tmp_path / "jobs.sqlite")) as store:
        yield store


def age(data, user, hours=2.0):
    """As if all files of a user had been used last so long ago."""
    before = time.time() - hours * HOUR
    for path in user_folder(data, user).rglob("*"):
        os.utime(path, (before, before))


def test_one_user_cannot_fill_the_queue(client_of, scene, shot, tmp_path):
    anna, bob = client_of("anna"), client_of("bob")
    for wire in (anna, bob):
        wire.upload_scene(scene)
    jobs = [anna.submit(shot(f"wait {tmp_path / 'go'}")) for _ in range(2)]
    refused = anna.ask(Submit("one more", shot().to_wire()))
    assert refused.code == "bad-request" and "2 of your jobs" in refused.text and "--user-jobs" in refused.text
    his = bob.submit(shot())
    anna.cancel(jobs[1])
    jobs[1] = anna.submit(shot())
    (tmp_path / "go").touch()
    assert bob.finish(his)[0].state == "done" and all(anna.finish(job)[0].state == "done" for job in jobs)


def test_one_user_cannot_fill_the_disk_but_makes_room_with_what_nobody_needs(service, client_of):
    carl, dora = client_of("carl"), client_of("dora")
    size = 600_000
    first, hers = carl.upload(b"1" * size), dora.upload(b"1" * size)
    for user in ("carl", "dora"):
        age(service.data, user)
    second = carl.upload(b"2" * size)
    assert carl.ask(BlobStatus([first, second])).received == [0, -1]
    assert dora.ask(BlobStatus([hers])).received == [-1], "nobody's footage goes for another's"
    refused = carl.ask(PutBlob(hashlib.sha256(b"3" * size).hexdigest(), size, 0, b"3" * 1000))
    assert refused.code == "disk-full" and "for each user (--user-gb" in refused.text
    small = carl.upload(b"4" * 1000)
    assert carl.ask(BlobStatus([small, second])).received == [-1, -1]


def test_a_user_over_the_limit_cannot_submit(service, client_of, shot):
    results = user_folder(service.data, "dora") / "partial" / ("ab" * 32)
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_bytes(bytes(1_100_000))
    service.stop()  # the next start counts again
    service.start()
    dora = client_of("dora")
    assert dora.ask(Submit("key", shot().to_wire())).code == "disk-full"
    results.unlink()


def test_a_flood_of_one_user_waits_and_the_others_are_served_meanwhile(client_of):
    anna, bob = client_of("anna"), client_of("bob")
    flood = [anna.send(ListJobs(1)) for _ in range(900)]
    assert isinstance(bob.ask(Hello()), Welcome)
    kinds, answered = Counter(), set()
    # Replies that come too fast for her are dropped, but none of those that have waited.
    while kinds["served"] < 256 or not kinds["busy"]:
        request_id, reply = anna.receive()
        assert request_id in flood and request_id not in answered
        answered.add(request_id)
        kinds[reply.code if isinstance(reply, Error) else "served"] += 1
        assert not isinstance(reply, Error) or "--user-requests" in reply.text
    assert kinds.keys() == {"served", "busy"}


def test_requests_beyond_the_rate_wait_in_their_own_queue_and_users_take_turns():
    now = [0.0]
    turns = RequestTurns(2, lambda: now[0])

    def arrive(user, *names):
        return [turns.add(Arrived(b"client", user, [name])) for name in names]

    def served():
        return [message.parts[0] for message in iter(turns.next, None)]

    arrive("anna", b"a1", b"a2", b"a3", b"a4")
    arrive("bob", b"b1")
    assert served() == [b"a1", b"b1", b"a2"] and turns.due() == 0.5
    arrive("bob", b"b2", b"b3")
    assert served() == [b"b2"], "it does not wait behind another's"
    now[0] = 0.5
    assert sorted(served()) == [b"a3", b"b3"]
    assert arrive("anna", *(b"x" for _ in range(256))) == [True] * 255 + [False]
    assert arrive("bob", b"b4") == [True]
    now[0] = 100.0
    assert len(served()) == 3, "two at once, however long nobody asked; and Bob's"


def test_a_few_large_requests_fill_a_queue_as_well():
    turns, message = RequestTurns(1, lambda: 0.0), Arrived(b"client", "anna", [bytes(20_000_000)])
    assert turns.add(message) and turns.next() == message
    assert [turns.add(message) for _ in range(5)] == [True, True, True, False, False] and turns.next() is None


def test_one_user_takes_a_quarter_of_the_connections(caplog):
    with zmq.Context() as context, ExitStack() as stack:
        router = stack.enter_context(context.socket(zmq.ROUTER))
        guard = ConnectionGuard(router, max_connections=8, many_users=True)
        stack.callback(guard.close)
        address = bind_router(router, "tcp://127.0.0.1:0")
        for user in ("anna", "anna", "bob", "anna", "bob"):
            dealer = stack.enter_context(context.socket(zmq.DEALER))
            dealer.linger, dealer.reconnect_ivl = 0, -1
            dealer.connect(address)
            dealer.send(b"")
            assert router.poll(PATIENCE * 1000)
            first = router.recv(copy=False)
            router.recv_multipart()
            guard.heard(first.bytes, first.get(zmq.SRCFD), user)
        kept = Counter(one.user for one in guard._connections.values())
        assert kept == {"anna": 2, "bob": 2}
    assert "its user has 2 connections already" in caplog.text


def test_a_user_has_a_thousand_requests_for_events_waiting():
    status = JobStatus("job", "label", "preview", "running")
    held, answered = HeldRequests(lambda job: status), []

    def ask(number, user):
        known = answered.append
        name = f"{user} {number}"
        client = f"{user} {number % 40}".encode()
        held.hold(HeldRequest(client, user, "job", 0, status, time.monotonic() + HOUR, lambda: known(name)))

    ask(0, "bob")
    for number in range(1002):
        ask(number, "anna")
    assert answered == ["anna 0", "anna 1"]


def test_the_requests_of_one_user_take_a_share_of_the_database(store, shot):
    store.submit("1", shot("x" * 100), [], owner="anna")
    (size,) = store._db.execute("SELECT bytes FROM jobs").fetchone()
    limits = {"limit_bytes": 9 * size, "owner_limit_bytes": 2 * size - 1}
    with pytest.raises(QueueFullError, match="for each user"):
        store.submit("2", shot("x" * 100), [], owner="anna", **limits)
    assert store.submit("2", shot("x" * 100), [], owner="bob", **limits)


def test_the_user_with_the_most_records_forgets_first(store, shot):
    jobs = {}
    for owner, frames in (("anna", 0), ("bob", 5), ("anna", 0), ("bob", 0)):
        name = f"{owner} {frames}"
        jobs[name] = store.submit(name + str(len(jobs)), shot(), [], owner=owner)
        claim = store.claim("worker")
        for index in range(frames):
            store.add_result(claim, "frame", "", index, "ab" * 32, 5)
        store.finish(claim)
    over = iter([True, True, False])
    assert store.forget_while(lambda: next(over), 1) == 1
    assert [store.status(jobs[name]) is None for name in ("anna 0", "bob 5", "bob 0")] == [False, True, False]


def test_who_has_more_than_an_equal_level_gives_first(tmp_path, store, shot):
    settings = ServiceSettings(data=tmp_path, cache_gb=9000e-9)
    stores = {user: BlobStore(user_folder(tmp_path, user)) for user in ("", "anna", "bob")}
    kept = {}
    for user, count in (("", 1), ("anna", 5), ("bob", 7)):
        for number in range(count):
            path = stores[user].partial / "new"
            path.write_bytes(bytes([number]) * 1000)
            kept[user, number], _ = stores[user].add_file(path)
            at = time.time() - (100 - number) * HOUR
            os.utime(stores[user].path(kept[user, number]), (at, at))
    store.submit("key", shot(), [kept["bob", 0]], owner="anna")
    assert used(settings).blobs == 13_000
    assert Tidying(settings).run().bytes == 4000
    left = {user: [] for user in stores}
    for (user, number), name in kept.items():
        if stores[user].size(name):
            left[user].append(number)
    assert left == {"": [0], "anna": [0, 2, 3, 4], "bob": [3, 4, 5, 6]}, "Anna's job needs her own copy, not Bob's"
    assert prunable(settings, 0) == Pruned(0, 8000)
    assert prune(settings, 0) == Pruned(0, 8000) and used(settings).blobs == 1000

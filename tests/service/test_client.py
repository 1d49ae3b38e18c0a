"""The client of Blender, command line and tests: its state, and conversations that survive lost backends."""

import errno
import os
import time
from pathlib import Path

import msgpack
import pytest
import zmq

from ex4d.service.keys import create_keys
from ex4d_core import client as client_module
from ex4d_core import pending_requests
from ex4d_core.client import Client, ConnectionState
from ex4d_core.client_socket import ClientKeys
from ex4d_core.conversations import ClientError, RequestRefused
from ex4d_core.messages import GetEvents, Hello, ListJobs, Submit, Welcome
from ex4d_core.remote_take import RemoteTake

PATIENCE = 240.0


def wait_for(client: Client, happened) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"still {client.state.value}"
        client.wait()


@pytest.fixture
def quick(monkeypatch):
    """A client that loses patience soon; what it does then is the same."""
    monkeypatch.setattr(client_module, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(client_module, "UNREACHABLE_SECONDS", 0.5)
    monkeypatch.setattr(pending_requests, "RESEND_SECONDS", 0.3)


@pytest.fixture
def client_of():
    clients = []

    def connect(address: str) -> Client:
        clients.append(Client(address, "test"))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_connecting_then_connected_with_what_the_backend_says_of_itself(service, client_of):
    client = client_of(service.address)
    assert client.state is ConnectionState.CONNECTING
    wait_for(client, lambda: client.state is ConnectionState.CONNECTED)
    assert client.server.service == "ex4d" and client.server.devices


def test_no_backend_is_unreachable_and_comes_back_by_itself(quick, start_service, client_of, free_port):
    address = f"tcp://127.0.0.1:{free_port}"
    client = client_of(address)
    task = client.start(_ask(ListJobs()))
    wait_for(client, lambda: client.state is ConnectionState.UNREACHABLE)
    assert not task.done
    start_service(address=address)
    wait_for(client, lambda: client.state is ConnectionState.CONNECTED)
    wait_for(client, lambda: task.done)
    assert task.result.jobs == []


def test_silence_while_nobody_polls_is_not_the_backends(quick, service, client_of, monkeypatch):
    client = client_of(service.address)
    wait_for(client, lambda: client.state is ConnectionState.CONNECTED)
    later = time.monotonic() + 3600
    monkeypatch.setattr(client_module.time, "monotonic", lambda: later)
    client.poll()
    assert client.state is ConnectionState.CONNECTED


def test_another_version_is_refused_with_the_reason(client_of):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        client = client_of(f"tcp://127.0.0.1:{port}")

        def greeted() -> bool:
            if socket.poll(0):
                peer, _ = socket.recv_multipart()
                socket.send_multipart([peer, msgpack.packb({"v": 99, "type": "Welcome", "id": 1})])
            return client.state is ConnectionState.REFUSED

        wait_for(client, greeted)
        assert "version" in client.refusal
        with pytest.raises(ClientError, match="version"):
            client.ask(Hello())
        socket.close(linger=0)


@pytest.mark.parametrize("address", ["", "localhost", "tcp://", "http://127.0.0.1:80", "tcp://127.0.0.1:notaport"])
def test_an_invalid_address_says_what_is_expected(address):
    with pytest.raises(ClientError, match=f"invalid address {address!r}.*expected tcp://HOST:PORT"):
        Client(address)


def test_keys_that_cannot_be_read_are_named_and_not_the_address(tmp_path):
    keys = ClientKeys(tmp_path / "anna.key_secret", tmp_path / "server.key")
    with pytest.raises(ClientError, match=r"anna\.key_secret and .*server\.key: ") as refused:
        Client("tcp://127.0.0.1:1", keys=keys)
    assert "HOST:PORT" not in str(refused.value)


@pytest.fixture
def keys(tmp_path) -> ClientKeys:
    """Those of a client, with a secret that everybody may read."""
    created = create_keys(tmp_path / "keys")
    created.client_secret.chmod(0o644)
    return ClientKeys(created.client_secret, created.server_public)


@pytest.mark.skipif(os.name == "nt", reason="a user's files are private there")
def test_a_secret_key_that_others_can_read_is_made_private(keys, caplog):
    Client("tcp://127.0.0.1:1", keys=keys).close()
    assert keys.client_secret.stat().st_mode & 0o777 == 0o600
    assert str(keys.client_secret) in caplog.text
    caplog.clear()
    Client("tcp://127.0.0.1:1", keys=keys).close()
    assert not caplog.text, "said once"


@pytest.mark.skipif(os.name == "nt", reason="a user's files are private there")
@pytest.mark.parametrize("chmod", ["refused", "ignored"])
def test_a_secret_key_that_cannot_be_made_private_is_not_used(keys, monkeypatch, chmod):
    """As on another user's file, and on a file system without permissions."""

    def instead(path, mode):
        if chmod == "refused":
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", instead)
    with pytest.raises(ClientError, match=r"other users.*key_secret.*chmod go-rwx"):
        Client("tcp://127.0.0.1:1", keys=keys)


def test_a_refused_request_is_raised_in_its_conversation(service, client_of):
    client = client_of(service.address)

    def conversation():
        try:
            yield GetEvents("no such job")
        except RequestRefused as refused:
            reply = yield Hello()
            return refused.code, reply

    code, reply = client.run(conversation(), timeout=PATIENCE)
    assert code == "unknown-job" and isinstance(reply, Welcome)
    with pytest.raises(RequestRefused, match="key"):
        client.ask(Submit("", {}), timeout=PATIENCE)


def test_a_stopped_conversation_asks_nothing_more(service, client_of):
    client = client_of(service.address)
    asked = []

    def conversation():
        while True:
            asked.append((yield Hello()))

    task = client.start(conversation())
    wait_for(client, lambda: len(asked) > 2)
    client.stop(task)
    count = len(asked)
    client.ask(Hello(), timeout=PATIENCE)
    assert task.done and len(asked) == count


def test_a_budget_of_nothing_handles_nothing(service, client_of):
    client = client_of(service.address)
    wait_for(client, lambda: client.state is ConnectionState.CONNECTED)
    task = client.start(_ask(ListJobs()))
    for _ in range(50):
        client.poll(budget=0.0)
    assert not task.done
    wait_for(client, lambda: task.done)


def test_a_corrupt_frame_is_fetched_again(service, client_of, scene, shot, tmp_path):
    client = client_of(service.address)
    take = RemoteTake(tmp_path, shot("good"), scene)
    assert client.run(take.conversation(), timeout=PATIENCE).state == "done"
    whole = {index: path.read_bytes() for index, path in take.frames.items()}
    take.frames[2].write_bytes(b"x" * len(whole[2]))
    take.frames[3].unlink()
    again = RemoteTake(tmp_path, take.request, key=take.key, job=take.job)
    client.run(again.conversation(), timeout=PATIENCE)
    assert {index: path.read_bytes() for index, path in again.frames.items()} == whole
    assert not list(tmp_path.glob("*.partial"))


def _ask(message):
    return (yield message)

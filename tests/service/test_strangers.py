"""Who is kept out of a service without keys on loopback: web pages, and programs that cannot read the user's token."""

from __future__ import annotations

import os
import socket
import stat
import sys
from contextlib import closing

import platformdirs
import pytest

from ex4d_core import local_token
from ex4d_core.client import Client, ConnectionState
from ex4d_core.conversations import ClientError
from ex4d_core.local_token import read_token, token_file, token_folder, write_token
from ex4d_core.messages import Hello, Welcome
from ex4d_core.wire import encode

PATIENCE = 240.0


def zmtp_1(data: bytes, more: bool) -> bytes:
    """A frame of ZeroMQ's protocol 1.0: length, flags, body."""
    return bytes([len(data) + 1, int(more)]) + data


def cross_site_post(port: int) -> bytes:
    """What a browser sends for a page's ``fetch(url, {method: "POST", mode: "no-cors", body})``.

    Read as protocol 1.0 the letters of the head are frames' lengths; the body fills up the last of these frames, and
    goes on with a request.
    """
    head = (
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: text/plain;charset=UTF-8\r\n"
        "Origin: https://example.org\r\nContent-Length: 0400\r\n\r\n"
    ).encode()
    end = 0
    while end < len(head):
        end += 1 + head[end]
    (hello,) = encode(Hello("a web page"), 7)
    body = b" " * (end - len(head)) + zmtp_1(b"", more=False) + zmtp_1(hello, more=False)
    return head + body.ljust(400, b" ")


def test_a_web_page_cannot_post_a_request(service, wire):
    host, port = service.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as browser:
        browser.sendall(cross_site_post(int(port)))
        answer = b""
        while b"Welcome" not in answer:
            try:
                received = browser.recv(4096)
            except ConnectionError:
                break
            if not received:
                break
            answer += received
    assert b"Welcome" not in answer, "the web page's request was served"
    assert isinstance(wire.ask(Hello()), Welcome)


def test_a_client_without_the_token_is_refused_and_told_what_to_do(service, monkeypatch, tmp_path):
    monkeypatch.setenv("EX4D_TOKENS", str(tmp_path))
    with closing(Client(service.address)) as client:
        with pytest.raises(ClientError, match=r"token.*EX4D_TOKENS") as refused:
            client.ask(Hello(), timeout=PATIENCE)
        assert str(token_file(service.address)) in str(refused.value)
        assert client.state is ConnectionState.REFUSED


def test_a_client_with_another_token_is_refused_until_it_has_the_right_one(service, monkeypatch, tmp_path):
    right = read_token(service.address)
    monkeypatch.setenv("EX4D_TOKENS", str(tmp_path))
    write_token(service.address, "guessed")
    with closing(Client(service.address)) as client:
        with pytest.raises(ClientError, match="is not this backend's"):
            client.ask(Hello(), timeout=PATIENCE)
        write_token(service.address, right)
        while client.state is not ConnectionState.CONNECTED:
            client.wait()
        assert isinstance(client.ask(Hello(), timeout=PATIENCE), Welcome)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps other users out of the folder instead")
def test_only_the_owner_can_read_the_token(service):
    path = token_file(service.address)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_token(service.address)) > 40
    assert not any(read_token(service.address) in line for line in service.log)


def test_each_start_has_a_token_of_its_own_and_clients_follow(start_service, free_port):
    """Whoever took the port while the service was down, and was sent the token, has nothing."""
    address = f"tcp://127.0.0.1:{free_port}"
    service = start_service(address=address)
    first = read_token(address)
    with closing(Client(address)) as client:
        assert isinstance(client.ask(Hello(), timeout=PATIENCE), Welcome)
        service.kill()
        assert read_token(address) == first, "a killed service cannot remove it"
        service.start()
        assert read_token(address) not in ("", first)
        assert isinstance(client.ask(Hello(), timeout=PATIENCE), Welcome)
    service.stop()
    assert not token_file(address).exists()


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("tcp://127.0.0.1:5", "127.0.0.1-5.token"),
        (" tcp://localhost:5", "127.0.0.1-5.token"),
        ("tcp://127.0.0.2:5", "127.0.0.2-5.token"),
        ("tcp://[::1]:5", "--1-5.token"),
    ],
)
def test_a_token_is_found_by_its_address(address, name):
    assert token_file(address) == token_folder() / name


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:5", "tcp://gpu:5", "tcp://127.0.0.1", "ipc:///x", "", "tcp://["])
def test_other_addresses_have_no_token(address):
    assert token_file(address) is None and read_token(address) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="the rules of this system's desktop")
@pytest.mark.parametrize("named", [None, "", "relative", "/somewhere"])
def test_the_folder_is_where_platformdirs_has_it(monkeypatch, named):
    monkeypatch.delenv("EX4D_TOKENS")
    if named is None:
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_DATA_HOME", named)
    if named != "relative":  # which platformdirs took in some of its releases
        assert str(local_token.token_folder().parent) == platformdirs.user_data_dir("ex4d", appauthor=False)
    assert os.path.isabs(local_token.token_folder())

"""When a service starts, when it refuses to, and who may talk to it."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import stat

import pytest
import zmq
from zmq.auth import load_certificate

from ex4d.cli.serve import visible_devices
from ex4d.devices import DeviceError
from ex4d.service import ServiceError, ServiceSettings, create_keys, run_service
from ex4d_core.client import Client, ConnectionState
from ex4d_core.client_socket import ClientKeys
from ex4d_core.conversations import ClientError
from ex4d_core.errors import RequestError
from ex4d_core.messages import Hello, Welcome


def test_a_port_in_use_is_named_with_the_remedy(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServiceError, match=f"{address}.*--address"):
            run_service(ServiceSettings(address=address, data=tmp_path))


def test_an_address_that_is_not_ours_is_named(tmp_path):
    create_keys(tmp_path / "keys")
    with pytest.raises(ServiceError, match=r"tcp://192\.0\.2\.1:5000 is not an address of this machine"):
        run_service(ServiceSettings(address="tcp://192.0.2.1:5000", data=tmp_path))


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:5000", "tcp://127.0.0.1", "tcp://host:99999", "http://x:1", "ipc:///x"]
)
def test_an_invalid_address_is_refused(address):
    with pytest.raises(RequestError, match=f"invalid address {re.escape(repr(address))}: expected tcp://HOST:PORT"):
        ServiceSettings(address=address)


def test_a_data_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ServiceError, match=r"cannot write into the data folder .*file/data: Not a directory"):
        run_service(ServiceSettings(address="tcp://127.0.0.1:0", data=tmp_path / "file" / "data"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lock", "cannot write into the data folder .*choose another"),
        ("jobs.sqlite", "cannot use the job database .*jobs.sqlite"),
    ],
)
def test_a_data_folder_in_which_a_file_cannot_be_made_is_named(tmp_path, name, says):
    (tmp_path / name).mkdir()
    with pytest.raises(ServiceError, match=says):
        run_service(ServiceSettings(address="tcp://127.0.0.1:0", data=tmp_path))


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        (None, ["cuda:0", "cuda:1", "cuda:2"]),
        ("2", ["cuda:0"]),
        ("1,GPU-5af0", ["cuda:0", "cuda:1"]),
        ("0,-1,2", ["cuda:0"]),
        ("0,1,2,3,4", ["cuda:0", "cuda:1", "cuda:2"]),
        ("", ["cpu"]),
    ],
)
def test_a_worker_for_every_gpu_that_may_be_used(tmp_path, monkeypatch, visible, devices):
    """As CUDA will number them in the workers; a farm gives each job some GPUs of a machine."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_devices() == devices


def test_a_driver_that_does_not_work_is_told_before_the_processor_is_taken(tmp_path, monkeypatch, caplog):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert visible_devices() == ["cpu"]
    assert "using the CPU" in caplog.text and "Driver/library version mismatch" in caplog.text


def test_a_second_service_on_the_same_folder_is_refused(start_service, tmp_path):
    service = start_service(data=tmp_path / "shared")
    with pytest.raises(ServiceError, match=f"process {service.process.pid}.*{tmp_path / 'shared'}"):
        run_service(ServiceSettings(address="tcp://127.0.0.1:0", data=tmp_path / "shared"))


def make_foreign(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE recipes (name)")
    database.close()


def make_newer(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE jobs (name)")
        database.execute(f"PRAGMA application_id = {0x45583444}")
        database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (make_foreign, "belongs to another program"),
        (make_newer, "has version 99"),
        (lambda path: path.write_bytes(b"no database at all" * 100), "cannot use the job database"),
    ],
)
def test_a_database_that_is_not_ours_is_left_alone(tmp_path, make, says):
    make(tmp_path / "jobs.sqlite")
    before = (tmp_path / "jobs.sqlite").read_bytes()
    with pytest.raises(ServiceError, match=says):
        run_service(ServiceSettings(address="tcp://127.0.0.1:0", data=tmp_path))
    assert (tmp_path / "jobs.sqlite").read_bytes()[100:] == before[100:]


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://192.168.1.2:5000", "tcp://[::]:0"])
def test_listening_beyond_loopback_without_keys_is_refused(tmp_path, address):
    with pytest.raises(ServiceError, match="ex4d serve --create-keys"):
        run_service(ServiceSettings(address=address, data=tmp_path))


def test_keys_without_a_client_are_not_enough(tmp_path):
    create_keys(tmp_path / "keys")
    (tmp_path / "keys" / "clients" / "client.key").unlink()
    with pytest.raises(ServiceError, match="no client may connect"):
        run_service(ServiceSettings(address="tcp://0.0.0.0:0", data=tmp_path))


def test_keys_may_lie_in_a_folder_of_any_name(start_service, tmp_path):
    """Brackets mean something in patterns of file names."""
    keys = create_keys(tmp_path / "shots [v2] *" / "keys")
    service = start_service(data=str(tmp_path / "dätä #1 [v2]"), keys=str(keys.server_public.parent))
    assert greeting(service, keys)


def test_secrets_can_be_read_by_their_owner_only_and_are_never_overwritten(tmp_path):
    first = create_keys(tmp_path)
    second = create_keys(tmp_path, "laptop")
    assert first.server_public == second.server_public
    for path in (tmp_path / "server.key_secret", first.client_secret, second.client_secret):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ServiceError, match="'laptop' already"):
        create_keys(tmp_path, "laptop")
    with pytest.raises(ServiceError, match="letters"):
        create_keys(tmp_path, "../x")


@pytest.mark.skipif(os.name == "nt", reason="folders of a user are private on Windows")
def test_what_others_could_read_before_is_tightened(start_service, tmp_path):
    """As an older version, an archive or a copy left it."""
    data = tmp_path / "data"
    keys = create_keys(data / "keys")
    (data / "blobs" / "ab").mkdir(parents=True)
    (data / "holiday.txt").write_text("not ours")
    for path in (data, data / "blobs", data / "keys" / "server.key_secret", data / "holiday.txt"):
        path.chmod(0o777)
    service = start_service(data=data, keys=str(data / "keys"))
    assert greeting(service, keys)
    for path in (data / "blobs", data / "keys", data / "logs", data / "jobs.sqlite", data / "keys/server.key_secret"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE(data.stat().st_mode) == 0o755, "others must not replace what is in it"
    assert stat.S_IMODE((data / "holiday.txt").stat().st_mode) == 0o777


def test_only_clients_with_a_key_that_is_known_get_an_answer(start_service, connect, tmp_path):
    keys = create_keys(tmp_path / "keys")
    stranger = create_keys(tmp_path / "elsewhere")
    service = start_service(address="tcp://0.0.0.0:0", keys=str(tmp_path / "keys"))
    service.address = service.address.replace("0.0.0.0", "127.0.0.1")
    server_key, _ = load_certificate(keys.server_public)

    def with_key(secret_file):
        def set_up(dealer: zmq.Socket) -> None:
            dealer.curve_serverkey = server_key
            dealer.curve_publickey, dealer.curve_secretkey = load_certificate(secret_file)

        return set_up

    refused = [connect(service, with_key(stranger.client_secret)), connect(service)]
    monitors = [wire.socket.get_monitor_socket() for wire in refused]
    for wire in refused:
        wire.send(Hello())
    known = connect(service, with_key(keys.client_secret))
    assert isinstance(known.ask(Hello()), Welcome)
    assert known.download(known.upload(b"secret footage")) == b"secret footage"
    for wire, monitor in zip(refused, monitors, strict=True):
        wait_for_refusal(monitor)
        assert not wire.socket.poll(0)
        wire.socket.disable_monitor()


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ("stranger", True, "does not know this computer's key; put its public part"),
        ("wrong server", True, "the server's public key is not this backend's"),
        (None, True, "the backend requires keys"),
        ("known", False, "the backend uses no keys"),
    ],
)
def test_a_client_whose_keys_do_not_fit_learns_why(start_service, tmp_path, ours, theirs, says):
    keys, other = create_keys(tmp_path / "keys"), create_keys(tmp_path / "elsewhere")
    service = start_service(**({"keys": str(tmp_path / "keys")} if theirs else {}))
    pairs = {
        "stranger": ClientKeys(other.client_secret, keys.server_public),
        "wrong server": ClientKeys(keys.client_secret, other.server_public),
        "known": ClientKeys(keys.client_secret, keys.server_public),
        None: None,
    }
    client = Client(service.address, keys=pairs[ours])
    try:
        with pytest.raises(ClientError, match=says):
            client.ask(Hello(), timeout=60)
        assert client.state is ConnectionState.REFUSED
    finally:
        client.close()


def test_keys_come_and_go_while_the_service_runs(start_service, tmp_path):
    first = create_keys(tmp_path / "keys")
    service = start_service(keys=str(tmp_path / "keys"))
    (tmp_path / "keys" / "clients" / "torn.key").write_text("half of a")
    late = create_keys(tmp_path / "keys", "late")
    assert greeting(service, late)
    (tmp_path / "keys" / "clients" / "client.key").unlink()
    with pytest.raises(ClientError, match="does not know this computer's key"):
        greeting(service, first)
    assert greeting(service, late)


def greeting(service, keys):
    client = Client(service.address, keys=ClientKeys(*keys))
    try:
        return client.ask(Hello(), timeout=60)
    finally:
        client.close()


def wait_for_refusal(monitor: zmq.Socket) -> None:
    from zmq.utils.monitor import recv_monitor_message

    refusals = {zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_AUTH}
    refusals |= {zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_DISCONNECTED}
    while True:
        assert monitor.poll(60_000), "the handshake neither failed nor ended"
        event = recv_monitor_message(monitor)["event"]
        assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED
        if event in refusals:
            return


@pytest.mark.parametrize(
    "wrong",
    [
        {"devices": ()},
        {"devices": ("auto",)},
        {"hang_seconds": 0},
        {"cache_gb": float("nan")},
        {"keep_days": -1},
        {"runner": "os.system"},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(RequestError, match=next(iter(wrong)).rstrip("s")):
        ServiceSettings(**wrong)


def test_a_device_that_is_none_is_refused():
    with pytest.raises(DeviceError, match="'gpu'"):
        ServiceSettings(devices=("cpu", "gpu"))

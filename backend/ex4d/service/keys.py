"""Decides who may connect: holders of CURVE keys, or on loopback, without keys, of the user's token.

This module creates and checks the keys; `ex4d_core.local_token` has the token's file. A keys folder, in pyzmq's
certificate format:

    server.key_secret, server.key        the service's own pair; clients need the second file
    clients/NAME.key                     one file for each client that may connect; delete it to refuse the client's
                                         next connection. Its NAME is the user's, also with a new key in it
    NAME.key_secret                      what the client NAME needs; copy it to that computer and delete it here
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.auth.thread import ThreadAuthenticator

from ex4d.service.private_files import tighten_secret
from ex4d.service.settings import ServiceError, is_client_name
from ex4d_core.durable_files import put_in_place
from ex4d_core.local_token import USER

log = logging.getLogger(__name__)

# The authenticator's own log has passwords and keys in it.
_silent = logging.getLogger(f"{__name__}.authenticator")
_silent.propagate = False
_silent.addHandler(logging.NullHandler())
_DOMAIN = "ex4d"
_REMEDY = "create keys with 'ex4d serve --create-keys', or listen on tcp://127.0.0.1 only"


class KeyFiles(NamedTuple):
    """The two files that a new client needs: its own secret certificate and the server's public one."""

    client_secret: Path
    server_public: Path


def create_keys(folder: Path, client: str = "client") -> KeyFiles:
    """Create keys for one more client, and the service's own if there are none yet.

    Only their owner can read secret files.

    Raises:
        ServiceError: a client of this name has keys already, or the name is invalid.
    """
    if not is_client_name(client):
        raise ServiceError(f"invalid client name {client!r}: expected letters, digits, '-' and '_', and not 'server'")
    clients = folder / "clients"
    if (clients / f"{client}.key").exists() or (folder / f"{client}.key_secret").exists():
        raise ServiceError(f"{folder} has keys for {client!r} already; choose another name or remove them first")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    clients.mkdir(exist_ok=True, mode=0o700)
    if not (folder / "server.key_secret").exists():
        _create_pair("server", public=folder, secret=folder)
    _create_pair(client, public=clients, secret=folder)
    return KeyFiles(folder / f"{client}.key_secret", folder / "server.key")


class Client(NamedTuple):
    """A client that may connect: its name, which is its user's, and the file of its public key."""

    name: str
    key: Path


def list_clients(folder: Path) -> list[Client]:
    """The clients of a folder of keys, by their names; nothing where there is none."""
    files = sorted((folder / "clients").glob("*.key"))
    return [Client(file.stem, file) for file in files if is_client_name(file.stem)]


def remove_client(folder: Path, name: str) -> None:
    """Refuse a client's next connection; its jobs, footage and results stay until a key of this name comes again.

    Raises:
        ServiceError: there is no such client.
    """
    require_client(folder, name).key.unlink()
    (folder / f"{name}.key_secret").unlink(missing_ok=True)


def require_client(folder: Path, name: str) -> Client:
    """The client of a name.

    Raises:
        ServiceError: there is none.
    """
    clients = {client.name: client for client in list_clients(folder)}
    if name not in clients:
        known = f"it has {', '.join(clients)}" if clients else "it has none; create keys with 'ex4d keys create NAME'"
        raise ServiceError(f"{folder} has no keys of a client {name!r:.80}: {known}")
    return clients[name]


def _create_pair(name: str, *, public: Path, secret: Path) -> None:
    # In a private folder until the secret file's mode is right.
    with tempfile.TemporaryDirectory(dir=secret) as folder:
        public_file, secret_file = map(Path, create_certificates(folder, name))
        secret_file.chmod(0o600)
        put_in_place(secret_file, secret / secret_file.name)
        put_in_place(public_file, public / public_file.name)


def check_keys(folder: Path) -> None:
    """Check that a folder has keys of the service and of a client.

    Raises:
        ServiceError: some are missing or unreadable; the message says what to do.
    """
    _server_pair(folder)
    clients = folder / "clients"
    try:
        files = [path for path in clients.iterdir() if path.suffix == ".key" and is_client_name(path.stem)]
        for file in files:
            load_certificate(file)
    except (OSError, ValueError) as error:
        raise ServiceError(f"cannot read the clients' keys in {clients}: {error}; {_REMEDY}") from error
    if not files:
        raise ServiceError(f"no client may connect: {clients} has no *.key file with the name of a client; {_REMEDY}")


def _server_pair(folder: Path) -> tuple[bytes, bytes]:
    tighten_secret(folder / "server.key_secret")
    try:
        public, secret = load_certificate(folder / "server.key_secret")
    except (OSError, ValueError) as error:
        raise ServiceError(
            f"cannot listen beyond this machine without keys, and {folder} has none ({error}); {_REMEDY}"
        ) from error
    if secret is None:
        raise ServiceError(f"{folder / 'server.key_secret'} has no secret key; {_REMEDY}")
    return public, secret


def require_keys(
    context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], folder: Path
) -> tuple[ThreadAuthenticator, Clients]:
    """Restrict ``socket`` to the folder's clients, encrypted; returns them. Stop the authenticator at the end."""
    check_keys(folder)
    socket.curve_publickey, socket.curve_secretkey = _server_pair(folder)
    socket.curve_server = True
    authenticator = _authenticator(context, socket)
    clients = Clients(folder / "clients")
    authenticator.configure_curve_callback(domain=_DOMAIN, credentials_provider=clients)
    return authenticator, clients


def require_token(
    context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], token: str
) -> ThreadAuthenticator:
    """Restrict ``socket`` to clients that send the token. Stop the returned authenticator at the end.

    ZeroMQ then refuses clients without a password, and its protocol 1.0, for which a web page's request can be taken.
    """
    socket.plain_server = True
    authenticator = _authenticator(context, socket)
    authenticator.configure_plain(domain=_DOMAIN, passwords={USER: token})
    return authenticator


def _authenticator(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> ThreadAuthenticator:
    socket.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
    # Without the authenticator nobody gets in, instead of everybody.
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    authenticator = ThreadAuthenticator(context, log=_silent)
    authenticator.start()
    return authenticator


class Clients:
    """Reads the folder's clients at each handshake, since keys come and go while the service runs."""

    def __init__(self, folder: Path):
        """Of an existing folder ``clients``."""
        self._folder = folder
        self._names: dict[str, str] = {}

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a public key, in Z85, is a client's; called in the authenticator's thread."""
        for path in sorted(self._folder.glob("*.key")):
            try:
                public, _ = load_certificate(path)
            except (OSError, ValueError) as error:
                log.warning("ignored %s, which is not a key: %s", path, error)
                continue
            if not is_client_name(path.stem):
                log.warning("ignored %s: rename it to letters, digits, '-' and '_', and not 'server'", path)
            elif public == key:
                self._names[key.decode()] = path.stem
                return True
        return False

    def name_of(self, frame: zmq.Frame) -> str:
        """Who sent a frame of an admitted connection: the name that the key's file had when it was admitted last."""
        return self._names[str(frame.get("User-Id"))]

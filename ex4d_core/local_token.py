"""The token of a backend without keys: proof that a client may read the files of the user who started the backend.

Loopback alone keeps nobody out: a page in the user's own web browser and every other user of the machine reach it. So
`ex4d serve` writes a new random token at each start into a file that only its user can read, named after its address,
and `ex4d_core.client` sends it as the password of ZeroMQ's PLAIN mechanism.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from ex4d_core.durable_files import put_in_place
from ex4d_core.user_folder import user_folder

TOKENS_VARIABLE = "EX4D_TOKENS"
# The user's name in ZeroMQ's PLAIN mechanism, and the domain of its authenticator.
USER = "ex4d"
_BYTES = 32
_MAX_FILE_BYTES = 256


def token_folder() -> Path:
    """The folder of the tokens: $EX4D_TOKENS, else ``tokens`` in the user's data folder."""
    chosen = os.environ.get(TOKENS_VARIABLE)
    return Path(chosen) if chosen else user_folder("data") / "tokens"


def token_file(address: str) -> Path | None:
    """The file of the token for an address, ``tcp://HOST:PORT``; None for any address but loopback."""
    try:
        parts = urlsplit(address.strip())
        host, port = parts.hostname or "", parts.port
        where = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:  # no port, or the name of a machine
        return None
    if parts.scheme != "tcp" or port is None or not where.is_loopback:
        return None
    return token_folder() / f"{where.compressed.replace(':', '-')}-{port}.token"


def read_token(address: str) -> str:
    """The token for an address; "" if it does not exist, or this user may not read it."""
    with suppress(OSError, ValueError, RuntimeError):  # the last: there is no home folder
        if (path := token_file(address)) is not None:
            with open(path, encoding="ascii") as file:
                return file.read(_MAX_FILE_BYTES).strip()
    return ""


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(_BYTES)


def write_token(address: str, token: str) -> Path:
    """Write the token of a backend that listens on a loopback address; only its owner can read the file.

    Raises:
        ValueError: the address is not loopback.
        OSError: the file cannot be written.
    """
    path = token_file(address)
    if path is None:
        raise ValueError(f"{address} is not a loopback address, tcp://127.0.0.1:PORT")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Of mode 0600 from the beginning, and complete as soon as it has its name.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
        put_in_place(Path(name), path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def remove_token(address: str, token: str) -> None:
    """Remove the token of a backend that ends, unless another one has written its own meanwhile."""
    path = token_file(address)
    if path is not None and read_token(address) == token:
        with suppress(OSError):
            path.unlink()

"""Notices that the head of a Ray cluster is gone, long before Ray gives it up, which takes a minute.

A head that starts again knows nothing of the cluster before, unless it keeps that in Redis, and so every node and
driver must join it anew.
"""

from __future__ import annotations

import re
import socket
import time

# How often the head is looked for, and how many failures in a row mean that it is gone: none starts faster than that.
_LOOK_SECONDS = 1.0
_FAILURES = 3
_ANSWER_SECONDS = 2.0


def head_at(address: str) -> ClusterHead | None:
    """The head at what `--cluster` takes, unless that is for Ray to find."""
    return ClusterHead(address) if re.fullmatch(r"\S+:\d+", address) else None


class ClusterHead:
    """The head at an address, by whether its port takes connections."""

    def __init__(self, address: str):
        """Args: ``address`` is HOST:PORT of the cluster's control service."""
        self.address = address
        host, _, port = address.rpartition(":")
        self._where = host.strip("[]"), int(port)

    def answers(self) -> bool:
        """Whether it does now."""
        try:
            with socket.create_connection(self._where, _ANSWER_SECONDS):
                return True
        except OSError:
            return False

    def wait_until_gone(self) -> None:
        """Return once it has not answered for some seconds."""
        failures = 0
        while failures < _FAILURES:
            time.sleep(_LOOK_SECONDS)
            failures = 0 if self.answers() else failures + 1

    def gone_text(self) -> str:
        """What to do about it, for people."""
        host, port = self._where
        return (
            f"the head of the Ray cluster {self.address} does not answer, and jobs wait: run 'ray start --head "
            f"--port={port}' on {host} again, then 'ray stop' and 'ray start --address={self.address}' on every node"
        )

"""`Supervision`: tells systemd that the service is ready, stops, and is alive (``Type=notify``, ``WatchdogSec=``)."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

# A message of systemd's watchdog is due at half the time that it allows.
_SHARE = 0.5


class Supervision:
    """Speaks systemd's protocol of notifications (``sd_notify``); does nothing where nobody listens."""

    def __init__(self, environment: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic):
        """Read who listens, and how often they want to hear of us.

        Args:
            environment: with NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, which systemd sets.
            clock: seconds since any moment, without jumps.
        """
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._clock, self._due = clock, 0.0
        self._every = float("inf")
        whose, limit = environment.get("WATCHDOG_PID", str(os.getpid())), environment.get("WATCHDOG_USEC", "")
        if self._address and limit.isdigit() and int(limit) and whose == str(os.getpid()):
            self._every = int(limit) / 1e6 * _SHARE

    def ready(self, status: str) -> None:
        """The service answers clients; ``status`` is for `systemctl status`."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The service ends by itself."""
        self._send("STOPPING=1")

    def tick(self) -> float:
        """Say that the service is alive, if that is due; returns the seconds until the next call."""
        if self._every == float("inf"):
            return self._every
        if self._clock() >= self._due:
            self._send("WATCHDOG=1")
            self._due = self._clock() + self._every
        return self._due - self._clock()

    def _send(self, text: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.connect(self._address)
                sender.sendall(text.encode())
        except OSError as error:
            log.warning("cannot tell systemd that the service is alive: %s", error)

"""One client of the backend for the whole Blender session, connected as the preferences say.

`Session.handle_arrivals` is the scheduler's first work in every tick; it handles what has arrived within its budget.
"""

from __future__ import annotations

import time

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.client import Client, ConnectionState
from ex4d_core.conversations import ClientError, Conversation, Result, Task
from ex4d_core.errors import Ex4dError
from ex4d_core.messages import Welcome

from ..errors import failure_text
from ..scheduler import ARRIVALS_SECONDS, REDRAW_SECONDS, scheduler
from .preferences import ConnectionSettings, connection_settings

# Progress is drawn this often: drawing costs far more than a tick.
_DRAW_INTERVAL_SECONDS = 0.2


class NotConnectedError(Ex4dError):
    """The preferences allow no connection; the text says what to change."""


class Session:
    """The connection to the backend that the preferences name.

    Attributes:
        client: the connection, or None while the preferences allow none (see `problem`).
        problem: why there is no client, for people; "" when there is one.
    """

    def __init__(self) -> None:
        """Connect in the first tick."""
        self.client: Client | None = None
        self.problem = ""
        self._settings: ConnectionSettings | None = None
        self._shown = ""
        self._stale = False
        self._redrawn = 0.0

    @property
    def busy(self) -> bool:
        """Whether a conversation is under way, or work waits for the next tick."""
        return scheduler.pending or (self.client is not None and self.client.busy)

    @property
    def connected(self) -> bool:
        """Whether the backend has answered lately."""
        return self.client is not None and self.client.state is ConnectionState.CONNECTED

    @property
    def server(self) -> Welcome | None:
        """How the connected backend introduced itself; None without a connection."""
        return self.client.server if self.client is not None and self.connected else None

    def connect(self) -> Client | None:
        """The client for the address in the preferences; None while they allow none."""
        settings = connection_settings()
        if settings != self._settings:
            self.close()
            self._settings = settings
            self._open(settings)
        return self.client

    def start(self, conversation: Conversation[Result]) -> Task[Result]:
        """Begin a conversation; it continues with every tick, also while the backend is away.

        Raises:
            NotConnectedError: the preferences allow no connection.
        """
        client = self.connect()
        if client is None:
            raise NotConnectedError(self.problem)
        return client.start(conversation)

    def stop(self, task: Task) -> None:
        """Abandon a conversation on this side."""
        if self.client is not None and not task.done:
            self.client.stop(task)

    def handle_arrivals(self) -> None:
        """Handle what has arrived, for as long as the budget lasts."""
        client = self.connect()
        if client is not None:
            client.poll(ARRIVALS_SECONDS)
            if client.busy:
                scheduler.tick_soon()

    def redraw(self) -> None:
        """Have the sidebars drawn again soon, since something that they show has changed."""
        self._stale = True

    def draw_changes(self) -> None:
        """Have the sidebars drawn again, if that is due."""
        text, now = self.state_text() + failure_text(), time.monotonic()
        if text != self._shown:
            self._shown, self._stale = text, True
        if self._stale and now - self._redrawn > _DRAW_INTERVAL_SECONDS:
            self._stale, self._redrawn = False, now
            _redraw_sidebars()

    def reconnect(self) -> None:
        """Drop the connection and open a new one; jobs continue on it."""
        self.close()
        self.connect()

    def close(self) -> None:
        """Drop the connection."""
        if self.client is not None:
            self.client.close()
        self.client = None
        self._settings = None

    def state_text(self) -> str:
        """State of the connection, for people."""
        client = self.client
        if client is None:
            return self.problem or "not started"
        if client.state is ConnectionState.REFUSED:
            return client.refusal
        if client.state is ConnectionState.UNREACHABLE:
            since = time.localtime(time.time() - (time.monotonic() - client.since))
            text = iface_("unreachable since {time}: no backend answers at {address}")
            return text.format(time=time.strftime("%H:%M", since), address=client.address)
        server = client.server
        if client.state is ConnectionState.CONNECTING or server is None:
            return iface_("connecting to {address}").format(address=client.address)
        idle, busy = iface_("connected to {name} with {devices}"), iface_("connected to {name} with {devices}, busy")
        text = busy if server.busy else idle
        return text.format(name=server.service, devices=", ".join(server.devices))

    def _open(self, settings: ConnectionSettings) -> None:
        if not settings.allowed:
            self.problem = (
                f"online access is off, so {settings.address} is not used: "
                "allow it in Preferences > System > Network, or use a backend on this computer"
            )
            return
        try:
            self.client = Client(settings.address, name=f"Blender {bpy.app.version_string}", keys=settings.keys)
            self.problem = ""
        except ClientError as error:
            self.problem = str(error)


def _redraw_sidebars() -> None:
    """Draw the sidebars of 3D viewports and sequencers, and the status bar again, and not what is beside them."""
    windows = bpy.context.window_manager.windows
    # The hints of modal operators are in the status bar of their workspace, which other windows may show, too.
    # One whose add-on was disabled meanwhile is None.
    hinting = [window.workspace for window in windows if any(one is not None for one in window.modal_operators)]
    for window in windows:
        if window.workspace not in hinting:
            window.workspace.status_text_set_internal(None)
        for area in window.screen.areas:
            if area.type in ("VIEW_3D", "SEQUENCE_EDITOR"):
                for region in area.regions:
                    if region.type == "UI":
                        region.tag_redraw()


_session: Session | None = None


def session() -> Session:
    """The session's one `Session`; it exists while the add-on is registered."""
    if _session is None:
        raise NotConnectedError("the EX-4D add-on is not enabled")
    return _session


def register() -> None:
    """Connect with the first tick."""
    global _session
    _session = Session()
    scheduler.every_tick(_session.handle_arrivals, ARRIVALS_SECONDS)
    scheduler.every_tick(_session.draw_changes, REDRAW_SECONDS)


def unregister() -> None:
    """Drop the connection."""
    global _session
    if _session is not None:
        _session.close()
    _session = None

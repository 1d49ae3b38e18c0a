"""One client of the backend for the whole Blender session, kept going by a timer.

`tick` is all there is to it: it handles what has arrived within a time budget and returns when it wants to be called
again. What may cost more than that budget (opening a movie) has a tick of its own: see `Session.alone`. Blender's timer
calls it; in background mode, where timers do not run, the caller does. No thread is involved.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.client import Client, ClientError, ConnectionState, Conversation, Result, Task
from ex4d_core.errors import Ex4dError

from .failures import contained, failure_text
from .preferences import ConnectionSettings, connection_settings

# A tick may take this long, so that the user interface stays smooth; arrivals beyond it wait for the next tick.
TICK_BUDGET_SECONDS = 0.004
# What the followers (strips, progress) may need of it, in the worst case.
_FOLLOWERS_SECONDS = 0.002
BUSY_INTERVAL_SECONDS = 0.02
IDLE_INTERVAL_SECONDS = 0.25
# Progress is drawn this often: drawing costs far more than a tick.
REDRAW_SECONDS = 0.2


class NotConnectedError(Ex4dError, RuntimeError):
    """There is no connection to talk through, by the preferences' fault; the text says what to change."""


class Session:
    """The connection to the backend that the preferences name, and the conversations on it.

    Attributes:
        client: the connection, or None while the preferences allow none (see `problem`).
        problem: why there is no client, for people; "" when there is one.
        followers: called once per tick after arrivals were handled.
        restorers: called before the followers in the first tick of all, and in the first one after an undo or a redo.
            Blender's own handlers for that are no moment to change anything, and neither is an add-on's enabling.
        longest_tick, last_tick: seconds.
    """

    def __init__(self) -> None:
        self.client: Client | None = None
        self.problem = ""
        self.followers: list[Callable[[], None]] = []
        self.restorers: list[Callable[[], None]] = []
        self.longest_tick = 0.0
        self.last_tick = 0.0
        self._settings: ConnectionSettings | None = None
        self._tasks: list[Task] = []
        self._alone: deque[Callable[[], None]] = deque()
        self._shown = ""
        self._stale = False
        self._redrawn = 0.0
        self._hurried = False
        self._undone = True

    @property
    def busy(self) -> bool:
        """Whether a conversation is under way, or something waits for a tick of its own."""
        return bool(self._alone) or any(not task.done for task in self._tasks)

    @property
    def connected(self) -> bool:
        """Whether the backend has answered lately."""
        return self.client is not None and self.client.state is ConnectionState.CONNECTED

    def start(self, conversation: Conversation[Result]) -> Task[Result]:
        """Begin a conversation; it goes on with every tick, also while the backend is away.

        Raises:
            NotConnectedError: the preferences allow no connection.
        """
        self._follow_preferences()
        if self.client is None:
            raise NotConnectedError(self.problem)
        task = self.client.start(conversation)
        self._tasks.append(task)
        return task

    def kept_up(self, task: Task | None, conversation: Callable[[], Conversation[Result]]) -> Task[Result] | None:
        """The task; a new one of a fresh conversation where there is none, or where its connection was replaced.

        Returns:
            None while the preferences allow no connection.
        """
        if task is not None and not isinstance(task.error, ClientError):
            return task
        try:
            return self.start(conversation())
        except NotConnectedError:
            return None

    def stop(self, task: Task) -> None:
        """Abandon a conversation on this side."""
        if self.client is not None and not task.done:
            self.client.stop(task)

    def alone(self, step: Callable[[], None]) -> None:
        """Do something dear in a tick that does nothing else: the next one that is free for it."""
        self._alone.append(step)

    def tick(self) -> float:
        """Handle arrivals and tell the followers, or take a step that wants to be alone; never waits.

        Returns:
            Seconds until the next tick is due.
        """
        begun = time.perf_counter()
        if self._alone:
            with contained():
                self._alone.popleft()()
        else:
            self._handle_arrivals(begun)
        self.last_tick = time.perf_counter() - begun
        self.longest_tick = max(self.longest_tick, self.last_tick)
        return BUSY_INTERVAL_SECONDS if self.busy or self._hurried else IDLE_INTERVAL_SECONDS

    def _handle_arrivals(self, now: float) -> None:
        self._hurried = False
        self._follow_preferences()
        if self.client is not None:
            self.client.poll(TICK_BUDGET_SECONDS - _FOLLOWERS_SECONDS)
        restorers, self._undone = list(self.restorers) if self._undone else [], False
        for follower in [*restorers, *self.followers]:
            with contained():
                follower()
        self._tasks = [task for task in self._tasks if not task.done]
        text = self.state_text() + failure_text()
        if text != self._shown:
            self._shown = text
            self._stale = True
        if self._stale and now - self._redrawn > REDRAW_SECONDS:
            self._stale, self._redrawn = False, now
            _redraw_side_bars()

    def hurry(self) -> None:
        """Have the next tick soon: a follower has work left over."""
        self._hurried = True

    def undone(self) -> None:
        """An undo or a redo was made, which may have changed anything of the file."""
        self._undone = True

    def redraw(self) -> None:
        """Have the side bars drawn again soon, since something that they show has changed."""
        self._stale = True

    def reconnect(self) -> None:
        """Drop the connection and make a new one; followers start their conversations again."""
        self.close()
        self._follow_preferences()

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        self.client = None
        self._settings = None

    def state_text(self) -> str:
        """How the connection stands, for people."""
        client = self.client
        if client is None:
            return self.problem or "not started"
        if client.state is ConnectionState.CONNECTING:
            return iface_("connecting to {address}").format(address=client.address)
        if client.state is ConnectionState.UNREACHABLE:
            since = time.localtime(time.time() - (time.monotonic() - client.since))
            text = iface_("unreachable since {time}: no backend answers at {address}")
            return text.format(time=time.strftime("%H:%M", since), address=client.address)
        if client.state is ConnectionState.REFUSED:
            return client.refusal
        server = client.server
        idle, busy = iface_("connected to {name} with {devices}"), iface_("connected to {name} with {devices}, busy")
        text = busy if server.busy else idle
        return text.format(name=server.service, devices=", ".join(server.devices))

    def _follow_preferences(self) -> None:
        settings = connection_settings()
        if settings == self._settings:
            return
        self.close()
        self._settings = settings
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


def _redraw_side_bars() -> None:
    """Draw the 3D viewports' side bars and the status bar again, and not what is beside them."""
    windows = bpy.context.window_manager.windows
    # The hints of modal operators are in the status bar of their workspace, which other windows may show, too.
    # One whose add-on was disabled meanwhile is None.
    hinting = [window.workspace for window in windows if any(one is not None for one in window.modal_operators)]
    for window in windows:
        if window.workspace not in hinting:
            window.workspace.status_text_set_internal(None)
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                for region in area.regions:
                    if region.type == "UI":
                        region.tag_redraw()


_session: Session | None = None


def session() -> Session:
    """The session's one `Session`; it exists while the add-on is registered."""
    if _session is None:
        raise NotConnectedError("the EX-4D add-on is not enabled")
    return _session


def tick() -> float:
    """What the timer calls. Blender drops a timer that raises, and the connection would be dead for the session."""
    with contained():
        return session().tick()
    return IDLE_INTERVAL_SECONDS


@bpy.app.handlers.persistent
def _after_undo(*_: object) -> None:
    session().undone()


def register() -> None:
    global _session
    _session = Session()
    bpy.app.handlers.undo_post.append(_after_undo)
    bpy.app.handlers.redo_post.append(_after_undo)
    bpy.app.timers.register(tick, first_interval=IDLE_INTERVAL_SECONDS, persistent=True)


def unregister() -> None:
    global _session
    bpy.app.handlers.redo_post.remove(_after_undo)
    bpy.app.handlers.undo_post.remove(_after_undo)
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
    if _session is not None:
        _session.close()
    _session = None

"""Which errors an artist can act on: operators report these in one sentence; anything else is a bug of ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import bpy

from ex4d_core.cameras import CameraError
from ex4d_core.scene import SceneError
from ex4d_core.shot import RequestError
from ex4d_core.trajectories import TrajectoryError

from .cameras.saved import PresetError
from .connection.local_backend import StartError
from .connection.session import NotConnectedError
from .footage.sources import FootageError
from .scenes.ground import GroundError
from .scenes.placement import PlacementError
from .sequencer.otio import CutError
from .sequencer.strips import StripError

EXPECTED_ERRORS = (
    CameraError,
    CutError,
    FootageError,
    GroundError,
    NotConnectedError,
    PlacementError,
    PresetError,
    RequestError,
    SceneError,
    StartError,
    StripError,
    TrajectoryError,
    OSError,
)


def in_words(error: Exception) -> str:
    """What to tell the artist; the system's own errors have but a number and a word or two."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        where, why = error.filename, error.strerror
        return (
            f"{where} cannot be used: {why}; see whether that path is right and may be written, and its disk has room"
        )
    return str(error)


Execute = Callable[[bpy.types.Operator, bpy.types.Context], set[str]]


def reports_errors(execute: Execute) -> Execute:
    """Let an operator's ``execute`` tell the artist what was wrong and what to do, and end as cancelled."""

    @wraps(execute)
    def reporting(self: bpy.types.Operator, context: bpy.types.Context) -> set[str]:
        try:
            return execute(self, context)
        except EXPECTED_ERRORS as error:
            self.report({"ERROR"}, in_words(error))
            return {"CANCELLED"}

    return reporting

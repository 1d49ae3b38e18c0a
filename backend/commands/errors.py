"""Which errors a user can act on: these are shown as one sentence, anything else is a bug and keeps its traceback."""

from __future__ import annotations

import errno

from backend.demo import DemoError
from backend.depth import DepthError, IntrinsicsError
from backend.generate.wan import CheckpointError, GenerationError, ModelsMissingError, WanUnavailableError
from backend.media import MediaError
from backend.mesh import DepthError as MeshDepthError
from backend.parity import ParityCaseError
from backend.raster import RasterizerUnavailableError, RenderMemoryError
from backend.service.settings import ServiceError
from ex4d_core.cameras import CameraError
from ex4d_core.client import ClientError, RequestRefused
from ex4d_core.scene import SceneError
from ex4d_core.shot import RequestError
from ex4d_core.trajectories import TrajectoryError
from ex4d_core.transfers import TransferError

EXPECTED_ERRORS = (
    CameraError,
    CheckpointError,
    ClientError,
    DemoError,
    DepthError,
    GenerationError,
    IntrinsicsError,
    MediaError,
    MeshDepthError,
    ModelsMissingError,
    ParityCaseError,
    RasterizerUnavailableError,
    RenderMemoryError,
    RequestError,
    RequestRefused,
    SceneError,
    ServiceError,
    TrajectoryError,
    TransferError,
    WanUnavailableError,
    OSError,
)


def explain(error: Exception) -> str:
    """One sentence for people: what was wrong, and what to do."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full: {error.filename or 'no space left'}; free some space and try again"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; check the path and its permissions"
    return str(error)

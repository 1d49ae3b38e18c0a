"""Creates the engine that a request names, with its settings."""

from __future__ import annotations

from ex4d.generation.engine import Engine
from ex4d.machine import MachineSettings
from ex4d_core.errors import RequestError
from ex4d_core.shot import ShotRequest


def create_engine(request: ShotRequest, device: str = "auto", machine: MachineSettings | None = None) -> Engine:
    """Create the engine that a request names.

    Args:
        device: "auto", "cpu", or "cuda" with an optional number; with "cuda:0+1", the engine wan uses both GPUs.
        machine: the environment's settings by default.

    Raises:
        RequestError: this backend has no such engine.
        LicenceError: its weights must not be used for what the request is for.
        Ex4dError: this machine cannot run it.
    """
    if request.engine == "preview":
        from ex4d.generation.preview import PreviewEngine

        return PreviewEngine(request.preview)
    if request.engine == "wan":
        from ex4d.generation.wan.wan_engine import create_wan_engine

        return create_wan_engine(request.wan, device, machine, licence=request.render.licence)
    raise RequestError(f"invalid engine {request.engine!r}: expected preview or wan")

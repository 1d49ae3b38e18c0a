"""The choice of a rasterizer and a device: by request, licence and what is installed on this machine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ex4d.devices import DeviceError, Devices
from ex4d.machine import MachineSettings
from ex4d.raster.rasterizer import Rasterizer, RasterizerUnavailableError
from ex4d_core.errors import RequestError
from ex4d_core.licences import Licence

if TYPE_CHECKING:
    from ex4d.raster.nvdiffrast_rasterizer import NvdiffrastRasterizer
    from ex4d.raster.warp_rasterizer import WarpRasterizer

RASTERIZERS = ("warp", "nvdiffrast")

_HOW_TO_INSTALL = {
    "warp": "run pip install warp-lang",
    "nvdiffrast": "it is in no package registry, so build https://github.com/NVlabs/nvdiffrast here, or use warp",
}
_RESEARCH_ONLY = ("nvdiffrast",)


@dataclass(frozen=True)
class RasterizerChoice:
    """The rasterizer and device that `create_rasterizer` would use.

    Attributes:
        name: one of `RASTERIZERS`.
        device: "cpu", "cuda" or "cuda:N".
        reason: why, as a text for the user.
    """

    name: str
    device: str
    reason: str


def available_rasterizers() -> tuple[str, ...]:
    """Names of the installed rasterizers, best first. None of them is imported, so one may still be unusable."""
    return tuple(name for name in RASTERIZERS if importlib.util.find_spec(name) is not None)


def is_allowed(name: str, licence: Licence | None, machine: MachineSettings) -> bool:
    """Whether a rasterizer's licence allows the intended use, by a request's setting and the machine's."""
    return machine.allows(name, name not in _RESEARCH_ONLY, licence)


def choose_rasterizer(
    name: str = "auto", device: str = "auto", licence: Licence | None = None, machine: MachineSettings | None = None
) -> RasterizerChoice:
    """Choose a rasterizer and a device, without creating anything.

    "auto" is warp wherever it is installed: it draws on any device, for any use, and was the faster of the two on
    every GPU and in every case we measured (see docs/measured/rendering.md). Only where warp is missing, a GPU is
    present and the use is research, it is nvdiffrast.

    Args:
        name: "auto" or one of `RASTERIZERS`.
        device: "auto" (CUDA where there is a usable GPU), "cpu", "cuda" or "cuda:N".
        licence: what the result is for, by the request; see `ex4d_core.licences.effective_licence`.
        machine: the environment's settings by default.

    Raises:
        RequestError: an unknown name.
        LicenceError: a rasterizer for research only was requested by name, for commercial use.
        DeviceError: an unknown device, several, or one that is not here.
        RasterizerUnavailableError: it is not installed, or cannot draw on this device.
    """
    if name not in ("auto", *RASTERIZERS):
        raise RequestError(f"invalid rasterizer {name!r}: expected auto, {' or '.join(RASTERIZERS)}")
    devices = Devices.parse(device).single()
    machine = machine or MachineSettings.from_environment()
    installed = available_rasterizers()
    if name == "auto":
        allowed = [each for each in installed if is_allowed(each, licence, machine)]
        name = allowed[0] if allowed else RASTERIZERS[0]
        reason = f"the fastest here that is free for {machine.licence_for(licence)} use"
    else:
        terms, reason = "for research and evaluation only", "requested by name"
        machine.require_allowed(name, name not in _RESEARCH_ONLY, licence, terms=terms, instead="rasterizer warp")
    if name not in installed:
        raise RasterizerUnavailableError(f"rasterizer {name!r} is not installed: {_HOW_TO_INSTALL[name]}")
    device, why_device = _usable_device(name, devices)
    return RasterizerChoice(name, device, f"{reason}; {why_device}")


def create_rasterizer(
    name: str = "auto", device: str = "auto", licence: Licence | None = None, machine: MachineSettings | None = None
) -> Rasterizer:
    """Create the rasterizer that `choose_rasterizer` chooses; raises what it raises."""
    choice = choose_rasterizer(name, device, licence, machine)
    return rasterizer_class(choice.name)(choice.device)


def rasterizer_class(name: str) -> type[NvdiffrastRasterizer] | type[WarpRasterizer]:
    """The class of one of `RASTERIZERS`, installed or not; its `licence` says what its results may be used for."""
    # Both take a moment to import, so they are imported when one is needed and not when the choice is listed.
    if name == "nvdiffrast":
        from ex4d.raster.nvdiffrast_rasterizer import NvdiffrastRasterizer

        return NvdiffrastRasterizer
    from ex4d.raster.warp_rasterizer import WarpRasterizer

    return WarpRasterizer


def _usable_device(name: str, devices: Devices) -> tuple[str, str]:
    """The device to draw on, and the reason for it, as a text for the user."""
    if name == "warp":
        from ex4d.raster.warp_rasterizer import cuda_problem

        problem = cuda_problem(devices)
    else:
        problem = devices.problem()
        if devices.first == "cpu" or (devices.first == "auto" and problem):
            raise RasterizerUnavailableError(
                f"rasterizer {name} draws on CUDA devices only, but "
                + (problem or "device cpu was requested: use rasterizer warp")
            )
    if devices.first == "auto":
        return ("cpu", f"on the CPU: {problem}") if problem else ("cuda", "on the GPU")
    if problem:
        raise DeviceError(problem)
    return devices.first, f"on {devices}, requested by name"

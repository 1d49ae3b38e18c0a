"""The choice of a rasterizer and a device: by request, licence and what is installed on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ex4d.raster.rasterizer import Rasterizer, RasterizerUnavailableError, torch_cuda_problem
from ex4d_core.errors import RequestError
from ex4d_core.shot import LICENCES

if TYPE_CHECKING:
    from ex4d.raster.nvdiffrast_rasterizer import NvdiffrastRasterizer
    from ex4d.raster.warp_rasterizer import WarpRasterizer

RASTERIZERS = ("warp", "nvdiffrast")
LICENCE_VARIABLE = "EX4D_LICENCE"
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")

_HOW_TO_INSTALL = {
    "warp": "run pip install warp-lang",
    "nvdiffrast": "it is in no package registry, so build https://github.com/NVlabs/nvdiffrast here, or use warp",
}
_RESEARCH_ONLY = ("nvdiffrast",)


class LicenceError(RasterizerUnavailableError):
    """A rasterizer whose licence forbids the intended use, or an invalid EX4D_LICENCE."""


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
    """Names of the installed rasterizers, best first. None of them is imported, so one may still prove unusable."""
    return tuple(name for name in RASTERIZERS if importlib.util.find_spec(name) is not None)


def licence_setting(licence: str | None = None) -> str:
    """The intended use of results: "commercial" if the argument or the environment variable EX4D_LICENCE says so.

    The variable is set by the operator of this machine; no request can override it.

    Raises:
        RequestError: the argument is neither "research" nor "commercial".
        LicenceError: the variable is neither.
    """
    allowed = os.environ.get(LICENCE_VARIABLE, "research")
    if allowed not in LICENCES:
        raise LicenceError(f"invalid {LICENCE_VARIABLE} {allowed!r}: set it to {' or '.join(LICENCES)}")
    if licence is not None and licence not in LICENCES:
        raise RequestError(f"invalid licence {licence!r}: expected {' or '.join(LICENCES)}")
    return "commercial" if "commercial" in (licence, allowed) else "research"


def choose_rasterizer(name: str = "auto", device: str = "auto", licence: str | None = None) -> RasterizerChoice:
    """Choose a rasterizer and a device, without creating anything.

    "auto" is warp wherever it is installed: it draws on any device, for any use, and was the faster of the two on
    every GPU and in every case we measured (see docs/measured/rendering.md). Only where warp is missing, a GPU is
    present and the use is research, it is nvdiffrast.

    Args:
        name: "auto" or one of `RASTERIZERS`.
        device: "auto" (CUDA where there is a usable GPU), "cpu", "cuda" or "cuda:N".
        licence: "research" or "commercial"; see `licence_setting`.

    Raises:
        RequestError: an unknown name, device or licence.
        LicenceError: a rasterizer for research only was requested by name, for commercial use.
        RasterizerUnavailableError: it is not installed, or there is no such usable CUDA device, or several are named.
    """
    if name not in ("auto", *RASTERIZERS):
        raise RequestError(f"invalid rasterizer {name!r}: expected auto, {' or '.join(RASTERIZERS)}")
    if "+" in device:
        raise RasterizerUnavailableError(f"a rasterizer draws on one device, not on {device}: choose one of them")
    if not DEVICE.fullmatch(device):
        raise RequestError(f"invalid device {device!r}: expected auto, cpu, cuda or cuda:N")
    licence = licence_setting(licence)
    if name in _RESEARCH_ONLY and licence == "commercial":
        raise LicenceError(
            f"rasterizer {name} is for research and evaluation only, and the licence setting is commercial: use "
            "rasterizer warp, or set the licence to research"
        )
    installed = available_rasterizers()
    if name == "auto":
        allowed = [each for each in installed if licence == "research" or each not in _RESEARCH_ONLY]
        name = allowed[0] if allowed else RASTERIZERS[0]
        reason = f"the fastest here that is free for {licence} use"
    else:
        reason = "requested by name"
    if name not in installed:
        raise RasterizerUnavailableError(f"rasterizer {name!r} is not installed: {_HOW_TO_INSTALL[name]}")
    device, why_device = _usable_device(name, device)
    return RasterizerChoice(name, device, f"{reason}; {why_device}")


def create_rasterizer(name: str = "auto", device: str = "auto", licence: str | None = None) -> Rasterizer:
    """Create the rasterizer that `choose_rasterizer` chooses; raises what it raises."""
    choice = choose_rasterizer(name, device, licence)
    return rasterizer_class(choice.name)(choice.device)


def rasterizer_class(name: str) -> type[NvdiffrastRasterizer] | type[WarpRasterizer]:
    """The class of one of `RASTERIZERS`, installed or not; its `licence` says what its results may be used for."""
    # Both take a moment to import, so they are imported when one is needed and not when the choice is listed.
    if name == "nvdiffrast":
        from ex4d.raster.nvdiffrast_rasterizer import NvdiffrastRasterizer

        return NvdiffrastRasterizer
    from ex4d.raster.warp_rasterizer import WarpRasterizer

    return WarpRasterizer


def _usable_device(name: str, device: str) -> tuple[str, str]:
    """The device to draw on, and the reason for it, as a text for the user."""
    if name == "warp":
        from ex4d.raster.warp_rasterizer import cuda_problem

        problem = cuda_problem(device)
    else:
        problem = torch_cuda_problem(device)
        if device == "cpu" or (device == "auto" and problem):
            raise RasterizerUnavailableError(
                f"rasterizer {name} draws on CUDA devices only, but "
                + (problem or "device cpu was requested: use rasterizer warp")
            )
    if device == "auto":
        return ("cpu", f"on the CPU: {problem}") if problem else ("cuda", "on the GPU")
    if device != "cpu" and problem:
        raise RasterizerUnavailableError(problem)
    return device, f"on {device}, requested by name"

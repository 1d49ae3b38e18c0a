"""Which rasterizer draws: what this machine has, what its licence allows, and what the caller asked for."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass

from ex4d.raster.rasterizer import Rasterizer, RasterizerUnavailableError
from ex4d_core.shot import LICENCES

RASTERIZERS = ("warp", "nvdiffrast")
LICENCE_VARIABLE = "EX4D_LICENCE"
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")

_HOW_TO_INSTALL = {
    "warp": "run pip install warp-lang",
    "nvdiffrast": "it is in no package registry, so build https://github.com/NVlabs/nvdiffrast here, or use warp",
}
_RESEARCH_ONLY = ("nvdiffrast",)


class LicenceError(RasterizerUnavailableError):
    """A rasterizer that must not be used for what its results are for, or a setting that says nothing about that."""


@dataclass(frozen=True)
class RasterizerChoice:
    """What `create_rasterizer` would create.

    Attributes:
        name: one of `RASTERIZERS`.
        device: "cpu", "cuda" or "cuda:N".
        reason: why, for people.
    """

    name: str
    device: str
    reason: str


def available_rasterizers() -> tuple[str, ...]:
    """Names of what is installed here, best first. Imports none of them, so one may still prove unusable."""
    return tuple(name for name in RASTERIZERS if importlib.util.find_spec(name) is not None)


def licence_setting(licence: str | None = None) -> str:
    """What the results are for: "commercial" if the argument or the environment variable EX4D_LICENCE says so.

    The variable is the word of whoever runs this machine, so no request can take it back.

    Raises:
        ValueError: neither "research" nor "commercial".
        LicenceError: the variable says something else.
    """
    allowed = os.environ.get(LICENCE_VARIABLE, "research")
    if allowed not in LICENCES:
        raise LicenceError(f"{LICENCE_VARIABLE} is {allowed!r}: set it to one of {', '.join(LICENCES)}")
    if licence is not None and licence not in LICENCES:
        raise ValueError(f"unknown licence {licence!r}: use one of {', '.join(LICENCES)}")
    return "commercial" if "commercial" in (licence, allowed) else "research"


def choose_rasterizer(name: str = "auto", device: str = "auto", licence: str | None = None) -> RasterizerChoice:
    """Decide what draws, without creating it.

    "auto" is warp wherever it is installed: it draws on any device, for any use, and was the faster of the two on
    every GPU and in every case we measured (see the README beside this). Only where warp is missing, a GPU there
    and the use is research, it is nvdiffrast.

    Args:
        name: "auto" or one of `RASTERIZERS`.
        device: "auto" (CUDA where there is a usable GPU), "cpu", "cuda" or "cuda:N".
        licence: "research" or "commercial"; see `licence_setting`.

    Raises:
        ValueError: an unknown name, device or licence.
        LicenceError: a rasterizer for research only was asked for by name, for commercial use.
        RasterizerUnavailableError: it is not installed, or there is no such usable CUDA device, or several are named.
    """
    if name not in ("auto", *RASTERIZERS):
        raise ValueError(f"unknown rasterizer {name!r}: use auto or one of {', '.join(RASTERIZERS)}")
    if "+" in device:
        raise RasterizerUnavailableError(f"a rasterizer draws on one device, not on {device}: use one of them")
    if not DEVICE.fullmatch(device):
        raise ValueError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N")
    licence = licence_setting(licence)
    if name in _RESEARCH_ONLY and licence == "commercial":
        raise LicenceError(
            f"rasterizer {name} is for research and evaluation only, and the licence setting is commercial: use "
            "rasterizer warp, or set the licence to research"
        )
    installed = available_rasterizers()
    if name == "auto":
        allowed = [each for each in installed if licence == "research" or each not in _RESEARCH_ONLY]
        wanted = allowed[0] if allowed else RASTERIZERS[0]
        reason = f"the fastest here that is free for {licence} use"
    else:
        wanted, reason = name, "asked for by name"
    if wanted not in installed:
        raise RasterizerUnavailableError(f"rasterizer {wanted!r} is not installed: {_HOW_TO_INSTALL[wanted]}")
    device, why_device = _usable_device(wanted, device)
    return RasterizerChoice(wanted, device, f"{reason}; {why_device}")


def create_rasterizer(name: str = "auto", device: str = "auto", licence: str | None = None) -> Rasterizer:
    """Create the rasterizer that `choose_rasterizer` decides on; raises what it raises."""
    choice = choose_rasterizer(name, device, licence)
    return rasterizer_class(choice.name)(choice.device)


def rasterizer_class(name: str) -> type[Rasterizer]:
    """One of `RASTERIZERS`, whether or not it is installed and usable; `licence` says what it may be used for."""
    # Both take a moment to start, so they are imported by whoever draws and not by whoever asks what there is
    if name == "nvdiffrast":
        from ex4d.raster.nvdiffrast_rasterizer import NvdiffrastRasterizer

        return NvdiffrastRasterizer
    from ex4d.raster.warp.rasterizer import WarpRasterizer

    return WarpRasterizer


def _usable_device(name: str, device: str) -> tuple[str, str]:
    """The device to draw on, and why."""
    if name == "warp":
        from ex4d.raster.warp.rasterizer import cuda_problem

        problem = cuda_problem(device)
    else:
        from ex4d.raster.rasterizer import torch_cuda_problem

        problem = torch_cuda_problem(device)
        if device == "cpu" or (device == "auto" and problem):
            raise RasterizerUnavailableError(
                f"rasterizer {name} draws on CUDA devices only, and here "
                + (problem or "device cpu was asked for: use rasterizer warp")
            )
    if device == "auto":
        return ("cpu", f"on the CPU: {problem}") if problem else ("cuda", "on the GPU")
    if device != "cpu" and problem:
        raise RasterizerUnavailableError(problem)
    return device, f"on {device}, asked for by name"

"""Which rasterizer draws: what this machine has, and what the caller asked for."""

from __future__ import annotations

import importlib.util
import re

from backend.raster.interface import Rasterizer, RasterizerUnavailableError

RASTERIZERS = ("warp", "nvdiffrast")
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def available_rasterizers() -> tuple[str, ...]:
    """Names that `create_rasterizer` would accept here, best first. Imports none of them."""
    return tuple(name for name in RASTERIZERS if importlib.util.find_spec(name) is not None)


def create_rasterizer(name: str = "auto", device: str = "auto") -> Rasterizer:
    """Create a rasterizer.

    Args:
        name: "auto" (the best that is installed) or one of `RASTERIZERS`.
        device: "auto" (CUDA where there is a usable GPU), "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: an unknown name or device.
        RasterizerUnavailableError: it is not installed, or there is no such usable CUDA device.
    """
    if name not in ("auto", *RASTERIZERS):
        raise ValueError(f"unknown rasterizer {name!r}: use auto or one of {', '.join(RASTERIZERS)}")
    if not DEVICE.fullmatch(device):
        raise ValueError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N")
    available = available_rasterizers()
    if not available or name not in ("auto", *available):
        wanted = RASTERIZERS[0] if name == "auto" else name
        raise RasterizerUnavailableError(f"rasterizer {wanted!r} is not installed: run pip install warp-lang")
    # Warp takes a moment to start, so it is imported by whoever draws and not by whoever asks what there is
    from backend.raster.warp_rasterizer import WarpRasterizer, cuda_problem

    problem = cuda_problem(device)
    if device == "auto":
        device = "cpu" if problem else "cuda"
    elif device != "cpu" and problem:
        raise RasterizerUnavailableError(problem)
    return WarpRasterizer(device)

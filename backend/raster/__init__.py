"""A surface and a camera path to colour and mask, by whichever rasterizer is asked for."""

from backend.raster.batches import render_in_batches
from backend.raster.choice import (
    LICENCES,
    RASTERIZERS,
    LicenceError,
    RasterizerChoice,
    available_rasterizers,
    choose_rasterizer,
    create_rasterizer,
)
from backend.raster.interface import (
    Rasterizer,
    RasterizerUnavailableError,
    RenderedFrames,
    RenderMemoryError,
    force_first_frame,
)

__all__ = [
    "LICENCES",
    "RASTERIZERS",
    "LicenceError",
    "Rasterizer",
    "RasterizerChoice",
    "RasterizerUnavailableError",
    "RenderMemoryError",
    "RenderedFrames",
    "available_rasterizers",
    "choose_rasterizer",
    "create_rasterizer",
    "force_first_frame",
    "render_in_batches",
]

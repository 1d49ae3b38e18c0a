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
from backend.raster.coverage import PathCoverage, ReducedSurface, path_coverage, reduce_surface, view_angles
from backend.raster.interface import (
    Rasterizer,
    RasterizerUnavailableError,
    RenderedFrames,
    RenderMemoryError,
    force_first_frame,
)
from backend.raster.speed import quick_speed

__all__ = [
    "LICENCES",
    "RASTERIZERS",
    "LicenceError",
    "PathCoverage",
    "Rasterizer",
    "RasterizerChoice",
    "RasterizerUnavailableError",
    "ReducedSurface",
    "RenderMemoryError",
    "RenderedFrames",
    "available_rasterizers",
    "choose_rasterizer",
    "create_rasterizer",
    "force_first_frame",
    "path_coverage",
    "quick_speed",
    "reduce_surface",
    "render_in_batches",
    "view_angles",
]

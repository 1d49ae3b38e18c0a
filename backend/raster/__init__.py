"""A surface and a camera path to colour and mask, by whichever rasterizer is asked for."""

from backend.raster.batches import render_in_batches
from backend.raster.choice import (
    RASTERIZERS,
    LicenceError,
    RasterizerChoice,
    available_rasterizers,
    choose_rasterizer,
    create_rasterizer,
    rasterizer_class,
)
from backend.raster.coverage import seen_shares, sparse_camera, view_angles
from backend.raster.interface import (
    Rasterizer,
    RasterizerUnavailableError,
    RenderedFrames,
    RenderMemoryError,
    force_first_frame,
)
from backend.raster.soft_edges import SoftFrames, render_soft_edges
from backend.raster.speed import quick_speed

__all__ = [
    "RASTERIZERS",
    "LicenceError",
    "Rasterizer",
    "RasterizerChoice",
    "RasterizerUnavailableError",
    "RenderMemoryError",
    "RenderedFrames",
    "SoftFrames",
    "available_rasterizers",
    "choose_rasterizer",
    "create_rasterizer",
    "force_first_frame",
    "quick_speed",
    "rasterizer_class",
    "render_in_batches",
    "render_soft_edges",
    "seen_shares",
    "sparse_camera",
    "view_angles",
]

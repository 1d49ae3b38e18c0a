"""A surface and a camera path to colour and mask, by whichever rasterizer is asked for."""

from ex4d.raster.batches import render_in_batches
from ex4d.raster.coverage import seen_shares, sparse_camera, view_angles
from ex4d.raster.rasterizer import (
    Rasterizer,
    RasterizerUnavailableError,
    RenderedFrames,
    RenderMemoryError,
    force_first_frame,
)
from ex4d.raster.rasterizer_choice import (
    RASTERIZERS,
    LicenceError,
    RasterizerChoice,
    available_rasterizers,
    choose_rasterizer,
    create_rasterizer,
    rasterizer_class,
)
from ex4d.raster.soft_edges import SoftFrames, render_soft_edges
from ex4d.raster.speed import quick_speed

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

"""DW-Mesh and a camera path to colour and mask, by whichever rasterizer is asked for."""

from backend.raster.choice import RASTERIZERS, available_rasterizers, create_rasterizer
from backend.raster.interface import Rasterizer, RasterizerUnavailableError, RenderedFrames, force_first_frame

__all__ = [
    "RASTERIZERS",
    "Rasterizer",
    "RasterizerUnavailableError",
    "RenderedFrames",
    "available_rasterizers",
    "create_rasterizer",
    "force_first_frame",
]

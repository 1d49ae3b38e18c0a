"""Rasterizers, which draw colour and mask of a surface along a camera path."""

from ex4d.raster.batches import render_in_batches
from ex4d.raster.frames import RenderedBatch, RenderedFrame, force_first_frame
from ex4d.raster.mask_cleaning import can_be_cleaned, hold_steady
from ex4d.raster.rasterizer import STRIP_SAMPLES, Rasterizer, RasterizerUnavailableError, RenderMemoryError
from ex4d.raster.rasterizer_choice import (
    RASTERIZERS,
    available_rasterizers,
    choose_rasterizer,
    create_rasterizer,
    rasterizer_class,
)
from ex4d.raster.speed import quick_speed
from ex4d.raster.visible_fraction import sparse_camera, view_angles, visible_fractions

__all__ = [
    "RASTERIZERS",
    "STRIP_SAMPLES",
    "Rasterizer",
    "RasterizerUnavailableError",
    "RenderMemoryError",
    "RenderedBatch",
    "RenderedFrame",
    "available_rasterizers",
    "can_be_cleaned",
    "choose_rasterizer",
    "create_rasterizer",
    "force_first_frame",
    "hold_steady",
    "quick_speed",
    "rasterizer_class",
    "render_in_batches",
    "sparse_camera",
    "view_angles",
    "visible_fractions",
]

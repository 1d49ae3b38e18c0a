"""The size that a shot's finals are generated at, what becomes of seen pixels, and what a final takes on a backend."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.cards import Card
from ex4d_core.final_estimates import estimate_final
from ex4d_core.messages import Welcome
from ex4d_core.sizes import size_text
from ex4d_core.wan_settings import (
    FULL_SIZE,
    MODEL_PIXELS,
    MODEL_SIZE,
    WORKING_SIZES,
    WanSettings,
    pixels_from,
    size_name,
    wan_preset,
)

# The preset's own; what .blend files of earlier versions have.
OF_PRESET = "preset"
_UPSCALER = "wan upscaler"

_ITEMS = (
    (OF_PRESET, "From Preset", "The working size of the preset", "NONE", 0),
    *(
        (name, f"{width} x {height}", "", "NONE", number)
        for number, (name, (width, height)) in enumerate(WORKING_SIZES.items(), start=1)
    ),
    (FULL_SIZE, "Render Size", "As large as the take", "NONE", len(WORKING_SIZES) + 1),
)

size_property = bpy.props.EnumProperty(
    name="Working Size",
    description="How many pixels images are generated at, in the shape of the render; smaller images are enlarged "
    "to its size",
    items=_ITEMS,
    default=OF_PRESET,
)
above_model_property = bpy.props.BoolProperty(
    name="Above Model Size",
    description="Generate images at working sizes above 832 x 480, which the model was trained at, instead of "
    "generating them at that size and enlarging them; takes much longer",
    default=False,
)
keep_seen_property = bpy.props.BoolProperty(
    name="Keep Seen Pixels",
    description="Show the footage's own pixels where it was seen, over the generated image, with matched colors",
    default=False,
)
assert MODEL_SIZE == (832, 480), "as the description says"


def size_settings(final: Any) -> dict[str, Any]:
    """The fields of `WanSettings` that these properties of a shot say, without those that are the preset's."""
    preset = wan_preset(final.preset)
    fields: dict[str, Any] = {}
    if final.size != OF_PRESET:
        fields["max_pixels"] = pixels_from(final.size)
    if has_choices(preset):
        fields["keep_seen"] = final.keep_seen
        fields["above_model"] = "generate" if final.above_model else "enlarge"
    return fields


def restore_size(final: Any, settings: WanSettings) -> None:
    """Set the properties to what a take has; a size without a name becomes the next larger one that has one."""
    pixels, preset = settings.max_pixels, wan_preset(settings.preset)
    if pixels == preset.max_pixels:
        final.size = OF_PRESET
    else:
        larger = (name for name, (width, height) in WORKING_SIZES.items() if pixels and width * height >= pixels)
        final.size = size_name(pixels) or next(larger, FULL_SIZE)
    final.keep_seen = settings.keep_seen
    final.above_model = has_choices(preset) and is_above_model(settings) and settings.above_model == "generate"


def has_choices(settings: WanSettings) -> bool:
    """Whether a preset leaves open what becomes of seen pixels and of large sizes; EX-4D's own does not."""
    return settings.preset != "ex4d-reference"


def is_above_model(settings: WanSettings) -> bool:
    """Whether the working size is above the one that the model was trained at."""
    return not 0 < settings.max_pixels <= MODEL_PIXELS


def enlarged_text(size: str, width: int, height: int, server: Welcome | None) -> str:
    """A size that images are generated at, and how they get to the take's, where the backend says it."""
    if server is None:
        text = iface_("{size}, enlarged to {width} x {height}")
    elif _UPSCALER in server.lacking:
        text = iface_("{size}, enlarged to {width} x {height} by interpolation")
    else:
        text = iface_("{size}, enlarged to {width} x {height} by the backend's upscaler")
    return text.format(size=size, width=width, height=height)


def estimate_texts(
    settings: WanSettings, frames: int, width: int, height: int, card: Card, hidden: int = 0, pixel_aspect: float = 1.0
) -> tuple[str, str]:
    """What a final takes on a card: time and memory; and why it cannot be made there, "" if it can.

    Args:
        settings: of the final.
        frames, width, height: of the take.
        card: of the backend.
        hidden: frames of a lead-in.
        pixel_aspect: width of a pixel by its height.
    """
    estimate = estimate_final(settings, frames, width, height, card, hidden=hidden, pixel_aspect=pixel_aspect)
    if not estimate.fits(card):
        text = iface_("{card} has {memory} of memory, and this needs {least}: choose a smaller Working Size")
        least, memory = size_text(estimate.gpu_least_bytes), size_text(card.memory_bytes)
        return "", text.format(card=card.short_name, memory=memory, least=least)
    text = iface_("Estimate for {card}: {time}, {memory} of its memory")
    if estimate.seconds is None:
        text = iface_("Estimate for {card}: {memory} of its memory; its speed is not known")
    time = _duration(estimate.seconds or 0)
    memory = size_text(min(estimate.gpu_bytes, card.memory_bytes))
    return text.format(card=card.short_name, time=time, memory=memory), ""


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

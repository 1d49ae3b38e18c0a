"""The settings of a shot's final takes: preset, prompts, seed, steps and guidance, kept in the .blend with the shot."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.final_sizes import (
    generated_frames,
    generation_size,
    lead_in_cost,
    window_lengths,
    with_lead_in,
)
from ex4d_core.messages import Welcome
from ex4d_core.wan_settings import (
    DEFAULT_NEGATIVE_PROMPT,
    DEFAULT_PRESET,
    DEFAULT_PROMPT,
    LACKING_FP8,
    LACKING_FP8_ATTENTION,
    LEAD_INS,
    MAX_ADAPTER_NAME,
    MAX_PROMPT,
    MAX_STRIDE,
    WAN_PRESETS,
    WanSettings,
    wan_preset,
)

from ..blender_types import Context, Operator
from ..connection.panel import wrapped
from ..footage.weights import adapter_items
from .final_size import (
    OF_PRESET,
    above_model_property,
    enlarged_text,
    keep_seen_property,
    restore_size,
    size_property,
    size_settings,
)

FINAL_ENGINE = "wan"

_PRESET_TEXTS = {
    "standard": ("Standard", "25 steps, images of 512x512 pixels at most; every shot starts from a whole image"),
    "ex4d-reference": ("EX-4D", "Settings of the published EX-4D: 25 steps, images of 512x512 pixels at most"),
    "quality": ("Quality", "Images of 832x480 pixels at most, longer windows and 40 steps: slow, for large GPUs"),
    "fast": ("Fast", "4 steps with a distilled LoRA, which the backend must have"),
    "draft": ("Draft", "Small images and few steps, to try out prompts and seeds"),
    "live": ("Live", "4 steps at 512x288 pixels at most, as Watch shows while the camera moves"),
}
# What .blend files store: the first four are those of version 0.1.
_PRESET_NUMBERS = {
    name: number for number, name in enumerate(("ex4d-reference", "quality", "fast", "draft", "standard", "live"))
}
_PRESET_ITEMS = tuple((name, *_PRESET_TEXTS[name], "NONE", _PRESET_NUMBERS[name]) for name in WAN_PRESETS)
_LEAD_IN_ITEMS = tuple((str(frames), str(frames) if frames else "Off", "", "NONE", frames) for frames in LEAD_INS)
_ADAPTER_DESCRIPTION = "The backend's adapter of the generator: that of EX-4D, or another of its kind"
_DIALOG_WIDTH = 700
# The largest value of Blender's integers.
MAX_SEED = 2**31 - 1


def _apply_preset(final: Any, _: bpy.types.Context) -> None:
    settings = wan_preset(final.preset)
    final.steps, final.guidance = settings.steps, settings.guidance
    final.lead_in, final.stride = str(settings.lead_in), settings.stride
    final.size = OF_PRESET


def _chosen_adapter(final: Any) -> int:
    names = [name for name, _, _ in adapter_items(final, None)]
    return names.index(final.adapter) if final.adapter else 0


def _choose_adapter(final: Any, number: int) -> None:
    final.adapter = adapter_items(final, None)[number][0] if number else ""


class EX4D_Final(bpy.types.PropertyGroup):
    """Settings of a shot's final takes (``EX4D_Shot.final``); the preset has the rest."""

    preset: bpy.props.EnumProperty(
        name="Preset",
        description="Base of the generator's settings; sets those below that it is known for",
        items=_PRESET_ITEMS,
        default=DEFAULT_PRESET,
        update=_apply_preset,
    )
    prompt: bpy.props.StringProperty(
        name="Prompt", description="Text that describes the shot", default=DEFAULT_PROMPT, maxlen=MAX_PROMPT
    )
    negative_prompt: bpy.props.StringProperty(
        name="Negative Prompt",
        description="Text that describes what to avoid; no effect if Guidance is 1",
        default=DEFAULT_NEGATIVE_PROMPT,
        maxlen=MAX_PROMPT,
    )
    seed: bpy.props.IntProperty(
        name="Seed",
        description="Seed of the random generator; the same seed gives the same take",
        default=0,
        min=0,
        max=MAX_SEED,
    )
    steps: bpy.props.IntProperty(
        name="Steps",
        description="Number of denoising steps; more steps take longer and add detail",
        default=25,
        min=1,
        max=200,
        soft_max=60,
    )
    guidance: bpy.props.FloatProperty(
        name="Guidance",
        description="How closely to follow the prompt; 1 ignores the negative prompt and takes half the time",
        default=5.0,
        min=1.0,
        max=30.0,
        soft_max=10.0,
    )
    lead_in: bpy.props.EnumProperty(
        name="Lead-In",
        description="Hidden frames from the source view to a shot that starts elsewhere, so that it starts from a "
        "whole image",
        items=_LEAD_IN_ITEMS,
        default="8",
    )
    stride: bpy.props.IntProperty(
        name="Frame Step",
        description="Generate every n-th frame only, and fill in those between; for footage of 50 or 60 fps",
        default=1,
        min=1,
        max=MAX_STRIDE,
    )
    adapter: bpy.props.StringProperty(name="Adapter", description=_ADAPTER_DESCRIPTION, maxlen=MAX_ADAPTER_NAME)
    adapter_choice: bpy.props.EnumProperty(
        name="Adapter",
        description=_ADAPTER_DESCRIPTION,
        items=adapter_items,
        get=_chosen_adapter,
        set=_choose_adapter,
    )
    size: size_property
    above_model: above_model_property
    keep_seen: keep_seen_property
    takes: bpy.props.IntProperty(
        name="Takes",
        description="Number of final takes to send at once; each further take adds 1 to the seed",
        default=1,
        min=1,
        max=16,
        soft_max=8,
    )


class EX4D_OT_new_seed(Operator):
    """Set the seed to a random number."""

    bl_idname = "ex4d.new_seed"
    bl_label = "Random Seed"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> set[str]:
        context.scene.ex4d_shot.final.seed = random.randint(0, MAX_SEED)
        return {"FINISHED"}


class EX4D_OT_edit_words(Operator):
    """Edit this text in a wide dialog that shows all of it."""

    bl_idname = "ex4d.edit_words"
    bl_label = "Edit Prompt"
    bl_options = {"UNDO"}

    words: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"}, default="prompt")
    text: bpy.props.StringProperty(name="Text", description="Press Return to update the lines below", maxlen=MAX_PROMPT)

    def invoke(self, context: Context, event: bpy.types.Event) -> set[str]:
        self.text = getattr(context.scene.ex4d_shot.final, self.words)
        return context.window_manager.invoke_props_dialog(self, width=_DIALOG_WIDTH)

    def draw(self, context: Context) -> None:
        self.layout.label(text=EX4D_Final.bl_rna.properties[self.words].name)
        self.layout.prop(self, "text", text="")
        lines = self.layout.column(align=True)
        lines.scale_y = 0.8
        for line in wrapped(self.text, _DIALOG_WIDTH // 6):
            lines.label(text=line, translate=False)

    def execute(self, context: Context) -> set[str]:
        setattr(context.scene.ex4d_shot.final, self.words, self.text)
        return {"FINISHED"}


CLASSES = (EX4D_Final, EX4D_OT_new_seed, EX4D_OT_edit_words)


def final_settings(final: EX4D_Final) -> WanSettings:
    """The settings as the backend takes them.

    Raises:
        RequestError: an invalid value.
    """
    known = wan_preset(final.preset).conditioning == "known"
    return wan_preset(
        final.preset,
        prompt=final.prompt,
        negative_prompt=final.negative_prompt,
        seed=final.seed,
        steps=final.steps,
        guidance=round(final.guidance, 4),  # Blender stores float32
        lead_in=int(final.lead_in) if known else 0,
        stride=final.stride,
        adapter=final.adapter,
        **size_settings(final),
    )


def settings_of_takes(final: EX4D_Final) -> list[WanSettings]:
    """`final_settings` of every take to send at once, with consecutive seeds.

    Raises:
        RequestError: an invalid value.
    """
    settings = final_settings(final)
    return [replace(settings, seed=(settings.seed + number) % (MAX_SEED + 1)) for number in range(final.takes)]


def workload_text(
    settings: WanSettings,
    frames: int,
    width: int,
    height: int,
    pixel_aspect: float = 1.0,
    at_source: bool | None = None,
    server: Welcome | None = None,
) -> str:
    """A summary for the panel: the number of frames, the size that they are generated at, and the steps.

    Args:
        pixel_aspect: width of a pixel by its height.
        at_source: whether the shot starts at the source view; if not, its hidden frames count for the windows.
        server: what the connected backend offers; None without a connection.
    """
    generated = generation_size(settings, width, height, pixel_aspect)
    size = f"{generated[0]} x {generated[1]}"
    if generated != (width, height):
        size = enlarged_text(size, width, height, server)
    frames = generated_frames(frames, settings.stride)
    hidden = settings.lead_in if at_source is False and settings.conditioning == "known" else 0
    count = len(window_lengths(frames + hidden, with_lead_in(settings, frames, hidden)))
    if count == 1:
        return iface_("{frames} frames at {size}, {steps} steps").format(frames=frames, size=size, steps=settings.steps)
    return iface_(
        "{frames} frames at {size}, {count} windows of {steps} steps; each window continues the previous one"
    ).format(frames=frames, size=size, count=count, steps=settings.steps)


def start_text(settings: WanSettings, frames: int, at_source: bool | None, visible_fraction: float | None) -> str:
    """What the panel says about a shot's start; "" where it starts at the source view, or as EX-4D's own code does.

    Args:
        at_source: whether it starts at the source view; None while that is not known.
        visible_fraction: of its first frame; None while that is not known.
    """
    if at_source or settings.conditioning != "known":
        return ""
    if not settings.lead_in:
        if visible_fraction is None:
            return iface_("Without a lead-in, the generator starts from what is visible in the first frame")
        text = iface_("Without a lead-in, the generator starts from a first frame of which {fraction} is visible")
        return text.format(fraction=f"{visible_fraction:.0%}")
    more = lead_in_cost(settings, generated_frames(frames, settings.stride), settings.lead_in)
    text = iface_("The lead-in from the source view adds {more} to the work")
    if at_source is None:
        text = iface_("If the shot starts elsewhere than the source view, its lead-in adds {more} to the work")
    return text.format(more=f"{more:.0%}")


def restore_final_settings(final: EX4D_Final, settings: WanSettings) -> str:
    """Set a shot's final settings to those of a final take.

    Returns:
        A note for the artist where the preset has changed since, so that a new final will be another; or "".
    """
    final.preset = settings.preset
    restore_words(final, settings)
    final.steps, final.guidance = settings.steps, settings.guidance
    final.lead_in, final.stride = str(settings.lead_in), settings.stride
    final.adapter = settings.adapter
    restore_size(final, settings)
    today = final_settings(final)
    names = [one.name for one in fields(today) if getattr(today, one.name) != getattr(settings, one.name)]
    changed = ", ".join(name for name in names if name != "seed")  # a larger one than Blender's integers
    if not changed:
        return ""
    text = iface_("The preset {preset} has changed since this take: a new final differs in {settings}")
    return text.format(preset=iface_(_PRESET_TEXTS[settings.preset][0]), settings=changed)


def restore_words(final: EX4D_Final, settings: WanSettings) -> None:
    """Set a shot's prompts and seed to those of a take; previews have nothing else of finals."""
    final.prompt, final.negative_prompt = settings.prompt, settings.negative_prompt
    final.seed = min(settings.seed, MAX_SEED)


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    """Give shots of files that know no lead-in that of their preset."""
    for blender_scene in bpy.data.scenes:
        if blender_scene.library is None:
            for shot in (blender_scene.ex4d_unlisted_shot, *blender_scene.ex4d_shots):
                settings = wan_preset(shot.final.preset)
                if not shot.final.is_property_set("lead_in") and settings.conditioning == "known":
                    shot.final.lead_in = str(settings.lead_in)


HANDLERS = (("load_post", _after_load),)


def lacking_precision(server: Welcome, preset: str) -> str:
    """What a backend computes a preset in instead of what it asks for, and why; "" if it has all of that."""
    settings = wan_preset(preset)
    if settings.precision != "fp8":
        return ""
    return server.lacking.get(LACKING_FP8_ATTENTION if settings.fp8_attention else LACKING_FP8, "")


def final_unavailable(server: Welcome | None, preset: str, research: bool) -> str:
    """Why no final take can be made now; "" if one can.

    Args:
        server: what the connected backend offers; None without a connection.
        preset: one of `WAN_PRESETS`.
        research: whether the result may depend on parts with a research-only license.
    """
    if server is None:
        return "No backend is connected; see Connection"
    engines = server.engines
    if FINAL_ENGINE in server.lacking:
        text = iface_("This backend can make previews but no final takes: {reason}")
        return text.format(reason=server.lacking[FINAL_ENGINE])
    if FINAL_ENGINE not in engines:
        return "The backend is still checking whether it can make final takes; see its log if this takes minutes"
    if reason := server.lacking.get(f"{FINAL_ENGINE} {preset}"):
        return iface_("This backend cannot use this preset: {reason}").format(reason=reason)
    if "research only" in engines[FINAL_ENGINE].lower() and not research:
        return (
            f"The license of this backend's generator does not allow commercial use ({engines[FINAL_ENGINE]}); "
            "the add-on's preferences ask for results for commercial use"
        )
    return ""

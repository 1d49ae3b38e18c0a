"""What a shot's finals are asked for: words, seed and steps of the generator, kept in the .blend with the shot."""

from __future__ import annotations

import random

import bpy

from ex4d_core.shot import DEFAULT_NEGATIVE_PROMPT, DEFAULT_PROMPT, MAX_PROMPT, WAN_PRESETS, WanSettings, wan_preset

FINAL_ENGINE = "wan"

_PRESET_TEXTS = {
    "ex4d-reference": ("EX-4D", "As EX-4D was published: 25 steps, pictures of 512x512 pixels at most"),
    "quality": ("Quality", "The render's full size, longer stretches at once and 40 steps: slow, for large GPUs"),
    "fast": ("Fast", "4 steps with a distilled LoRA, which the backend must have"),
    "draft": ("Draft", "Small pictures and few steps, to judge words and seed by"),
}
_PRESET_ITEMS = tuple((name, *_PRESET_TEXTS.get(name, (name, ""))) for name in WAN_PRESETS)
# Blender's whole numbers end here.
_LARGEST_SEED = 2**31 - 1


def _follow_preset(final: bpy.types.PropertyGroup, _: bpy.types.Context) -> None:
    settings = wan_preset(final.preset)
    final.steps, final.guidance = settings.steps, settings.guidance


class EX4D_Final(bpy.types.PropertyGroup):
    """How a shot's final takes are made (``EX4D_Shot.final``); all else is as the preset has it."""

    preset: bpy.props.EnumProperty(
        name="Preset",
        description="What the generator's settings start from; choosing one sets steps and guidance",
        items=_PRESET_ITEMS,
        default="ex4d-reference",
        update=_follow_preset,
    )
    prompt: bpy.props.StringProperty(
        name="Prompt", description="What the shot looks like, in words", default=DEFAULT_PROMPT, maxlen=MAX_PROMPT
    )
    negative_prompt: bpy.props.StringProperty(
        name="Not Wanted",
        description="What the shot should not look like; without effect where Guidance is 1",
        default=DEFAULT_NEGATIVE_PROMPT,
        maxlen=MAX_PROMPT,
    )
    seed: bpy.props.IntProperty(
        name="Seed",
        description="What is invented follows from this number: the same one gives the same take again",
        default=0,
        min=0,
        max=_LARGEST_SEED,
    )
    steps: bpy.props.IntProperty(
        name="Steps",
        description="Of denoising: more of them take longer and give finer pictures",
        default=25,
        min=1,
        max=200,
        soft_max=60,
    )
    guidance: bpy.props.FloatProperty(
        name="Guidance",
        description="How closely the words are followed; 1 leaves out what is not wanted, and takes half the time",
        default=5.0,
        min=1.0,
        max=30.0,
        soft_max=10.0,
    )


class EX4D_OT_new_seed(bpy.types.Operator):
    bl_idname = "ex4d.new_seed"
    bl_label = "Another Seed"
    bl_description = "Have something else invented: choose a seed by chance"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012 - Blender wants a plain set here

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.ex4d_shot.final.seed = random.randint(0, _LARGEST_SEED)
        return {"FINISHED"}


CLASSES = (EX4D_Final, EX4D_OT_new_seed)


def final_settings(final: EX4D_Final) -> WanSettings:
    """What goes over the wire.

    Raises:
        RequestError: a value that cannot be.
    """
    return wan_preset(
        final.preset,
        prompt=final.prompt,
        negative_prompt=final.negative_prompt,
        seed=final.seed,
        steps=final.steps,
        guidance=round(final.guidance, 4),  # Blender keeps 32 bits of it
    )


def restore_final(final: EX4D_Final, settings: WanSettings) -> None:
    """Set a shot's final as a take was made; the seed last of all, as it has no say in the others."""
    final.preset = settings.preset
    final.prompt, final.negative_prompt = settings.prompt, settings.negative_prompt
    final.steps, final.guidance = settings.steps, settings.guidance
    final.seed = min(settings.seed, _LARGEST_SEED)


def why_no_final(engines: dict[str, str] | None, research: bool) -> str:
    """Why a final take cannot be made now, for people; "" when it can.

    Args:
        engines: those of the connected backend, with what their results rest on; None without a connection.
        research: whether parts that are for research only may have a share in the result.
    """
    if engines is None:
        return "No backend is connected, so nobody knows whether it can make finals; see Connection"
    if FINAL_ENGINE not in engines:
        return (
            "This backend cannot make finals, for it lacks the generator or its weights; "
            "the command ex4d doctor says there what to install. Preview works without"
        )
    if "research only" in engines[FINAL_ENGINE].lower() and not research:
        return (
            f"This backend's generator is not for work that earns money ({engines[FINAL_ENGINE]}); "
            "the add-on's preferences say that results are for any work"
        )
    return ""

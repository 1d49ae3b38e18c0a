"""What a shot's finals are asked for: words, seed and steps of the generator, kept in the .blend with the shot."""

from __future__ import annotations

import random
from dataclasses import replace

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ex4d_core.generation import window_count, working_size
from ex4d_core.messages import Welcome
from ex4d_core.shot import DEFAULT_NEGATIVE_PROMPT, DEFAULT_PROMPT, MAX_PROMPT, WAN_PRESETS, WanSettings, wan_preset

from ..connection.panel import wrapped

FINAL_ENGINE = "wan"

_PRESET_TEXTS = {
    "ex4d-reference": ("EX-4D", "As EX-4D was published: 25 steps, pictures of 512x512 pixels at most"),
    "quality": ("Quality", "The render's full size, longer stretches at once and 40 steps: slow, for large GPUs"),
    "fast": ("Fast", "4 steps with a distilled LoRA, which the backend must have"),
    "draft": ("Draft", "Small pictures and few steps, to judge words and seed by"),
}
_PRESET_ITEMS = tuple((name, *_PRESET_TEXTS.get(name, (name, ""))) for name in WAN_PRESETS)
_DIALOG_WIDTH = 700
# Blender's whole numbers end here.
LARGEST_SEED = 2**31 - 1


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
        max=LARGEST_SEED,
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
    takes: bpy.props.IntProperty(
        name="Takes",
        description="How many finals one press sends, to choose from: the first with this seed, the others with the "
        "numbers after it",
        default=1,
        min=1,
        max=16,
        soft_max=8,
    )


class EX4D_OT_new_seed(bpy.types.Operator):
    bl_idname = "ex4d.new_seed"
    bl_label = "Another Seed"
    bl_description = "Have something else invented: choose a seed by chance"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.ex4d_shot.final.seed = random.randint(0, LARGEST_SEED)
        return {"FINISHED"}


class EX4D_OT_edit_words(bpy.types.Operator):
    bl_idname = "ex4d.edit_words"
    bl_label = "Words"
    bl_description = "Read and change this text in a wide window, where all of it can be seen"
    bl_options = {"UNDO"}

    words: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"}, default="prompt")
    text: bpy.props.StringProperty(
        name="Text", description="Return shows how it is broken into lines; OK keeps it", maxlen=MAX_PROMPT
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.text = getattr(context.scene.ex4d_shot.final, self.words)
        return context.window_manager.invoke_props_dialog(self, width=_DIALOG_WIDTH)

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.label(text=EX4D_Final.bl_rna.properties[self.words].name)
        self.layout.prop(self, "text", text="")
        lines = self.layout.column(align=True)
        lines.scale_y = 0.8
        for line in wrapped(self.text, _DIALOG_WIDTH // 6):
            lines.label(text=line, translate=False)

    def execute(self, context: bpy.types.Context) -> set[str]:
        setattr(context.scene.ex4d_shot.final, self.words, self.text)
        return {"FINISHED"}


CLASSES = (EX4D_Final, EX4D_OT_new_seed, EX4D_OT_edit_words)


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


def variants(final: EX4D_Final) -> list[WanSettings]:
    """`final_settings` of every take that one press sends: alike but for their seeds.

    Raises:
        RequestError: as `final_settings`.
    """
    settings = final_settings(final)
    return [replace(settings, seed=(settings.seed + number) % (LARGEST_SEED + 1)) for number in range(final.takes)]


def extent_text(settings: WanSettings, frames: int, width: int, height: int) -> str:
    """What a final of so many frames of this size amounts to, for people: the size it is made at, and its steps."""
    made = working_size(width, height, settings.max_pixels)
    size = f"{made[0]} x {made[1]}"
    if made != (width, height):
        size = iface_("{size}, enlarged to {width} x {height}").format(size=size, width=width, height=height)
    count = window_count(frames, settings.window, settings.overlap)
    if count == 1:
        return iface_("{frames} frames at {size}, in {steps} steps").format(
            frames=frames, size=size, steps=settings.steps
        )
    return iface_(
        "{frames} frames at {size}, in {count} stretches of {steps} steps; each goes on from the one before it"
    ).format(frames=frames, size=size, count=count, steps=settings.steps)


def restore_final(final: EX4D_Final, settings: WanSettings) -> None:
    """Set a shot's final as a take was made; the seed last of all, as it has no say in the others."""
    final.preset = settings.preset
    final.prompt, final.negative_prompt = settings.prompt, settings.negative_prompt
    final.steps, final.guidance = settings.steps, settings.guidance
    final.seed = min(settings.seed, LARGEST_SEED)


def why_no_final(server: Welcome | None, preset: str, research: bool) -> str:
    """Why a final take cannot be made now, for people; "" when it can.

    Args:
        server: how the connected backend introduced itself; None without a connection.
        preset: one of `WAN_PRESETS`.
        research: whether parts that are for research only may have a share in the result.
    """
    if server is None:
        return "No backend is connected, so nobody knows whether it can make finals; see Connection"
    engines = server.engines
    if FINAL_ENGINE in server.lacking:
        text = iface_("This backend makes previews, but no finals: {reason}")
        return text.format(reason=server.lacking[FINAL_ENGINE])
    if FINAL_ENGINE not in engines:
        return (
            "The backend is starting, and knows in a moment whether it can make finals; "
            "should that last for minutes, its log says why"
        )
    if reason := server.lacking.get(f"{FINAL_ENGINE} {preset}"):
        return iface_("This backend makes no finals of this preset: {reason}").format(reason=reason)
    if "research only" in engines[FINAL_ENGINE].lower() and not research:
        return (
            f"This backend's generator is not for work that earns money ({engines[FINAL_ENGINE]}); "
            "the add-on's preferences say that results are for any work"
        )
    return ""

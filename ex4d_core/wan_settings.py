"""How the Wan model with the EX-4D adapter repaints a shot: settings, presets and further LoRAs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from ex4d_core.cameras import MAX_SIDE
from ex4d_core.errors import RequestError
from ex4d_core.schema import Length, Option, Range, Settings, decode

MAX_PROMPT = 5000
MAX_LORAS = 8
MAX_ADAPTER_NAME = 151

Precision = Literal["bf16", "fp8", "float32"]
WanPreset = Literal["standard", "ex4d-reference", "quality", "fast", "draft", "live"]
Conditioning = Literal["original", "known"]
AboveModel = Literal["generate", "enlarge"]
AttentionName = Literal["dense", "sparse", "sage", "sparge"]

PRECISIONS: tuple[str, ...] = get_args(Precision)
# Keys of `Welcome.lacking` where a backend's GPU computes finals in something else than fp8, or has no attention in it.
LACKING_FP8, LACKING_FP8_ATTENTION = "wan fp8", "wan fp8 attention"

# LoRAs and adapters are asked for by their file's name without the ending; no name can lead out of the folders.
_LORA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,150}")

# What EX-4D's weights were published with.
DEFAULT_PROMPT = "4K ultra HD, surround motion, realistic tone, panoramic shot, wide-angle view, cinematic quality"
DEFAULT_NEGATIVE_PROMPT = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, "
    "overall gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, "
    "poorly drawn hands, poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, "
    "messy background, three legs, many people in the background, walking backwards"
)
STEP_DISTILLED_LORA = "Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64"

# Frames that Wan was trained with at most; EX-4D's own command line may ask for more.
MAX_WINDOW = 81
LEAD_INS = (0, 8, 12, 16)
MAX_STRIDE = 4

# Working sizes by name: a shot of another aspect is generated at as many pixels. Wan2.1's 480P model was trained at the
# second one.
WORKING_SIZES: dict[str, tuple[int, int]] = {
    f"{width}x{height}": (width, height) for width, height in ((512, 512), (832, 480), (1280, 720), (1920, 1080))
}
MODEL_SIZE = WORKING_SIZES["832x480"]
MODEL_PIXELS = MODEL_SIZE[0] * MODEL_SIZE[1]
FULL_SIZE = "full"

# Ways to enlarge pictures, beside the names of upscalers' files: by interpolation, or by an upscaler if there is one.
BICUBIC, ANY_UPSCALER = "bicubic", "auto"

_TRUE_START: dict[str, Any] = {
    "conditioning": "known",
    "lead_in": 8,
    "erosion_seed": 0,
    "above_model": "enlarge",
    "upscaler": ANY_UPSCALER,
}
_FOUR_STEPS: dict[str, Any] = {
    "loras": ({"name": STEP_DISTILLED_LORA},),
    "steps": 4,
    "guidance": 1.0,
    "fp8_attention": True,
}
# How each preset differs from the defaults of `WanSettings`, which are EX-4D's own except for the arithmetic. Takes of
# version 0.1 have the preset "ex4d-reference" with the arithmetic of "standard"; made again, they keep it.
WAN_PRESETS: dict[WanPreset, dict[str, Any]] = {
    "standard": {**_TRUE_START, "step_interval": 3, "protected_steps": 5},
    "ex4d-reference": {"precision": "bf16"},
    "quality": {**_TRUE_START, "lead_in": 12, "max_pixels": MODEL_PIXELS, "window": 81, "overlap": 13, "steps": 40},
    "fast": {**_TRUE_START, **_FOUR_STEPS},
    "draft": {**_TRUE_START, "max_pixels": 384 * 384, "steps": 15, "tea_cache": 0.2, "fp8_attention": True},
    # What `live_draft` asks for, while the camera moves.
    "live": {
        **_TRUE_START,
        **_FOUR_STEPS,
        "lead_in": 0,
        "max_pixels": 512 * 288,
        "upscaler": BICUBIC,
        "tiny_decoder": True,
    },
}
DEFAULT_PRESET: WanPreset = "standard"
# What a preview keeps for the final that is made of it; the rest comes from that final's preset.
WORDS_AND_SEED = ("prompt", "negative_prompt", "seed")


def is_weights_name(name: str) -> bool:
    """Whether a request can name a LoRA or an adapter so: its file's name without folder and ending."""
    return bool(_LORA_NAME.fullmatch(name))


def pixels_from(text: str) -> int:
    """`WanSettings.max_pixels` from ``832x480``, ``full`` or a number of pixels.

    Raises:
        RequestError: it is none of these.
    """
    if text == FULL_SIZE:
        return 0
    if found := re.fullmatch(r"(\d{1,5})x(\d{1,5})", text):
        return int(found[1]) * int(found[2])
    if not re.fullmatch(r"\d{1,12}", text):
        raise RequestError(
            f"invalid working size {text!r:.80}: expected {', '.join(WORKING_SIZES)}, another WIDTHxHEIGHT, "
            f"{FULL_SIZE}, or a number of pixels"
        )
    return int(text)


def size_name(max_pixels: int) -> str:
    """The name of a working size; "" for one that has none."""
    if not max_pixels:
        return FULL_SIZE
    return next((name for name, (width, height) in WORKING_SIZES.items() if width * height == max_pixels), "")


@dataclass(frozen=True)
class Lora(Settings):
    """One more LoRA to merge into the Wan model.

    Attributes:
        name: of a file in the backend's folder of LoRAs, without the ending.
        weight: its strength; 1 is what it was trained for.
    """

    name: str
    weight: Annotated[float, Range(-10, 10)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_weights_name(self.name):
            raise RequestError(
                f"invalid LoRA name {self.name!r:.80}: expected a file name without folder and ending "
                "(letters, digits, . _ + -)"
            )

    @classmethod
    def from_text(cls, text: str) -> Lora:
        """A LoRA from ``NAME`` or ``NAME:WEIGHT``.

        Raises:
            RequestError: the weight is not a number, or see the class.
        """
        name, _, weight = text.partition(":")
        try:
            return cls(name, float(weight or 1))
        except ValueError as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(f"invalid LoRA {text!r}: expected NAME or NAME:WEIGHT, such as grain:0.8") from error


@dataclass(frozen=True)
class WanSettings(Settings):
    """How the Wan model with the EX-4D adapter repaints a shot.

    The defaults are those of EX-4D, except for the arithmetic: matrix products in fp8 make a job more than twice as
    fast as the original, for a small change of the result (`ex4d bench generate` measures both).

    Attributes:
        preset: one of `WAN_PRESETS` that the other fields started from; for people, it changes nothing by itself.
        prompt, negative_prompt: what the shot should and should not look like.
        seed: of the noise; the same seed gives the same video.
        steps: number of denoising steps.
        guidance: classifier-free guidance scale; 1 leaves the negative prompt out and takes half the time.
        shift: timestep shift of the flow-matching schedule; higher spends more steps on the coarse structure.
        erosion: smallest and largest side, in pixels, of the square by which each mask frame shrinks; (0, 0): not.
            With conditioning "known" frame 0 of a shot keeps all of its mask.
        max_pixels: the working size: larger frames are made smaller and enlarged again, keeping their aspect; 0: never.
            `WORKING_SIZES` has names for some.
        erosion_seed: of the erosion, so that takes of several seeds share their masks; None: the noise's seed.
        window: frames generated at once, 4n + 1; longer shots continue in further windows. At most `MAX_WINDOW` with
            conditioning "known".
        overlap: frames of the window before that each further window starts from, 4n + 1.
        loras: merged beside EX-4D's own.
        tea_cache: a step whose input changed by less than this reuses the last step's result; 0: none.
        precision: "fp8" (matrix products in fp8 where the GPU can, else weights stored in fp8 and products in bf16; a
            CPU imitates the former), "bf16" (as EX-4D), or "float32".
        adapter: another adapter of EX-4D's kind on the same model, by its file's name without the ending; "": EX-4D's.
        fp8_attention: with "fp8", compute self-attention in fp8 too, where the GPU and cuDNN's frontend can.
        conditioning: "original": as EX-4D's code has it, frame 0 as erosion leaves it, and windows that start from
            decoded frames. "known": all that is known. Frame 0 is not eroded, its small holes are closed, and within
            half a pixel of the source view it is the source frame; windows are equally long, start from the latents of
            the one before, see its frames as known, and keep the first window's colours; pixels that are not square
            are generated square.
        lead_in: hidden frames from the source view to the first camera, where that is elsewhere; 0: none.
        stride: generate every n-th frame, and fill in those between from their neighbours; for fast footage.
        above_model: what a working size above `MODEL_SIZE`, which the model was trained at, does: "generate" at it,
            or generate at the model's own size and "enlarge".
        upscaler: enlarges the pictures: "bicubic"; a file in the folder upscalers of the models, by its name without
            the ending; or "auto", which takes the first file there, and else "bicubic".
        keep_seen: show the footage's own pixels where the render has them, over the generated picture; never with the
            preset "ex4d-reference".
        tiny_decoder: decode with the tiny decoder TAEW 2.1 instead of the VAE, where its file is there; for drafts.
        step_interval: run the network at every n-th step, and extrapolate the velocity at those between; not with
            ``tea_cache``.
        protected_steps: first steps that leave nothing out: no interval, no ``tea_cache``, and dense attention.
        guidance_interval: smallest and largest sigma that are guided; elsewhere the negative prompt's pass is left out.
        cfg_zero: CFG-Zero*: scale the negative prompt's velocity to the positive one's before guidance.
        zero_steps: first steps that leave the noise as it is, the zero-init of CFG-Zero*.
        attention: of the tokens to each other. "dense": all, by what is fastest here; "sparse": those that are near in
            space and time; "sage" and "sparge": in 8 bits by SageAttention 2, and in 8 bits and sparse by SpargeAttn,
            where these are installed. ``fp8_attention`` is for "dense".

    Raises:
        RequestError: a field of the wrong type or out of range.
    """

    preset: WanPreset = "ex4d-reference"
    prompt: Annotated[str, Length(MAX_PROMPT), Option("what the shot should look like")] = DEFAULT_PROMPT
    negative_prompt: Annotated[str, Length(MAX_PROMPT), Option("what the shot should not look like")] = (
        DEFAULT_NEGATIVE_PROMPT
    )
    seed: Annotated[int, Range(0, 2**63 - 1), Option("random seed; the same seed gives the same video")] = 0
    steps: Annotated[
        int, Range(1, 200), Option("number of denoising steps", ("--num_inference_steps",), metavar="N")
    ] = 25
    guidance: Annotated[
        float, Range(1, 30), Option("classifier-free guidance scale; 1 turns it off and is twice as fast")
    ] = 5.0
    shift: Annotated[
        float, Range(0.1, 30), Option("timestep shift; higher spends more steps on the coarse structure")
    ] = 5.0
    erosion: Annotated[
        tuple[Annotated[int, Range(0, 64)], Annotated[int, Range(0, 64)]],
        Option(
            "shrink each mask by a random LOW to HIGH pixels; with --conditioning known not that of frame 0",
            metavar="LOW,HIGH",
        ),
    ] = (2, 8)
    max_pixels: Annotated[
        int,
        Range(0, MAX_SIDE**2),
        Option(
            f"generate at no more pixels than this: {', '.join(WORKING_SIZES)}, {FULL_SIZE} (the take's), or a number",
            ("--working-size",),
            metavar="SIZE",
            read=pixels_from,
        ),
    ] = 512 * 512
    window: Annotated[int, Range(5, 161), Option("frames generated at once, 4n + 1", metavar="N")] = 49
    overlap: Annotated[int, Range(1, 157), Option("frames that a further window starts from, 4n + 1", metavar="N")] = 9
    loras: Annotated[
        tuple[Lora, ...],
        Length(MAX_LORAS),
        Option("a file in the folder loras of the models; repeatable, replaces the preset's", metavar="NAME[:WEIGHT]"),
    ] = ()
    tea_cache: Annotated[
        float, Range(0, 1), Option("reuse the last step's result while the input changes by less than X; 0: off")
    ] = 0.0
    precision: Annotated[Precision, Option("bf16: exactly as EX-4D; fp8: faster on Hopper and Ada GPUs")] = "fp8"
    fp8_attention: Annotated[bool, Option("with fp8: self-attention in fp8 too")] = False
    adapter: Annotated[
        str,
        Length(MAX_ADAPTER_NAME),
        Option("another adapter of EX-4D's kind, see 'ex4d models list'; default: EX-4D's", metavar="NAME"),
    ] = ""
    conditioning: Annotated[
        Conditioning, Option("original: as EX-4D; known: start from the whole frame 0, and hold windows together")
    ] = "original"
    lead_in: Annotated[
        int,
        Range(0, 16),
        Option("hidden frames from the source view to a shot that starts elsewhere: 8, 12, 16; 0: none", metavar="N"),
    ] = 0
    erosion_seed: Annotated[
        int | None, Range(0, 2**63 - 1), Option("seed of the mask's erosion alone", metavar="N")
    ] = None
    stride: Annotated[
        int, Range(1, MAX_STRIDE), Option("generate every N-th frame, and fill in those between", metavar="N")
    ] = 1
    above_model: Annotated[
        AboveModel,
        Option(
            f"working sizes above the model's own, {MODEL_SIZE[0]}x{MODEL_SIZE[1]}: generate at them, or generate at "
            "its own and enlarge"
        ),
    ] = "generate"
    upscaler: Annotated[
        str,
        Length(MAX_ADAPTER_NAME),
        Option(
            f"enlarges pictures: {BICUBIC}, a file in the folder upscalers of the models, or {ANY_UPSCALER}: such a "
            f"file if there is one, else {BICUBIC}",
            metavar="NAME",
        ),
    ] = BICUBIC
    keep_seen: Annotated[
        bool, Option("show the footage's own pixels where it was seen, over the generated picture")
    ] = False
    tiny_decoder: Annotated[
        bool, Option("decode with TAEW 2.1 where 'ex4d models fetch tiny_decoder' has fetched it; for drafts")
    ] = False
    step_interval: Annotated[
        int, Range(1, 10), Option("run the network at every N-th step, and extrapolate between", metavar="N")
    ] = 1
    protected_steps: Annotated[
        int, Range(0, 200), Option("first steps that leave nothing out, with dense attention", metavar="N")
    ] = 0
    guidance_interval: Annotated[
        tuple[Annotated[float, Range(0, 1)], Annotated[float, Range(0, 1)]],
        Option("guide only at sigmas from LOW to HIGH", metavar="LOW,HIGH"),
    ] = (0.0, 1.0)
    cfg_zero: Annotated[bool, Option("CFG-Zero*: scale the negative prompt's velocity before guidance")] = False
    zero_steps: Annotated[
        int, Range(0, 10), Option("first steps that leave the noise as it is, the zero-init of CFG-Zero*", metavar="N")
    ] = 0
    attention: Annotated[
        AttentionName, Option("dense; sparse: what is near in space and time; sage, sparge: by these packages")
    ] = "dense"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "overlap"):
            if getattr(self, name) % 4 != 1:
                raise RequestError(f"{name} must be 4n + 1 frames (5, 9, 13...), not {getattr(self, name)}")
        if self.overlap >= self.window:
            raise RequestError(f"overlap must be shorter than window, not {self.overlap} of {self.window} frames")
        if self.conditioning == "known" and self.window > MAX_WINDOW:
            raise RequestError(f"window must be at most {MAX_WINDOW} frames, which Wan was made for, not {self.window}")
        if self.tea_cache and self.step_interval > 1:
            raise RequestError(
                f"tea_cache ({self.tea_cache}) and step_interval ({self.step_interval}) both leave steps out: set "
                "tea_cache to 0, or step_interval to 1"
            )
        if self.guidance_interval[0] > self.guidance_interval[1]:
            raise RequestError(
                f"guidance_interval must be its smallest, then its largest sigma, not {self.guidance_interval!r}"
            )
        if self.zero_steps >= self.steps:
            raise RequestError(f"zero_steps must be fewer than the {self.steps} steps, not {self.zero_steps}")
        if self.lead_in not in LEAD_INS:
            raise RequestError(f"lead_in must be one of {', '.join(map(str, LEAD_INS))} frames, not {self.lead_in}")
        if 0 < self.max_pixels < 64 * 64:
            raise RequestError(f"max_pixels must be 0 or at least {64 * 64}, not {self.max_pixels}")
        if self.adapter and not is_weights_name(self.adapter):
            raise RequestError(
                f"invalid adapter {self.adapter!r:.80}: expected a file name without folder and ending "
                "(letters, digits, . _ + -)"
            )
        if not _LORA_NAME.fullmatch(self.upscaler):
            raise RequestError(
                f"invalid upscaler {self.upscaler!r:.80}: expected {BICUBIC}, {ANY_UPSCALER}, or a file name without "
                "folder and ending (letters, digits, . _ + -)"
            )
        if self.keep_seen and self.preset == "ex4d-reference":
            raise RequestError(
                "keep_seen must be off with the preset ex4d-reference, which makes what EX-4D makes: choose another "
                "preset, such as standard"
            )
        if self.erosion[0] > self.erosion[1]:
            raise RequestError(f"erosion must be its smallest, then its largest side, not {self.erosion!r}")

    @property
    def generated_pixels(self) -> int:
        """Pixels that images are generated at, at most; 0 for no limit."""
        if self.above_model == "generate":
            return self.max_pixels
        return min(self.max_pixels or MODEL_PIXELS, MODEL_PIXELS)


def wan_preset(name: str, **changes: Any) -> WanSettings:
    """A preset's settings, with some fields changed.

    Raises:
        RequestError: no such preset, or an invalid field.
    """
    if name not in WAN_PRESETS:
        raise RequestError(f"preset must be one of {', '.join(WAN_PRESETS)}, not {name!r:.80}")
    return decode(WanSettings, {"preset": name, **WAN_PRESETS[name], **changes})

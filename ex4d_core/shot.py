"""Requests for shots: typed settings that the library, the command line, the service and the add-on share.

Every field's type, bounds and flag on the command line are in its annotation; see `ex4d_core.schema`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args

import numpy as np

from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.licences import Licence
from ex4d_core.scene_manifest import is_sha256
from ex4d_core.schema import Codec, Length, Option, Range, Settings, decode
from ex4d_core.source_frames import (
    MAX_FRAMES,
    consecutive_from,
    is_consecutive,
    require_footage,
    shown_frames,
    source_frames_from,
    to_text,
)

# Bounds that keep one request from taking a backend down; raise them together with the memory tests.
MAX_SIDE = 8192
MAX_LABEL = 200
MAX_PROMPT = 5000
MAX_LORAS = 8
MAX_SAMPLES = 4

RasterizerName = Literal["auto", "warp", "nvdiffrast"]
Convention = Literal["centered", "reference"]
OcclusionRule = Literal["angle", "boundary"]
OcclusionModel = Literal["watertight", "open", "thickness"]
EngineName = Literal["preview", "wan"]
Precision = Literal["bf16", "fp8", "float32"]
WanPreset = Literal["ex4d-reference", "quality", "fast", "draft"]

RASTERIZERS: tuple[str, ...] = get_args(RasterizerName)
CONVENTIONS: tuple[str, ...] = get_args(Convention)
OCCLUSION_RULES: tuple[str, ...] = get_args(OcclusionRule)
OCCLUSION_MODELS: tuple[str, ...] = get_args(OcclusionModel)
ENGINES: tuple[str, ...] = get_args(EngineName)
PRECISIONS: tuple[str, ...] = get_args(Precision)

# Engines that show what other frames of the clip saw, unless a shot says otherwise. The weights of wan were trained
# with what a single frame shows.
REMEMBERING_ENGINES: tuple[EngineName, ...] = ("preview",)
# Engines whose masks stay as they are drawn, unless a shot says otherwise: wan was trained with such masks.
UNCLEANED_ENGINES: tuple[EngineName, ...] = ("wan",)

# A LoRA is asked for by its file's name without the ending; no name can lead out of the folder of LoRAs.
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

# How each preset differs from the defaults of `WanSettings`, which are EX-4D's own except for the arithmetic.
WAN_PRESETS: dict[WanPreset, dict[str, Any]] = {
    "ex4d-reference": {},
    "quality": {"max_pixels": 0, "window": 81, "overlap": 13, "steps": 40},
    "fast": {"loras": ({"name": STEP_DISTILLED_LORA},), "steps": 4, "guidance": 1.0, "fp8_attention": True},
    "draft": {"max_pixels": 384 * 384, "steps": 15, "tea_cache": 0.2, "fp8_attention": True},
}


@dataclass(frozen=True)
class RenderSettings(Settings):
    """How the DW-Mesh becomes colour and mask.

    Attributes:
        rasterizer: "auto" takes what is installed.
        convention: "centered", or "reference" for the published EX-4D code's (see `docs/conventions.md`).
        occlusion_rule: which faces hide what the footage never saw: "angle" (faces thinner than 2.5 degrees) or
            "boundary" (faces that are mostly depth).
        occlusion: what the space behind a discontinuity counts as: "watertight" (solid, as in EX-4D), "open" (empty)
            or "thickness" (solid to a plausible depth; "centered" convention and rasterizer "warp" only).
        samples: rays of each pixel, per axis, in takes and renders: their mean is its colour, and how many of them saw
            the footage its share of the mask. 1 in the "reference" convention, which is antialiased as EX-4D is;
            views and coverage have 1 whatever this is.
        licence: what the result is for; some rasterizers are for research only. None leaves it to the machine.
        clean: whether masks lose their specks and, in takes and renders, are held steady over time ("centered"
            convention only). None leaves it to the engine: wan's masks stay as they are, others are cleaned.
        remember: whether unseen pixels show what other frames of the clip saw there ("centered" convention only). None
            leaves it to the engine: preview does, wan does not; nor does a render without an engine.

    Raises:
        RequestError: a field of the wrong type or out of range, or an occlusion model that does not go with the others.
    """

    rasterizer: Annotated[RasterizerName, Option("auto takes the fastest that is installed and allowed")] = "auto"
    convention: Annotated[
        Convention,
        Option(
            "centered, or reference: exactly as the published EX-4D code, to reproduce the paper (default: the scene's)"
        ),
    ] = "centered"
    occlusion_rule: Annotated[
        OcclusionRule, Option("which faces hide what the footage never saw", aliases=("--filter_type",))
    ] = "angle"
    occlusion: Annotated[
        OcclusionModel,
        Option(
            "what the space behind a discontinuity counts as: solid (watertight), empty (open), or solid to a "
            "plausible depth (thickness; with rasterizer warp and convention centered only) (default: thickness; "
            "watertight with the engine wan, whose weights were trained so, and where there is no thickness)"
        ),
    ] = "watertight"
    samples: Annotated[
        int,
        Range(1, MAX_SAMPLES),
        Option("rays of each pixel, per axis: 3 is antialiased, with soft mask edges; 1 is fastest", metavar="N"),
    ] = 3
    licence: Annotated[
        Licence | None,
        Option(
            "intended use; commercial excludes research-only parts (default: $EX4D_LICENCE, else commercial)",
            aliases=("--license",),
        ),
    ] = None
    clean: Annotated[
        bool | None,
        Option("remove specks from masks and hold them steady over time (default: unless the engine is wan)"),
    ] = None
    remember: Annotated[
        bool | None,
        Option("show what other frames of the clip saw where one sees nothing (default: only with engine preview)"),
    ] = None

    @property
    def cleans(self) -> bool:
        """Whether masks are cleaned, where no engine decides."""
        return self.clean is not False and self.convention == "centered"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clean and self.convention == "reference":
            raise RequestError(
                "clean does not exist in the reference convention: leave it out, or use the centered convention"
            )
        if self.convention == "reference":
            object.__setattr__(self, "samples", 1)
        if self.occlusion == "thickness" and self.convention == "reference":
            raise RequestError(
                "occlusion thickness does not exist in the reference convention: use watertight or open, or the "
                "centered convention"
            )
        if self.remember and self.convention == "reference":
            raise RequestError(
                "remember does not exist in the reference convention: leave it out, or use the centered convention"
            )
        if self.occlusion == "thickness" and self.rasterizer == "nvdiffrast":
            raise RequestError(
                "rasterizer nvdiffrast cannot draw occlusion thickness: use rasterizer warp, or watertight or open"
            )


def default_occlusion(engine: str, convention: str, rasterizer: str = "auto") -> OcclusionModel:
    """The occlusion model where nobody chose one.

    "thickness" is closest to what a camera would have seen (docs/measured/rendering.md), and EX-4D's weights were
    trained with masks of solid space. `RenderSettings` keep "watertight" as their own default, since requests of before
    leave it out.

    Args:
        engine: renders, coverage and views are previews.
        convention: "reference" has no thickness.
        rasterizer: "nvdiffrast" has none either.
    """
    if engine == "wan" or convention == "reference" or rasterizer == "nvdiffrast":
        return "watertight"
    return "thickness"


@dataclass(frozen=True)
class PreviewSettings(Settings):
    """How the preview engine treats what the footage never saw.

    Attributes:
        holes: "fill" (smoothly, from the surroundings) or "mark" (in ``hole_color``; what other frames of the clip saw
            is tinted blue).
        hole_color: sRGB, 0 to 255.
    """

    holes: Annotated[Literal["fill", "mark"], Option("what to do with regions that the footage never saw")] = "fill"
    hole_color: Annotated[
        tuple[Annotated[int, Range(0, 255)], Annotated[int, Range(0, 255)], Annotated[int, Range(0, 255)]],
        Option("sRGB colour for --holes mark", metavar="R,G,B"),
    ] = (255, 0, 255)


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
        if not _LORA_NAME.fullmatch(self.name):
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
        seed: of the noise and of the mask's erosion; the same seed gives the same video.
        steps: number of denoising steps.
        guidance: classifier-free guidance scale; 1 leaves the negative prompt out and takes half the time.
        shift: timestep shift of the flow-matching schedule; higher spends more steps on the coarse structure.
        erosion: smallest and largest side, in pixels, of the square by which each mask frame shrinks; (0, 0): not.
        max_pixels: larger frames are made smaller and enlarged again, keeping their aspect; 0: never.
        window: frames generated at once, 4n + 1; longer shots continue in further windows.
        overlap: frames of the window before that each further window starts from, 4n + 1.
        loras: merged beside EX-4D's own.
        tea_cache: a step whose input changed by less than this reuses the last step's result; 0: none.
        precision: "fp8" (matrix products in fp8 where the GPU can, else as "bf16"; a CPU imitates them), "bf16" (as
            EX-4D), or "float32".
        fp8_attention: with "fp8", compute self-attention in fp8 too, where the GPU and cuDNN's frontend can.

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
        Option("shrink each mask by a random LOW to HIGH pixels", metavar="LOW,HIGH"),
    ] = (2, 8)
    max_pixels: Annotated[
        int, Range(0, MAX_SIDE**2), Option("generate at no more pixels than this; 0: no limit", metavar="N")
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

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "overlap"):
            if getattr(self, name) % 4 != 1:
                raise RequestError(f"{name} must be 4n + 1 frames (5, 9, 13...), not {getattr(self, name)}")
        if self.overlap >= self.window:
            raise RequestError(f"overlap must be shorter than window, not {self.overlap} of {self.window} frames")
        if 0 < self.max_pixels < 64 * 64:
            raise RequestError(f"max_pixels must be 0 or at least {64 * 64}, not {self.max_pixels}")
        if self.erosion[0] > self.erosion[1]:
            raise RequestError(f"erosion must be its smallest, then its largest side, not {self.erosion!r}")


def wan_preset(name: str, **changes: Any) -> WanSettings:
    """A preset's settings, with some fields changed.

    Raises:
        RequestError: no such preset, or an invalid field.
    """
    if name not in WAN_PRESETS:
        raise RequestError(f"preset must be one of {', '.join(WAN_PRESETS)}, not {name!r:.80}")
    return decode(WanSettings, {"preset": name, **WAN_PRESETS[name], **changes})


def camera_to_wire(camera: CameraPath) -> dict[str, Any]:
    """A camera path as plain values; arrays as little-endian float64 bytes."""
    return {
        "frames": len(camera),
        "width": camera.width,
        "height": camera.height,
        "world_to_camera": camera.world_to_camera.astype("<f8").tobytes(),
        "intrinsics": camera.intrinsics.astype("<f8").tobytes(),
    }


@dataclass(frozen=True)
class _PlainCamera(Settings):
    """A camera path as it travels."""

    frames: Annotated[int, Range(1, MAX_FRAMES)]
    width: Annotated[int, Range(1, MAX_SIDE)]
    height: Annotated[int, Range(1, MAX_SIDE)]
    world_to_camera: bytes
    intrinsics: bytes


def camera_from_wire(values: object) -> CameraPath:
    """Check and rebuild what `camera_to_wire` gave.

    Raises:
        RequestError: a field is missing or invalid, or the camera cannot be used.
    """
    if not isinstance(values, Mapping):
        raise RequestError("camera is missing")
    plain = decode(_PlainCamera, values)
    arrays = {}
    for name, side in (("world_to_camera", 4), ("intrinsics", 3)):
        data, expected = getattr(plain, name), 8 * plain.frames * side * side
        if len(data) != expected:
            raise RequestError(f"camera {name} of {plain.frames} frames must be {expected} bytes of float64")
        arrays[name] = np.frombuffer(data, dtype="<f8").reshape(plain.frames, side, side)
    try:
        return CameraPath(**arrays, width=plain.width, height=plain.height)
    except CameraError as error:
        raise RequestError(str(error)) from error


@dataclass(frozen=True)
class ShotRequest(Settings):
    """One shot to generate: a scene, a camera, and how.

    Attributes:
        scene: SHA-256 of the scene's manifest.
        camera: one camera per new frame, in the scene's world; its size is the size of the result.
        first_frame: footage frame that the camera's frame 0 belongs to; the others show the ones after it.
        source_frames: the footage frame that each new frame shows, where they are not consecutive: in any order, and
            repeated at will. Frame numbers or their text form (`ex4d_core.source_frames`); consecutive ones become
            None and a first_frame, so that a shot has one form only.
        label: for people, in job lists.

    Raises:
        RequestError: a field of the wrong type or out of range.
    """

    scene: str
    camera: Annotated[CameraPath, Codec(CameraPath, camera_to_wire, camera_from_wire)]
    first_frame: Annotated[int, Range(0, MAX_FRAMES - 1)] = 0
    render: RenderSettings = field(default_factory=RenderSettings)
    engine: EngineName = "preview"
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    wan: WanSettings = field(default_factory=WanSettings)
    label: Annotated[str, Length(MAX_LABEL)] = ""
    source_frames: Annotated[tuple[int, ...] | None, Codec(None, to_text, source_frames_from)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._settle_source_frames()
        if not is_sha256(self.scene):
            raise RequestError(f"scene must be the SHA-256 of a scene manifest, not {self.scene!r:.80}")
        if len(self.camera) > MAX_FRAMES:
            raise RequestError(f"a shot may have at most {MAX_FRAMES} frames, not {len(self.camera)}")
        require_size(self.camera)

    @property
    def footage_frames(self) -> Sequence[int]:
        """The footage frame that each new frame shows; a `range` where they are consecutive."""
        if self.source_frames is None:
            return consecutive_from(self.first_frame, len(self.camera))
        return self.source_frames

    def to_wire(self) -> dict[str, Any]:
        """Plain values for msgpack and JSON; without what older sides refuse, where it says nothing.

        That is source frames that are consecutive, one sample of each pixel, and what is left to the engine: cleaning,
        and the memory of the clip.
        """
        values = super().to_wire()
        if self.source_frames is None:
            del values["source_frames"]
        if self.render.samples == 1:
            del values["render"]["samples"]
        if self.render.clean is None:
            del values["render"]["clean"]
        if self.render.remember is None:
            del values["render"]["remember"]
        return values

    @classmethod
    def from_wire(cls, values: object) -> ShotRequest:
        """Check and rebuild what `to_wire` gave, here or in an older version, which had one sample of each pixel.

        Raises:
            RequestError: any field is missing, unknown, of the wrong type or out of range.
        """
        if isinstance(values, Mapping) and isinstance(render := values.get("render", {}), Mapping):
            values = {**values, "render": {"samples": 1, **render}}
        return super().from_wire(values)

    @property
    def settled_render(self) -> RenderSettings:
        """The render's settings, with what they leave to the engine."""
        settled = self.render
        if settled.clean is None and self.engine in UNCLEANED_ENGINES:
            settled = replace(settled, clean=False)
        if settled.remember is None:
            remember = self.engine in REMEMBERING_ENGINES and settled.convention == "centered"
            settled = replace(settled, remember=remember)
        return settled

    def part(self, start: int, stop: int) -> ShotRequest:
        """The same shot from frame ``start`` up to, but not including, ``stop``.

        Raises:
            CameraError: it has no such frames.
        """
        camera, shown = self.camera.frames(start, stop), self.source_frames
        if shown is None:
            return replace(self, camera=camera, first_frame=self.first_frame + start)
        return replace(self, camera=camera, source_frames=shown[start:stop])

    def require_footage(self, frames: int) -> None:
        """Check that a scene of ``frames`` frames covers the shot.

        Raises:
            RequestError: the shot shows a frame that the footage does not have.
        """
        require_footage(self.footage_frames, frames)

    def _settle_source_frames(self) -> None:
        shown = self.source_frames
        if shown is None:
            return
        if is_consecutive(shown_frames(len(self.camera), self.first_frame, shown)):
            object.__setattr__(self, "first_frame", shown[0])
            object.__setattr__(self, "source_frames", None)


def require_size(camera: CameraPath) -> None:
    """Raises RequestError where a camera's frames are larger than this project renders."""
    if max(camera.width, camera.height) > MAX_SIDE:
        raise RequestError(f"a frame may have sides of at most {MAX_SIDE} pixels, not {camera.width}x{camera.height}")

"""What an artist asks for: a shot, as typed values that the add-on, the command line and the service share.

Everything here turns into plain msgpack values and back (`to_wire`, `from_wire`); the way back checks every field,
since it may come from anywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.errors import Ex4dError
from ex4d_core.scene import is_sha256

# Bounds that keep one request from taking a backend down; raise them together with the memory tests.
MAX_FRAMES = 100_000
MAX_SIDE = 8192
MAX_LABEL = 200
MAX_PROMPT = 5000
MAX_LORAS = 8

RASTERIZERS = ("auto", "warp", "nvdiffrast")
LICENCES = ("research", "commercial")  # what a result may be for
CONVENTIONS = ("centered", "reference")
OCCLUSION_RULES = ("angle", "boundary")
OCCLUSION_MODELS = ("watertight", "open", "thickness")
ENGINES = ("preview", "wan")
HOLES = ("fill", "mark")
PRECISIONS = ("bf16", "fp8", "float32")

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

# How each preset differs from the defaults of `WanSettings`, which are EX-4D's own but for the arithmetic.
WAN_PRESETS: dict[str, dict[str, Any]] = {
    "ex4d-reference": {},
    "quality": {"max_pixels": 0, "window": 81, "overlap": 13, "steps": 40},
    "fast": {"loras": ({"name": STEP_DISTILLED_LORA},), "steps": 4, "guidance": 1.0, "fp8_attention": True},
    "draft": {"max_pixels": 384 * 384, "steps": 15, "tea_cache": 0.2, "fp8_attention": True},
}


class RequestError(Ex4dError, ValueError):
    """A request with a field that is missing, of the wrong type, or out of range; the message names it."""


@dataclass(frozen=True)
class RenderSettings:
    """How the DW-Mesh becomes colour and mask.

    Attributes:
        rasterizer: one of `RASTERIZERS`; "auto" takes what is installed.
        convention: "centered", or "reference" for EX-4D's own habits (see the architecture notes).
        occlusion_rule: "angle" (faces thinner than 2.5 degrees) or "boundary" (faces that are mostly depth).
        occlusion: what the space behind an outline counts as: "watertight" (solid, as in EX-4D), "open" (empty) or
            "thickness" (solid to a plausible depth). "thickness" is for the "centered" convention and rasterizer
            "warp" only.
        licence: what the result is for, one of `LICENCES`; some rasterizers are for research only. None leaves it to
            the backend's own setting.
    """

    rasterizer: str = "auto"
    convention: str = "centered"
    occlusion_rule: str = "angle"
    occlusion: str = "watertight"
    licence: str | None = None

    def __post_init__(self) -> None:
        _require_choice("rasterizer", self.rasterizer, RASTERIZERS)
        _require_choice("convention", self.convention, CONVENTIONS)
        _require_choice("occlusion_rule", self.occlusion_rule, OCCLUSION_RULES)
        _require_choice("occlusion", self.occlusion, OCCLUSION_MODELS)
        if self.licence is not None:
            _require_choice("licence", self.licence, LICENCES)
        if self.occlusion == "thickness" and self.convention == "reference":
            raise RequestError(
                "occlusion thickness is not known to the reference convention: use watertight or open, or the centered "
                "convention"
            )
        if self.occlusion == "thickness" and self.rasterizer == "nvdiffrast":
            raise RequestError(
                "occlusion thickness is not known to rasterizer nvdiffrast: use rasterizer warp, or watertight or open"
            )


@dataclass(frozen=True)
class PreviewSettings:
    """How the preview engine treats what the footage never saw.

    Attributes:
        holes: "fill" (smoothly, from around) or "mark" (in ``hole_color``).
        hole_color: sRGB, 0 to 255.
    """

    holes: str = "fill"
    hole_color: tuple[int, int, int] = (255, 0, 255)

    def __post_init__(self) -> None:
        _require_choice("holes", self.holes, HOLES)
        color = tuple(self.hole_color)
        if len(color) != 3 or any(not isinstance(value, int) or not 0 <= value <= 255 for value in color):
            raise RequestError(f"hole_color must be three whole numbers from 0 to 255, not {self.hole_color!r}")
        object.__setattr__(self, "hole_color", color)


@dataclass(frozen=True)
class Lora:
    """One more LoRA to merge into the Wan model.

    Attributes:
        name: of a file in the backend's folder of LoRAs, without the ending.
        weight: how strongly; 1 is what it was trained for.
    """

    name: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _LORA_NAME.fullmatch(self.name):
            raise RequestError(
                f"a LoRA is named like its file, without folder and ending (letters, digits, . _ + -), "
                f"not {self.name!r}"
            )
        _require_number(self, "weight", -10, 10)


@dataclass(frozen=True)
class WanSettings:
    """How the Wan model with the EX-4D adapter repaints a shot.

    The defaults are those of EX-4D, but for the arithmetic: products in 8 bits are what makes a job more than twice as
    fast as the original, for a small change of the result (`ex4d bench generate` measures both).

    Attributes:
        preset: one of `WAN_PRESETS` that the other fields started from; for people, it changes nothing by itself.
        prompt, negative_prompt: what the shot should and should not look like.
        seed: of the noise and of the mask's erosion; the same seed gives the same video.
        steps: of denoising.
        guidance: classifier-free guidance; 1 leaves the negative prompt out and takes half the time.
        shift: of the flow-matching schedule; higher spends more steps on the coarse picture.
        erosion: smallest and largest side, in pixels, of the square by which each mask frame shrinks; (0, 0): not.
        max_pixels: pictures with more pixels are made smaller and enlarged again, keeping their aspect; 0: never.
        window: frames made at once, 4n + 1; longer shots go on in further windows.
        overlap: frames of the window before that each further window starts from, 4n + 1.
        loras: merged beside EX-4D's own.
        tea_cache: how much change of the input is ignored by reusing the last step's result; 0: none.
        precision: "fp8" (products in 8 bits where the GPU can, else as "bf16"; a CPU imitates them), "bf16" (as EX-4D),
            or "float32".
        fp8_attention: with "fp8", compute self-attention in 8 bits too, where the GPU and cuDNN's frontend can.

    Raises:
        RequestError: a field of the wrong type or out of range.
    """

    preset: str = "ex4d-reference"
    prompt: str = DEFAULT_PROMPT
    negative_prompt: str = DEFAULT_NEGATIVE_PROMPT
    seed: int = 0
    steps: int = 25
    guidance: float = 5.0
    shift: float = 5.0
    erosion: tuple[int, int] = (2, 8)
    max_pixels: int = 512 * 512
    window: int = 49
    overlap: int = 9
    loras: tuple[Lora, ...] = ()
    tea_cache: float = 0.0
    precision: str = "fp8"
    fp8_attention: bool = False

    def __post_init__(self) -> None:
        _require_choice("preset", self.preset, tuple(WAN_PRESETS))
        _require_choice("precision", self.precision, PRECISIONS)
        for name in ("prompt", "negative_prompt"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) > MAX_PROMPT:
                raise RequestError(f"{name} must be text of at most {MAX_PROMPT} characters")
        for name, low, high in (
            ("seed", 0, 2**63 - 1),
            ("steps", 1, 200),
            ("max_pixels", 0, MAX_SIDE**2),
            ("window", 5, 161),
            ("overlap", 1, 157),
        ):
            _require_whole(name, getattr(self, name), low, high)
        for name, low, high in (("guidance", 1, 30), ("shift", 0.1, 30), ("tea_cache", 0, 1)):
            _require_number(self, name, low, high)
        for name in ("window", "overlap"):
            if getattr(self, name) % 4 != 1:
                raise RequestError(f"{name} must be 4n + 1 frames (5, 9, 13...), not {getattr(self, name)}")
        if self.overlap >= self.window:
            raise RequestError(f"overlap must be shorter than window, not {self.overlap} of {self.window} frames")
        if 0 < self.max_pixels < 64 * 64:
            raise RequestError(f"max_pixels must be 0 or at least {64 * 64}, not {self.max_pixels}")
        if not isinstance(self.fp8_attention, bool):
            raise RequestError(f"fp8_attention must be true or false, not {self.fp8_attention!r}")
        self._check_erosion()
        self._check_loras()

    def _check_erosion(self) -> None:
        erosion = tuple(self.erosion) if isinstance(self.erosion, (list, tuple)) else ()
        if len(erosion) != 2:
            raise RequestError(f"erosion must be two whole numbers of pixels, not {self.erosion!r}")
        for value in erosion:
            _require_whole("erosion", value, 0, 64)
        if erosion[0] > erosion[1]:
            raise RequestError(f"erosion goes from its smallest to its largest side, not {erosion!r}")
        object.__setattr__(self, "erosion", erosion)

    def _check_loras(self) -> None:
        if not isinstance(self.loras, (list, tuple)) or len(self.loras) > MAX_LORAS:
            raise RequestError(f"loras must be a list of at most {MAX_LORAS}")
        loras = tuple(lora if isinstance(lora, Lora) else _build(Lora, lora) for lora in self.loras)
        object.__setattr__(self, "loras", loras)


def wan_preset(name: str, **changes: Any) -> WanSettings:
    """A preset's settings, with some fields changed.

    Raises:
        RequestError: no such preset, or a field that cannot be.
    """
    _require_choice("preset", name, tuple(WAN_PRESETS))
    return _build(WanSettings, {"preset": name, **WAN_PRESETS[name], **changes})


@dataclass(frozen=True)
class ShotRequest:
    """One shot to make: a scene, a camera, and how.

    Attributes:
        scene: SHA-256 of the scene's manifest.
        camera: one camera per new frame, in the scene's world; its size is the size of the result.
        first_frame: footage frame that the camera's frame 0 belongs to.
        engine: one of `ENGINES`.
        label: for people, in job lists.
    """

    scene: str
    camera: CameraPath
    first_frame: int = 0
    render: RenderSettings = field(default_factory=RenderSettings)
    engine: str = "preview"
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    wan: WanSettings = field(default_factory=WanSettings)
    label: str = ""

    def __post_init__(self) -> None:
        if not is_sha256(self.scene):
            raise RequestError(f"scene must be the SHA-256 of a scene manifest, not {self.scene!r}")
        if not isinstance(self.first_frame, int) or not 0 <= self.first_frame < MAX_FRAMES:
            raise RequestError(
                f"first_frame must be a whole number from 0 to {MAX_FRAMES - 1}, not {self.first_frame!r}"
            )
        if len(self.camera) > MAX_FRAMES:
            raise RequestError(f"a shot may have {MAX_FRAMES} frames, not {len(self.camera)}")
        if max(self.camera.width, self.camera.height) > MAX_SIDE:
            size = f"{self.camera.width}x{self.camera.height}"
            raise RequestError(f"a picture may be {MAX_SIDE} pixels wide and high, not {size}")
        _require_choice("engine", self.engine, ENGINES)
        if not isinstance(self.label, str) or len(self.label) > MAX_LABEL:
            raise RequestError(f"label must be text of at most {MAX_LABEL} characters")

    def require_footage(self, frames: int) -> None:
        """Check that a scene of ``frames`` frames covers the shot.

        Raises:
            RequestError: the camera runs past the footage.
        """
        if self.first_frame + len(self.camera) > frames:
            raise RequestError(
                f"the camera has {len(self.camera)} frames from footage frame {self.first_frame} on, "
                f"but the scene has {frames}; shorten the shot or start it earlier"
            )

    def to_wire(self) -> dict[str, Any]:
        """Plain values for msgpack; arrays as little-endian float64 bytes."""
        return {
            "scene": self.scene,
            "camera": camera_to_wire(self.camera),
            "first_frame": self.first_frame,
            "render": asdict(self.render),
            "engine": self.engine,
            "preview": asdict(self.preview),
            "wan": asdict(self.wan),
            "label": self.label,
        }

    @staticmethod
    def from_wire(values: object) -> ShotRequest:
        """Check and rebuild a request.

        Raises:
            RequestError: any field is missing, unknown, of the wrong type or out of range.
        """
        known = _known_fields(values, ShotRequest)
        known["camera"] = _camera_from_wire(known.get("camera"))
        known["render"] = _build(RenderSettings, known.get("render", {}))
        known["preview"] = _build(PreviewSettings, known.get("preview", {}))
        known["wan"] = _build(WanSettings, known.get("wan", {}))
        return _construct(ShotRequest, known)


def camera_to_wire(camera: CameraPath) -> dict[str, Any]:
    """A camera path as plain values; arrays as little-endian float64 bytes."""
    return {
        "frames": len(camera),
        "width": camera.width,
        "height": camera.height,
        "world_to_camera": camera.world_to_camera.astype("<f8").tobytes(),
        "intrinsics": camera.intrinsics.astype("<f8").tobytes(),
    }


def _camera_from_wire(values: object) -> CameraPath:
    if not isinstance(values, Mapping):
        raise RequestError("camera is missing")
    names = {"frames", "width", "height", "world_to_camera", "intrinsics"}
    if set(values) - names:
        raise RequestError(f"camera has no field {str(min(map(str, set(values) - names)))[:40]!r}")
    frames, width, height = (values.get(name) for name in ("frames", "width", "height"))
    for name, value, limit in (
        ("frames", frames, MAX_FRAMES),
        ("width", width, MAX_SIDE),
        ("height", height, MAX_SIDE),
    ):
        if not isinstance(value, int) or not 1 <= value <= limit:
            raise RequestError(f"camera {name} must be a whole number from 1 to {limit}, not {value!r}")
    arrays = {}
    for name, shape in (("world_to_camera", (frames, 4, 4)), ("intrinsics", (frames, 3, 3))):
        data = values.get(name)
        expected = 8 * int(np.prod(shape))
        if not isinstance(data, bytes) or len(data) != expected:
            raise RequestError(f"camera {name} of {frames} frames must be {expected} bytes of float64")
        arrays[name] = np.frombuffer(data, dtype="<f8").reshape(shape)
    try:
        return CameraPath(**arrays, width=width, height=height)
    except CameraError as error:
        raise RequestError(str(error)) from error


def _known_fields(values: object, kind: type) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise RequestError(f"{kind.__name__} must be a map of fields, not {type(values).__name__}")
    unknown = set(values) - {entry.name for entry in fields(kind)}
    if unknown:
        raise RequestError(
            f"{kind.__name__} has no field {sorted(map(str, unknown))}; is the client newer than the backend?"
        )
    return dict(values)


def _construct(kind: type, values: dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except TypeError as error:
        raise RequestError(f"{kind.__name__} is incomplete: {error}") from error


def _build(kind: type, values: object) -> Any:
    return _construct(kind, _known_fields(values, kind))


def _require_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def _require_number(owner: object, name: str, low: float, high: float) -> None:
    """Check a number and keep it as a float."""
    value = getattr(owner, name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise RequestError(f"{name} must be a number from {low} to {high}, not {value!r}")
    object.__setattr__(owner, name, float(value))


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RequestError(f"{name} must be one of {', '.join(choices)}, not {value!r}")

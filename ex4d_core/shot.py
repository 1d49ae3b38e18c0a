"""What an artist asks for: a shot, as typed values that the add-on, the command line and the service share.

Everything here turns into plain msgpack values and back (`to_wire`, `from_wire`); the way back checks every field,
since it may come from anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from ex4d_core.cameras import CameraError, CameraPath
from ex4d_core.scene import is_sha256

# Bounds that keep one request from taking a backend down; raise them together with the memory tests.
MAX_FRAMES = 100_000
MAX_SIDE = 8192
MAX_LABEL = 200

RASTERIZERS = ("auto", "warp", "nvdiffrast")
CONVENTIONS = ("centered", "reference")
OCCLUSION_RULES = ("angle", "boundary")
OCCLUSION_MODELS = ("watertight", "open", "thickness")
ENGINES = ("preview",)
HOLES = ("fill", "mark")


class RequestError(ValueError):
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
    """

    rasterizer: str = "auto"
    convention: str = "centered"
    occlusion_rule: str = "angle"
    occlusion: str = "watertight"

    def __post_init__(self) -> None:
        _require_choice("rasterizer", self.rasterizer, RASTERIZERS)
        _require_choice("convention", self.convention, CONVENTIONS)
        _require_choice("occlusion_rule", self.occlusion_rule, OCCLUSION_RULES)
        _require_choice("occlusion", self.occlusion, OCCLUSION_MODELS)
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
            "camera": {
                "frames": len(self.camera),
                "width": self.camera.width,
                "height": self.camera.height,
                "world_to_camera": self.camera.world_to_camera.astype("<f8").tobytes(),
                "intrinsics": self.camera.intrinsics.astype("<f8").tobytes(),
            },
            "first_frame": self.first_frame,
            "render": asdict(self.render),
            "engine": self.engine,
            "preview": asdict(self.preview),
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
        return _construct(ShotRequest, known)


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


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RequestError(f"{name} must be one of {', '.join(choices)}, not {value!r}")

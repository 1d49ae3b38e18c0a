"""Requests for shots: typed settings that the library, the command line, the service and the add-on share.

Every field's type, bounds and flag on the command line are in its annotation; see `ex4d_core.schema`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args

import numpy as np

from ex4d_core.cameras import MAX_SIDE, CameraError, CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.output_settings import MAX_NUMBER, OutputSettings
from ex4d_core.render_settings import RenderSettings
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
from ex4d_core.stereo import StereoSettings
from ex4d_core.take_files import ALL_TAKE_FILES, ESTIMATE_FILE, deep_files, frame_file_name
from ex4d_core.wan_settings import WORDS_AND_SEED, WanSettings

MAX_LABEL = 200

EngineName = Literal["preview", "wan"]

ENGINES: tuple[str, ...] = get_args(EngineName)

# Engines that show what other frames of the clip saw, unless a shot says otherwise. The weights of wan were trained
# with what a single frame shows.
REMEMBERING_ENGINES: tuple[EngineName, ...] = ("preview",)
# Fields of the engine wan's settings that version 0.1 does not know.
_WAN_ADDITIONS = (
    "adapter",
    "conditioning",
    "lead_in",
    "erosion_seed",
    "stride",
    "above_model",
    "upscaler",
    "keep_seen",
    "tiny_decoder",
    "step_interval",
    "protected_steps",
    "guidance_interval",
    "cfg_zero",
    "zero_steps",
    "attention",
)
# Engines whose masks stay as they are drawn, unless a shot says otherwise: wan was trained with such masks.
UNCLEANED_ENGINES: tuple[EngineName, ...] = ("wan",)


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
        wan: how the engine wan repaints. A preview keeps prompts and seed alone, for the final that is made of it.
        label: for people, in job lists.
        output: what the take is written as besides its frames of 8 bits, if anything.
        stereo: two eyes side by side in each frame, of engine preview.

    Raises:
        RequestError: a field of the wrong type or out of range, or an output whose files have names of others.
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
    output: OutputSettings = field(default_factory=OutputSettings)
    stereo: StereoSettings = field(default_factory=StereoSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._settle_source_frames()
        self._settle_wan()
        self._require_stereo()
        if not is_sha256(self.scene):
            raise RequestError(f"scene must be the SHA-256 of a scene manifest, not {self.scene!r:.80}")
        if len(self.camera) > MAX_FRAMES:
            raise RequestError(f"a shot may have at most {MAX_FRAMES} frames, not {len(self.camera)}")
        require_size(self.camera.size)
        require_size(self.frame_size)
        if self.output.is_sequence and self.output.first_number + len(self.camera) - 1 > MAX_NUMBER:
            raise RequestError(
                f"first_number {self.output.first_number} leaves numbers for fewer than {len(self.camera)} frames: "
                f"choose one of at most {MAX_NUMBER + 1 - len(self.camera)}"
            )
        if self.output.is_deep:
            self._require_own_names()

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) of the take's frames: in stereo, of both eyes side by side."""
        return self.stereo.frame_size(self.camera)

    @property
    def deep_files(self) -> tuple[str, ...]:
        """Names of the take's files of more than 8 bits."""
        return deep_files(self.output, len(self.camera))

    @property
    def draws_deep(self) -> bool:
        """Whether the take shows the footage's deep colours, if the scene has them."""
        return self.output.is_deep and (self.engine != "wan" or self.wan.keep_seen)

    @property
    def footage_frames(self) -> Sequence[int]:
        """The footage frame that each new frame shows; a `range` where they are consecutive."""
        if self.source_frames is None:
            return consecutive_from(self.first_frame, len(self.camera))
        return self.source_frames

    def to_wire(self) -> dict[str, Any]:
        """Plain values for msgpack and JSON; without what older sides refuse, where it says nothing.

        That is source frames that are consecutive, one sample of each pixel, what is left to the engine (cleaning, and
        the memory of the clip), an output in 8 bits alone, what the engine wan does as EX-4D, or would do if this were
        no preview, and that there is one eye.
        """
        values = super().to_wire()
        if self.output == OutputSettings():
            del values["output"]
        if self.source_frames is None:
            del values["source_frames"]
        if not self.stereo.is_on:
            del values["stereo"]
        if self.render.samples == 1:
            del values["render"]["samples"]
        if self.render.clean is None:
            del values["render"]["clean"]
        if self.render.remember is None:
            del values["render"]["remember"]
        of_original = WanSettings()
        for name in _WAN_ADDITIONS:
            if getattr(self.wan, name) == getattr(of_original, name):
                del values["wan"][name]
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

    def described(self, scene_name: str) -> dict[str, Any]:
        """Plain values for people and for making the take again (``request.json``); the camera is in ``camera.npz``.

        Args:
            scene_name: of the scene, for people.
        """
        values = self.to_wire()
        camera = values.pop("camera")
        values["camera"] = {key: camera[key] for key in ("frames", "width", "height")}
        values["scene_name"] = scene_name
        return values

    def part(self, start: int, stop: int) -> ShotRequest:
        """The same shot from frame ``start`` up to, but not including, ``stop``; images keep their numbers.

        Raises:
            CameraError: it has no such frames.
        """
        output = self.output
        if output.is_sequence:
            output = replace(output, first_number=output.first_number + start)
        part = {"camera": self.camera.frames(start, stop), "stereo": self.stereo.part(start, stop), "output": output}
        if self.source_frames is None:
            return replace(self, first_frame=self.first_frame + start, **part)
        return replace(self, source_frames=self.source_frames[start:stop], **part)

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

    def _require_own_names(self) -> None:
        frames = map(frame_file_name, range(len(self.camera)))
        taken = {*ALL_TAKE_FILES, ESTIMATE_FILE, *frames}
        # Some file systems do not tell capitals from small letters.
        if shared := taken & {name.lower() for name in self.deep_files}:
            raise RequestError(
                f"invalid file_name {self.output.file_name!r}: it makes {min(shared)}, which every take has in 8 bits"
            )

    def _settle_wan(self) -> None:
        """Leave out what says nothing about a preview: older sides refuse it, and other presets give the same take."""
        if self.engine != "wan":
            kept = {name: getattr(self.wan, name) for name in WORDS_AND_SEED}
            object.__setattr__(self, "wan", WanSettings(**kept))

    def _require_stereo(self) -> None:
        if not self.stereo.is_on:
            return
        require_stereo(self.stereo, self.render, self.engine)
        self.stereo.require_frames(len(self.camera))
        if self.stereo.layout == "files":
            raise RequestError("stereo files are two takes: request one with each of the cameras that `eyes` gives")


def require_stereo(stereo: StereoSettings, render: RenderSettings, engine: EngineName = "preview") -> None:
    """Check that a render or take can be made with two eyes.

    Raises:
        RequestError: its convention or engine has one.
    """
    if stereo.is_on and render.convention == "reference":
        raise RequestError("stereo does not exist in the reference convention: use the centered convention")
    if stereo.is_on and engine == "wan":
        raise RequestError(
            "the engine wan takes one eye, since two that are generated do not agree: turn stereo off, or use the "
            "engine preview; docs/how-to/stereo.md makes stereo of a final"
        )


def require_size(size: tuple[int, int]) -> None:
    """Raises RequestError where (width, height) of frames is larger than this project renders."""
    if max(size) > MAX_SIDE:
        raise RequestError("a frame may have sides of at most {} pixels, not {}x{}".format(MAX_SIDE, *size))

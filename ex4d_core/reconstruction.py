"""Requests for scenes: footage, depth and source camera to a scene package, reconstructed by the backend.

Files are blobs on the wire; their names travel as labels for people and never become paths on the backend. Footage and
depth are sent once: a take needs the scene's colour and depth only, which the backend then has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from ex4d_core.errors import RequestError
from ex4d_core.lens_distortion import LensDistortion
from ex4d_core.output_settings import MAX_SPACE
from ex4d_core.render_settings import Convention
from ex4d_core.schema import Length, Option, Range, Settings
from ex4d_core.shot import MAX_FRAMES, MAX_LABEL, ShotRequest
from ex4d_core.sources import (
    CAMERA_SUFFIXES,
    COLMAP_MODELS,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    DepthSettings,
    SourceFile,
    files_from_wire,
    files_to_wire,
    name_for_people,
    require_depth_files,
)

KIND = "reconstruction"

CameraMotion = Literal["auto", "still", "solve"]
BitDepth = Literal["8", "auto", "16"]
CameraGaps = Literal["refuse", "interpolate"]

_FrameRatePart = Annotated[int, Range(1, 2**31 - 1)]
# Rates with three digits, such as 23.976, stand for these of television.
_NTSC_RATES = tuple(Fraction(1000 * rate, 1001) for rate in (12, 24, 30, 48, 60, 96, 120))
_MAX_DENOMINATOR = 1_000_000


def frame_rate_from_text(text: str) -> list[int]:
    """Numerator and denominator of a frame rate, from a whole number, a decimal or a fraction.

    Raises:
        RequestError: none of these, or not above 0.
    """
    try:
        rate = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise RequestError(f"invalid frame rate {text!r}: expected a rate above 0, such as 25, 23.976 or 24000/1001")
    digits = text.partition(".")[2].strip()
    nearest = min(_NTSC_RATES, key=lambda one: abs(one - rate))
    if len(digits) >= 2 and abs(nearest - rate) <= Fraction(1, 2 * 10 ** len(digits)):
        rate = nearest
    rate = rate.limit_denominator(_MAX_DENOMINATOR)
    return [rate.numerator, rate.denominator]


@dataclass(frozen=True)
class ReconstructionSettings(Settings):
    """How a scene is reconstructed, apart from the files that it is reconstructed from.

    The lens is given by one of ``fov_degrees``, ``focal_mm`` and ``focal_px``; without any, the camera's file, the
    depth files or the footage say it, or it is guessed.

    Attributes:
        name: of the scene, for people.
        depth: where depth comes from.
        fps: frame rate of an image sequence, as a fraction; a video has its own.
        fov_degrees: horizontal field of view.
        focal_mm: focal length on a sensor whose longer side is ``sensor_mm``, as Blender's sensor fit *Auto* has it.
        focal_px: focal length in pixels of the footage.
        convention: how the DW-Mesh for display is built; "reference" also takes EX-4D's focal length where neither
            the settings nor a camera file give one.
        camera_scale: multiplies the positions of a moving source camera.
        camera_motion: what moves the source camera where no file gives its poses: "auto" takes those that the depth
            comes with, "still" takes none, "solve" finds them in the footage. Older sides understand "auto", since it
            is not sent.
        camera_gaps: what happens to frames that the camera's file has no camera for: they are refused by name, or
            interpolated between their neighbours. Older sides understand "refuse", since it is not sent.
        distortion: of the footage's lens, which is undone; the lens and the camera are those of the undistorted image,
            depth has the pixels of the footage as it is. None for footage without, which older sides understand, too.
        bit_depth: of the colours that the scene keeps: "8", "16" for half floats beside them, "auto" for these where
            the footage has more than 8 bits.
        input_space: colour space of the footage, by its name in the OpenColorIO configuration; "" for what its files
            say. With one, the colours of 8 bits are also made from it.
        working_space: that the half floats are kept in; "" for the footage's own.

    Raises:
        RequestError: a field of the wrong type or out of range.
    """

    name: Annotated[str, Length(MAX_LABEL, minimum=1), Option("name of the scene; default: the footage's file name")]
    depth: DepthSettings
    fps: Annotated[
        tuple[_FrameRatePart, _FrameRatePart] | None,
        Option(
            "frame rate of an image sequence, such as 25, 23.976 or 24000/1001; default: 24",
            metavar="RATE",
            read=frame_rate_from_text,
        ),
    ] = None
    fov_degrees: Annotated[
        float | None, Range(above=0, below=180), Option("horizontal field of view", metavar="DEGREES", flag="--fov")
    ] = None
    focal_mm: Annotated[
        float | None, Range(above=0), Option("focal length in millimetres, on a sensor of --sensor-mm", metavar="MM")
    ] = None
    sensor_mm: Annotated[float, Range(above=0), Option("longer side of the sensor in millimetres", metavar="MM")] = 36.0
    focal_px: Annotated[
        float | None, Range(above=0), Option("focal length in pixels of the footage", metavar="PIXELS")
    ] = None
    convention: Annotated[
        Convention, Option("centered, or reference: exactly as the published EX-4D code, to reproduce the paper")
    ] = "centered"
    camera_scale: Annotated[
        float, Range(above=0), Option("multiply the positions of --source-camera", metavar="FACTOR")
    ] = 1.0
    camera_motion: Annotated[
        CameraMotion,
        Option(
            "without --source-camera: auto takes the poses that the estimator finds, still ignores them, solve finds "
            "them in the footage, with pycolmap"
        ),
    ] = "auto"
    camera_gaps: Annotated[
        CameraGaps,
        Option("frames that --source-camera has no camera for: refuse names them, interpolate fills them in"),
    ] = "refuse"
    distortion: LensDistortion | None = None
    bit_depth: Annotated[
        BitDepth,
        Option(
            "colours that the scene keeps: 8 bits, 16 for half floats beside these (6 bytes more a pixel), auto for "
            "half floats where the footage has more than 8 bits"
        ),
    ] = "8"
    input_space: Annotated[
        str,
        Length(MAX_SPACE),
        Option(
            "colour space of the footage, by OpenColorIO's name, such as ACEScg or 'ARRI LogC4' (default: what its "
            "files say)",
            metavar="SPACE",
        ),
    ] = ""
    working_space: Annotated[
        str,
        Length(MAX_SPACE),
        Option("colour space of the half floats, such as ACEScg (default: the footage's own)", metavar="SPACE"),
    ] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("input_space", "working_space"):
            if self.bit_depth == "8" and getattr(self, name):
                raise RequestError(f"{name} is for more than 8 bits: set bit_depth to 16 or auto, or leave it out")
        if self.distortion is not None and self.depth.mist is not None:
            raise RequestError("a mist pass is rendered without lens distortion; leave distortion or mist out")
        if self.distortion is not None and self.depth.values == "distance":
            raise RequestError("distances become depth by a lens without distortion; leave distortion or distance out")

    def to_wire(self) -> dict[str, Any]:
        """Plain values for msgpack and JSON; without what is at its default and older sides refuse."""
        values = super().to_wire()
        values["depth"] = self.depth.to_wire()
        if self.distortion is None:
            del values["distortion"]
        else:
            values["distortion"] = self.distortion.to_wire()
        if self.camera_motion == "auto":
            del values["camera_motion"]
        later = {"bit_depth": "8", "input_space": "", "working_space": "", "camera_gaps": "refuse"}
        for name, default in later.items():
            if values[name] == default:
                del values[name]
        return values


@dataclass(frozen=True)
class ReconstructionRequest:
    """A scene to reconstruct from files that were sent.

    Attributes:
        settings: all but the files.
        footage: one video, or images in their order.
        depth_files: as ``settings.depth.layout`` has them; none for an estimator.
        camera_files: the moving source camera: one .npz or transforms.json, or one of `COLMAP_MODELS`; none for a
            camera that stood still.
        mask_files: the mask of what moves, one video, or images in their order; none for no mask, which older sides
            understand, too.

    Raises:
        RequestError: the files are not of the kinds that the settings ask for.
    """

    settings: ReconstructionSettings
    footage: tuple[SourceFile, ...]
    depth_files: tuple[SourceFile, ...] = ()
    camera_files: tuple[SourceFile, ...] = ()
    mask_files: tuple[SourceFile, ...] = ()

    def __post_init__(self) -> None:
        _require_pictures("footage", self.footage)
        if self.mask_files:
            _require_pictures("the motion mask", self.mask_files)
        if max(len(self.footage), len(self.depth_files), len(self.mask_files)) > MAX_FRAMES:
            raise RequestError(f"a scene may have at most {MAX_FRAMES} frames, not {len(self.footage)}")
        if self.settings.fps is not None and self.is_video:
            raise RequestError("a video has its own frame rate; leave fps out")
        require_depth_files(self.settings.depth.layout, self.depth_files)
        names = tuple(one.label for one in self.camera_files)
        alone = len(names) == 1 and self.camera_files[0].suffix in CAMERA_SUFFIXES
        if names and self.settings.camera_motion == "solve":
            raise RequestError("the camera is either solved for or given by a file; leave one of them out")
        if names and not alone and names not in COLMAP_MODELS:
            wants = " or ".join([*CAMERA_SUFFIXES, *(" with ".join(pair) for pair in COLMAP_MODELS)])
            raise RequestError(f"a source camera must be {wants}, not {', '.join(names)!r:.80}")

    @property
    def is_video(self) -> bool:
        """Whether the footage is one video, and not images."""
        return is_video(self.footage)

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """All files to send."""
        return (*self.footage, *self.depth_files, *self.camera_files, *self.mask_files)

    # A job list shows reconstructions beside shots.
    engine = KIND
    scene = ""

    @property
    def label(self) -> str:
        """The scene's name, as job lists show it."""
        return self.settings.name

    def to_wire(self) -> dict[str, Any]:
        """Plain values for msgpack."""
        values = self.settings.to_wire()
        values["depth"]["files"] = files_to_wire(self.depth_files)
        files = {"footage": files_to_wire(self.footage), "camera": files_to_wire(self.camera_files)}
        if self.mask_files:
            files["mask"] = files_to_wire(self.mask_files)
        return {"kind": KIND, **values, **files}

    @staticmethod
    def from_wire(values: object) -> ReconstructionRequest:
        """Check and rebuild a request.

        Raises:
            RequestError: any field is missing, unknown, of the wrong type or out of range.
        """
        if not isinstance(values, Mapping):
            raise RequestError(f"a reconstruction must be a map of fields, not {type(values).__name__}")
        settings = {name: value for name, value in values.items() if name not in ("kind", "footage", "camera", "mask")}
        depth = settings.get("depth")
        if not isinstance(depth, Mapping):
            raise RequestError("depth is missing: expected a map of its settings")
        settings["depth"] = {name: value for name, value in depth.items() if name != "files"}
        footage, camera = files_from_wire(values.get("footage")), files_from_wire(values.get("camera"))
        depth_files = files_from_wire(depth.get("files"))
        mask = files_from_wire(values["mask"]) if "mask" in values else ()
        return ReconstructionRequest(ReconstructionSettings.from_wire(settings), footage, depth_files, camera, mask)


def is_video(files: Sequence[SourceFile]) -> bool:
    """Whether files are one video, and not images."""
    return len(files) == 1 and files[0].suffix in VIDEO_SUFFIXES


def _require_pictures(what: str, files: Sequence[SourceFile]) -> None:
    """Raises RequestError where files are neither one video nor images of one kind."""
    suffixes = {one.suffix for one in files}
    if not files or not (is_video(files) or (suffixes <= set(IMAGE_SUFFIXES) and len(suffixes) == 1)):
        raise RequestError(
            f"{what} must be one video ({', '.join(VIDEO_SUFFIXES)}) or images of one kind, not "
            f"{', '.join(sorted(suffixes)) or 'nothing'}"
        )


def request_from_wire(values: object) -> ShotRequest | ReconstructionRequest:
    """Check and rebuild a request of any kind; a map without a kind is a shot.

    Raises:
        RequestError: see `ShotRequest.from_wire`, `ReconstructionRequest.from_wire`.
    """
    if isinstance(values, Mapping) and "kind" in values:
        if values["kind"] != KIND:
            raise RequestError(f"unknown kind of job {values['kind']!r:.80}; update the backend if the client is newer")
        return ReconstructionRequest.from_wire(values)
    return ShotRequest.from_wire(values)


@dataclass(frozen=True)
class ReconstructionPlan:
    """What is to be reconstructed, with files on this machine, before their hashes are known.

    Attributes:
        settings: all but the files.
        footage, depth_files, camera_files, mask_files: as in `ReconstructionRequest`.
    """

    settings: ReconstructionSettings
    footage: tuple[Path, ...]
    depth_files: tuple[Path, ...] = ()
    camera_files: tuple[Path, ...] = ()
    mask_files: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files to send."""
        return (*self.footage, *self.depth_files, *self.camera_files, *self.mask_files)

    def request(self, hashes: Mapping[Path, str]) -> ReconstructionRequest:
        """The request, once every file's SHA-256 is known.

        Raises:
            RequestError: the plan cannot be carried out.
        """

        def named(paths: Sequence[Path]) -> tuple[SourceFile, ...]:
            return tuple(
                SourceFile(hashes[path], path.stat().st_size, name_for_people(path.name)[-MAX_LABEL:]) for path in paths
            )

        files = map(named, (self.footage, self.depth_files, self.camera_files, self.mask_files))
        settings = replace(self.settings, name=name_for_people(self.settings.name))
        return ReconstructionRequest(settings, *files)

"""Options that several verbs share, besides those that are derived from settings types (`ex4d.cli.flags`)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d.cli.flags import add_flags, given, settings_from
from ex4d.cli.parsing import refuse_without_effect
from ex4d.devices import DeviceError, Devices
from ex4d.machine import MachineSettings
from ex4d_core.cameras import MAX_SIDE, CameraPath, Framing
from ex4d_core.client import Client
from ex4d_core.client_socket import ClientKeys
from ex4d_core.errors import RequestError
from ex4d_core.messages import DEFAULT_ADDRESS
from ex4d_core.render_settings import RenderSettings, default_occlusion
from ex4d_core.scene import PlacedFootage
from ex4d_core.schema import Settings, fields_of
from ex4d_core.shot import EngineName, PreviewSettings, require_size
from ex4d_core.source_frames import shown_frames, source_frames_from
from ex4d_core.stereo import StereoSettings, disparity_note
from ex4d_core.trajectories import Trajectory, extent_of_move, has_pivot, is_degrees, shot_path
from ex4d_core.wan_settings import DEFAULT_PRESET, WAN_PRESETS, WORDS_AND_SEED, WanSettings, wan_preset

if TYPE_CHECKING:
    from rich.progress import Progress

# A backend that has not replied to the first request after this many seconds is not there.
ANSWER_SECONDS = 5.0
# Share of a side whose cropping nobody has to be told of.
_HARDLY_ANYTHING = 0.005


def add_camera_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the new camera comes from: a file, or a preset and its settings."""
    camera = parser.add_argument_group("camera")
    camera.add_argument(
        "--camera",
        type=Path,
        metavar="FILE.npz",
        help="extrinsics (T,4,4) world-to-camera and intrinsics (3,3) or (T,3,3), in the scene's world; replaces "
        "--preset",
    )
    camera.add_argument(
        "--camera-convention",
        choices=("opencv", "original"),
        default="opencv",
        help="convention of the --camera file: opencv (written by ex4d) or original (camera_*.npz of EX-4D's recon.py)",
    )
    add_flags(camera, Trajectory)
    camera.add_argument("--size", type=size, metavar="WxH", help="output resolution; default: the footage's")
    camera.add_argument(
        "--framing",
        choices=("crop", "extend"),
        default="crop",
        help="where --size has another shape, whose pixels are square: crop the picture at two sides, or extend it "
        "beyond the footage at the two others",
    )
    camera.add_argument("--first-frame", type=whole_number, default=0, metavar="N", help="footage frame to start from")
    camera.add_argument(
        "--source-frames",
        type=frame_numbers,
        metavar="LIST",
        help="footage frame of each new frame, in any order: 0-24,24*25 plays 25 frames and holds the last for 25 more",
    )
    camera.add_argument(
        "--frames", "--num_frames", type=positive_number, metavar="N", help="number of frames; default: to the end"
    )


def add_render_arguments(parser: argparse.ArgumentParser) -> None:
    """How the DW-Mesh is rendered."""
    render = parser.add_argument_group("render")
    add_flags(render, RenderSettings, convention=None, occlusion=None)
    add_accept_licence_argument(render)
    render.add_argument(
        "--device",
        type=device,
        default="auto",
        help="auto, cpu, cuda, cuda:N, or cuda:N+M...: several for the engine wan",
    )


def render_settings(
    options: argparse.Namespace, scene: PlacedFootage, engine: EngineName = "preview"
) -> RenderSettings:
    """What the options ask for; without --convention the one that the scene was reconstructed in.

    Without --occlusion it is the engine's, see `ex4d_core.render_settings.default_occlusion`.
    """
    convention = options.convention or scene.manifest.convention
    occlusion = options.occlusion or default_occlusion(engine, convention, options.rasterizer)
    return settings_from(options, RenderSettings, convention=convention, occlusion=occlusion)


def add_stereo_arguments(parser: argparse.ArgumentParser) -> None:
    """One eye or two."""
    add_flags(parser.add_argument_group("stereo"), StereoSettings)


def stereo_settings(
    options: argparse.Namespace, scene: PlacedFootage, camera: CameraPath, note: Callable[[str], None]
) -> StereoSettings:
    """The eyes that the options ask for.

    Args:
        note: called with a sentence for the user about the disparity.
    """
    others = [name for name in names_of(StereoSettings) if name != "layout"]
    if options.layout == "off":
        refuse_without_effect(options, others, "without --stereo")
    elif options.layout == "vr180":
        refuse_without_effect(options, ["convergence"], "with --stereo vr180, where the viewer's own eyes converge")
    else:
        refuse_without_effect(options, ["vr180_side"], f"with --stereo {options.layout}; --stereo vr180 takes it")
    stereo = settings_from(options, StereoSettings)
    stereo.require_frames(len(camera))
    manifest = scene.manifest
    if stereo.is_on and (text := disparity_note(stereo, camera, manifest.depth_range, manifest.depth_scale)):
        note(text)
    return stereo


def add_overwrite_argument(parser: argparse._ActionsContainer, what: str) -> None:
    """Whether outputs of ours may be replaced; nothing else ever is."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def add_motion_mask_argument(parser: argparse._ActionsContainer) -> None:
    """The mask of what moves in the footage."""
    parser.add_argument(
        "--motion-mask",
        type=Path,
        metavar="MASK",
        help="what moves: a video or a folder of images as long as the footage, white where something does; the clip's "
        "memory takes nothing from there, nor does a solve of the camera or a fit to it",
    )


def add_preview_arguments(parser: argparse.ArgumentParser) -> None:
    """What the preview engine does with unseen regions."""
    add_flags(parser.add_argument_group("preview engine"), PreviewSettings)


def add_backend_arguments(parser: argparse.ArgumentParser, default: str | None = DEFAULT_ADDRESS) -> None:
    """Which backend, and the keys that one on another machine asks for."""
    backend = parser.add_argument_group("backend")
    backend.add_argument("--backend", default=default, metavar="ADDRESS", help=f"such as {DEFAULT_ADDRESS}")
    backend.add_argument("--client-key", type=Path, metavar="FILE", help="client's secret certificate (.key_secret)")
    backend.add_argument("--server-key", type=Path, metavar="FILE", help="public certificate of the backend (.key)")


def backend_client(options: argparse.Namespace) -> Client:
    """A client of the backend that the options name; to be closed."""
    if (options.client_key is None) != (options.server_key is None):
        raise RequestError("--client-key and --server-key belong together; give both")
    keys = ClientKeys(options.client_key, options.server_key) if options.client_key else None
    return Client(options.backend, keys=keys)


def add_wan_arguments(parser: argparse.ArgumentParser) -> None:
    """How the engine wan repaints; flags that are not given take --wan-preset's values."""
    wan = parser.add_argument_group("engine wan (defaults: see --wan-preset)")
    wan.add_argument(
        "--wan-preset", choices=tuple(WAN_PRESETS), help=f"base of the other settings; default: {DEFAULT_PRESET}"
    )
    add_flags(wan, WanSettings, unset=True)
    add_machine_arguments(parser)


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """The resources of this machine for the engine wan."""
    machine = parser.add_argument_group("resources for the engine wan")
    add_models_arguments(machine)
    machine.add_argument("--vram-limit", type=gigabytes, metavar="GB", help="limit of GPU memory")


def add_models_arguments(
    parser: argparse._ActionsContainer, help: str = "weights; default: $EX4D_MODELS, else user data"
) -> None:
    """Where weights are."""
    parser.add_argument("--models", type=Path, metavar="FOLDER", help=help)
    parser.add_argument(
        "--model-path",
        type=Path,
        action="append",
        metavar="FOLDER",
        help="also look here for weights of the engine wan, by what files hold; repeatable",
    )


def add_accept_licence_argument(parser: argparse._ActionsContainer) -> None:
    """Research-only parts for which the user of this machine holds a licence."""
    parser.add_argument(
        "--accept-licence",
        "--accept-license",
        action="append",
        default=[],
        metavar="NAME",
        help="allow this research-only part because you hold a licence; repeatable",
    )


def refuse_useless_camera_options(options: argparse.Namespace) -> None:
    """Refuse options of `add_camera_arguments` that the others make useless."""
    if options.source_frames is not None:
        refuse_without_effect(options, ["first_frame"], "with --source-frames, whose first number it is")
    if options.camera:
        refuse_without_effect(options, names_of(Trajectory), "with --camera, whose file has the whole move")
    else:
        refuse_without_effect(options, ["camera_convention"], "without --camera")
        if not has_pivot(options.preset):
            refuse_without_effect(options, ["pivot"], f"with --preset {options.preset}; orbits and dollies take one")
        if is_degrees(options.preset):
            refuse_without_effect(options, ["amount"], f"with --preset {options.preset}, which names its own degrees")
        elif options.preset != "orbit":
            refuse_without_effect(options, ["elevation"], f"with --preset {options.preset}; arcs and orbit climb")


def refuse_useless_engine_options(options: argparse.Namespace, engine: str) -> None:
    """Refuse options of the other engine than the one that runs."""
    if engine == "preview":
        names = (
            *(name for name in names_of(WanSettings) if name not in WORDS_AND_SEED),
            "wan_preset",
            "models",
            "model_path",
            "vram_limit",
        )
        refuse_without_effect(options, names, "with the engine preview; add --engine wan")
        if options.holes != "mark":
            refuse_without_effect(options, ["hole_color"], "without --holes mark")
    else:
        refuse_without_effect(options, names_of(PreviewSettings), f"with the engine {engine}")


def refuse_useless_lead_in(options: argparse.Namespace, settings: WanSettings) -> None:
    """Refuse a lead-in that somebody asked for and that the conditioning leaves out."""
    if settings.lead_in and settings.conditioning == "original":
        refuse_without_effect(options, ["lead_in"], "with --conditioning original; add --conditioning known")


def names_of(kind: type[Settings]) -> list[str]:
    """The names of a settings type's fields that have a flag."""
    return [entry.name for entry in fields_of(kind) if entry.option is not None]


def confirmed(question: str) -> bool:
    """Ask at a terminal; elsewhere nobody can answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def machine_settings(options: argparse.Namespace) -> MachineSettings:
    """The machine's settings from the options that a verb has, and from the environment for the others."""
    values = vars(options)
    return MachineSettings.from_environment(
        values.get("models"),
        values.get("vram_limit"),
        tuple(values.get("accept_licence", ())),
        values.get("model_path") or (),
    )


def wan_settings(
    options: argparse.Namespace, before: WanSettings | None = None, *, of_preview: bool = False
) -> WanSettings:
    """What the options ask for.

    Args:
        before: settings of a take that is made again; the options on the command line change it, and another preset
            leaves its words and seed.
        of_preview: whether that take is a preview, which has words and seed alone.
    """
    changes = {name: value for name, value in given(options, WanSettings).items() if name != "preset"}
    if before is not None:
        changes = {name: value for name, value in changes.items() if name in options.typed}
    if before is not None and not of_preview and "wan_preset" not in options.typed:
        return replace(before, **changes)
    if before is not None:
        changes = {name: getattr(before, name) for name in WORDS_AND_SEED} | changes
    return wan_preset(options.wan_preset or DEFAULT_PRESET, **changes)


def camera_from(
    options: argparse.Namespace, scene: PlacedFootage, note: Callable[[str], None] = lambda text: None
) -> CameraPath:
    """The camera that the options ask for, in ``scene``.

    Args:
        note: called with a sentence for the user about what an image of another shape shows.
    """
    refuse_useless_camera_options(options)
    shown = options.source_frames
    if options.camera:
        # A file without a size of its own was made for the footage's.
        size_of_footage = scene.manifest.width, scene.manifest.height
        camera = CameraPath.load(options.camera, *size_of_footage, options.camera_convention)
        if options.frames and options.frames > len(camera):
            raise RequestError(f"{options.camera} has {len(camera)} frames, not {options.frames}")
        camera = camera.frames(0, options.frames or len(camera))
        shown_frames(len(camera), options.first_frame, shown)
        require_size(camera.size)
    else:
        move = settings_from(options, Trajectory)
        camera = shot_path(move, scene, **extent_of_move(options.frames, options.first_frame, shown))
    if not options.size:
        refuse_without_effect(options, ["framing"], "without --size")
        return camera
    if text := framing_note(camera, options.size, options.framing):
        note(text)
    width, height = options.size
    return camera.framed(width, height, options.framing)


def framing_note(camera: CameraPath, size: tuple[int, int], framing: Framing) -> str:
    """What an image of another shape shows of a camera's; "" for one of the same."""
    width, height = size
    across, down = camera.shown_shares(width, height, framing)
    side, share = ("width", across) if abs(across - 1) > abs(down - 1) else ("height", down)
    if abs(share - 1) < _HARDLY_ANYTHING:
        return ""
    shapes = f"--size {width}x{height} has another shape than the camera's {camera.width}x{camera.height}"
    if framing == "crop":
        return f"{shapes}: cropped to {share:.0%} of the {side}; --framing extend shows all of it, and more"
    return f"{shapes}: extended to {share:.0%} of the {side}, beyond the footage; --framing crop stays within it"


def size(text: str) -> tuple[int, int]:
    """A size: "832x480" to (832, 480)."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"invalid size {text!r}: expected WIDTHxHEIGHT, for example 832x480")
    if max(int(width), int(height)) > MAX_SIDE:
        raise argparse.ArgumentTypeError(f"invalid size {text}: expected sides of at most {MAX_SIDE} pixels")
    return int(width), int(height)


def whole_number(text: str) -> int:
    """0, 1, 2..."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"invalid number {text!r}: expected a whole number of at least 0")
    return int(text)


def frame_numbers(text: str) -> tuple[int, ...] | None:
    """0,3,5 or 0-24,24*25."""
    try:
        return source_frames_from(text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive_number(text: str) -> int:
    """1, 2, 3..."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"invalid number {text!r}: expected a whole number of at least 1")
    return int(text)


def gigabytes(text: str) -> float:
    """12, 23.5..."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"invalid size {text!r}: expected a number of gigabytes above 0")
    return value


def device(text: str) -> str:
    """The name of a device, or of several."""
    try:
        return str(Devices.parse(text))
    except DeviceError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on stderr; plain and quiet where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    described = TextColumn("{task.description:12}", markup=False)
    columns = (described, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress

"""Options that several verbs share, and their way into typed values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d_core.cameras import CameraPath
from ex4d_core.client import Client, ClientKeys
from ex4d_core.messages import DEFAULT_ADDRESS
from ex4d_core.shot import (
    CONVENTIONS,
    HOLES,
    LICENCES,
    MAX_SIDE,
    OCCLUSION_MODELS,
    OCCLUSION_RULES,
    PRECISIONS,
    RASTERIZERS,
    WAN_PRESETS,
    PreviewSettings,
    RenderSettings,
    RequestError,
    WanSettings,
    wan_preset,
)
from ex4d_core.trajectories import EASINGS, PRESETS, Trajectory, build_path

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ex4d_core.scene import Scene


# A backend that has said nothing for so long from the first question on is not there.
ANSWER_SECONDS = 5.0
_PIPE_WIDTH = 160


def add_camera_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the new camera comes from: a file, or a preset and its settings."""
    moves = "; ".join(f"{name}: {what} (amount: {unit})" for name, (what, unit, _) in PRESETS.items())
    camera = parser.add_argument_group("camera")
    which = camera.add_mutually_exclusive_group()
    which.add_argument(
        "--camera",
        type=Path,
        metavar="FILE.npz",
        help="extrinsics (T,4,4) world-to-camera and intrinsics (3,3) or (T,3,3), in the scene's world",
    )
    camera.add_argument(
        "--camera-convention",
        choices=("opencv", "original"),
        default="opencv",
        help="of --camera: opencv, as we write it, or original, as the files that EX-4D saves have it",
    )
    which.add_argument("--preset", "--cam", default="30", help=f"a number of degrees, or {moves}".replace("%", "%%"))
    camera.add_argument("--amount", type=float, help="how far the preset goes; see there")
    camera.add_argument("--elevation", type=float, default=0.0, help="degrees by which arcs and orbits also climb")
    camera.add_argument("--easing", choices=EASINGS, default="linear", help="how the move starts and ends")
    camera.add_argument("--size", type=size, metavar="WxH", help="of the new picture; the footage's if not given")
    camera.add_argument("--first-frame", type=whole_number, default=0, metavar="N", help="footage frame to start from")
    camera.add_argument("--frames", "--num_frames", type=positive_number, metavar="N", help="length; all by default")


def add_render_arguments(parser: argparse.ArgumentParser) -> None:
    """How the DW-Mesh is rendered."""
    render = parser.add_argument_group("render")
    render.add_argument("--rasterizer", choices=RASTERIZERS, default="auto")
    render.add_argument("--convention", choices=CONVENTIONS, default="centered", help="reference: EX-4D's own habits")
    render.add_argument(
        "--occlusion-rule",
        "--filter_type",
        choices=OCCLUSION_RULES,
        default="angle",
        help="which faces hide what the footage never saw",
    )
    render.add_argument(
        "--occlusion",
        choices=OCCLUSION_MODELS,
        default="watertight",
        help="what the space behind an outline counts as: solid (watertight), empty (open), or solid to a plausible "
        "depth (thickness; with rasterizer warp and --convention centered only)",
    )
    render.add_argument(
        "--licence",
        choices=LICENCES,
        help="what the pictures are for (default: research); commercial, wherever the variable EX4D_LICENCE says so",
    )
    render.add_argument(
        "--device",
        type=device,
        default="auto",
        help="auto, cpu, cuda, cuda:N, or cuda:N+M...: several for the engine wan",
    )


def add_preview_arguments(parser: argparse.ArgumentParser) -> None:
    """What the preview engine does with unseen regions."""
    preview = parser.add_argument_group("preview engine")
    preview.add_argument("--holes", choices=HOLES, default="fill", help="what to do with what the footage never saw")
    preview.add_argument("--hole-color", type=color, default=(255, 0, 255), metavar="R,G,B", help="for --holes mark")


def add_backend_arguments(parser: argparse.ArgumentParser, default: str | None = DEFAULT_ADDRESS) -> None:
    """Which backend, and the keys that one on another machine asks for."""
    backend = parser.add_argument_group("backend")
    backend.add_argument("--backend", default=default, metavar="ADDRESS", help=f"such as {DEFAULT_ADDRESS}")
    backend.add_argument("--client-key", type=Path, metavar="FILE", help="own certificate (.key_secret)")
    backend.add_argument("--server-key", type=Path, metavar="FILE", help="the backend's public certificate (.key)")


def backend_client(options: argparse.Namespace) -> Client:
    """A client of the backend that the options name; to be closed."""
    if (options.client_key is None) != (options.server_key is None):
        raise RequestError("--client-key and --server-key belong together; give both")
    keys = ClientKeys(options.client_key, options.server_key) if options.client_key else None
    return Client(options.backend, keys=keys)


def add_wan_arguments(parser: argparse.ArgumentParser) -> None:
    """How the engine wan repaints; what is not given comes from --wan-preset."""
    wan = parser.add_argument_group("engine wan (defaults: see --wan-preset)")
    wan.add_argument(
        "--wan-preset", choices=WAN_PRESETS, help="what the others start from; ex4d-reference if not given"
    )
    # The default stands for "as the preset says", so the formatter must not print one.
    unset = argparse.SUPPRESS
    wan.add_argument("--prompt", default=unset, help="what the shot should look like")
    wan.add_argument("--negative-prompt", default=unset, help="what it should not look like")
    wan.add_argument("--seed", type=int, default=unset, help="the same seed gives the same video")
    wan.add_argument("--steps", "--num_inference_steps", type=int, default=unset, metavar="N", help="of denoising")
    wan.add_argument("--guidance", type=float, default=unset, help="classifier-free guidance; 1: none, twice as fast")
    wan.add_argument("--shift", type=float, default=unset, help="of the noise schedule")
    wan.add_argument("--erosion", type=pair, default=unset, metavar="LOW,HIGH", help="pixels that each mask shrinks by")
    wan.add_argument("--max-pixels", type=int, default=unset, metavar="N", help="generate at no more pixels; 0: any")
    wan.add_argument("--window", type=int, default=unset, metavar="N", help="frames made at once, 4n + 1")
    wan.add_argument("--overlap", type=int, default=unset, metavar="N", help="frames a window starts from, 4n + 1")
    wan.add_argument(
        "--lora",
        type=lora,
        action="append",
        default=unset,
        dest="loras",
        metavar="NAME[:WEIGHT]",
        help="a file in the models' folder loras; may be given several times, and replaces the preset's",
    )
    wan.add_argument("--tea-cache", type=float, default=unset, metavar="X", help="skip steps that change less; 0: none")
    wan.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=unset,
        help="bf16: exactly as EX-4D; fp8: faster on Hopper and Ada GPUs",
    )
    wan.add_argument("--fp8-attention", action="store_true", default=unset, help="with fp8: self-attention too")
    add_machine_arguments(parser)


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """What this machine lends the engine wan."""
    machine = parser.add_argument_group("this machine, for the engine wan")
    machine.add_argument(
        "--models", type=Path, metavar="FOLDER", help="default: EX4D_MODELS, or the user's data folder"
    )
    machine.add_argument("--vram-limit", type=gigabytes, metavar="GB", help="use no more of the GPU's memory")


def use_machine_arguments(options: argparse.Namespace) -> None:
    """Hand them to the engine by the environment, which worker processes inherit; they work in another folder."""
    import os

    from ex4d.machine import VRAM_LIMIT_VARIABLE

    use_models_argument(options)
    if options.vram_limit is not None:
        os.environ[VRAM_LIMIT_VARIABLE] = str(options.vram_limit)


def use_models_argument(options: argparse.Namespace) -> None:
    """Hand the folder of models on by the environment, as `use_machine_arguments`."""
    import os

    from ex4d.machine import MODELS_VARIABLE, models_folder

    if options.models is not None:
        os.environ[MODELS_VARIABLE] = str(options.models)
    if os.environ.get(MODELS_VARIABLE):
        os.environ[MODELS_VARIABLE] = str(models_folder().absolute())


def wan_settings(options: argparse.Namespace, before: WanSettings | None = None) -> WanSettings:
    """What the options ask for.

    Args:
        before: of a take that is made again; the options change it, and another preset leaves its words and seed.
    """
    names = WanSettings.__dataclass_fields__
    changes = {name: value for name, value in vars(options).items() if name in names and name != "preset"}
    if before is not None and options.wan_preset is None:
        return replace(before, **changes)
    if before is not None:
        changes = {name: getattr(before, name) for name in ("prompt", "negative_prompt", "seed")} | changes
    return wan_preset(options.wan_preset or "ex4d-reference", **changes)


def camera_from(options: argparse.Namespace, scene: Scene) -> CameraPath:
    """The camera that the options ask for, in ``scene``."""
    manifest = scene.manifest
    if options.first_frame >= manifest.frames:
        raise RequestError(f"the footage has frames 0 to {manifest.frames - 1}, not {options.first_frame}")
    if options.camera:
        # A file without a size of its own was made for the footage's.
        camera = CameraPath.load(options.camera, manifest.width, manifest.height, options.camera_convention)
        if options.frames and options.frames > len(camera):
            raise RequestError(f"{options.camera} has {len(camera)} frames, not {options.frames}")
        camera = camera.frames(0, options.frames or len(camera))
        if max(camera.width, camera.height) > MAX_SIDE:
            size = f"{camera.width}x{camera.height}"
            raise RequestError(
                f"a picture may be {MAX_SIDE} pixels wide and high, not {size}, as {options.camera} says"
            )
    else:
        source = scene.source_camera()
        camera = build_path(
            Trajectory(options.preset, options.amount, options.elevation, options.easing),
            options.frames or manifest.frames - options.first_frame,
            source.intrinsics[options.first_frame],
            manifest.width,
            manifest.height,
            manifest.subject_distance,
        )
        # Moves are made from where the source camera stands when they start.
        placed = camera.world_to_camera @ source.world_to_camera[options.first_frame]
        camera = replace(camera, world_to_camera=placed)
    return camera.resized(*options.size) if options.size else camera


def render_settings(options: argparse.Namespace) -> RenderSettings:
    return RenderSettings(
        options.rasterizer, options.convention, options.occlusion_rule, options.occlusion, options.licence
    )


def preview_settings(options: argparse.Namespace) -> PreviewSettings:
    return PreviewSettings(options.holes, options.hole_color)


def size(text: str) -> tuple[int, int]:
    """ "832x480" to (832, 480)."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it like 832x480")
    if max(int(width), int(height)) > MAX_SIDE:
        raise argparse.ArgumentTypeError(f"a picture may be {MAX_SIDE} pixels wide and high, not {text}")
    return int(width), int(height)


def whole_number(text: str) -> int:
    """0, 1, 2..."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 0 on")
    return int(text)


def positive_number(text: str) -> int:
    """1, 2, 3..."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 on")
    return int(text)


def gigabytes(text: str) -> float:
    """12, 23.5..."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of gigabytes above 0")
    return value


def device(text: str) -> str:
    """ "auto", "cpu", "cuda", "cuda:1", or "cuda:0+1" for several."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+(\+\d+)*)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device; use auto, cpu, cuda, cuda:N, or cuda:N+M for several")
    return text


def pair(text: str) -> tuple[int, int]:
    """ "2,8" to (2, 8)."""
    low, _, high = text.partition(",")
    if not (low.strip().isdigit() and high.strip().isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no pair of numbers; write it like 2,8")
    return int(low), int(high)


def lora(text: str) -> dict[str, object]:
    """ "name:0.8" to {"name": "name", "weight": 0.8}."""
    name, _, weight = text.partition(":")
    try:
        return {"name": name, "weight": float(weight or 1)}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no LoRA; write it like NAME or NAME:0.8") from error


def color(text: str) -> tuple[int, int, int]:
    """ "255,0,255" to (255, 0, 255)."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) <= 255 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no colour; write it like 255,0,255")
    red, green, blue = (int(part) for part in parts)
    return red, green, blue


def plain_console() -> Console:
    """A console for tables and text, which are printed as they are: labels, paths and reasons may hold brackets.

    What goes into a file or another program is broken late, unless COLUMNS says where.
    """
    import os

    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on stderr; plain and quiet where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    described = TextColumn("{task.description:12}", markup=False)
    columns = (described, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress

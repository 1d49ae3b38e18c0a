"""Options that several verbs share, and their way into typed values."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d_core.cameras import CameraPath
from ex4d_core.shot import CONVENTIONS, HOLES, OCCLUSION_RULES, RASTERIZERS, PreviewSettings, RenderSettings
from ex4d_core.trajectories import EASINGS, PRESETS, Trajectory, build_path

if TYPE_CHECKING:
    from rich.progress import Progress

    from ex4d_core.scene import Scene


def add_camera_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the new camera comes from: a file, or a preset and its settings."""
    moves = "; ".join(f"{name}: {what} (amount: {unit})" for name, (what, unit, _) in PRESETS.items())
    camera = parser.add_argument_group("camera")
    which = camera.add_mutually_exclusive_group()
    which.add_argument(
        "--camera",
        type=Path,
        metavar="FILE.npz",
        help="extrinsics (T,4,4) OpenCV world-to-camera and intrinsics (3,3) or (T,3,3), in the scene's world",
    )
    which.add_argument("--preset", "--cam", default="30", help=f"a number of degrees, or {moves}".replace("%", "%%"))
    camera.add_argument("--amount", type=float, help="how far the preset goes; see there")
    camera.add_argument("--elevation", type=float, default=0.0, help="degrees by which arcs and orbits also climb")
    camera.add_argument("--easing", choices=EASINGS, default="linear", help="how the move starts and ends")
    camera.add_argument("--size", type=size, metavar="WxH", help="of the new picture; the footage's if not given")
    camera.add_argument("--first-frame", type=int, default=0, metavar="N", help="footage frame to start from")
    camera.add_argument("--frames", "--num_frames", type=int, metavar="N", help="length of the shot; all by default")


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
    render.add_argument("--device", default="auto", help="auto, cpu or cuda")


def add_preview_arguments(parser: argparse.ArgumentParser) -> None:
    """What the preview engine does with unseen regions."""
    preview = parser.add_argument_group("preview engine")
    preview.add_argument("--holes", choices=HOLES, default="fill", help="what to do with what the footage never saw")
    preview.add_argument("--hole-color", type=color, default=(255, 0, 255), metavar="R,G,B", help="for --holes mark")


def camera_from(options: argparse.Namespace, scene: Scene) -> CameraPath:
    """The camera that the options ask for, in ``scene``."""
    manifest = scene.manifest
    if options.camera:
        # A file without a size of its own was made for the footage's.
        camera = CameraPath.load(options.camera, manifest.width, manifest.height)
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
    return RenderSettings(options.rasterizer, options.convention, options.occlusion_rule)


def preview_settings(options: argparse.Namespace) -> PreviewSettings:
    return PreviewSettings(options.holes, options.hole_color)


def size(text: str) -> tuple[int, int]:
    """ "832x480" to (832, 480)."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it like 832x480")
    return int(width), int(height)


def color(text: str) -> tuple[int, int, int]:
    """ "255,0,255" to (255, 0, 255)."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) <= 255 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no colour; write it like 255,0,255")
    red, green, blue = (int(part) for part in parts)
    return red, green, blue


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on stderr; plain and quiet where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress

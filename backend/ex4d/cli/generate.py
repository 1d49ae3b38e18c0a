"""Generate a take: the finished frames of a scene from a new camera.

From a scene (ex4d generate SCENE --preset orbit --out FOLDER), here or on a backend (--backend ADDRESS); or from a
colour and a mask movie, with the original's flags (--color_video --mask_video --output_video).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d.cli.flags import settings_from
from ex4d.cli.options import (
    ANSWER_SECONDS,
    add_backend_arguments,
    add_camera_arguments,
    add_overwrite_argument,
    add_preview_arguments,
    add_render_arguments,
    add_wan_arguments,
    backend_client,
    camera_from,
    machine_settings,
    render_settings,
    wan_settings,
)
from ex4d.cli.report import Report
from ex4d_core.client import ClientError, ConnectionState
from ex4d_core.errors import RequestError
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene
from ex4d_core.shot import ENGINES, PreviewSettings, ShotRequest

if TYPE_CHECKING:
    from ex4d.generation import Engine

# Options of this machine, which are not part of a take.
_OF_THE_MACHINE = ("device", "accept_licence")

SUMMARY = "generate the finished frames of a take"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scene", nargs="?", type=Path, help="a scene folder, made by 'ex4d reconstruct'")
    parser.add_argument("-o", "--out", type=Path, help="folder for the take's frames and movies")
    existing = parser.add_mutually_exclusive_group()
    add_overwrite_argument(existing, "a take that is in the folder, exactly its files")
    existing.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted take of the same request in the folder; its finished frames stay",
    )
    parser.add_argument("--engine", choices=ENGINES, help="default: preview")
    parser.add_argument("--label", default="", help="name of the take, for people")
    add_backend_arguments(parser, default=None)
    add_camera_arguments(parser)
    add_render_arguments(parser)
    add_preview_arguments(parser)
    add_wan_arguments(parser)
    parser.add_argument(
        "--again",
        type=Path,
        metavar="TAKE",
        help="repeat the take in this folder, from its request.json and camera.npz; engine, label and settings of "
        "the engine wan may differ, such as another --seed",
    )
    original = parser.add_argument_group("flags of the original EX-4D")
    original.add_argument("--color_video", type=Path, help="movie of the colour render, black where unseen")
    original.add_argument("--mask_video", type=Path, help="movie of the mask, white = seen")
    original.add_argument("--output_video", type=Path, help="movie to write")


def run(options: argparse.Namespace, report: Report) -> int:
    movies = options.color_video, options.mask_video, options.output_video
    if any(movies):
        if not all(movies):
            raise RequestError("--color_video, --mask_video and --output_video belong together; give all three")
        return _from_movies(options, report)
    if options.scene is None or options.out is None:
        also = " (the scene that the take was made from, and a folder for the new one)" if options.again else ""
        raise RequestError(
            f"give a scene folder and --out{also}, or --color_video, --mask_video and --output_video instead"
        )
    return _from_scene(options, report)


def _from_scene(options: argparse.Namespace, report: Report) -> int:
    scene = Scene.open(options.scene)
    request = _request_again(scene, options) if options.again else _new_request(scene, options)
    request.require_footage(scene.manifest.frames)
    if options.backend:
        if options.accept_licence:
            raise RequestError("--accept-licence does not work with --backend: give it to 'ex4d serve' on that machine")
        _on_backend(scene, request, options, report)
    else:
        from ex4d.pipeline.take_folder import take_into_folder

        how = {"device": options.device, "machine": machine_settings(options), "note": report.note}
        how |= {"inputs": _inputs(options), "overwrite": options.overwrite, "resume": options.resume}
        with report.stages() as progress:
            take_into_folder(scene, request, options.out, **how, progress=progress)
    report.add("take", options.out / "take.mp4")
    report.add("frames", len(request.camera), "")
    return 0


def _inputs(options: argparse.Namespace) -> list[Path]:
    """What a take is made from, besides the scene's files."""
    return [path for path in (options.scene, options.camera, options.again) if path is not None]


def _new_request(scene: Scene, options: argparse.Namespace) -> ShotRequest:
    return ShotRequest(
        scene=scene.digest,
        camera=camera_from(options, scene),
        first_frame=options.first_frame,
        render=render_settings(options, scene),
        engine=options.engine or "preview",
        preview=settings_from(options, PreviewSettings),
        wan=wan_settings(options),
        label=options.label,
    )


def _request_again(scene: Scene, options: argparse.Namespace) -> ShotRequest:
    """The request of a finished take, with what the options change."""
    from ex4d.pipeline.take_folder import saved_request

    if others := _set_options(options, add_camera_arguments, add_render_arguments, add_preview_arguments):
        raise RequestError(
            f"--again keeps the take's camera and render, so {', '.join(others)} cannot be given with it; engine, "
            "label and settings of the engine wan can"
        )
    before = saved_request(options.again, scene)
    return replace(
        before,
        engine=options.engine or before.engine,
        label=options.label or before.label,
        wan=wan_settings(options, before.wan),
    )


def _set_options(options: argparse.Namespace, *groups: Callable[[argparse.ArgumentParser], None]) -> list[str]:
    """Which options of these groups were given, by their names."""
    parser = argparse.ArgumentParser(add_help=False)
    for add_arguments_of in groups:
        add_arguments_of(parser)
    defaults = vars(parser.parse_args([]))
    given = [name for name, value in defaults.items() if getattr(options, name) != value]
    return [f"--{name.replace('_', '-')}" for name in given if name not in _OF_THE_MACHINE]


def _on_backend(scene: Scene, request: ShotRequest, options: argparse.Namespace, report: Report) -> None:
    from ex4d.pipeline.targets import mark_results, remove, require_take_folder, unmark_results

    jobs = f"ex4d jobs --backend {options.backend}"
    if options.resume:
        raise RequestError(f"--resume does not work with --backend, which continues by itself: see {jobs}")
    inputs = [*_inputs(options), *scene.paths()]
    earlier = require_take_folder(options.out, len(request.camera), inputs=inputs, overwrite=options.overwrite)
    client = backend_client(options)
    take = RemoteTake(options.out, request, scene)

    def begin() -> None:
        remove(earlier)
        mark_results(options.out, take.job)  # so that `ex4d jobs --fetch` continues here

    take.before_results = begin
    try:
        with report.stages() as progress:
            task = client.start(take.conversation())
            while not task.done:
                client.wait()
                # A backend that never replied is not there; one that stopped replying may return in a moment.
                client.require_answer(ANSWER_SECONDS if client.server is None else 60)
                if client.state is not ConnectionState.CONNECTED:
                    progress(client.state.value, 0, 0)
                elif take.status is None:
                    progress("upload", take.uploaded, take.upload_size)
                else:
                    progress(take.stage or take.state.value, take.status.done, take.status.total)
        if task.error:
            raise task.error
    except (KeyboardInterrupt, ClientError, OSError):  # Ctrl-C, a backend that is away, a folder of ours that is full
        if take.job:
            print(
                f"job {take.job} continues on the backend. Cancel it: {jobs} --cancel {take.job}\n"
                f"Or fetch its results: {jobs} --fetch {take.job} -o FOLDER",
                file=sys.stderr,
            )
        raise
    finally:
        client.close()
    status = task.result
    if status is None or status.state != "done":
        ended = "was abandoned" if status is None else f"{status.state}: {status.reason}"
        raise RequestError(f"the backend's job {take.job} {ended}")
    unmark_results(options.out)


def _from_movies(options: argparse.Namespace, report: Report) -> int:
    from ex4d.pipeline.movies import repaint_movies

    engine, movies = _engine(options), (options.color_video, options.mask_video, options.output_video)
    with report.stages() as progress:
        repaint_movies(*movies, engine, frames=options.frames, progress=progress, overwrite=options.overwrite)
    report.add("take", options.output_video)
    return 0


def _engine(options: argparse.Namespace) -> Engine:
    """The engine for movies, which need no scene."""
    if options.engine == "wan":
        from ex4d.generation.wan.wan_engine import create_wan_engine

        return create_wan_engine(
            wan_settings(options), options.device, machine_settings(options), licence=options.licence
        )
    from ex4d.generation import PreviewEngine

    return PreviewEngine(settings_from(options, PreviewSettings))

"""A take: finished frames along a camera move.

From a scene (ex4d generate SCENE --preset orbit --out FOLDER), here or on a backend (--backend ADDRESS); or from a
colour and a mask movie, with the original's flags (--color_video --mask_video --output_video).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ex4d.cli.options import (
    ANSWER_SECONDS,
    add_backend_arguments,
    add_camera_arguments,
    add_preview_arguments,
    add_render_arguments,
    add_wan_arguments,
    backend_client,
    camera_from,
    preview_settings,
    progress_bar,
    render_settings,
    use_machine_arguments,
    wan_settings,
)
from ex4d_core.jobs import stage_and_seconds
from ex4d_core.shot import ENGINES

SUMMARY = "finished frames along a camera move"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scene", nargs="?", type=Path, help="a scene folder, made by 'ex4d reconstruct'")
    parser.add_argument("-o", "--out", type=Path, help="folder for the take's frames and movies")
    parser.add_argument("--engine", choices=ENGINES, help="preview if not given")
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
        help="make the take in this folder again, from its request.json and camera.npz; engine, label and settings of "
        "the engine wan may be given anew, such as another --seed",
    )
    original = parser.add_argument_group("as the original")
    original.add_argument("--color_video", type=Path, help="colour render, black where unseen")
    original.add_argument("--mask_video", type=Path, help="white = seen")
    original.add_argument("--output_video", type=Path)


def run(options: argparse.Namespace) -> int:
    from ex4d_core.shot import RequestError

    use_machine_arguments(options)
    if options.color_video or options.mask_video or options.output_video:
        if not (options.color_video and options.mask_video and options.output_video):
            raise RequestError("--color_video, --mask_video and --output_video belong together; give all three")
        return _from_movies(options)
    if options.again and (options.scene is None or options.out is None):
        raise RequestError("--again wants the scene folder that the take was made from, and --out for the new one")
    if options.scene is None or options.out is None:
        raise RequestError("give a scene folder and --out, or --color_video, --mask_video and --output_video")
    return _from_scene(options)


def _from_scene(options: argparse.Namespace) -> int:
    from ex4d_core.scene import Scene

    scene = Scene.open(options.scene)
    request = _request_again(scene, options) if options.again else _new_request(scene, options)
    request.require_footage(scene.manifest.frames)
    if options.backend:
        _on_backend(scene, request, options)
    else:
        _here(scene, request, options)
    _drop_frames_behind(options.out, len(request.camera))
    print(f"take       {options.out / 'take.mp4'}")
    return 0


def _drop_frames_behind(folder: Path, frames: int) -> None:
    """Remove what an earlier, longer take left in the folder."""
    for path in folder.glob("frame_*.png"):
        number = path.stem.removeprefix("frame_")
        if number.isdigit() and int(number) >= frames:
            path.unlink()


def _new_request(scene, options: argparse.Namespace):
    from ex4d_core.shot import ShotRequest

    return ShotRequest(
        scene=scene.digest,
        camera=camera_from(options, scene),
        first_frame=options.first_frame,
        render=render_settings(options),
        engine=options.engine or "preview",
        preview=preview_settings(options),
        wan=wan_settings(options),
        label=options.label,
    )


def _request_again(scene, options: argparse.Namespace):
    """The request of a finished take, from the files that came with it, with what the options give anew."""
    import json
    from dataclasses import replace

    from ex4d_core.cameras import CameraPath
    from ex4d_core.shot import RequestError, ShotRequest, camera_to_wire

    take = options.again
    if others := _set_options(options, add_camera_arguments, add_render_arguments, add_preview_arguments):
        raise RequestError(
            f"--again keeps the take's camera and render, so {', '.join(others)} cannot be given with it; engine, "
            "label and settings of the engine wan can"
        )
    path = take / "request.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        size = values.pop("camera")
        scene_name = values.pop("scene_name", "")
        camera = CameraPath.load(take / "camera.npz", size["width"], size["height"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"{path} is no request of a take: {error}") from error
    if values.get("scene") != scene.digest:
        named = f" (a scene named {scene_name!r})" if scene_name else ""
        raise RequestError(f"the take in {take} was made from another scene{named} than {scene.manifest.name!r}")
    before = ShotRequest.from_wire({**values, "camera": camera_to_wire(camera)})
    return replace(
        before,
        engine=options.engine or before.engine,
        label=options.label or before.label,
        wan=wan_settings(options, before.wan),
    )


def _set_options(options: argparse.Namespace, *groups) -> list[str]:
    """Which options of these groups were given, by their names; the device is this machine's, and no part of a take."""
    parser = argparse.ArgumentParser(add_help=False)
    for add_arguments_of in groups:
        add_arguments_of(parser)
    defaults = vars(parser.parse_args([]))
    given = [name for name, value in defaults.items() if getattr(options, name) != value and name != "device"]
    return [f"--{name.replace('_', '-')}" for name in given]


def _here(scene, request, options: argparse.Namespace) -> None:
    import tempfile

    from ex4d.pipeline.take import make_take

    options.out.mkdir(parents=True, exist_ok=True)
    with progress_bar() as bar, tempfile.TemporaryDirectory(dir=options.out, prefix=".take-") as work:
        sink = FolderSink(options.out, bar)
        make_take(scene, request, device=options.device, sink=sink, work_folder=Path(work))


class FolderSink:
    """A `ex4d.pipeline.take.TakeSink` that moves everything into one folder and shows progress."""

    def __init__(self, folder: Path, bar):
        self._folder = folder
        self._bar = bar
        self._task = bar.add_task("generate", total=None)

    def progress(self, stage: str, done: int, total: int) -> None:
        # The bar has a clock of its own.
        self._bar.update(self._task, description=stage_and_seconds(stage)[0], completed=done, total=total)

    def frame(self, index: int, path: Path) -> None:
        shutil.move(path, self._folder / path.name)

    def estimate(self, number: int, path: Path) -> None:
        shutil.move(path, self._folder / path.name)

    def file(self, name: str, path: Path, sha256: str = "") -> None:
        shutil.move(path, self._folder / name)


def _on_backend(scene, request, options: argparse.Namespace) -> None:
    from ex4d_core.client import ClientError, ConnectionState
    from ex4d_core.shot import RequestError
    from ex4d_core.takes import Take

    client = backend_client(options)
    take, jobs = Take(request, options.out), f"ex4d jobs --backend {options.backend}"
    try:
        with progress_bar() as bar:
            task_id = bar.add_task("upload", total=None)
            task = client.start(take.conversation(scene))
            while not task.done:
                client.wait()
                # A backend that never answered is not there; one that fell silent may be back in a moment.
                client.require_answer(ANSWER_SECONDS if client.server is None else 60)
                if client.state is not ConnectionState.CONNECTED:
                    bar.update(task_id, description=client.state.value)
                elif take.status is None:
                    bar.update(task_id, completed=take.uploaded, total=take.upload_size)
                else:
                    status = take.status
                    description = stage_and_seconds(status.stage)[0] or status.state
                    bar.update(task_id, description=description, completed=status.done, total=status.total or None)
        if task.error:
            raise task.error
    except (KeyboardInterrupt, ClientError, OSError):  # Ctrl-C, a backend that is away, a folder of ours that is full
        if take.job:
            print(
                f"job {take.job} goes on at the backend. Stop it: {jobs} --cancel {take.job}\n"
                f"Or fetch what it makes: {jobs} --fetch {take.job} -o FOLDER",
                file=sys.stderr,
            )
        raise
    finally:
        client.close()
    if task.result.state != "done":
        raise RequestError(f"the backend's job {take.job} {task.result.state}: {task.result.reason}")


def _from_movies(options: argparse.Namespace) -> int:
    from ex4d.media import MediaError, VideoWriter, probe

    color, mask = probe(options.color_video), probe(options.mask_video)
    if (color.width, color.height, color.frames) != (mask.width, mask.height, mask.frames):
        raise MediaError(
            f"{color.path} has {color.frames} frames of {color.width}x{color.height}, {mask.path} has {mask.frames} "
            f"of {mask.width}x{mask.height}; they must be alike"
        )
    count = min(options.frames or color.frames, color.frames)
    engine = _engine(options)
    metadata = {"ex4d_engine": engine.name}
    with (
        VideoWriter(options.output_video, color.width, color.height, color.fps, metadata=metadata) as movie,
        progress_bar() as bar,
    ):
        task = bar.add_task(engine.name, total=count)

        def watch(step) -> None:
            bar.update(task, description=step.stage, completed=step.done, total=step.total)

        for done, frame in enumerate(engine.generate(_frames(color, mask, count), count=count, watch=watch), start=1):
            movie.write(frame)
            bar.update(task, description=engine.name, completed=done, total=count)
    print(f"take       {options.output_video}")
    return 0


def _engine(options: argparse.Namespace):
    """The engine for movies, which need no scene."""
    if options.engine == "wan":
        from ex4d.generate.wan.wan_engine import create_wan_engine

        return create_wan_engine(wan_settings(options), options.device)
    from ex4d.generate import PreviewEngine

    return PreviewEngine(preview_settings(options))


def _frames(color, mask, count: int) -> Iterator:
    """Rendered frames out of two movies. Movies have no depth: every seen pixel counts as equally far."""
    import numpy as np

    from ex4d.media import read_frames
    from ex4d.pipeline.render import RenderedFrame

    pairs = zip(read_frames(color.path, count=count), read_frames(mask.path, count=count), strict=True)
    for index, (picture, mask_picture) in enumerate(pairs):
        seen = mask_picture[..., 1] > 125
        yield RenderedFrame(index, picture * seen[..., None], seen, np.ones(seen.shape, np.float32))

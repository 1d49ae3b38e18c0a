"""Generate a take: the finished frames of a scene from a new camera.

With --stereo both eyes: side by side in each frame, or as a take each in folders whose names end in _L and _R.
On this machine, or on a backend (--backend ADDRESS). A colour and a mask movie in place of a scene: see
`ex4d original generate`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ex4d.cli.dry_run import add_dry_run_argument, tell
from ex4d.cli.final_estimate import backend_card, final_note, tell_sizes
from ex4d.cli.flags import add_flags, given, settings_from
from ex4d.cli.options import (
    ANSWER_SECONDS,
    add_backend_arguments,
    add_camera_arguments,
    add_overwrite_argument,
    add_preview_arguments,
    add_render_arguments,
    add_stereo_arguments,
    add_wan_arguments,
    backend_client,
    camera_from,
    machine_settings,
    refuse_useless_engine_options,
    refuse_useless_lead_in,
    render_settings,
    stereo_settings,
    wan_settings,
)
from ex4d.cli.parsing import refuse_without_effect
from ex4d.cli.report import Report
from ex4d_core.cards import Card
from ex4d_core.client import ConnectionState
from ex4d_core.conversations import ClientError, Task
from ex4d_core.errors import RequestError
from ex4d_core.output_settings import OutputSettings
from ex4d_core.remote_take import RemoteTake
from ex4d_core.render_settings import OcclusionModel, RenderSettings, default_occlusion
from ex4d_core.scene import Scene
from ex4d_core.schema import fields_of
from ex4d_core.shot import ENGINES, MAX_LABEL, PreviewSettings, ShotRequest, require_stereo
from ex4d_core.sources import name_for_people
from ex4d_core.stereo import EYES, StereoSettings

# Options of this machine, which are not part of a take.
_OF_THE_MACHINE = ("device", "accept_licence")

# What the request of a take that is made again keeps.
_OF_THE_TAKE = (add_camera_arguments, add_render_arguments, add_stereo_arguments, add_preview_arguments)

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
    parser.add_argument(
        "--label", default="", help="name of the take, for people; with --backend: scene, camera and engine by default"
    )
    add_dry_run_argument(parser)
    add_backend_arguments(parser, default=None)
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument(
        "--wait", action="store_true", help="with --backend: wait for the take and fetch it into --out; the default"
    )
    waiting.add_argument(
        "--detach",
        action="store_true",
        help="with --backend: submit the take, print the job's name and end; 'ex4d jobs --fetch JOB' collects it",
    )
    add_camera_arguments(parser)
    add_render_arguments(parser)
    add_stereo_arguments(parser)
    add_preview_arguments(parser)
    add_wan_arguments(parser)
    output = parser.add_argument_group("output in more than 8 bits, beside the frames of 8 bits")
    output.add_argument(
        "--bit-depth", choices=("8", "16"), help="16: also write the take in more than 8 bits (default --format: exr)"
    )
    add_flags(output, OutputSettings)
    parser.add_argument(
        "--again",
        type=Path,
        metavar="TAKE",
        help="repeat the take in this folder, from its request.json and camera.npz; engine, label, output and settings "
        "of the engine wan may differ, such as another --seed; an occlusion model that was the default stays the "
        "engine's",
    )


def run(options: argparse.Namespace, report: Report) -> int:
    if options.scene is None or (options.out is None and not options.detach):
        also = " (the scene that the take was made from, and a folder for the new one)" if options.again else ""
        raise RequestError(f"give a scene folder and --out{also}")
    out = options.out or Path()  # unused with --detach
    scene = Scene.open(options.scene)
    if options.again:
        requests = {"": _request_again(scene, options, report.note)}
    else:
        requests = _new_requests(scene, options, report)
    for request in requests.values():
        request.require_footage(scene.manifest.frames)
        _refuse_useless_options(options, request.engine)
        refuse_useless_lead_in(options, request.wan)
    if options.dry_run:
        _estimate(scene, list(requests.values()), options, out, report)
        return 0
    for eye, request in requests.items():
        with report.of_part(eye):
            _take(scene, request, out / f"{out.name}{eye}" if eye else out, options, report)
    return 0


def _take(scene: Scene, request: ShotRequest, out: Path, options: argparse.Namespace, report: Report) -> None:
    if options.backend:
        if options.accept_licence:
            raise RequestError("--accept-licence does not work with --backend: give it to 'ex4d serve' on that machine")
        _on_backend(scene, request, out, options, report)
        if options.detach:
            return
    else:
        from ex4d.pipeline.final_cards import card_here
        from ex4d.pipeline.take_folder import take_into_folder

        if request.engine == "wan" and (card := card_here(options.device)):
            report.note(final_note(request, card, request.wan.lead_in))
        how = {"device": options.device, "machine": machine_settings(options), "note": report.note}
        how |= {"inputs": _inputs(options), "overwrite": options.overwrite, "resume": options.resume}
        with report.stages() as progress:
            take_into_folder(scene, request, out, **how, progress=progress)
    report.add("take", out / "take.mp4")
    if deep := request.deep_files:
        first, last = out / deep[0], deep[-1]
        report.add("color", [out / name for name in deep], f"{first}" + ("" if len(deep) == 1 else f" to {last}"))
    report.add("occlusion", request.render.occlusion)
    report.add("frames", len(request.camera), "")


def _estimate(
    scene: Scene, requests: list[ShotRequest], options: argparse.Namespace, out: Path, report: Report
) -> None:
    """Tell what takes need, and of a final also what each working size would; makes nothing."""
    from ex4d.pipeline.estimate import total
    from ex4d.pipeline.final_cards import card_here
    from ex4d.pipeline.shot_estimates import estimate_take
    from ex4d.pipeline.shot_start import shot_start

    request = requests[0]
    generates = request.engine == "wan"
    card = backend_card(options) if generates and options.backend else None
    how = options.device, machine_settings(options), card
    tell(total(estimate_take(scene, request, *how) for request in requests), out, report)
    if generates:
        tell_sizes(request, card or card_here(options.device), shot_start(scene, request).hidden, report)
    if options.backend:
        what = "this machine was estimated, but for the backend's GPU" if card else "this machine was estimated"
        report.note(f"{what}; with --backend the backend does the work, and the disk is yours")


def _inputs(options: argparse.Namespace) -> list[Path]:
    """What a take is made from, besides the scene's files."""
    return [path for path in (options.scene, options.camera, options.again) if path is not None]


def _refuse_useless_options(options: argparse.Namespace, engine: str) -> None:
    if options.backend:
        names = ("device", "models", "model_path", "vram_limit")
        refuse_without_effect(options, names, "with --backend: give it to 'ex4d serve' on that machine")
        if options.detach:
            refuse_without_effect(options, ["out"], "with --detach: give it to 'ex4d jobs --fetch JOB'")
    else:
        refuse_without_effect(options, ("client_key", "server_key", "detach", "wait"), "without --backend")
    refuse_useless_engine_options(options, engine)


def _new_requests(scene: Scene, options: argparse.Namespace, report: Report) -> dict[str, ShotRequest]:
    """A take's request, or that of each eye, by the ending of its name."""
    engine, camera = options.engine or "preview", camera_from(options, scene, report.note)
    render, stereo = render_settings(options, scene, engine), stereo_settings(options, scene, camera, report.note)
    require_stereo(stereo, render, engine)
    of_files = stereo.layout == "files"
    request = ShotRequest(
        scene=scene.digest,
        camera=camera,
        stereo=StereoSettings() if of_files else stereo,
        first_frame=options.first_frame,
        source_frames=options.source_frames,
        render=render,
        engine=engine,
        preview=settings_from(options, PreviewSettings),
        wan=wan_settings(options),
        label=options.label or (_usual_label(scene, options) if options.backend else ""),
        output=_output_settings(options, OutputSettings()).named(name_for_people(_name_of_move(options))),
    )
    if not of_files:
        return {"": request}
    return {f"_{eye}": replace(request, camera=path) for eye, path in zip(EYES, stereo.eyes(camera), strict=True)}


def _output_settings(options: argparse.Namespace, before: OutputSettings) -> OutputSettings:
    """How the take is written, by what was typed over what was before."""
    chosen, bits, typed = given(options, OutputSettings), options.bit_depth, "format" in options.typed
    if before.is_deep and bits != "8":  # a take that is repeated keeps what nobody types, if the format has it
        same = before.in_format(chosen["format"] if typed else before.format)
        kept = {entry.name: getattr(same, entry.name) for entry in fields_of(OutputSettings)}
        chosen = {**kept, **{name: value for name, value in chosen.items() if name in options.typed}}
    output_format = chosen["format"]
    if bits == "8" and output_format != "mp4":
        raise RequestError(f"--bit-depth: 8 leaves nothing for --format {output_format}: leave one of them out")
    if bits == "16" and output_format == "mp4":
        if typed:
            raise RequestError("--bit-depth: 16 needs a --format of more bits than mp4 has: exr, png16 or a movie")
        output_format = "exr"
    return OutputSettings(**{**chosen, "format": output_format})


def _name_of_move(options: argparse.Namespace) -> str:
    return options.camera.stem if options.camera else options.preset


def _usual_label(scene: Scene, options: argparse.Namespace) -> str:
    """What tells a job from others in a list: scene, camera and engine."""
    names = name_for_people(scene.manifest.name), name_for_people(_name_of_move(options)), options.engine or "preview"
    return " ".join(names)[:MAX_LABEL]


def _request_again(scene: Scene, options: argparse.Namespace, note: Callable[[str], None]) -> ShotRequest:
    """The request of a finished take, with what the options change.

    Two eyes are one where the engine that is chosen takes no more: `--stereo` cannot be given here.
    """
    from ex4d.pipeline.take_folder import saved_request

    if others := _set_options(options, *_OF_THE_TAKE):
        raise RequestError(
            f"--again keeps the take's camera and render, so {', '.join(others)} cannot be given with it; engine, "
            "label, output and settings of the engine wan can"
        )
    before = saved_request(options.again, scene)
    engine = options.engine if "engine" in options.typed else before.engine
    render = before.render
    if render.occlusion == _default_occlusion(render, before.engine):  # nobody chose it, so each engine has its own
        render = replace(render, occlusion=_default_occlusion(render, engine))
    output, stereo = _output_settings(options, before.output), before.stereo
    if stereo.is_on and engine == "wan":
        note(
            "the engine wan takes one eye, so this take is made without stereo, by the camera between its eyes or at "
            "its pivot eye; docs/how-to/stereo.md has the way to a stereo final"
        )
        stereo = StereoSettings()
    return replace(
        before,
        render=render,
        engine=engine,
        label=options.label if "label" in options.typed else before.label,
        output=output,
        stereo=stereo,
        wan=wan_settings(options, before.wan, of_preview=before.engine != "wan"),
    )


def _default_occlusion(render: RenderSettings, engine: str) -> OcclusionModel:
    return default_occlusion(engine, render.convention, render.rasterizer)


def _set_options(options: argparse.Namespace, *groups: Callable[[argparse.ArgumentParser], None]) -> list[str]:
    """Which options of these groups are on the command line."""
    parser = argparse.ArgumentParser(add_help=False)
    for add_arguments_of in groups:
        add_arguments_of(parser)
    names = [action.dest for action in parser._actions if action.dest not in _OF_THE_MACHINE]
    return [options.typed[name] for name in dict.fromkeys(names) if name in options.typed]


def _on_backend(scene: Scene, request: ShotRequest, out: Path, options: argparse.Namespace, report: Report) -> None:
    from ex4d.pipeline.targets import mark_results, remove, require_take_folder, unmark_results

    jobs = f"ex4d jobs --backend {options.backend}"
    if options.resume:
        raise RequestError(f"--resume does not work with --backend, which continues by itself: see {jobs}")
    inputs = [*_inputs(options), *scene.paths()]
    earlier = (
        ()
        if options.detach
        else require_take_folder(
            out, len(request.camera), request.deep_files, inputs=inputs, overwrite=options.overwrite
        )
    )
    client = backend_client(options)
    # The folder that was asked for may be a link; what is in it must not.
    take = RemoteTake(out.resolve(), request, scene)

    def begin() -> None:
        remove(earlier)
        mark_results(take.folder, take.job)  # so that `ex4d jobs --fetch` continues here

    take.before_results = begin
    told = False
    try:
        with report.stages() as progress:
            task: Task[Any] = client.start(take.submission() if options.detach else take.conversation())
            while not task.done:
                client.wait()
                # A backend that never replied is not there; one that stopped replying may return in a moment.
                client.require_answer(ANSWER_SECONDS if client.server is None else 60)
                if client.server is not None and not told:
                    told = True
                    if request.engine == "wan" and (card := Card.first_of(client.server.devices)):
                        report.note(final_note(request, card, request.wan.lead_in))
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
    if options.detach:
        report.add("job", take.job)
        report.detail(f"fetch its results: {jobs} --fetch {take.job} -o FOLDER")
        return
    status = task.result
    if status is None or status.state != "done":
        ended = "was abandoned" if status is None else f"{status.state}: {status.reason}"
        raise RequestError(f"the backend's job {take.job} {ended}")
    unmark_results(take.folder)

"""Run what the two scripts of the original EX-4D run, with their options, defaults and outputs.

  ex4d original recon --input_video clip.mp4 --cam 180 --output_dir out --save_mesh
  ex4d original generate --color_video out/color_180.mp4 --mask_video out/mask_180.mp4 --output_video out/output.mp4

`ex4d reconstruct` with --input_video, and `ex4d generate` with --color_video, --mask_video or --output_video, run the
same. The published weights are needed as there: a preview is made in their place with --engine preview alone. The page
"Coming from EX-4D" says what differs by choice.
"""

from __future__ import annotations

import argparse
import inspect
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from ex4d.cli.flags import add_flags, settings_from
from ex4d.cli.options import (
    add_accept_licence_argument,
    add_models_arguments,
    add_overwrite_argument,
    device,
    gigabytes,
    machine_settings,
    positive_number,
    whole_number,
)
from ex4d.cli.parsing import refuse_without_effect
from ex4d.cli.report import Report
from ex4d.machine import MODELS_VARIABLE, MachineSettings
from ex4d.weights.catalogue import DEPTHCRAFTER
from ex4d_core.render_settings import OCCLUSION_RULES, RenderSettings
from ex4d_core.shot import ENGINES
from ex4d_core.sources import DepthSettings, depth_layout

if TYPE_CHECKING:
    from ex4d.generation import Engine

SUMMARY = "run recon.py and generate.py of the original EX-4D, with their options"

# Options that only the original's scripts have, by verbs of ours that mean one of the two when they get them.
_PLAIN = {
    "reconstruct": ("recon", {"--input_video"}),
    "generate": ("generate", {"--color_video", "--mask_video", "--output_video"}),
}

# Options for files of weights: the part of the catalogue, and what the path is of.
_WEIGHTS = {
    "ex4d_path": ("ex4d", "EX-4D's LoRA and camera encoder, ex4d.ckpt"),
    "text_encoder_path": ("text_encoder", "the text encoder; its tokenizer is google/umt5-xxl in the same folder"),
    "vae_path": ("vae", "the video VAE"),
    "clip_path": ("image_encoder", "the image encoder (CLIP)"),
    "dit_dir": ("dit", "folder with the shards of the diffusion transformer, or its file"),
}

_MODELS_HELP = "weights; default: $EX4D_MODELS, else the original's ./models where it is, else user data"


def routed(words: list[str]) -> list[str]:
    """A command line in which the original's plain flags have become `original recon` or `original generate`."""
    action, flags = _PLAIN.get(words[0] if words else "", ("", set()))
    if any(word.partition("=")[0] in flags for word in words):
        return ["original", action, *words[1:]]
    return words


def render(options: argparse.Namespace, report: Report) -> int:
    """Render colour and mask of footage along a camera move: what the original's recon.py does.

    Takes the first --num_frames frames, in sizes that are multiples of 64 and at most 1024, with a focal length of
    500 pixels. Writes color_N.mp4, mask_N.mp4 (N: --cam; 30 frames per second), and on request camera_N.npz,
    DW-Mesh.ply and depth.npz into --output_dir. Depth comes from DepthCrafter, whose weights are for research only
    (--licence research), from another --estimator, or from files (--depth).
    """
    from ex4d.pipeline.original import OriginalRender, render_original

    for text in _without_effect(options):
        report.note(text)
    what = OriginalRender(
        degrees=options.cam,
        frames=options.num_frames,
        first_mesh_only=bool(options.only_first_frame),
        occlusion_rule=options.filter_type,
        keep_occluded=bool(options.use_dwmesh),
        save_mesh=bool(options.save_mesh),
        save_camera=bool(options.save_camera),
        save_depth=bool(options.save_depth),
    )
    with report.stages() as progress:
        made = render_original(
            options.input_video,
            options.output_dir,
            what,
            _depth_settings(options),
            options.depth,
            device=options.device,
            machine=_machine(options),
            progress=progress,
            note=report.note,
            overwrite=options.overwrite,
        )
    for name, path in made.files.named().items():
        report.add(name, path)
    report.add("size", made.size, f"{options.num_frames} frames of {made.size[0]}x{made.size[1]}")
    report.add("depth_source", made.depth_source)
    report.add("visible_fraction", made.visible_fraction, f"{100 * made.visible_fraction.mean():.1f} % on average")
    return 0


def generate(options: argparse.Namespace, report: Report) -> int:
    """Generate the final video from a colour and a mask movie: what the original's generate.py does.

    Takes --num_frames frames, spread evenly over each movie, at --width x --height, and writes a movie of 15 frames per
    second with the engine wan in bf16. Weights are found in the folder of --models; each of the original's options for
    a file of weights replaces that file. --engine preview fills what is unseen without weights.
    """
    from ex4d.media import probe
    from ex4d.pipeline.original import repaint_original

    for movie in (options.color_video, options.mask_video):
        probe(movie)  # what is wrong with them is said before gigabytes are loaded
    engine = _preview_engine(options) if options.engine == "preview" else _wan_engine(options)
    movies = (options.color_video, options.mask_video, options.output_video)
    size = {"frames": options.num_frames, "width": options.width, "height": options.height}
    with report.stages() as progress:
        repaint_original(*movies, engine, **size, progress=progress, note=report.note, overwrite=options.overwrite)
    report.add("take", options.output_video)
    report.add("engine", engine.name)
    return 0


def _wan_engine(options: argparse.Namespace) -> Engine:
    """The engine of the original, with the weights that the options name.

    Raises:
        WeightsMissingError: some are missing; says how to get them, and how to ask for a preview.
    """
    from ex4d.generation.wan.wan_engine import create_wan_engine
    from ex4d.pipeline.original import original_wan_settings
    from ex4d.weights.errors import WeightsMissingError
    from ex4d.weights.wan_files import find_wan_files

    settings = original_wan_settings(options.num_frames, options.seed, options.num_inference_steps, options.cfg)
    machine, chosen = _machine(options), _chosen_weights(options)
    try:
        # Before the device: this is what a newcomer lacks first.
        find_wan_files(machine.models, chosen, machine.model_path)
    except WeightsMissingError as error:
        raise WeightsMissingError(
            f"this needs the published weights; without them --engine preview makes a preview: {error}"
        ) from error
    return create_wan_engine(settings, options.device, machine, licence=options.licence, chosen=chosen)


def _preview_engine(options: argparse.Namespace) -> Engine:
    from ex4d.generation import PreviewEngine

    names = (*_WEIGHTS, "seed", "num_inference_steps", "cfg", "models", "model_path", "vram_limit")
    refuse_without_effect(options, names, "with --engine preview")
    return PreviewEngine()


def _add_render_arguments(parser: argparse.ArgumentParser) -> None:
    flag = {"type": int, "choices": (0, 1)}
    switch = {**flag, "nargs": "?", "const": 1, "default": 0}
    parser.add_argument("--input_video", type=Path, required=True, help="the footage")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for all files; created if missing")
    parser.add_argument("--num_frames", type=positive_number, default=49, metavar="N", help="frames from the start")
    parser.add_argument(
        "--cam", type=_whole_degrees, default=180, metavar="DEGREES", help="EX-4D's arc, negative: left; 180: ellipse"
    )
    parser.add_argument("--only_first_frame", **flag, default=0, help="1: render frame 0's mesh from every camera")
    parser.add_argument("--save_mesh", **switch, help="also write frame 0's mesh, DW-Mesh.ply")
    parser.add_argument("--save_camera", **switch, help="also write camera_N.npz, with the original's signs and shapes")
    parser.add_argument(
        "--save_depth", **flag, help="1: also write depth.npz, for --depth (the original saves nothing)"
    )
    parser.add_argument("--filter_type", choices=OCCLUSION_RULES, default="angle", help="occlusion rule")
    parser.add_argument("--use_dwmesh", **flag, default=1, help="0: leave occluded faces out (rule angle only)")
    parser.add_argument("--input_size", type=positive_number, default=518, metavar="N", help="no effect, as there")

    ours = parser.add_argument_group("in addition")
    add_overwrite_argument(ours, "files of an earlier run")
    ours.add_argument(
        "--depth", type=Path, help="known depth along z: .npz or .npy (T,H,W), or a folder of EXR or 16-bit PNG files"
    )
    skip = ("refine_edges", "temporal_alignment", "full_precision", "noise_filter")
    skip += ("offset", "far_limit", "camera_fit")
    add_flags(ours, DepthSettings, skip=skip, estimator=DEPTHCRAFTER)
    add_accept_licence_argument(ours)
    ours.add_argument("--models", type=Path, metavar="FOLDER", help=_MODELS_HELP)
    ours.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")


def _add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--color_video", type=Path, required=True, help="movie of the colour render")
    parser.add_argument("--mask_video", type=Path, required=True, help="movie of the mask, white: seen")
    parser.add_argument("--output_video", type=Path, required=True, help="movie to write; its folder is created")
    parser.add_argument("--height", type=positive_number, default=512, metavar="N", help="pixels")
    parser.add_argument("--width", type=positive_number, default=512, metavar="N", help="pixels")
    parser.add_argument("--num_frames", type=positive_number, default=49, metavar="N", help="spread over the movies")
    parser.add_argument("--device", type=device, default="cuda", help="cuda, cuda:N, cuda:N+M..., cpu or auto")
    parser.add_argument("--seed", type=whole_number, default=0, metavar="N", help="random seed")
    parser.add_argument(
        "--num_inference_steps", type=positive_number, default=25, metavar="N", help="number of denoising steps"
    )
    parser.add_argument(
        *("--cfg", "--cfg_scale"), type=float, default=5.0, metavar="SCALE", help="classifier-free guidance scale"
    )
    weights = parser.add_argument_group("files of weights (default: found in the folder of --models)")
    for name, (_, what) in _WEIGHTS.items():
        weights.add_argument(f"--{name}", type=Path, metavar="PATH", help=what)
    ours = parser.add_argument_group("in addition")
    ours.add_argument("--engine", choices=ENGINES, default="wan", help="preview: no weights, unseen regions are filled")
    add_overwrite_argument(ours, "a movie of an earlier run")
    skip = ("rasterizer", "convention", "occlusion_rule", "occlusion", "samples", "clean")
    add_flags(ours, RenderSettings, skip=skip)
    add_accept_licence_argument(ours)
    add_models_arguments(ours, _MODELS_HELP)
    ours.add_argument("--vram-limit", type=gigabytes, metavar="GB", help="limit of GPU memory")


def _machine(options: argparse.Namespace) -> MachineSettings:
    """This machine's settings; weights that the original's users have lie in ./models."""
    if options.models is None and not os.environ.get(MODELS_VARIABLE):
        here = Path("models")
        if any((here / name).is_dir() for name in ("Wan-AI", "EX-4D")):
            options.models = here
    return machine_settings(options)


def _chosen_weights(options: argparse.Namespace) -> dict[str, Path]:
    """Paths that the options name, by parts of the weights.

    Raises:
        WeightsMissingError: one of them is not there.
    """
    from ex4d.weights.errors import WeightsMissingError

    chosen = {}
    for option, (part, what) in _WEIGHTS.items():
        path = getattr(options, option)
        if path is None:
            continue
        if not (path.exists() if option in ("dit_dir", "text_encoder_path") else path.is_file()):
            raise WeightsMissingError(
                f"--{option} {path} is not there: expected {what}. Without --{option} it is looked for in the folder "
                "of --models; `ex4d models list` says what is there"
            )
        chosen[part] = path
    return chosen


def _depth_settings(options: argparse.Namespace) -> DepthSettings:
    """Depth as the original has it: neither smoothed, nor sharpened along edges, nor aligned over time."""
    layout = "estimator" if options.depth is None else depth_layout(options.depth)
    plain = {"refine_edges": False, "temporal_alignment": False, "noise_filter": "off"}
    return settings_from(options, DepthSettings, layout=layout, **plain)


def _without_effect(options: argparse.Namespace) -> list[str]:
    """Sentences about options that change nothing, here or in the original, or that may surprise."""
    from ex4d_core.trajectories import reference_rounds

    notes = []
    if options.input_size != 518:
        notes.append("--input_size has no effect, as in the original: DepthCrafter works at the size of the frames")
    if not options.use_dwmesh and options.filter_type == "boundary":
        notes.append("--use_dwmesh 0 has no effect with --filter_type boundary, as in the original")
    if (rounds := reference_rounds(options.num_frames)) > 1:
        notes.append(
            f"with {options.num_frames} frames the original's move goes {rounds:.3g} times as far as with 49, so this "
            "one does, too; `ex4d render` moves by the degrees that you give"
        )
    return notes


def _whole_degrees(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"invalid degrees {text!r}: expected a whole number; `ex4d render --preset` has other moves"
        ) from error


ACTIONS = {
    name: SimpleNamespace(SUMMARY=summary, __doc__=inspect.getdoc(run), add_arguments=add_arguments, run=run)
    for name, summary, add_arguments, run in (
        ("recon", "render colour and mask of footage, as recon.py", _add_render_arguments, render),
        ("generate", "generate the final video, as generate.py", _add_generate_arguments, generate),
    )
}

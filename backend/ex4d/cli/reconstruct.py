"""Footage to a scene package: depth, and the DW-Mesh of every frame, ready for Blender and for rendering.

Depth is read from files with --depth, and estimated without.

With the original's flags (--input_video, --cam, --output_dir, --save_mesh) it also renders colour and mask along the
camera move, into the files the original writes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d.cli.options import positive_number, progress_bar
from ex4d.depth_names import ESTIMATORS
from ex4d_core.shot import CONVENTIONS, LICENCES, OCCLUSION_RULES
from ex4d_core.sources import MIST_FALLOFFS
from ex4d_core.trajectories import Trajectory

if TYPE_CHECKING:
    import numpy as np

    from ex4d.depth import DepthClip, KnownLens
    from ex4d.media import FootageInfo

SUMMARY = "footage to a scene, with known or estimated depth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("footage", nargs="?", type=Path, help="a video, or a folder of images")
    parser.add_argument(
        "-o", "--out", "--output_dir", type=Path, help="folder for the scene; default: beside the footage"
    )
    parser.add_argument("--input_video", type=Path, help="the footage, as the original names it")
    parser.add_argument("--name", help="of the scene, for people; default: the footage's file name")
    parser.add_argument("--convention", choices=CONVENTIONS, default="centered", help="reference: EX-4D's own habits")

    depth = parser.add_argument_group("depth")
    depth.add_argument(
        "--depth", type=Path, help="known depth along z: .npz or .npy (T,H,W), a folder of EXR or of 16-bit PNG"
    )
    depth.add_argument("--depth-scale", type=float, help="multiplies what the files say; needed for PNG")
    depth.add_argument("--inverse-depth", action="store_true", help="the files hold 1 / depth")
    depth.add_argument("--depth-key", metavar="NAME", help="of the array in an .npz, or of the channel in an EXR")
    depth.add_argument(
        "--mist",
        type=float,
        nargs=2,
        metavar=("START", "DEPTH"),
        help="the EXRs hold Blender's mist pass, made with these settings of the world",
    )
    depth.add_argument("--mist-falloff", choices=tuple(MIST_FALLOFFS), default="linear", help="of that mist")
    depth.add_argument(
        "--invalid-depth",
        choices=("error", "far"),
        default="error",
        help="NaN, infinite, zero or negative depth: stop, or take the farthest depth of the frame",
    )
    parser.add_argument(
        "--source-camera",
        type=Path,
        help="the moving camera that filmed it: .npz, NeRF's transforms.json, or a folder with COLMAP's model",
    )
    parser.add_argument("--camera-scale", type=float, default=1.0, help="multiplies that camera's positions")

    estimator = parser.add_argument_group("estimated depth (without --depth)")
    estimator.add_argument("--estimator", default="auto", help=f"auto, {', '.join(ESTIMATORS)}")
    estimator.add_argument(
        "--models", type=Path, help="folder of weights; default: $EX4D_MODELS, else your own data folder"
    )
    estimator.add_argument(
        "--licence",
        choices=LICENCES,
        default="commercial",
        help="what the result is for: decides what may be used",
    )
    estimator.add_argument(
        "--accept-licence", action="append", default=[], metavar="NAME", help="use this research model all the same"
    )
    estimator.add_argument("--device", default="auto", help="auto, cpu or cuda")
    estimator.add_argument("--full-precision", action="store_true", help="float32 on a GPU, too: slow, and large")
    estimator.add_argument("--no-edges", action="store_true", help="leave blurred depth edges as they are")
    estimator.add_argument("--no-steady", action="store_true", help="leave per-image depth to flicker")

    lens = parser.add_argument_group(
        "lens (default: what the camera file, the depth, the footage say, else a 50 degree field of view; with "
        "--convention reference EX-4D's 500 pixels)"
    )
    lens.add_argument("--fov", type=float, metavar="DEGREES", help="horizontal field of view")
    lens.add_argument("--focal-mm", type=float, help="focal length in millimetres, on a sensor --sensor-mm wide")
    lens.add_argument("--sensor-mm", type=float, default=36.0)
    lens.add_argument("--focal-px", type=float, help="focal length in pixels of the footage")

    original = parser.add_argument_group("as the original")
    original.add_argument("--cam", help="also render along this preset, into --output_dir")
    switch = {"type": int, "nargs": "?", "const": 1, "default": 0, "metavar": "0|1"}
    original.add_argument("--save_mesh", **switch, help="also write frame 0 as DW-Mesh.ply")
    original.add_argument("--save_camera", **switch, help="accepted; the camera is always written")
    original.add_argument(
        "--num_frames", type=positive_number, metavar="N", help="take only the first N frames; the depth may be of all"
    )
    original.add_argument("--filter_type", choices=OCCLUSION_RULES, default="angle", help="occlusion rule")


def run(options: argparse.Namespace) -> int:
    from ex4d.depth import known_lens, lens_for, read_source_camera
    from ex4d.media import probe
    from ex4d.pipeline.reconstruct import reconstruct
    from ex4d_core.shot import RequestError

    if (options.footage is None) == (options.input_video is None):
        raise RequestError("which footage? give one video file or one folder of images")
    path = (options.footage or options.input_video).resolve()
    if not path.name:
        raise RequestError(f"{path} is no footage; give one video file or one folder of images")
    # Looked at now, since the reconstruction takes its time.
    cam = Trajectory(options.cam) if options.cam else None
    folder = options.out or path.with_suffix("").with_name(path.stem + "_scene")
    scene_folder = folder / "scene" if cam or options.save_mesh else folder
    footage = probe(path, options.num_frames)
    for note in footage.notes:
        print(note)
    source_camera = filmed_by = None
    if options.source_camera:
        source_camera = read_source_camera(options.source_camera, footage, options.camera_scale)
        filmed_by = source_camera.intrinsics, f"the camera file {options.source_camera.name}"
    lens = known_lens(
        footage,
        stated=_stated_lens(options, footage),
        filmed_by=filmed_by,
        convention=options.convention,
        depth_files=options.depth is not None and options.mist is None,
    )
    depth = _depth(options, footage, lens)
    for note in depth.notes:
        print(note)
    intrinsics, origin = lens_for(lens, footage, depth)
    with progress_bar() as bar:
        task = bar.add_task("reconstruct", total=footage.frames)
        scene = reconstruct(
            footage,
            depth,
            intrinsics,
            scene_folder,
            name=options.name or path.stem,
            convention=options.convention,
            source_camera=source_camera,
            provenance={"footage": path.name, "focal length": origin},
            progress=lambda done, total: bar.update(task, completed=done),
        )
    manifest = scene.manifest
    print(f"scene      {scene_folder}")
    print(f"footage    {manifest.frames} frames, {manifest.width}x{manifest.height}, {float(manifest.fps):g} fps")
    print(f"depth      {manifest.depth_range[0]:.4g} to {manifest.depth_range[1]:.4g} ({manifest.depth_scale})")
    print(f"made by    {depth.source}; licence: {depth.licence}")
    print(f"lens       {scene.source_camera().intrinsics[0, 0, 0]:.1f} px, from {origin}")
    if options.save_mesh:
        _save_mesh(scene, folder / "DW-Mesh.ply", options.filter_type)
    if cam:
        _render_like_the_original(scene, cam, options, folder)
    return 0


def _depth(options: argparse.Namespace, footage: FootageInfo, lens: KnownLens | None) -> DepthClip:
    from ex4d.depth import (
        DepthError,
        DepthFiles,
        EdgeSettings,
        EstimatorSettings,
        MistSettings,
        create_estimator,
        focal_in_widths,
    )
    from ex4d.media import probe

    if options.depth:
        files = DepthFiles(
            options.depth,
            scale=options.depth_scale,
            inverse=options.inverse_depth,
            invalid=options.invalid_depth,
            key=options.depth_key,
            mist=MistSettings(*options.mist, options.mist_falloff) if options.mist else None,
            lens=None if lens is None else lens[0],
        )
        try:
            return files.estimate(footage)
        except DepthError:
            if options.num_frames is None:
                raise
        # What is asked for is a part of the footage; the files may be those of all of it.
        return files.estimate(probe(footage.path)).first(footage.frames)
    settings = EstimatorSettings(
        name=options.estimator,
        models=options.models,
        licence=options.licence,
        accepted=tuple(options.accept_licence),
        device=options.device,
        edges=None if options.no_edges else EdgeSettings(),
        steady=not options.no_steady,
        full_precision=options.full_precision,
        focal_in_widths=focal_in_widths(lens, footage),
    )
    estimator = create_estimator(settings)
    print(f"estimator  {estimator.name}; licence: {estimator.licence}")
    with progress_bar() as bar:
        task = bar.add_task("depth", total=footage.frames)
        return estimator.estimate(footage, lambda done, total: bar.update(task, completed=done))


def _stated_lens(options: argparse.Namespace, footage: FootageInfo) -> np.ndarray | None:
    """What the user says of the lens, as intrinsics; None without a word."""
    from ex4d.depth import intrinsics_from

    if options.fov is None and options.focal_mm is None and options.focal_px is None:
        return None
    return intrinsics_from(
        footage.width,
        footage.height,
        fov_degrees=options.fov,
        focal_mm=options.focal_mm,
        sensor_mm=options.sensor_mm,
        focal_px=options.focal_px,
    )


def _save_mesh(scene, path: Path, occlusion_rule: str) -> None:
    import numpy as np
    import torch

    from ex4d.mesh import build_dw_mesh, write_ply

    mesh = build_dw_mesh(
        torch.from_numpy(np.array(scene.depth()[:1])),
        torch.from_numpy(np.array(scene.color()[:1])),
        torch.from_numpy(np.array(scene.source_camera().intrinsics[:1])),
        convention=scene.manifest.convention,
        occlusion_rule=occlusion_rule,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_ply(path, mesh, 0)
    print(f"mesh       {path}")


def _render_like_the_original(scene, cam: Trajectory, options: argparse.Namespace, folder: Path) -> None:
    from ex4d.cli.render import write_movies
    from ex4d_core.shot import RenderSettings
    from ex4d_core.trajectories import build_path

    manifest = scene.manifest
    source = scene.source_camera()
    camera = build_path(
        cam,
        manifest.frames,
        source.intrinsics[0],
        manifest.width,
        manifest.height,
        manifest.subject_distance,
    )
    settings = RenderSettings(convention=options.convention, occlusion_rule=options.filter_type)
    write_movies(scene, camera, settings, folder, options.cam)
    if not (folder / "input.mp4").exists():  # it may be the footage itself
        shutil.copyfile(scene.path("footage"), folder / "input.mp4")

"""Footage and depth to a scene package: the DW-Mesh of every frame, ready for Blender and for rendering.

With the original's flags (--input_video, --cam, --output_dir, --save_mesh) it also renders colour and mask along the
camera move, into the files the original writes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from backend.commands.options import positive_number, progress_bar
from ex4d_core.shot import CONVENTIONS, OCCLUSION_RULES
from ex4d_core.trajectories import Trajectory

SUMMARY = "footage and depth to a scene"


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
    depth.add_argument(
        "--invalid-depth",
        choices=("error", "far"),
        default="error",
        help="NaN, infinite, zero or negative depth: stop, or take the farthest depth of the frame",
    )
    lens = parser.add_argument_group("lens (default: what the depth files say, else a 50 degree field of view)")
    lens.add_argument("--fov", type=float, metavar="DEGREES", help="horizontal field of view")
    lens.add_argument("--focal-mm", type=float, help="focal length in millimetres, on a sensor --sensor-mm wide")
    lens.add_argument("--sensor-mm", type=float, default=36.0)
    lens.add_argument("--focal-px", type=float, help="focal length in pixels of the footage")

    original = parser.add_argument_group("as the original")
    original.add_argument("--cam", help="also render along this preset, into --output_dir")
    switch = {"type": int, "nargs": "?", "const": 1, "default": 0, "metavar": "0|1"}
    original.add_argument("--save_mesh", **switch, help="also write frame 0 as DW-Mesh.ply")
    original.add_argument("--save_camera", **switch, help="accepted; the camera is always written")
    original.add_argument("--num_frames", type=positive_number, metavar="N", help="take only the first N frames")
    original.add_argument("--filter_type", choices=OCCLUSION_RULES, default="angle", help="occlusion rule")


def run(options: argparse.Namespace) -> int:
    from backend.depth import DepthFiles
    from backend.media import probe
    from backend.reconstruct import choose_lens, reconstruct
    from ex4d_core.shot import RequestError

    if (options.footage is None) == (options.input_video is None):
        raise RequestError("which footage? give one video file or one folder of images")
    path = (options.footage or options.input_video).resolve()
    # Looked at now, since the reconstruction takes its time.
    cam = Trajectory(options.cam) if options.cam else None
    if options.depth is None:
        raise RequestError(
            "no depth estimator is installed with this version: give the depth along z with --depth "
            "(.npz, .npy, a folder of EXR or of 16-bit PNG files)"
        )
    folder = options.out or path.with_suffix("").with_name(path.stem + "_scene")
    scene_folder = folder / "scene" if cam or options.save_mesh else folder
    footage = probe(path, options.num_frames)
    for note in footage.notes:
        print(note)
    files = DepthFiles(
        options.depth, scale=options.depth_scale, inverse=options.inverse_depth, invalid=options.invalid_depth
    )
    depth = files.estimate(footage)
    intrinsics, origin = choose_lens(
        footage,
        depth,
        fov_degrees=options.fov,
        focal_mm=options.focal_mm,
        sensor_mm=options.sensor_mm,
        focal_px=options.focal_px,
    )
    with progress_bar() as bar:
        task = bar.add_task("reconstruct", total=footage.frames)
        scene = reconstruct(
            footage,
            depth,
            intrinsics,
            scene_folder,
            name=options.name or path.stem,
            convention=options.convention,
            provenance={"footage": path.name, "focal length": origin},
            progress=lambda done, total: bar.update(task, completed=done),
        )
    manifest = scene.manifest
    print(f"scene      {scene_folder}")
    print(f"footage    {manifest.frames} frames, {manifest.width}x{manifest.height}, {float(manifest.fps):g} fps")
    print(f"depth      {manifest.depth_range[0]:.4g} to {manifest.depth_range[1]:.4g} ({manifest.depth_scale})")
    print(f"lens       {scene.source_camera().intrinsics[0, 0, 0]:.1f} px, from {origin}")
    if options.save_mesh:
        _save_mesh(scene, folder / "DW-Mesh.ply", options.filter_type)
    if cam:
        _render_like_the_original(scene, cam, options, folder)
    return 0


def _save_mesh(scene, path: Path, occlusion_rule: str) -> None:
    import numpy as np
    import torch

    from backend.mesh import build_dw_mesh, write_ply

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
    from backend.commands.render import write_movies
    from ex4d_core.shot import RenderSettings
    from ex4d_core.trajectories import build_path

    manifest = scene.manifest
    camera = build_path(
        cam,
        manifest.frames,
        scene.source_camera().intrinsics[0],
        manifest.width,
        manifest.height,
        manifest.subject_distance,
    )
    settings = RenderSettings(convention=options.convention, occlusion_rule=options.filter_type)
    write_movies(scene, camera, settings, folder, options.cam)
    if not (folder / "input.mp4").exists():  # it may be the footage itself
        shutil.copyfile(scene.path("footage"), folder / "input.mp4")

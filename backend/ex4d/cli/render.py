"""Render colour and mask movies of a scene from a new camera: what the footage saw, and where it saw nothing.

Writes color_NAME.mp4, mask_NAME.mp4 and camera_NAME.npz into a folder, or everything losslessly into one .npz
(color (T,H,W,3) u8, mask (T,H,W) bool, coverage (T,)). In place of a scene it also takes one .npz with depth (T,H,W),
rgb (T,H,W,3) and intrinsics (3,3).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ex4d.cli.flags import settings_from
from ex4d.cli.options import add_camera_arguments, add_render_arguments, camera_from, machine_settings, stage_bars
from ex4d_core.scene import Scene
from ex4d_core.shot import RenderSettings

SUMMARY = "render colour and mask movies of a scene from a new camera"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scene", type=Path, help="a scene folder, made by 'ex4d reconstruct', or a .npz")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder, or a file that ends in .npz")
    add_camera_arguments(parser)
    add_render_arguments(parser)


def run(options: argparse.Namespace) -> int:
    from ex4d.pipeline.array_clip import ArrayClip
    from ex4d.pipeline.outputs import render_movies, render_views

    scene = ArrayClip.load(options.scene) if options.scene.suffix == ".npz" else Scene.open(options.scene)
    camera = camera_from(options, scene)
    settings = settings_from(options, RenderSettings)
    how = {"first_frame": options.first_frame, "device": options.device, "machine": machine_settings(options)}
    if options.out.suffix == ".npz":
        with stage_bars() as progress:
            render_views(scene, camera, settings, **how, progress=progress).save(options.out)
        print(f"colour, mask and coverage of {len(camera)} frames: {options.out}")
        return 0
    name = options.camera.stem if options.camera else options.preset
    with stage_bars() as progress:
        movies = render_movies(scene, camera, settings, options.out, name, **how, progress=progress)
    seen = 100 * movies.visible_fraction
    print(f"colour     {movies.color}")
    print(f"mask       {movies.mask}")
    print(f"seen       {seen.mean():.1f} % on average, {seen.min():.1f} % in frame {seen.argmin()}")
    return 0

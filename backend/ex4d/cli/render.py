"""A scene along a camera move to colour and mask: what the footage shows there, and where it shows nothing.

Writes color_NAME.mp4, mask_NAME.mp4 and camera_NAME.npz into a folder, or everything losslessly into one .npz
(color (T,H,W,3) u8, mask (T,H,W) bool, coverage (T,)). In place of a scene it also takes one .npz with depth (T,H,W),
rgb (T,H,W,3) and intrinsics (3,3).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d.cli.options import (
    add_camera_arguments,
    add_render_arguments,
    camera_from,
    progress_bar,
    render_settings,
)

if TYPE_CHECKING:
    from ex4d.pipeline.array_clip import ArrayClip
    from ex4d_core.cameras import CameraPath
    from ex4d_core.scene import Scene
    from ex4d_core.shot import RenderSettings

SUMMARY = "a scene along a camera move to colour and mask"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scene", type=Path, help="a scene folder, made by 'ex4d reconstruct', or a .npz")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder, or a file that ends in .npz")
    add_camera_arguments(parser)
    add_render_arguments(parser)


def run(options: argparse.Namespace) -> int:
    from ex4d.pipeline.array_clip import ArrayClip
    from ex4d_core.scene import Scene

    is_arrays = options.scene.suffix == ".npz"
    scene = ArrayClip.load(options.scene) if is_arrays else Scene.open(options.scene)
    camera = camera_from(options, scene)
    settings = render_settings(options)
    if options.out.suffix == ".npz":
        write_arrays(scene, camera, settings, options.out, options.first_frame, options.device)
    else:
        name = options.camera.stem if options.camera else options.preset
        write_movies(scene, camera, settings, options.out, name, options.first_frame, options.device)
    return 0


def write_movies(
    scene: Scene | ArrayClip,
    camera: CameraPath,
    settings: RenderSettings,
    folder: Path,
    name: str,
    first_frame: int = 0,
    device: str = "auto",
) -> None:
    """Render into ``color_NAME.mp4``, ``mask_NAME.mp4`` and ``camera_NAME.npz`` in ``folder``: into all or none."""
    import numpy as np

    from ex4d.media import VideoWriter
    from ex4d.media.media_errors import writing, written_whole
    from ex4d.pipeline.render import render_shot

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{kind}_{name}.mp4" for kind in ("color", "mask")]
    camera_path = folder / f"camera_{name}.npz"
    size, fps = (camera.width, camera.height), scene.manifest.fps
    seen = []
    with (
        written_whole(camera_path) as partial,
        VideoWriter(paths[0], *size, fps) as color,
        VideoWriter(paths[1], *size, fps) as mask,
        progress_bar() as bar,
    ):
        frames = render_shot(scene, camera, settings, first_frame=first_frame, device=device)
        for frame in bar.track(frames, total=len(camera), description="render"):
            color.write(frame.color)
            mask.write(frame.mask.astype(np.uint8) * 255)
            seen.append(frame.mask.mean())
        # All three are whole before the first one gets its name: a disk that is full leaves no mask without its colour.
        with writing(camera_path):
            camera.save(partial)
        mask.finish()
        color.finish()
    print(f"colour     {paths[0]}")
    print(f"mask       {paths[1]}")
    print(f"seen       {100 * np.mean(seen):.1f} % on average, {100 * np.min(seen):.1f} % in frame {np.argmin(seen)}")


def write_arrays(
    scene: Scene | ArrayClip,
    camera: CameraPath,
    settings: RenderSettings,
    path: Path,
    first_frame: int = 0,
    device: str = "auto",
) -> None:
    """Render into one .npz; all frames are held in memory."""
    import numpy as np

    from ex4d.media.media_errors import writing, written_whole
    from ex4d.pipeline.render import render_shot

    path.parent.mkdir(parents=True, exist_ok=True)
    color = np.empty((len(camera), camera.height, camera.width, 3), np.uint8)
    mask = np.empty(color.shape[:3], bool)
    with progress_bar() as bar:
        frames = render_shot(scene, camera, settings, first_frame=first_frame, device=device)
        for frame in bar.track(frames, total=len(camera), description="render"):
            color[frame.index], mask[frame.index] = frame.color, frame.mask
    with written_whole(path) as partial, writing(path), open(partial, "wb") as file:
        np.savez_compressed(file, color=color, mask=mask, coverage=mask.mean(axis=(1, 2)))
    print(f"colour, mask and coverage of {len(camera)} frames: {path}")

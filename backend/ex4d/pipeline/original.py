"""What recon.py and generate.py of the original EX-4D compute, made with this project's parts.

`render_original` estimates or reads depth, builds the DW-Mesh in the reference convention and renders it along one of
EX-4D's moves. `repaint_original` lets the engine wan repaint a colour and a mask movie. Sizes, choice of frames, frame
rates and files are those of the published scripts; docs/coming-from-ex4d.md lists what differs by choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth import KnownIntrinsics, intrinsics_from
from ex4d.generation import Engine, GenerationProgress
from ex4d.machine import MachineSettings
from ex4d.media import FootageInfo, VideoWriter, probe, read_frames
from ex4d.media.media_errors import atomic_write, translate_write_errors
from ex4d.mesh import build_dw_mesh, write_ply
from ex4d.pipeline.array_clip import ArrayClip
from ex4d.pipeline.footage_depth import depth_of
from ex4d.pipeline.outputs import STAGE
from ex4d.pipeline.render import render_shot
from ex4d.pipeline.targets import require_file, require_movie_name
from ex4d.progress import Progress, ignore_progress
from ex4d.raster import RenderedFrame
from ex4d_core.cameras import MAX_SIDE, CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.licences import Licence
from ex4d_core.render_settings import OcclusionRule, RenderSettings
from ex4d_core.sources import DepthSettings
from ex4d_core.trajectories import reference_path, subject_distance
from ex4d_core.wan_settings import WanSettings, wan_preset

# The published scripts' constants: pixels, frames per second.
FOCAL_PX = 500.0
RENDER_FPS, OUTPUT_FPS = 30, 15
_MULTIPLE, _LONGEST_SIDE = 64, 1024
# The border that they put around a depth map counts when they look for its nearest point.
_BORDER_DEPTH = 100.0
_SUBJECT_BEHIND_BORDER = _BORDER_DEPTH + 0.15

# A pixel of a resized mask movie counts as seen from here on (more than half of 255).
_SEEN = 128

_LONGEST_WINDOW, _OVERLAP = 161, 9


@dataclass(frozen=True)
class OriginalRender:
    """The options of recon.py, apart from its paths.

    Attributes:
        degrees: of EX-4D's arc; 180 is its ellipse.
        frames: how many to take from the start of the footage.
        first_mesh_only: render frame 0's mesh from every camera: the moment stands still.
        occlusion_rule: which faces hide what the footage never saw.
        keep_occluded: whether these faces stay as unseen surfaces (the DW-Mesh); else they are left out, which EX-4D
            can do with the rule "angle" only.
        save_mesh, save_camera, save_depth: which further files to write.
    """

    degrees: int = 180
    frames: int = 49
    first_mesh_only: bool = False
    occlusion_rule: OcclusionRule = "angle"
    keep_occluded: bool = True
    save_mesh: bool = False
    save_camera: bool = False
    save_depth: bool = False

    @property
    def is_watertight(self) -> bool:
        """Whether occluded faces are drawn."""
        return self.keep_occluded or self.occlusion_rule == "boundary"

    def settings(self, licence: Licence | None) -> RenderSettings:
        """The render settings that the options mean."""
        return RenderSettings(
            convention="reference",
            occlusion_rule=self.occlusion_rule,
            occlusion="watertight" if self.is_watertight else "open",
            licence=licence,
        )


@dataclass(frozen=True)
class OriginalFiles:
    """Files that recon.py writes into its folder; None for those that were not asked for."""

    color: Path
    mask: Path
    camera: Path | None
    mesh: Path | None
    depth: Path | None

    @classmethod
    def of(cls, folder: Path, options: OriginalRender) -> OriginalFiles:
        """The original's names."""
        return cls(
            folder / f"color_{options.degrees}.mp4",
            folder / f"mask_{options.degrees}.mp4",
            folder / f"camera_{options.degrees}.npz" if options.save_camera else None,
            folder / "DW-Mesh.ply" if options.save_mesh else None,
            folder / "depth.npz" if options.save_depth else None,
        )

    def named(self) -> dict[str, Path]:
        """Those that are written, by what they hold."""
        return {name: path for name, path in vars(self).items() if path is not None}


@dataclass(frozen=True, eq=False)
class OriginalResult:
    """What recon.py made.

    Attributes:
        files: all of them.
        size: (width, height) of the movies, pixels.
        depth_source: where depth came from, and its licence, for people.
        visible_fraction: (T,) float64, share of each frame that the footage saw, 0 to 1.
    """

    files: OriginalFiles
    size: tuple[int, int]
    depth_source: str
    visible_fraction: np.ndarray


def render_original(
    footage_path: Path,
    folder: Path,
    options: OriginalRender,
    depth_settings: DepthSettings,
    depth_path: Path | None = None,
    *,
    device: str = "auto",
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
    overwrite: bool = False,
) -> OriginalResult:
    """Footage to color_N.mp4, mask_N.mp4 and what else the options ask for, as recon.py names them.

    Args:
        folder: is created where it is missing.
        depth_settings: of the files at ``depth_path``, or of the estimator.
        depth_path: known depth of the footage at its own size; None estimates it.
        device: "auto", "cpu", or "cuda" with an optional number.
        machine: as the environment says by default.
        progress: called with the stages of depth and of rendering.
        note: called with sentences for the user about the footage.
        overwrite: replace files of an earlier run.

    Raises:
        RequestError: the footage has too few frames.
        OutputError: a file exists, or would replace an input.
        MediaError, DepthError, LicenceError, WeightsMissingError: as in `ex4d.pipeline.reconstruct.reconstruct`.
    """
    footage = _first_frames(footage_path, options.frames)
    for text in footage.notes:
        note(text)
    files = OriginalFiles.of(folder, options)
    inputs = [path for path in (footage_path, depth_path) if path is not None]
    for path in files.named().values():
        require_file(path, inputs=inputs, overwrite=overwrite, beside=files.color)
    width, height = original_size(footage.width, footage.height)
    lens = intrinsics_from(footage.width, footage.height, focal_px=FOCAL_PX * footage.width / width)
    known = KnownIntrinsics(lens, "EX-4D's default for all footage")
    clip_depth = depth_of(depth_path, depth_settings, footage, known, device, machine, progress)
    for text in clip_depth.notes:
        note(text)
    folder.mkdir(parents=True, exist_ok=True)

    color = np.empty((footage.frames, height, width, 3), np.uint8)
    depth = np.empty((footage.frames, height, width), np.float32)
    whole_depth = []
    pairs = clip_depth.with_frames(read_frames(footage.path, count=footage.frames))
    for index, (image, z) in enumerate(pairs):
        color[index], depth[index] = _resized(image, width, height), _resized_depth(z, width, height)
        if options.save_depth:
            whole_depth.append(z)
    if options.first_mesh_only:
        color, depth = (np.broadcast_to(values[:1], values.shape) for values in (color, depth))
    clip = ArrayClip(footage_path.name, depth, color, intrinsics_from(width, height, focal_px=FOCAL_PX))
    distance = min(subject_distance(depth[0]), _SUBJECT_BEHIND_BORDER)
    lens = clip.source_camera().intrinsics[0]
    camera = reference_path(options.degrees, footage.frames, lens, width, height, distance)

    if path := files.depth:
        with atomic_write(path) as partial, translate_write_errors(path), open(partial, "wb") as file:
            np.savez_compressed(file, depth=np.stack(whole_depth))
    if path := files.mesh:
        with translate_write_errors(path):
            _write_mesh(path, clip, options)
    how = {"device": device, "machine": machine}
    frames = render_shot(clip, camera, options.settings(depth_settings.licence), **how)
    visible = _write_movies(files, camera, frames, progress)
    source = f"{clip_depth.source}; licence: {clip_depth.licence}"
    return OriginalResult(files, (width, height), source, visible)


def repaint_original(
    color_path: Path,
    mask_path: Path,
    output: Path,
    engine: Engine,
    *,
    frames: int = 49,
    width: int = 512,
    height: int = 512,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
    overwrite: bool = False,
) -> None:
    """Let an engine repaint what a mask movie (white = seen) marks as unseen in a colour movie, as generate.py does.

    Args:
        output: a movie of 15 frames per second; its folder is created where it is missing.
        frames: how many to take, spread evenly over each movie; a shorter movie repeats its last frame.
        width, height: pixels that both movies are resized to.
        progress: called with the engine's stages.
        note: called with sentences for the user about the movies.
        overwrite: replace a movie of ours.

    Raises:
        RequestError: the size is too large.
        OutputError: the output is an input or exists, or does not end in .mp4.
        MediaError: a movie cannot be read or written.
    """
    if max(width, height) > MAX_SIDE:
        raise RequestError(f"a frame may have sides of at most {MAX_SIDE} pixels, not {width}x{height}")
    require_movie_name(output)
    require_file(output, inputs=(color_path, mask_path), overwrite=overwrite)
    movies = [probe(path) for path in (color_path, mask_path)]
    for movie in movies:
        if movie.frames < frames:
            note(f"{movie.path} has {movie.frames} frames, fewer than {frames}; its last one is repeated")
    output.parent.mkdir(parents=True, exist_ok=True)

    def on_progress(step: GenerationProgress) -> None:
        progress(str(step.details), step.done, step.total)

    with VideoWriter(output, width, height, OUTPUT_FPS, metadata={"ex4d_engine": engine.name}) as movie:
        rendered = _rendered(movies[0], movies[1], frames, width, height)
        for done, frame in enumerate(engine.generate(rendered, count=frames, on_progress=on_progress), start=1):
            movie.write(frame)
            progress(engine.name, done, frames)


def original_wan_settings(frames: int, seed: int, steps: int, guidance: float = 5.0) -> WanSettings:
    """The engine's settings for what generate.py does: bf16, at any size, all frames at once.

    Args:
        frames: how many are generated.
        seed, steps, guidance: as in `WanSettings`.

    Raises:
        RequestError: a value out of range.
    """
    # The VAE takes 4n + 1 frames, and the engine's windows have an upper bound; longer shots continue in another one.
    window = min(_LONGEST_WINDOW, max(5, -(-(frames - 1) // 4) * 4 + 1))
    overlap = min(_OVERLAP, window - 4)
    own = {"max_pixels": 0, "window": window, "overlap": overlap}
    return wan_preset("ex4d-reference", seed=seed, steps=steps, guidance=guidance, **own)


def original_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) that recon.py resizes footage to: multiples of 64, at most 1024."""
    sides = [round(side / _MULTIPLE) * _MULTIPLE for side in (width, height)]
    if max(sides) > _LONGEST_SIDE:
        scale = _LONGEST_SIDE / max(width, height)
        sides = [round(side * scale / _MULTIPLE) * _MULTIPLE for side in (width, height)]
    return max(sides[0], _MULTIPLE), max(sides[1], _MULTIPLE)


def spread_indices(available: int, count: int) -> np.ndarray:
    """(count,) indices of the frames that generate.py takes of a movie: evenly spread, or all and the last again."""
    if available >= count:
        return np.linspace(0, available - 1, count, dtype=int)
    return np.minimum(np.arange(count), available - 1)


def _first_frames(path: Path, count: int) -> FootageInfo:
    whole = probe(path)
    if whole.frames < count:
        raise RequestError(
            f"{path} has {whole.frames} frames, fewer than the {count} of --num_frames (EX-4D skips such footage): "
            f"give --num_frames {whole.frames} or less"
        )
    return replace(whole, frames=count)


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8 at another size: bilinear between the nearest pixels, as OpenCV's default is."""
    if image.shape[:2] == (height, width):
        return image
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    resized = F.interpolate(tensor, (height, width), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def _resized_depth(depth: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W) float32 at another size, without values between a foreground and its background."""
    if depth.shape == (height, width):
        return depth
    return F.interpolate(torch.from_numpy(depth)[None, None], (height, width), mode="nearest-exact")[0, 0].numpy()


def _write_mesh(path: Path, clip: ArrayClip, options: OriginalRender) -> None:
    mesh = build_dw_mesh(
        torch.from_numpy(np.array(clip.depth()[:1])),
        torch.from_numpy(np.array(clip.color()[:1])),
        torch.tensor(clip.source_camera().intrinsics[:1]),
        convention="reference",
        occlusion_rule=options.occlusion_rule,
    )
    if options.is_watertight:  # EX-4D blackens the corners of occluded faces
        mesh = replace(mesh, colors=mesh.vertex_rgba()[..., :3])
    write_ply(path, mesh, 0, occluded=options.is_watertight)


def _write_movies(
    files: OriginalFiles, camera: CameraPath, frames: Iterator[RenderedFrame], progress: Progress
) -> np.ndarray:
    """Write the movies, then the camera; returns the visible fraction of each frame."""
    visible, metadata = [], {"ex4d_render": files.color.stem}
    with (
        VideoWriter(files.color, camera.width, camera.height, RENDER_FPS, metadata=metadata) as color_movie,
        VideoWriter(files.mask, camera.width, camera.height, RENDER_FPS, metadata=metadata) as mask_movie,
    ):
        for frame in frames:
            color_movie.write(frame.color)
            mask_movie.write(frame.mask)
            visible.append(frame.mask.mean())
            progress(STAGE, len(visible), len(camera))
        mask_movie.finish()
        color_movie.finish()
    if files.camera is not None:
        with atomic_write(files.camera) as partial, translate_write_errors(files.camera):
            camera.save(partial, convention="original")
    return np.array(visible)


def _rendered(color: FootageInfo, mask: FootageInfo, count: int, width: int, height: int) -> Iterator[RenderedFrame]:
    """Rendered frames from two movies. Movies have no depth: every seen pixel counts as equally far."""
    pairs = zip(_chosen_frames(color, count), _chosen_frames(mask, count), strict=True)
    for index, (image, mask_image) in enumerate(pairs):
        seen = _resized(mask_image, width, height)[..., 1] >= _SEEN
        image = _resized(image, width, height)
        yield RenderedFrame(index, image * seen[..., None], seen, np.ones(seen.shape, np.float32))


def _chosen_frames(movie: FootageInfo, count: int) -> Iterator[np.ndarray]:
    indices = spread_indices(movie.frames, count)
    for position, image in enumerate(read_frames(movie.path, count=int(indices[-1]) + 1)):
        for _ in range(int((indices == position).sum())):
            yield image

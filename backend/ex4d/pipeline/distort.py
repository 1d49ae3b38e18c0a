"""Takes back in the footage's lens: movies of a scene whose lens distortion was undone, distorted again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ex4d.media import Distorter, VideoWriter, probe, read_frames, read_metadata, sound_of, write_exr_channels
from ex4d_core.errors import RequestError
from ex4d_core.lens_distortion import LensDistortion
from ex4d_core.scene import Scene

DISTORT_STAGE = "distort"


def lens_of_scene(scene: Scene) -> LensDistortion:
    """The lens distortion that is undone in a scene.

    Raises:
        RequestError: the scene has none.
    """
    manifest = scene.manifest
    if manifest.distortion is None:
        raise RequestError(
            f"the scene '{manifest.name}' has no lens distortion: its footage had none, or was reconstructed by a "
            "version that did not record it. Reconstruct it again."
        )
    return manifest.distortion


def distort_movie(
    scene: Scene,
    movie: Path,
    out: Path,
    *,
    nearest: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Write a movie of a scene's take as the footage's lens would have filmed it.

    Args:
        movie: colour or mask, in the footage's shape; a video or a folder of images.
        out: an .mp4.
        nearest: take the nearest pixel, as masks need it, not a mean.
        progress: called with frames done and frames in all.

    Returns:
        The share of the picture that the take does not show, which repeats its edge.

    Raises:
        RequestError: the scene has no lens distortion, or another shape.
        MediaError: the movie cannot be read, or `out` not written.
    """
    info, lens = probe(movie), lens_of_scene(scene)
    distorter = Distorter(lens, info.width, info.height)
    resample = distorter.nearest if nearest else distorter.color
    metadata = {**(read_metadata(movie) if movie.is_file() else {}), "ex4d_lens_distortion": str(lens)}
    how = {"pixel_aspect": info.pixel_aspect, "metadata": metadata, "sound": sound_of(movie)}
    with VideoWriter(out, info.width, info.height, info.fps, **how) as video:
        for done, frame in enumerate(read_frames(movie), start=1):
            video.write(resample(frame))
            progress(done, info.frames)
    return float(distorter.beyond.mean())


def write_st_map(scene: Scene, path: Path, width: int, height: int) -> float:
    """Write the map of `distort_movie` for compositors: an EXR with R and G, as Nuke's STMap takes it.

    Returns:
        As `distort_movie`.

    Raises:
        RequestError: the scene has no lens distortion, or another shape.
        MediaError: it cannot be written.
    """
    distorter = Distorter(lens_of_scene(scene), width, height)
    across, up = distorter.st_map().transpose(2, 0, 1)
    write_exr_channels(path, {"R": across, "G": up})
    return float(distorter.beyond.mean())

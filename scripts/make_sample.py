"""Builds the sample clips in `tests/data/`: a small garden, animated and rendered from code alone.

The clips are what tests, the demo and `measure_solve.py` start from: footage, its exact depth and camera, and the true
image from two other cameras. In `sample` the camera stands still, in `moving_camera` it travels. They are committed,
so this needs to run only when the scene is changed. `bpy` (5.0) and the video and EXR libraries live in different
environments, hence two steps, the first about a quarter of an hour on 2 CPU cores:

    BPY_PYTHON     scripts/make_sample.py render --clip sample --work WORK_FOLDER
    BACKEND_PYTHON scripts/make_sample.py pack --clip sample --work WORK_FOLDER

`render` (bpy, numpy) writes PNG colours, EXR depths and ray-cast line-of-sight masks into the work folder; a second
call resumes the first. `pack` (numpy, PyAV, OpenEXR) compresses, measures what compression cost,
checks the cameras by reprojection, and writes the committed files with their README.

Cameras and rendering are in `sample_views.py`, the scene in `sample_garden.py`, its shapes in `sample_shapes.py`.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sample_views import CLIPS, SIGHT_TOLERANCE, TRUE_VIEWS, SampleClip, camera_intrinsics, render, unproject

FPS = 24


def read_png(path: Path) -> np.ndarray:
    """(H, W, 3) uint8."""
    import av

    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def read_depth(path: Path) -> np.ndarray:
    """(H, W) float32 Z pass of a multilayer EXR."""
    import OpenEXR

    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = {name: channel for part in file.parts for name, channel in part.channels.items()}
        return channels["ViewLayer.Depth.Z"].pixels.astype(np.float32)


def write_video(path: Path, video: np.ndarray, crf: int) -> None:
    """H.264, 4:2:0, limited range, converted and tagged as BT.709."""
    import av

    options = {"crf": str(crf), "preset": "veryslow", "movflags": "+faststart"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height = video.shape[2], video.shape[1]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        for image in video:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace="ITU709", src_color_range="JPEG", dst_color_range="MPEG"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_video(path: Path) -> np.ndarray:
    """(T, H, W, 3) uint8, back from BT.709."""
    import av

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24", src_colorspace="ITU709") for frame in container.decode(video=0)]
    return np.stack(frames)


def write_arrays(path: Path, **arrays: npt.ArrayLike) -> None:
    """An .npz compressed with LZMA: `numpy.load` reads it as any other, and a still background costs almost nothing.

    Deflate refers back 32 KB, less than a frame; LZMA refers to the frame before, so the depth is a sixth of the size.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            # A fixed date, so that the same arrays give the same file.
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_LZMA
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def reprojection_error(depth: np.ndarray, other: np.ndarray, to_other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Carry an image's surface points into another camera and compare with the depth found there.

    Args:
        depth: (H, W) of the image that the points come from.
        other: (h, w) depth of the other camera.
        to_other: (4, 4) from the first camera's OpenCV frame to the other's.

    Returns:
        (9, H, W) signed relative error, positive where the point lies behind what the other camera sees, at the pixel
        where the point falls (first) and at its 8 neighbours; (H, W) bool, whether it falls into the image.
    """
    points = unproject(depth, camera_intrinsics(depth.shape[1])) @ to_other[:3, :3].T + to_other[:3, 3]
    z = np.maximum(points[..., 2], 1e-6)
    size, target = other.shape[1], camera_intrinsics(other.shape[1])
    column = np.floor(points[..., 0] / z * target[0, 0] + target[0, 2]).astype(int)
    row = np.floor(points[..., 1] / z * target[1, 1] + target[1, 2]).astype(int)
    inside = (points[..., 2] > 0) & (row >= 0) & (row < size) & (column >= 0) & (column < size)
    near = [(r, c) for r in (0, -1, 1) for c in (0, -1, 1)]
    at = [other[np.clip(row + r, 0, size - 1), np.clip(column + c, 0, size - 1)] for r, c in near]
    return np.stack([z / found - 1 for found in at]), inside


def measure(
    clip: SampleClip, work: Path, depth: np.ndarray, views: list[tuple[str, int]], stack: dict[str, np.ndarray]
) -> dict[str, float]:
    """The figures that the README states, measured on the arrays as they are stored."""
    cast_errors, forward, agree_seen, agree_hidden = [], [], [], []
    for i, (name, frame) in enumerate(views):
        cast_depth = np.load(work / f"{name}_{frame:02d}.npz")["depth"]
        cast_errors.append(abs(cast_depth - read_depth(work / f"{name}_{frame:02d}.exr")).ravel())
        to_view = stack["extrinsics"][i] @ np.linalg.inv(clip.world_to_camera(frame))
        errors, inside = reprojection_error(depth[frame], stack["depth"][i], to_view)
        lands = inside & (abs(errors[0]) < 0.02)  # the rest is hidden in the view, or beside an edge
        forward.append(abs(errors[0][lands]))
        errors, inside = reprojection_error(stack["depth"][i], depth[frame], np.linalg.inv(to_view))
        visible = stack["visible"][i]
        agree_seen.append((inside & (abs(errors).min(0) < 0.01))[visible])
        agree_hidden.append((~inside | (errors[0] > 0.01))[~visible])
    cast_errors, forward = np.concatenate(cast_errors), np.concatenate(forward)
    return {
        "cast_median": float(np.median(cast_errors)),
        "cast_99": float(np.quantile(cast_errors, 0.99)),
        "reprojection_median": float(np.median(forward)) * 100,
        "seen": float(np.concatenate(agree_seen).mean()) * 100,
        "hidden": float(np.concatenate(agree_hidden).mean()) * 100,
        **{
            f"visible_{view}": float(stack["visible"][[n == view for n, _ in views]].mean()) * 100
            for view in TRUE_VIEWS
        },
    }


README = """# {title}: a garden with known depth

A small animated garden of our own, {frames} frames, {size} x {size}, {fps} frames a second: a flower that opens, sways
and turns in front; thin stems, grass, wires and a butterfly; a fence, a bird house and a pinwheel behind; hills and
a painted sky far away, so that every pixel has a finite depth. {motion}

Made from code alone by `scripts/make_sample.py` (Blender 5.0, Cycles; no outside material). Licence: CC0-1.0, no
rights reserved.

| file | what it holds |
|---|---|
| `footage.mp4` | H.264, 4:2:0, limited range, BT.709; PSNR to the renders {luma:.1f} dB in luma, {psnr:.1f} in RGB |
| `depth.npz` | `depth` ({frames}, {size}, {size}) uint16 x `scale` is depth along z; `intrinsics` as below |
| `camera.npz` | `extrinsics` ({frames}, 4, 4){identity}; `intrinsics` ({frames}, 3, 3); `width`, `height` |
| `true_views.npz` | {count} images from two other cameras, see below |

Conventions: OpenCV cameras (x right, y down, z forward); `extrinsics` are world-to-camera, and the world is the
{world}; intrinsics in pixels, pixel centres at +0.5. Focal length {focal:.3f} px at
{size} px. Frames are counted from 0.

## Depth

One ray through each pixel's centre, never averaged over an edge: Cycles' Z pass at one sample with the narrowest box
filter (colour is antialiased). It is the distance along the camera's axis, not along the ray: in the true views it
differs from ray casts by geometry by {cast_median:.1e} units (median; 99 % of pixels within {cast_99:.1e}).

Stored in steps of 1/{steps} unit. Against the exact pass, rounding is at most {worst:.6f} units, and at most
{relative:.4f} % of a depth. The range is {near:.3f} to {far:.3f} units.

The .npz files are compressed with LZMA; `numpy.load` reads them as usual.

## True views

`true_views.npz`, each array with one entry for each image: `view` (name), `frames` (the footage frame), `rgb`
({true_size}, {true_size}, 3) uint8, `depth` float32 (same steps as above), `visible` bool, `extrinsics`,
`intrinsics` (for {true_size} px). The cameras are the source camera turned about the flower:

{views}

`visible` is true where the source camera saw, in that frame, the surface point in the middle of the pixel: the point
projects into the source image, a ray cast from the source camera's centre to it meets nothing before it (tolerance
{tolerance} units), and both cameras are on the same side of it (petals and wings are sheets). Edge pixels of `rgb`
are antialiased, so they mix both sides of an edge.

Checked with the stored arrays: source depth carried into the true cameras lands on their depth with a median error
of {reprojection_median:.4f} %. Carried back, {seen:.2f} % of the visible pixels lie on the source depth (nearest of
3 x 3 pixels, within 1 %), and {hidden:.2f} % of the others fall outside the image or more than 1 % behind it; the
rest is hidden by less than that, by less than a pixel, or turned away.
"""


WORDS = {
    "sample": {
        "title": "The sample clip",
        "motion": "The source camera stands still.",
        "identity": ", all identity",
        "world": "source camera's frame",
    },
    "moving_camera": {
        "title": "The clip with a moving camera",
        "motion": "The source camera\ntravels about the flower, up and towards it.",
        "identity": "",
        "world": "source camera's frame at frame 0",
    },
}


def pack(clip: SampleClip, work: Path, crf: int) -> None:
    """Step 2: the committed files, from a complete work folder."""
    folder, numbers = clip.folder, range(clip.frames)
    folder.mkdir(parents=True, exist_ok=True)
    video = np.stack([read_png(work / f"source_{frame:02d}.png") for frame in numbers])
    write_video(folder / "footage.mp4", video, crf)
    error = read_video(folder / "footage.mp4").astype(np.float32) - video
    psnr, luma = (10 * np.log10(255**2 / np.mean(e**2)) for e in (error, error @ (0.2126, 0.7152, 0.0722)))

    exact = np.stack([read_depth(work / f"source_{frame:02d}.exr") for frame in numbers])
    quantised = np.round(exact / clip.depth_step).astype(np.uint16)
    intrinsics = np.broadcast_to(camera_intrinsics(clip.size), (clip.frames, 3, 3))
    write_arrays(folder / "depth.npz", depth=quantised, scale=np.float64(clip.depth_step), intrinsics=intrinsics)
    depth = quantised * np.float32(clip.depth_step)

    extrinsics = np.stack([clip.world_to_camera(frame) for frame in numbers])
    extrinsics[0] = np.eye(4)
    if not (clip.orbit or clip.elevation or clip.push):
        extrinsics[:] = np.eye(4)
    size = np.int64(clip.size)
    write_arrays(folder / "camera.npz", extrinsics=extrinsics, intrinsics=intrinsics, width=size, height=size)

    views = [(name, frame) for name in TRUE_VIEWS for frame in clip.true_frames]
    true_depth = np.stack([read_depth(work / f"{name}_{frame:02d}.exr") for name, frame in views])
    stack = {
        "view": np.array([name for name, _ in views]),
        "frames": np.array([frame for _, frame in views]),
        "rgb": np.stack([read_png(work / f"{name}_{frame:02d}.png") for name, frame in views]),
        "depth": (np.round(true_depth / clip.depth_step) * clip.depth_step).astype(np.float32),
        "visible": np.stack([np.load(work / f"{name}_{frame:02d}.npz")["visible"] for name, frame in views]),
        "extrinsics": np.stack([clip.world_to_camera(frame, name) for name, frame in views]),
        "intrinsics": np.stack([camera_intrinsics(clip.true_size)] * len(views)),
    }
    write_arrays(folder / "true_views.npz", **stack)

    figures = measure(clip, work, depth, views, stack)
    described = "\n".join(
        f"- `{name}`: {abs(orbit):.0f} degrees to the {'right' if orbit > 0 else 'left'} and {up:.0f} degrees up; "
        f"{figures[f'visible_{name}']:.1f} % of its pixels are visible"
        for name, (orbit, up) in TRUE_VIEWS.items()
    )
    worst = np.abs(depth - exact)
    facts = {
        **figures,
        **WORDS[clip.name],
        "frames": clip.frames,
        "size": clip.size,
        "fps": FPS,
        "psnr": psnr,
        "luma": luma,
        "count": len(views),
        "focal": camera_intrinsics(clip.size)[0, 0],
        "steps": round(1 / clip.depth_step),
        "worst": worst.max(),
        "relative": (worst / exact).max() * 100,
        "near": exact.min(),
        "far": exact.max(),
        "true_size": clip.true_size,
        "views": described,
        "tolerance": SIGHT_TOLERANCE,
    }
    text = README.format(**facts)
    (folder / "README.md").write_text(text, encoding="utf-8")
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    print(text, sizes, f"total {sum(sizes.values()) / 1e6:.2f} MB", sep="\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("render", "pack"))
    parser.add_argument("--clip", choices=CLIPS, default="sample")
    parser.add_argument("--work", type=Path, required=True, help="folder for the frames between the two steps")
    parser.add_argument("--samples", type=int, default=24, help="Cycles samples per pixel")
    parser.add_argument("--frames", type=int, nargs="*", help="render only these")
    parser.add_argument("--crf", type=int, default=12, help="H.264 quality, smaller is better")
    options = parser.parse_args()
    clip = CLIPS[options.clip]
    if options.step == "render":
        render(clip, options.work, options.samples, options.frames or list(range(clip.frames)))
    else:
        pack(clip, options.work, options.crf)


if __name__ == "__main__":
    main()

"""Makes the sample clip in `tests/data/sample/`: a small garden, animated and rendered from code alone.

The clip is what tests and the demo start from: footage, its exact depth and camera, and the true picture from two
other cameras. It is committed, so this needs to run only when the scene is changed. `bpy` (5.0) and the video and
EXR libraries live in different environments, hence two steps, the first about a quarter of an hour on 2 CPU cores:

    BPY_PYTHON     scripts/make_sample.py render --work WORK_FOLDER
    BACKEND_PYTHON scripts/make_sample.py pack --work WORK_FOLDER

`render` (bpy, numpy) writes PNG colours, EXR depths and ray-cast line-of-sight masks into the work folder; a second
call goes on where the first stopped. `pack` (numpy, PyAV, OpenEXR) compresses, measures what compression cost,
checks the cameras by reprojection, and writes the committed files with their README.

The scene itself is in `sample_garden.py`, its shapes in `sample_shapes.py`.
"""

from __future__ import annotations

import argparse
import zipfile
from math import pi, radians
from pathlib import Path

import numpy as np

from sample_shapes import rotation, translation

FRAMES, SIZE, FPS = 49, 512, 24
LENS, SENSOR = 38.0, 36.0  # millimetres; the sensor is as wide as the picture
EYE, TILT = (0.0, 0.0, 1.5), radians(4.0)  # the source camera looks along +y, a little down
PIVOT = (0.0, 3.1, 1.3)  # the orbit's centre: the flower, under its head
TRUE_FRAMES, TRUE_SIZE = (0, 12, 24, 36, 48), 256
TRUE_VIEWS = {"right20": (20.0, 0.0), "left40high": (-40.0, 12.0)}  # orbit to the right, elevation; degrees
DEPTH_STEP = 1 / 2048  # scene units, a power of two so that float32 holds every multiple exactly
SIGHT_TOLERANCE = 2e-3  # scene units a ray may stop short of its surface point, from float32 ray casts
DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "sample"


def camera_intrinsics(size: int) -> np.ndarray:
    """(3, 3) intrinsics in pixels of a square picture of `size` pixels, pixel centres at +0.5."""
    focal = LENS / SENSOR * size
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])


def camera_to_world(orbit: float = 0.0, elevation: float = 0.0) -> np.ndarray:
    """(4, 4) Blender camera-to-world (x right, y up, looks along -z), turned about the pivot by degrees.

    The source camera is turned rigidly, so the pivot keeps its place in the picture. Positive orbit moves the camera
    to the right, positive elevation up.
    """
    source = translation(*EYE) @ rotation("x", pi / 2 - TILT)
    turn = rotation("z", radians(orbit)) @ rotation("x", -radians(elevation))
    return translation(*PIVOT) @ turn @ translation(*(-c for c in PIVOT)) @ source


def world_to_camera(orbit: float, elevation: float) -> np.ndarray:
    """(4, 4) OpenCV world-to-camera, where the world is the source camera's own OpenCV frame."""
    flip = np.diag([1.0, -1.0, -1.0, 1.0])  # Blender's camera axes to OpenCV's
    return flip @ np.linalg.inv(camera_to_world(orbit, elevation)) @ camera_to_world() @ flip


def unproject(depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """(H, W) depth along z to (H, W, 3) OpenCV camera points, through pixel centres."""
    rows, columns = np.indices(depth.shape) + 0.5
    x = (columns - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (rows - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.stack([x, y, np.ones_like(x)], -1) * depth[..., None]


# --- Step 1, in bpy: render ----------------------------------------------------------------------------------------


def set_up_camera() -> None:
    """The scene's camera and the settings that colour and depth renders share."""
    import bpy

    scene = bpy.context.scene
    scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(scene.camera)
    lens = scene.camera.data
    lens.lens, lens.sensor_width, lens.sensor_fit, lens.clip_start, lens.clip_end = LENS, SENSOR, "AUTO", 0.05, 500.0
    scene.render.engine, scene.render.resolution_percentage = "CYCLES", 100
    scene.view_settings.view_transform, scene.view_settings.look = "Standard", "None"
    scene.render.use_motion_blur = False
    scene.cycles.max_bounces, scene.cycles.use_adaptive_sampling = 3, False
    scene.cycles.caustics_reflective = scene.cycles.caustics_refractive = False
    scene.view_layers[0].use_pass_z = True


def render_colour(path: Path, samples: int) -> None:
    """Render the scene's camera to an 8-bit sRGB PNG, antialiased and denoised."""
    import bpy

    scene = bpy.context.scene
    scene.cycles.samples, scene.cycles.use_denoising = samples, True
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BLACKMAN_HARRIS", 1.5
    scene.render.image_settings.media_type = "IMAGE"
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "PNG", "RGB"
    scene.render.image_settings.color_depth = "8"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def render_depth(path: Path) -> None:
    """Render the scene's camera to a float32 multilayer EXR whose Depth layer holds one ray per pixel centre.

    Cycles' Z pass is the distance along the camera's axis, taken from a pixel's first sample, never averaged. The
    narrowest box filter puts that sample on the pixel's centre; `pack` checks both against ray casts.
    """
    import bpy

    scene = bpy.context.scene
    scene.cycles.samples, scene.cycles.use_denoising = 1, False
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BOX", 0.01
    scene.render.image_settings.media_type = "MULTI_LAYER_IMAGE"
    scene.render.image_settings.file_format = "OPEN_EXR_MULTILAYER"
    scene.render.image_settings.color_depth = "32"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def cast(origins: np.ndarray, towards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first surface from each origin in the direction of `towards`.

    Returns:
        (N,) distance, inf where there is none, and (N, 3) normal of the face that was hit.
    """
    import bpy

    scene, graph = bpy.context.scene, bpy.context.evaluated_depsgraph_get()
    distances, normals = np.full(len(towards), np.inf), np.zeros((len(towards), 3))
    for i, (origin, target) in enumerate(zip(origins, towards, strict=True)):
        hit, point, normal, *_ = scene.ray_cast(graph, origin.tolist(), (target - origin).tolist())
        if hit:
            distances[i], normals[i] = np.linalg.norm(np.array(point) - origin), normal
    return distances, normals


def cast_view(view: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(depth, visible) of a true view by ray casts through its pixel centres.

    A pixel is visible when its surface point lies inside the source picture, nothing stands on the straight line
    between that point and the source camera's centre, and both cameras are on the same side of the surface: petals
    and wings are sheets, and who saw the front has not seen the back.
    """
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    to_world, to_source = camera_to_world(*view) @ flip, np.linalg.inv(camera_to_world() @ flip)
    rays = unproject(np.ones((TRUE_SIZE, TRUE_SIZE)), camera_intrinsics(TRUE_SIZE)).reshape(-1, 3)
    eye, source_eye = to_world[:3, 3], np.array(EYE)
    distance, normal = cast(np.broadcast_to(eye, rays.shape), rays @ to_world[:3, :3].T + eye)
    depth = distance / np.linalg.norm(rays, axis=1)
    points = rays * depth[:, None] @ to_world[:3, :3].T + eye
    x, y, z = (points @ to_source[:3, :3].T + to_source[:3, 3]).T
    limit = z * SENSOR / LENS / 2
    visible = (z > 0) & (abs(x) < limit) & (abs(y) < limit)
    visible &= np.sum(normal * (points - eye), 1) * np.sum(normal * (points - source_eye), 1) > 0
    free, _ = cast(np.broadcast_to(source_eye, points[visible].shape), points[visible])
    visible[visible] = free > np.linalg.norm(points[visible] - source_eye, axis=1) - SIGHT_TOLERANCE
    return depth.reshape(TRUE_SIZE, TRUE_SIZE).astype(np.float32), visible.reshape(TRUE_SIZE, TRUE_SIZE)


def render(work: Path, samples: int, frames: list[int]) -> None:
    """Step 1: everything that needs bpy, into the work folder; files that are there already are kept."""
    import bpy

    from sample_garden import build_garden, place

    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    garden = build_garden()
    set_up_camera()
    work.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        garden.pose(frame / (FRAMES - 1))
        views = {"source": (0.0, 0.0), **(TRUE_VIEWS if frame in TRUE_FRAMES else {})}
        for name, view in views.items():
            place(scene.camera, camera_to_world(*view))
            size = SIZE if name == "source" else TRUE_SIZE
            scene.render.resolution_x = scene.render.resolution_y = size
            bpy.context.view_layer.update()
            colour, depth = work / f"{name}_{frame:02d}.png", work / f"{name}_{frame:02d}.exr"
            if not depth.exists():
                render_depth(depth)
            if not colour.exists():
                render_colour(colour, samples)
            if name != "source" and not (work / f"{name}_{frame:02d}.npz").exists():
                cast_depth, visible = cast_view(view)
                np.savez(work / f"{name}_{frame:02d}.npz", depth=cast_depth, visible=visible)
        print(f"frame {frame} done", flush=True)


# --- Step 2, in the backend's Python: pack -------------------------------------------------------------------------


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
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        for picture in video:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
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


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """An .npz compressed with LZMA: `numpy.load` reads it as any other, and a still background costs almost nothing.

    Deflate looks back 32 KB, less than a frame; LZMA sees the frame before, so the depth is a sixth of the size.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            # A fixed date, so that the same arrays give the same file.
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_LZMA
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def reprojection_error(depth: np.ndarray, other: np.ndarray, to_other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Carry a picture's surface points into another camera and compare with the depth found there.

    Args:
        depth: (H, W) of the picture the points come from.
        other: (h, w) depth seen by the other camera.
        to_other: (4, 4) from the first camera's OpenCV frame to the other's.

    Returns:
        (9, H, W) signed relative error, positive where the point lies behind what the other camera sees, at the pixel
        where the point falls (first) and at its 8 neighbours; (H, W) bool, whether it falls into the picture.
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
    work: Path, depth: np.ndarray, views: list[tuple[str, int]], stack: dict[str, np.ndarray]
) -> dict[str, float]:
    """What the README states: each figure is measured on the arrays as they are stored."""
    cast_errors, forward, agree_seen, agree_hidden = [], [], [], []
    for i, (name, frame) in enumerate(views):
        cast_depth = np.load(work / f"{name}_{frame:02d}.npz")["depth"]
        cast_errors.append(abs(cast_depth - read_depth(work / f"{name}_{frame:02d}.exr")).ravel())
        to_view = stack["extrinsics"][i]
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


README = """# The sample clip: a garden with known depth

A small animated garden of our own, {frames} frames, {size} x {size}, {fps} frames a second: a flower that opens, sways
and turns in front; thin stems, grass, wires and a butterfly; a fence, a bird house and a pinwheel behind; hills and
a painted sky far away, so that every pixel has a finite depth. The source camera stands still.

Made from code alone by `scripts/make_sample.py` (Blender 5.0, Cycles; no outside material). Licence: CC0-1.0, no
rights reserved.

| file | what it holds |
|---|---|
| `footage.mp4` | H.264, 4:2:0, limited range, BT.709; PSNR to the renders {luma:.1f} dB in luma, {psnr:.1f} in RGB |
| `depth.npz` | `depth` ({frames}, {size}, {size}) uint16 x `scale` is depth along z; `intrinsics` as below |
| `camera.npz` | `extrinsics` ({frames}, 4, 4), all identity; `intrinsics` ({frames}, 3, 3); `width`, `height` |
| `true_views.npz` | {count} pictures from two other cameras, see below |

Conventions: OpenCV cameras (x right, y down, z forward); `extrinsics` are world-to-camera, and the world is the
source camera's frame; intrinsics in pixels, pixel centres at +0.5. Focal length {focal:.3f} px at
{size} px. Frames are counted from 0.

## Depth

One ray through each pixel's centre, never averaged over an edge: Cycles' Z pass at one sample with the narrowest box
filter (colour is antialiased). It is the distance along the camera's axis, not along the ray: in the true views it
differs from ray casts by geometry by {cast_median:.1e} units (median; 99 % of pixels within {cast_99:.1e}).

Stored in steps of 1/{steps} unit. Against the exact pass, rounding is at most {worst:.6f} units, and at most
{relative:.4f} % of a depth. The range is {near:.3f} to {far:.3f} units.

The .npz files are compressed with LZMA; `numpy.load` reads them as usual.

## True views

`true_views.npz`, each array with one entry for each picture: `view` (name), `frames` (the footage frame), `rgb`
({true_size}, {true_size}, 3) uint8, `depth` float32 (same steps as above), `visible` bool, `extrinsics`,
`intrinsics` (for {true_size} px). The cameras are the source camera turned about the flower:

{views}

`visible` is true where the source camera saw, in that frame, the surface point in the middle of the pixel: the point
projects into the source picture, a ray cast from the source camera's centre to it meets nothing before it (tolerance
{tolerance} units), and both cameras are on the same side of it (petals and wings are sheets). Edge pixels of `rgb`
are antialiased, so they mix both sides of an edge.

Checked with the stored arrays: source depth carried into the true cameras lands on their depth with a median error
of {reprojection_median:.4f} %. Carried back, {seen:.2f} % of the visible pixels lie on the source depth (nearest of
3 x 3 pixels, within 1 %), and {hidden:.2f} % of the others fall outside the picture or more than 1 % behind it; the
rest is hidden by less than that, by less than a pixel, or turned away.
"""


def pack(work: Path, crf: int) -> None:
    """Step 2: the committed files, from a complete work folder."""
    DATA.mkdir(parents=True, exist_ok=True)
    video = np.stack([read_png(work / f"source_{frame:02d}.png") for frame in range(FRAMES)])
    write_video(DATA / "footage.mp4", video, crf)
    error = read_video(DATA / "footage.mp4").astype(np.float32) - video
    psnr, luma = (10 * np.log10(255**2 / np.mean(e**2)) for e in (error, error @ (0.2126, 0.7152, 0.0722)))

    exact = np.stack([read_depth(work / f"source_{frame:02d}.exr") for frame in range(FRAMES)])
    quantised = np.round(exact / DEPTH_STEP).astype(np.uint16)
    lens = np.broadcast_to(camera_intrinsics(SIZE), (FRAMES, 3, 3))
    write_arrays(DATA / "depth.npz", depth=quantised, scale=np.float64(DEPTH_STEP), intrinsics=lens)
    depth = quantised * np.float32(DEPTH_STEP)

    still = np.broadcast_to(np.eye(4), (FRAMES, 4, 4))
    write_arrays(DATA / "camera.npz", extrinsics=still, intrinsics=lens, width=np.int64(SIZE), height=np.int64(SIZE))

    views = [(name, frame) for name in TRUE_VIEWS for frame in TRUE_FRAMES]
    true_depth = np.stack([read_depth(work / f"{name}_{frame:02d}.exr") for name, frame in views])
    stack = {
        "view": np.array([name for name, _ in views]),
        "frames": np.array([frame for _, frame in views]),
        "rgb": np.stack([read_png(work / f"{name}_{frame:02d}.png") for name, frame in views]),
        "depth": (np.round(true_depth / DEPTH_STEP) * DEPTH_STEP).astype(np.float32),
        "visible": np.stack([np.load(work / f"{name}_{frame:02d}.npz")["visible"] for name, frame in views]),
        "extrinsics": np.stack([world_to_camera(*TRUE_VIEWS[name]) for name, _ in views]),
        "intrinsics": np.stack([camera_intrinsics(TRUE_SIZE)] * len(views)),
    }
    write_arrays(DATA / "true_views.npz", **stack)

    figures = measure(work, depth, views, stack)
    described = "\n".join(
        f"- `{name}`: {abs(orbit):.0f} degrees to the {'right' if orbit > 0 else 'left'} and {up:.0f} degrees up; "
        f"{figures[f'visible_{name}']:.1f} % of its pixels are visible"
        for name, (orbit, up) in TRUE_VIEWS.items()
    )
    worst = np.abs(depth - exact)
    facts = {
        **figures,
        "frames": FRAMES,
        "size": SIZE,
        "fps": FPS,
        "psnr": psnr,
        "luma": luma,
        "count": len(views),
        "focal": camera_intrinsics(SIZE)[0, 0],
        "steps": round(1 / DEPTH_STEP),
        "worst": worst.max(),
        "relative": (worst / exact).max() * 100,
        "near": exact.min(),
        "far": exact.max(),
        "true_size": TRUE_SIZE,
        "views": described,
        "tolerance": SIGHT_TOLERANCE,
    }
    text = README.format(**facts)
    (DATA / "README.md").write_text(text, encoding="utf-8")
    sizes = {path.name: path.stat().st_size for path in sorted(DATA.iterdir())}
    print(text, sizes, f"total {sum(sizes.values()) / 1e6:.2f} MB", sep="\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("render", "pack"))
    parser.add_argument("--work", type=Path, required=True, help="folder for the frames between the two steps")
    parser.add_argument("--samples", type=int, default=24, help="Cycles samples per pixel")
    parser.add_argument("--frames", type=int, nargs="*", default=list(range(FRAMES)), help="render only these")
    parser.add_argument("--crf", type=int, default=12, help="H.264 quality, smaller is better")
    options = parser.parse_args()
    if options.step == "render":
        render(options.work, options.samples, options.frames)
    else:
        pack(options.work, options.crf)


if __name__ == "__main__":
    main()

"""Cameras of the sample clips, and their renders in bpy: colour, exact depth and lines of sight.

First step of `make_sample.py`. Cameras need numpy alone, so that the second step, which packs what was rendered, has
them too; `bpy` is imported where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, radians
from pathlib import Path

import numpy as np

from sample_shapes import rotation, translation

LENS, SENSOR = 38.0, 36.0  # millimetres; the sensor is as wide as the image
EYE, TILT = (0.0, 0.0, 1.5), radians(4.0)  # the source camera looks along +y, a little down
PIVOT = (0.0, 3.1, 1.3)  # the orbit's centre: the flower, under its head
SIGHT_TOLERANCE = 2e-3  # scene units a ray may stop short of its surface point, from float32 ray casts
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  # Blender's camera axes to OpenCV's, and back
DATA = Path(__file__).resolve().parents[1] / "tests" / "data"


@dataclass(frozen=True)
class SampleClip:
    """What is rendered of the garden.

    Attributes:
        name: of its folder under tests/data.
        frames: of the footage.
        size: of the footage in pixels; images are square.
        times: the garden's time at the first and at the last frame.
        true_frames: which frames also have true views.
        true_size: of those in pixels.
        depth_step: scene units, a power of two so that float32 holds every multiple exactly.
        orbit: degrees about the flower by which the source camera has moved at the last frame; it starts with the
            opposite orbit. With all three at zero it stands still.
        elevation: degrees up by which it has moved at the last frame.
        push: units towards the flower by which it has moved at the last frame.
    """

    name: str
    frames: int
    size: int
    times: tuple[float, float]
    true_frames: tuple[int, ...]
    true_size: int
    depth_step: float
    orbit: float = 0.0
    elevation: float = 0.0
    push: float = 0.0

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return DATA / self.name

    def progress(self, frame: int) -> float:
        """0 at the first frame, 1 at the last."""
        return frame / (self.frames - 1)

    def time(self, frame: int) -> float:
        """The garden's time."""
        return self.times[0] + (self.times[1] - self.times[0]) * self.progress(frame)

    def camera_to_world(self, frame: int, view: str = "source") -> np.ndarray:
        """(4, 4) Blender camera-to-world of the source camera or of a true view, which turns it about the flower."""
        done = self.progress(frame)
        orbit, elevation = TRUE_VIEWS.get(view, (0.0, 0.0))
        return camera_to_world(orbit + (2 * done - 1) * self.orbit, elevation + done * self.elevation, done * self.push)

    def world_to_camera(self, frame: int, view: str = "source") -> np.ndarray:
        """(4, 4) OpenCV world-to-camera, where the world is the first frame's source camera."""
        return FLIP @ np.linalg.inv(self.camera_to_world(frame, view)) @ self.camera_to_world(0) @ FLIP


TRUE_VIEWS = {"right20": (20.0, 0.0), "left40high": (-40.0, 12.0)}  # orbit to the right, elevation; degrees
CLIPS = {
    clip.name: clip
    for clip in (
        SampleClip("sample", 49, 512, (0.0, 1.0), (0, 12, 24, 36, 48), 256, 1 / 2048),
        SampleClip(
            "moving_camera", 20, 256, (0.3, 0.7), (0, 6, 13, 19), 144, 1 / 512, orbit=13.0, elevation=6.0, push=0.35
        ),
    )
}


def camera_intrinsics(size: int) -> np.ndarray:
    """(3, 3) intrinsics in pixels of a square image of `size` pixels, pixel centres at +0.5."""
    focal = LENS / SENSOR * size
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])


def camera_to_world(orbit: float = 0.0, elevation: float = 0.0, push: float = 0.0) -> np.ndarray:
    """(4, 4) Blender camera-to-world (x right, y up, looks along -z), turned about the pivot by degrees.

    The source camera is turned rigidly, so the pivot keeps its place in the image. Positive orbit moves the camera
    to the right, positive elevation up, positive push ahead.
    """
    source = translation(*EYE) @ rotation("x", pi / 2 - TILT) @ translation(0, 0, -push)
    turn = rotation("z", radians(orbit)) @ rotation("x", -radians(elevation))
    return translation(*PIVOT) @ turn @ translation(*(-c for c in PIVOT)) @ source


def unproject(depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """(H, W) depth along z to (H, W, 3) OpenCV camera points, through pixel centres."""
    rows, columns = np.indices(depth.shape) + 0.5
    x = (columns - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (rows - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.stack([x, y, np.ones_like(x)], -1) * depth[..., None]


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


def cast_view(clip: SampleClip, frame: int, view: str) -> tuple[np.ndarray, np.ndarray]:
    """(depth, visible) of a true view by ray casts through its pixel centres.

    A pixel is visible when its surface point lies inside the source image, nothing stands on the straight line
    between that point and the source camera's centre, and both cameras are on the same side of the surface: petals
    and wings are sheets, whose front and back are different surfaces.
    """
    to_world, source = clip.camera_to_world(frame, view) @ FLIP, clip.camera_to_world(frame)
    to_source, size = np.linalg.inv(source @ FLIP), clip.true_size
    rays = unproject(np.ones((size, size)), camera_intrinsics(size)).reshape(-1, 3)
    eye, source_eye = to_world[:3, 3], source[:3, 3]
    distance, normal = cast(np.broadcast_to(eye, rays.shape), rays @ to_world[:3, :3].T + eye)
    depth = distance / np.linalg.norm(rays, axis=1)
    points = rays * depth[:, None] @ to_world[:3, :3].T + eye
    x, y, z = (points @ to_source[:3, :3].T + to_source[:3, 3]).T
    limit = z * SENSOR / LENS / 2
    visible = (z > 0) & (abs(x) < limit) & (abs(y) < limit)
    visible &= np.sum(normal * (points - eye), 1) * np.sum(normal * (points - source_eye), 1) > 0
    free, _ = cast(np.broadcast_to(source_eye, points[visible].shape), points[visible])
    visible[visible] = free > np.linalg.norm(points[visible] - source_eye, axis=1) - SIGHT_TOLERANCE
    return depth.reshape(size, size).astype(np.float32), visible.reshape(size, size)


def render(clip: SampleClip, work: Path, samples: int, frames: list[int]) -> None:
    """Render everything that needs bpy into the work folder; files that are there already are kept."""
    import bpy

    from sample_garden import build_garden, place

    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    garden = build_garden()
    set_up_camera()
    work.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        garden.pose(clip.time(frame))
        for view in ("source", *(TRUE_VIEWS if frame in clip.true_frames else ())):
            place(scene.camera, clip.camera_to_world(frame, view))
            size = clip.size if view == "source" else clip.true_size
            scene.render.resolution_x = scene.render.resolution_y = size
            bpy.context.view_layer.update()
            colour, depth = work / f"{view}_{frame:02d}.png", work / f"{view}_{frame:02d}.exr"
            if not depth.exists():
                render_depth(depth)
            if not colour.exists():
                render_colour(colour, samples)
            if view != "source" and not (work / f"{view}_{frame:02d}.npz").exists():
                cast_depth, visible = cast_view(clip, frame, view)
                np.savez(work / f"{view}_{frame:02d}.npz", depth=cast_depth, visible=visible)
        print(f"frame {frame} done", flush=True)

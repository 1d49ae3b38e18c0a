"""EX-4D: move the camera of footage after the shoot.

    import ex4d

    scene = ex4d.reconstruct("clip.mp4", depth="depth.npz", fov=55)
    views = ex4d.render(scene, ex4d.orbit(30))
    take = ex4d.generate(scene, ex4d.orbit(30), engine="preview", seed=7)

Everything heavy is imported when it is used. The command line, the service and Blender call the same functions with
the same settings. Errors that a user can act on derive from `Ex4dError`; the text says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.progress import Progress, ignore_progress
from ex4d_core import __version__
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import Ex4dError, RequestError
from ex4d_core.output_settings import OutputSettings
from ex4d_core.render_settings import RenderSettings, default_occlusion
from ex4d_core.scene import PlacedFootage, Scene
from ex4d_core.schema import split_fields
from ex4d_core.shot import EngineName, PreviewSettings, ShotRequest
from ex4d_core.source_frames import source_frames_from
from ex4d_core.stereo import StereoSettings
from ex4d_core.trajectories import Trajectory, arc, extent_of_move, move, orbit, shot_path
from ex4d_core.wan_settings import DEFAULT_PRESET, WanSettings, wan_preset

if TYPE_CHECKING:
    from ex4d.pipeline.outputs import Views
    from ex4d.pipeline.take_folder import FinishedTake

__all__ = [
    "CameraPath",
    "Ex4dError",
    "Scene",
    "StereoSettings",
    "Trajectory",
    "__version__",
    "arc",
    "generate",
    "move",
    "open_scene",
    "orbit",
    "reconstruct",
    "render",
]


def open_scene(folder: str | Path) -> Scene:
    """Open a scene package that `reconstruct` wrote.

    >>> ex4d.open_scene("clip_scene").manifest.frames
    49

    Raises:
        SceneError: there is no complete scene package in the folder.
    """
    return Scene.open(folder)


def reconstruct(
    footage: str | Path,
    folder: str | Path | None = None,
    *,
    depth: str | Path | None = None,
    camera: str | Path | None = None,
    mask: str | Path | None = None,
    fov: float | None = None,
    frames: int | None = None,
    mesh: bool = False,
    device: str = "auto",
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
    overwrite: bool = False,
    **settings: Any,
) -> Scene:
    """Reconstruct footage into a scene package: depth, a DW-Mesh for every frame, and the camera that filmed it.

    >>> scene = ex4d.reconstruct("clip.mp4", depth="depth.npz", fov=55)
    >>> scene.color().shape, scene.depth().dtype
    ((49, 512, 512, 3), dtype('float32'))

    Args:
        footage: a video, or a folder of images.
        folder: for the scene package; None for ``FOOTAGE_scene`` beside the footage.
        depth: an .npz or .npy of (T, H, W) depth along z, or a folder of EXR or 16-bit PNG files; None to estimate it.
        camera: file or folder of the moving camera that filmed it; None for what the estimator finds, or else for a
            camera that stood still.
        mask: of what moves, a video or a folder of images, white where something does; what it covers is not taken from
            one frame into another.
        fov: horizontal field of view in degrees; None takes it from the files, or assumes 50.
        frames: take only this many from the start.
        mesh: also write the mesh's positions, which Blender otherwise writes when it imports the scene.
        device: for depth estimators: "auto", "cpu", or "cuda" with an optional number.
        progress: called with a stage, frames done, and frames in all; what it raises ends the work.
        note: called with sentences about what was found in the footage or assumed.
        overwrite: replace a scene package that is in the folder.
        settings: further fields of `ReconstructionSettings` and `DepthSettings`, such as ``estimator="depth-pro"``.

    Raises:
        Ex4dError: footage, depth or camera cannot be used, weights are missing, a setting is invalid, or the folder
            holds something else than a scene that may be replaced.
    """
    from ex4d.pipeline.reconstruct import reconstruct as reconstruct_scene
    from ex4d.pipeline.source_paths import SourcePaths
    from ex4d_core.reconstruction import ReconstructionSettings
    from ex4d_core.sources import DepthSettings, depth_layout

    path = Path(footage).resolve()
    known, filmed_by, moving = (None if one is None else Path(one) for one in (depth, camera, mask))
    sources = SourcePaths(path, known, filmed_by, moving)
    of_scene, of_depth = split_fields(settings, ReconstructionSettings, DepthSettings)
    if sources.depth is None:
        of_depth = {"layout": "estimator", "estimator": "auto", **of_depth}
    else:
        of_depth = {"layout": depth_layout(sources.depth), **of_depth}
    if fov is not None:
        of_scene["fov_degrees"] = fov
    chosen = ReconstructionSettings(**{"name": path.stem, **of_scene, "depth": DepthSettings(**of_depth)})
    target = path.with_suffix("").with_name(path.stem + "_scene") if folder is None else Path(folder)
    how = {"device": device, "frames": frames, "mesh": mesh, "progress": progress, "note": note, "overwrite": overwrite}
    return reconstruct_scene(sources, chosen, target, **how)


def render(
    scene: PlacedFootage,
    camera: Trajectory | CameraPath,
    *,
    size: tuple[int, int] | None = None,
    first_frame: int = 0,
    source_frames: Sequence[int] | str | None = None,
    frames: int | None = None,
    stereo: StereoSettings | None = None,
    device: str = "auto",
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
    **settings: Any,
) -> Views:
    """Render colour, mask and depth of a scene from a new camera, into memory.

    >>> scene = ex4d.open_scene("clip_scene")
    >>> views = ex4d.render(scene, ex4d.orbit(30), size=(128, 128), frames=3)
    >>> views.color.shape, views.mask.dtype, bool(views.visible_fraction[0] > 0.99)
    ((3, 128, 128, 3), dtype('bool'), True)

    Args:
        camera: a move, or a path in the scene's world (OpenCV axes), one camera for each new frame.
        size: (width, height) of the new frames, cropped where their shape is another (`CameraPath.framed`); None for
            the footage's.
        first_frame: footage frame that the first new frame shows; the others show the ones after it.
        source_frames: the footage frame that each new frame shows, in any order and repeated at will, as numbers or
            as text: "0-24,24*25" plays 25 frames and holds the last one for 25 more.
        frames: length of a move; None for all of the footage from there on, or for all source frames.
        stereo: two eyes side by side in each frame; for frames of their own, give the cameras of `StereoSettings.eyes`.
        device: "auto", "cpu", or "cuda" with an optional number.
        progress: called with a stage, frames done, and frames in all; what it raises ends the work.
        note: called with sentences about what you should know of the render.
        settings: fields of `RenderSettings`, such as ``occlusion="watertight"``; the convention is the scene's own, and
            the occlusion model "thickness" where there is one.

    Raises:
        Ex4dError: the camera leaves the footage, a setting is invalid, or the device cannot draw.
    """
    from ex4d.pipeline.outputs import render_views

    shown = source_frames_from(source_frames)
    path = _path_in(scene, camera, size, first_frame, frames, shown)
    chosen = _render_settings(scene, settings)
    how = {"first_frame": first_frame, "source_frames": shown, "device": device, "progress": progress, "note": note}
    how |= {"stereo": stereo or StereoSettings()}
    return render_views(scene, path, chosen, **how)


def generate(
    scene: Scene,
    camera: Trajectory | CameraPath,
    folder: str | Path = "take",
    *,
    engine: EngineName = "preview",
    size: tuple[int, int] | None = None,
    first_frame: int = 0,
    source_frames: Sequence[int] | str | None = None,
    frames: int | None = None,
    stereo: StereoSettings | None = None,
    label: str = "",
    device: str = "auto",
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
    overwrite: bool = False,
    resume: bool = False,
    **settings: Any,
) -> FinishedTake:
    """Generate the finished frames of a take: the render, with unseen regions repainted by an engine.

    >>> scene = ex4d.open_scene("clip_scene")
    >>> take = ex4d.generate(scene, ex4d.orbit(30), size=(128, 128), frames=3, engine="preview", seed=7)
    >>> take.frames.shape, sorted(path.name for path in take.folder.glob("*.mp4"))
    ((3, 128, 128, 3), ['color.mp4', 'mask.mp4', 'remembered.mp4', 'take.mp4'])

    Args:
        camera: as in `render`, like the other arguments that both have.
        folder: for the take's frames, movies and request; created where it is missing.
        engine: "preview" fills unseen regions smoothly, on any machine; "wan" is EX-4D's model, which needs weights.
        label: name of the take, for people.
        overwrite: replace a take that is in the folder.
        resume: continue an interrupted take of the same settings, to the same result; a finished one stays.
        settings: fields of `RenderSettings`, `PreviewSettings`, `WanSettings` and `OutputSettings`, such as ``seed=7``
            or ``format="exr"``. The occlusion model of the engine "wan" is "watertight" by default, with which its
            weights were trained.

    Raises:
        Ex4dError: the camera leaves the footage, a setting is invalid, this machine cannot run the engine, or the
            folder holds something else than a take that may be replaced.
    """
    from ex4d.pipeline.take_folder import read_take, take_into_folder

    kinds = RenderSettings, PreviewSettings, WanSettings, OutputSettings
    of_render, of_preview, of_wan, of_output = split_fields(settings, *kinds)
    shown = source_frames_from(source_frames)
    request = ShotRequest(
        scene=scene.digest,
        camera=_path_in(scene, camera, size, first_frame, frames, shown),
        first_frame=first_frame,
        source_frames=shown,
        render=_render_settings(scene, of_render, engine),
        engine=engine,
        preview=PreviewSettings(**of_preview),
        wan=wan_preset(of_wan.pop("preset", DEFAULT_PRESET), **of_wan),
        label=label,
        output=OutputSettings(**of_output),
        stereo=stereo or StereoSettings(),
    )
    request.require_footage(scene.manifest.frames)
    how = {"device": device, "progress": progress, "note": note, "overwrite": overwrite, "resume": resume}
    take_into_folder(scene, request, Path(folder), **how)
    return read_take(request, Path(folder))


def _render_settings(scene: PlacedFootage, given: dict[str, Any], engine: EngineName = "preview") -> RenderSettings:
    values = {"convention": scene.manifest.convention, **given}
    occlusion = default_occlusion(engine, values["convention"], values.get("rasterizer", "auto"))
    return RenderSettings(**{"occlusion": occlusion, **values})


def _path_in(
    scene: PlacedFootage,
    camera: Trajectory | CameraPath,
    size: tuple[int, int] | None,
    first_frame: int,
    frames: int | None,
    source_frames: tuple[int, ...] | None,
) -> CameraPath:
    if isinstance(camera, Trajectory):
        path = shot_path(camera, scene, **extent_of_move(frames, first_frame, source_frames))
    elif frames is not None and frames != len(camera):
        raise RequestError(f"frames must be left out or {len(camera)}, the length of the camera path, not {frames}")
    else:
        path = camera
    return path if size is None else path.framed(*size)

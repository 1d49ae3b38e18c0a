"""What a .blend keeps of footage to reconstruct, and of reconstructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from ex4d_core.depth_mapping import MAX_OFFSET, MIN_OFFSET
from ex4d_core.output_settings import MAX_SPACE

from ..jobs.records import JobRecord
from ..paths import PATH_OPTIONS, from_blend, to_blend
from ..scenes.depth_preview import FAR_LIMIT_DESCRIPTION, OFFSET_DESCRIPTION
from .bit_depth import may_be_deep
from .weights import estimator_items, weights

# How a lens is given; also of the operator that sets the lens of a scene.
LENS_UNITS = (
    ("FOV", "Degrees", "Horizontal field of view"),
    ("MILLIMETERS", "Millimeters", "Focal length, with the width of the sensor"),
)
FULL_FRAME_MM = 36.0
# On full frame it has the 50 degrees that a backend assumes.
DEFAULT_FOCAL_MM = 38.6
FOCAL_DESCRIPTION = "Focal length of the lens in millimeters"
SENSOR_DESCRIPTION = "Longer side of the camera's sensor in millimeters; 36 for full-frame equivalent focal lengths"


def _follow_footage(settings: bpy.types.PropertyGroup, _: bpy.types.Context) -> None:
    """Take the depth that lies beside the footage, where none is chosen yet, or else the backend's estimate."""
    settings.is_deep = bool(settings.footage) and may_be_deep(from_blend(settings.footage))
    depth = guess_depth(from_blend(settings.footage)) if settings.footage and not settings.depth else None
    if depth is not None:
        settings.depth_from, settings.depth = "FILES", to_blend(depth)
    elif settings.footage and not settings.depth and weights.estimators:
        settings.depth_from = "ESTIMATOR"


def _follow_clip(settings: bpy.types.PropertyGroup, _: bpy.types.Context) -> None:
    if settings.clip is not None:
        path = Path(bpy.path.abspath(settings.clip.filepath))
        settings.footage = to_blend(path.parent if settings.clip.source == "SEQUENCE" else path)
        if settings.clip.tracking.reconstruction.is_valid and not settings.camera:
            settings.camera_from = "CLIP"


def _is_camera(_: bpy.types.PropertyGroup, candidate: bpy.types.Object) -> bool:
    return candidate.type == "CAMERA"


def _chosen_estimator(settings: Any) -> int:
    return [name for name, _, _ in estimator_items(settings, None)].index(settings.estimator)


def _choose_estimator(settings: Any, number: int) -> None:
    settings.estimator = estimator_items(settings, None)[number][0]


# The Blender scenes' list of reconstructions.
RECONSTRUCTIONS = "ex4d_reconstructions"


class EX4D_Footage(bpy.types.PropertyGroup):
    """The footage to reconstruct next (``Scene.ex4d_footage``)."""

    footage: bpy.props.StringProperty(
        name="Footage",
        description="A video, or a folder of images, to reconstruct",
        subtype="FILE_PATH",
        options=PATH_OPTIONS,
        update=_follow_footage,
    )
    clip: bpy.props.PointerProperty(
        name="Movie Clip",
        description="Use a movie clip of this file as footage",
        type=bpy.types.MovieClip,
        update=_follow_clip,
    )
    depth_from: bpy.props.EnumProperty(
        name="Depth",
        description="Where depth comes from",
        items=(
            (
                "FILES",
                "Files",
                "Depth along the view axis: one .npz or .npy, or a folder of EXR or of 16-bit PNG files",
            ),
            ("ESTIMATOR", "Estimate", "Let the backend estimate it, if it has an estimator"),
        ),
        default="FILES",
    )
    depth: bpy.props.StringProperty(
        name="Depth Files",
        description="An .npz or .npy, or the folder of a render's depth (Z) pass as EXR, or of 16-bit PNG files",
        subtype="FILE_PATH",
        options=PATH_OPTIONS,
    )
    estimator: bpy.props.StringProperty(
        name="Estimator", description="Name of the backend's depth estimator", default="auto", maxlen=200
    )
    estimator_choice: bpy.props.EnumProperty(
        name="Estimator",
        description="The backend's depth estimator",
        items=estimator_items,
        get=_chosen_estimator,
        set=_choose_estimator,
    )
    use_scale: bpy.props.BoolProperty(
        name="Custom Depth Scale", description="Multiply the values of the files; required for PNG files", default=False
    )
    scale: bpy.props.FloatProperty(
        name="Depth Scale",
        description="Scene units for one unit in the files: 0.001 if they hold millimeters",
        default=0.001,
        min=1e-9,
        soft_max=1000.0,
        precision=5,
    )
    use_offset: bpy.props.BoolProperty(
        name="Custom Depth Offset",
        description="Set the unknown offset of relative depth; otherwise a moving camera tells it, or there is none",
        default=False,
    )
    offset: bpy.props.FloatProperty(
        name="Depth Offset",
        description=OFFSET_DESCRIPTION,
        default=0.0,
        min=MIN_OFFSET,
        max=MAX_OFFSET,
        soft_min=-0.5,
        soft_max=1.0,
        step=1,
        precision=3,
    )
    far_limit: bpy.props.FloatProperty(
        name="Far Limit", description=FAR_LIMIT_DESCRIPTION, default=0.0, min=0.0, max=1e6, soft_max=500.0, precision=1
    )
    camera_fit: bpy.props.BoolProperty(
        name="Fit to Camera",
        description="Fit the unit of relative depth, and its offset, to a camera that moves",
        default=True,
    )
    inverse: bpy.props.BoolProperty(name="Inverse Depth", description="The files hold 1 / depth")
    values: bpy.props.EnumProperty(
        name="Values",
        description="What the files hold",
        items=(
            ("auto", "Automatic", "Files of some depth tools are recognized; all others hold depth"),
            ("depth", "Depth", "Depth along the camera's axis"),
            ("distance", "Distance", "Distance along each pixel's ray; it needs the field of view"),
            ("disparity", "Disparity", "Relative disparity: larger is nearer; factor and offset are unknown"),
        ),
        default="auto",
    )
    far: bpy.props.BoolProperty(
        name="Fill Gaps",
        description="Where the files have no depth, use the farthest depth of the frame instead of failing",
        default=True,
    )
    use_mist: bpy.props.BoolProperty(
        name="Mist Pass",
        description="The EXR files hold a mist pass; it needs the field of view, and the mist settings of the world",
        default=False,
    )
    mist_start: bpy.props.FloatProperty(
        name="Mist Start", description="Start of the world's mist", subtype="DISTANCE", default=5.0, min=0.0
    )
    mist_depth: bpy.props.FloatProperty(
        name="Mist Depth", description="Depth of the world's mist", subtype="DISTANCE", default=25.0, min=1e-6
    )
    mist_falloff: bpy.props.EnumProperty(
        name="Falloff",
        description="Falloff of the world's mist",
        items=(
            ("quadratic", "Quadratic", "Mist grows with the square of the distance; the default of a new world"),
            ("linear", "Linear", "Mist grows evenly with the distance"),
            ("inverse-quadratic", "Inverse Quadratic", "Mist grows fast at first"),
        ),
        default="quadratic",
    )
    camera_from: bpy.props.EnumProperty(
        name="Camera",
        description="Where the camera comes from that filmed the footage",
        items=(
            ("FILE", "Static or File", "A static camera, or the file of one that moved"),
            ("CLIP", "Solved Clip", "The solved camera of the movie clip, without its lens distortion"),
            ("OBJECT", "Object", "An animated camera of this file, imported from another program, say"),
            (
                "SOLVE",
                "Solve on Backend",
                "Find how the camera moved in the footage itself, by what stands still in it",
            ),
        ),
        default="FILE",
    )
    camera_object: bpy.props.PointerProperty(
        name="Camera Object",
        description="Camera that filmed the footage; its lens may be animated",
        type=bpy.types.Object,
        poll=_is_camera,
    )
    camera_start: bpy.props.IntProperty(
        name="First Frame",
        description="Frame at which this camera filmed the first frame of the footage",
        default=1,
    )
    undistort: bpy.props.BoolProperty(
        name="Undo Lens Distortion",
        description="Undo the lens distortion of the movie clip in the scene; your footage is not changed",
        default=True,
    )
    camera: bpy.props.StringProperty(
        name="Camera File",
        description="The moving camera that filmed it: transforms.json, any file of a COLMAP model, or .npz; leave "
        "empty for a static camera",
        subtype="FILE_PATH",
        options=PATH_OPTIONS,
    )
    mask: bpy.props.StringProperty(
        name="Motion Mask",
        description="A video or a folder of images as long as the footage, white where something moves: the clip's "
        "memory takes nothing from there",
        subtype="FILE_PATH",
        options=PATH_OPTIONS,
    )
    use_poses: bpy.props.BoolProperty(
        name="Estimated Camera",
        description="Without a camera file, take the camera that the estimator finds, if it can; turn off for a tripod",
        default=True,
    )
    camera_scale: bpy.props.FloatProperty(
        name="Camera Scale",
        description="Multiply the positions of the camera, if they have another unit than the depth",
        default=1.0,
        min=1e-6,
        soft_max=1000.0,
        precision=4,
    )
    use_fov: bpy.props.BoolProperty(
        name="Custom Lens",
        description="Set the lens; otherwise camera file, depth files or footage state it, or 50 degrees are assumed",
        default=False,
    )
    fov: bpy.props.FloatProperty(
        name="Field of View",
        description="Horizontal field of view of the footage",
        subtype="ANGLE",
        default=0.8727,
        min=0.02,
        max=3.1,
    )
    lens_unit: bpy.props.EnumProperty(
        name="Lens Unit",
        description="How the lens is given",
        items=LENS_UNITS,
        default="FOV",
    )
    focal_mm: bpy.props.FloatProperty(
        name="Focal Length",
        description=FOCAL_DESCRIPTION,
        default=DEFAULT_FOCAL_MM,
        min=1.0,
        soft_max=500.0,
        precision=2,
    )
    sensor_mm: bpy.props.FloatProperty(
        name="Sensor Width", description=SENSOR_DESCRIPTION, default=FULL_FRAME_MM, min=1.0, soft_max=100.0, precision=2
    )

    bit_depth: bpy.props.EnumProperty(
        name="Bit Depth",
        description="Colors that the scene keeps, for passes and takes of more than 8 bits",
        items=(
            ("8", "8 Bits", "Previews and takes have 8 bits"),
            ("auto", "Automatic", "Keep half floats where the footage has more than 8 bits"),
            ("16", "16 Bits", "Keep half floats beside 8 bits; 6 bytes more for each pixel"),
        ),
        default="8",
    )
    input_space: bpy.props.StringProperty(
        name="Input Space",
        description="Color space of the footage, by OpenColorIO's name, such as ACEScg or ARRI LogC4; leave empty for "
        "what its files say",
        maxlen=MAX_SPACE,
    )
    working_space: bpy.props.StringProperty(
        name="Working Space",
        description="Color space of the half floats, such as ACEScg; leave empty for the footage's own",
        maxlen=MAX_SPACE,
    )
    camera_gaps: bpy.props.BoolProperty(
        name="Fill Camera Gaps",
        description="Interpolate frames that the camera file has no camera for; otherwise they are refused by name",
    )
    is_deep: bpy.props.BoolProperty(description="Whether the footage can have more than 8 bits")


class EX4D_Reconstruction(JobRecord, bpy.types.PropertyGroup):
    """A reconstruction (in ``Scene.ex4d_reconstructions``)."""

    plan: bpy.props.StringProperty(description="What is to be reconstructed, as JSON")


CLASSES = (EX4D_Footage, EX4D_Reconstruction)
PROPERTIES = (
    (bpy.types.Scene, "ex4d_footage", bpy.props.PointerProperty(type=EX4D_Footage)),
    (bpy.types.Scene, RECONSTRUCTIONS, bpy.props.CollectionProperty(type=EX4D_Reconstruction)),
)


def guess_depth(footage: Path) -> Path | None:
    """Depth that lies beside a video under a name that says so."""
    stem, folder = footage.stem, footage.parent
    for name in (f"{stem}_depth.npz", f"{stem}.npz", f"{stem}_depth.npy", f"{stem}_depth", "depth.npz", "depth"):
        if (folder / name).exists():
            return folder / name
    return None

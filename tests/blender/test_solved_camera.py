"""The footage's camera from Blender: a tracked clip's solve, made by Blender's own solver, and any camera object."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.footage.source_cameras import camera_of_object, distortion_of, footage_extent, solved_camera
from blender_addon.footage.sources import FootageError, plan_from_text, plan_of, plan_to_text
from ex4d_core.cameras import CameraError, CameraPath, invert_rigid
from ex4d_core.lens_distortion import COEFFICIENTS, LensDistortion

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
OFF_CENTRE = (3.0, 5.0)  # pixels, to the right and up
MILD = {
    "polynomial": (-0.12, 0.02, 0.0),
    "division": (-0.1, 0.02),
    "nuke": (-0.05, 0.01),
    "brown": (-0.1, 0.02, 0.0, 0.0, 0.01, -0.006),
}


@pytest.fixture
def clip() -> bpy.types.MovieClip:
    return bpy.data.movieclips.load(str(SAMPLE / "footage.mp4"))


def camera_path(frames: int) -> np.ndarray:
    """(T, 4, 4) world-to-camera of a camera that trucks and turns; OpenCV axes, the first one is the world."""
    matrices = np.repeat(np.eye(4)[None], frames, axis=0)
    for time, matrix in zip(np.linspace(0, 1, frames), matrices, strict=True):
        angle = 0.25 * time
        matrix[0, 0] = matrix[2, 2] = np.cos(angle)
        matrix[0, 2], matrix[2, 0] = np.sin(angle), -np.sin(angle)
        matrix[:3, 3] = time * np.array([-1.0, 0.2, 0.3])
    return invert_rigid(matrices)


def set_lens(clip: bpy.types.MovieClip, model: str, coefficients: tuple[float, ...]) -> LensDistortion:
    """Give the clip's camera a lens; what it does to pixels."""
    camera, (width, height) = clip.tracking.camera, clip.size
    camera.sensor_width, camera.units, camera.focal_length = 36.0, "MILLIMETERS", 36.0
    camera.principal_point_pixels = (width / 2 + OFF_CENTRE[0], height / 2 + OFF_CENTRE[1])
    camera.distortion_model = model.upper()
    prefix = "" if model == "polynomial" else f"{model}_"
    for name, value in zip(COEFFICIENTS[model], coefficients, strict=True):
        setattr(camera, prefix + name, value)
    centre = (width / 2 + OFF_CENTRE[0], height / 2 - OFF_CENTRE[1])
    return LensDistortion(model, coefficients, float(width), centre, width, height)


def solve(clip: bpy.types.MovieClip, lens: LensDistortion, frames: int) -> float:
    """Track made-up points as the lens shows them, and let Blender solve; the average error in pixels."""
    points = np.random.default_rng(3).uniform((-1.6, -1.6, 3), (1.6, 1.6, 6), (40, 3))
    tracks = [clip.tracking.tracks.new(name=f"point {index}", frame=1) for index in range(len(points))]
    for frame, matrix in enumerate(camera_path(frames), start=1):
        seen = points @ matrix[:3, :3].T + matrix[:3, 3]
        pixels = lens.distorted(seen[:, :2] / seen[:, 2:] * lens.focal + lens.principal_point)
        for track, (x, y) in zip(tracks, pixels, strict=True):
            if np.isfinite([x, y]).all():
                track.markers.insert_frame(frame, co=(x / lens.width, 1 - y / lens.height))
    tracked = clip.tracking.objects[0]
    tracked.keyframe_a, tracked.keyframe_b = 1, frames
    window = bpy.context.window_manager.windows[0]
    area = window.screen.areas[0]
    kind, area.type = area.type, "CLIP_EDITOR"
    area.spaces.active.clip = clip
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area, region=region):
        assert bpy.ops.clip.solve_camera() == {"FINISHED"}
    area.type = kind
    return tracked.reconstruction.average_error


def in_first_frames_world(path: CameraPath, travel: float) -> np.ndarray:
    """As the backend has it, scaled so that the camera travels as far; a solve knows no scale."""
    relative = path.world_to_camera @ invert_rigid(path.world_to_camera[:1])
    relative[:, :3, 3] *= travel / np.linalg.norm(relative[-1, :3, 3])
    return relative


@pytest.mark.parametrize("model", [model for model in COEFFICIENTS if model != "fisheye"])
def test_a_solve_is_the_camera_and_its_lens_bends_pixels_as_blenders_solver_has_it(clip, model):
    lens = set_lens(clip, model, MILD[model])
    assert solve(clip, lens, clip.frame_duration) < 1e-3, "Blender's solver sees other pixels"
    filmed, truth = solved_camera(clip), camera_path(clip.frame_duration)
    travel = float(np.linalg.norm(truth[-1, :3, 3]))
    np.testing.assert_allclose(in_first_frames_world(filmed, travel), truth, atol=1e-4)
    np.testing.assert_allclose(filmed.intrinsics[0], [[512, 0, 259], [0, 512, 251], [0, 0, 1]], atol=1e-3)
    found = distortion_of(clip)
    assert found.model == model and found.coefficients == pytest.approx(MILD[model])
    assert found.principal_point == pytest.approx(lens.principal_point) and found.focal == pytest.approx(lens.focal)


def test_the_panel_sends_a_solved_clip_and_its_distortion(clip, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    solve(clip, set_lens(clip, "polynomial", MILD["polynomial"]), clip.frame_duration)
    settings = bpy.context.scene.ex4d_footage
    settings.clip = clip
    settings.depth = str(SAMPLE / "depth.npz")
    assert settings.camera_from == "CLIP"
    plan = plan_of(settings, bpy.context.scene)
    (file,) = plan.camera_files
    assert file.parent == tmp_path / "scenes" / "cameras" and len(CameraPath.load(file)) == clip.frame_duration
    assert plan.settings.distortion == distortion_of(clip) and plan.settings.fov_degrees is None
    assert plan_from_text(plan_to_text(plan)).settings.distortion == plan.settings.distortion
    assert plan_of(settings, bpy.context.scene).camera_files == plan.camera_files
    settings.undistort = False
    assert plan_of(settings, bpy.context.scene).settings.distortion is None


def test_a_solve_with_gaps_or_none_at_all_is_refused_in_words(clip):
    with pytest.raises(CameraError, match="no solved camera"):
        solved_camera(clip)
    solve(clip, set_lens(clip, "polynomial", (0.0, 0.0, 0.0)), 40)
    assert distortion_of(clip) is None
    with pytest.raises(CameraError, match=r"no camera in 9 of 49 frames \(41, 42"):
        solved_camera(clip)
    settings = bpy.context.scene.ex4d_footage
    settings.footage, settings.camera_from = str(SAMPLE / "footage.mp4"), "OBJECT"
    settings.depth = str(SAMPLE / "depth.npz")
    with pytest.raises(FootageError, match="camera object"):
        plan_of(settings, bpy.context.scene)


def test_a_camera_object_is_sampled_with_its_rig_and_its_animated_lens(tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    scene = bpy.context.scene
    scene.render.resolution_x, scene.render.resolution_y = 1920, 1080  # not the footage's
    rig = bpy.data.objects.new("rig", None)
    camera = bpy.data.objects.new("tracked", bpy.data.cameras.new("tracked"))
    for one in (rig, camera):
        scene.collection.objects.link(one)
    camera.parent, rig.scale = rig, (2, 2, 2)
    for frame, x, lens in ((101, 0.0, 30.0), (149, 1.0, 60.0)):
        rig.location.x, camera.data.lens = x, lens
        rig.keyframe_insert("location", frame=frame)
        camera.data.keyframe_insert("lens", frame=frame)
    scene.frame_set(7)
    settings = scene.ex4d_footage
    settings.footage, settings.depth = str(SAMPLE / "footage.mp4"), str(SAMPLE / "depth.npz")
    settings.camera_from, settings.camera_object, settings.camera_start = "OBJECT", camera, 101
    plan = plan_of(settings, scene)
    path = CameraPath.load(plan.camera_files[0])
    assert footage_extent(SAMPLE / "footage.mp4") == (49, (512, 512)) == (len(path), path.size)
    assert path.intrinsics[[0, -1], 0, 0] == pytest.approx([30 / 36 * 512, 60 / 36 * 512])
    assert path.intrinsics[[0, -1], 1, 1] == pytest.approx([30 / 36 * 512, 60 / 36 * 512])
    assert (path.camera_to_world[-1, :3, 3] - path.camera_to_world[0, :3, 3]) == pytest.approx([1, 0, 0], abs=1e-6)
    assert scene.frame_current == 7 and plan.settings.distortion is None
    camera.data.type = "ORTHO"
    with pytest.raises(CameraError, match="perspective"):
        camera_of_object(camera, 101, 49, (512, 512))


@pytest.mark.parametrize("kind", ["abc", "usdc", "fbx"])
def test_an_imported_animated_camera_is_one_too(kind, tmp_path):
    """Through Blender's own exporters and importers; some move it by a cache or a constraint, and not by keys."""
    scene, file = bpy.context.scene, str(tmp_path / f"solve.{kind}")
    camera = bpy.data.objects.new("solve", bpy.data.cameras.new("solve"))
    scene.collection.objects.link(camera)
    for frame, x in ((1, 0.0), (9, 2.0)):
        camera.location.x = x
        camera.keyframe_insert("location", frame=frame)
    expected = camera_of_object(camera, 1, 9, (64, 48))
    scene.frame_start, scene.frame_end = 1, 9
    export = {
        "abc": lambda: bpy.ops.wm.alembic_export(filepath=file, start=1, end=9),
        "usdc": lambda: bpy.ops.wm.usd_export(filepath=file, export_animation=True),
        "fbx": lambda: bpy.ops.export_scene.fbx(filepath=file),
    }
    assert export[kind]() == {"FINISHED"}
    bpy.data.objects.remove(camera)
    read = {
        "abc": lambda: bpy.ops.wm.alembic_import(filepath=file, as_background_job=False),
        "usdc": lambda: bpy.ops.wm.usd_import(filepath=file),
        "fbx": lambda: bpy.ops.import_scene.fbx(filepath=file),
    }
    assert read[kind]() == {"FINISHED"}
    imported = next(one for one in scene.objects if one.type == "CAMERA")
    found = camera_of_object(imported, 1, 9, (64, 48))
    np.testing.assert_allclose(found.world_to_camera, expected.world_to_camera, atol=1e-4)
    np.testing.assert_allclose(found.intrinsics, expected.intrinsics, rtol=1e-4)

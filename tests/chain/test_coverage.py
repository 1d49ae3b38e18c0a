"""Coverage of a shot against the masks of its full render, on the sample clip; and what is not made twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ex4d.pipeline.coverage import SceneCoverage
from ex4d.pipeline.render import render_shot
from ex4d.raster.simplified_frame import SimplifiedFrame
from ex4d_core.render_settings import RenderSettings
from ex4d_core.shot import RequestError, ShotRequest
from ex4d_core.trajectories import Trajectory, build_path


def request(scene, preset: str, settings: RenderSettings | None = None, size: tuple[int, int] | None = None):
    manifest = scene.manifest
    lens = scene.source_camera().intrinsics[0]
    size_of_footage = manifest.width, manifest.height
    camera = build_path(Trajectory(preset), manifest.frames, lens, *size_of_footage, manifest.subject_distance)
    return ShotRequest(scene.digest, camera.resized(*(size or size_of_footage)), render=settings or RenderSettings())


@pytest.fixture(scope="module")
def coverage(sample_scene) -> SceneCoverage:
    return SceneCoverage(sample_scene, device="cpu")


def off_by(scene, coverage: SceneCoverage, shot: ShotRequest) -> float:
    full = [frame.mask.mean() for frame in render_shot(scene, shot.camera, shot.render, device="cpu")]
    return float(np.abs(coverage.of(shot).seen - full).max())


@pytest.mark.parametrize(
    "preset", ["10", "30", "60", "-80", "180", "zoom_in", "zoom_out", "dolly_out", "truck", "orbit"]
)
def test_coverage_is_within_a_hundredth_of_the_full_renders(sample_scene, coverage, preset):
    found = off_by(sample_scene, coverage, request(sample_scene, preset))
    print(f"{preset}: off by {found:.4f}")
    assert found < 0.01


@pytest.mark.parametrize("size", [(1000, 1000), (640, 360)])
@pytest.mark.parametrize(
    "settings",
    [
        RenderSettings(occlusion="open"),
        RenderSettings(occlusion="thickness"),
        RenderSettings(convention="reference"),
        RenderSettings(convention="reference", occlusion="open", occlusion_rule="boundary"),
    ],
    ids=["open", "thickness", "reference", "reference open"],
)
def test_whatever_the_settings_and_the_size(sample_scene, coverage, settings, size):
    for preset in ("30", "crane"):
        found = off_by(sample_scene, coverage, request(sample_scene, preset, settings, size))
        print(f"{preset}: off by {found:.4f}")
        assert found < 0.01


def test_a_reference_shot_begins_with_the_footage(sample_scene, coverage):
    aside = request(sample_scene, "30", RenderSettings(convention="reference"))
    aside = replace(aside, camera=aside.camera.frames(3, 6))
    assert coverage.of(aside).seen[0] == 1.0  # as `render_shot` has it
    assert coverage.of(aside, index=1).seen[0] < 0.99


def test_only_frames_whose_camera_changed_are_drawn_again(sample_scene, monkeypatch):
    coverage, shot = SceneCoverage(sample_scene, device="cpu"), request(sample_scene, "30")
    drawn = []
    fraction = SimplifiedFrame.visible_fraction
    monkeypatch.setattr(
        SimplifiedFrame, "visible_fraction", lambda self, camera: drawn.append(camera) or fraction(self, camera)
    )
    first = coverage.of(shot).seen
    assert len(drawn) == 6
    assert (coverage.of(shot).seen == first).all() and len(drawn) == 6
    poses = shot.camera.world_to_camera.copy()
    poses[4, 0, 3] += 0.1
    moved = replace(shot, camera=replace(shot.camera, world_to_camera=poses))
    again = coverage.of(moved).seen
    assert len(drawn) == 7 and (drawn[-1].world_to_camera == poses[4]).all()
    assert (again != first).tolist() == [False] * 4 + [True, False]
    part = replace(moved, camera=moved.camera.frames(2, 5), first_frame=2)
    assert (coverage.of(part, index=2).seen == again[2:5]).all() and len(drawn) == 7
    # the same cameras for other frames of the footage, or under other settings, are other questions
    later = replace(shot, camera=shot.camera.frames(0, 3), first_frame=3)
    coverage.of(later)
    coverage.of(replace(shot, render=RenderSettings(occlusion="open")))
    assert len(drawn) == 7 + 3 + 6


def test_a_shot_that_leaves_the_footage_is_refused(sample_scene, coverage):
    shot = request(sample_scene, "30")
    with pytest.raises(RequestError, match="6 frames from footage frame 2"):
        coverage.of(replace(shot, first_frame=2))
    assert coverage.of(shot).view_angle[0] == pytest.approx(0.0, abs=1e-4)

"""Coverage at the reduced size against the mask of the full render, on the sample clip."""

import numpy as np
import pytest

from backend.coverage import shot_coverage, sparse_camera
from backend.render import render_shot
from ex4d_core.shot import ShotRequest
from ex4d_core.trajectories import Trajectory, build_path


@pytest.mark.parametrize("preset", ["10", "30", "60", "zoom_out", "orbit"])
def test_reduced_coverage_is_within_a_hundredth(sample_scene, preset):
    manifest = sample_scene.manifest
    source = sample_scene.source_camera()
    camera = build_path(
        Trajectory(preset),
        manifest.frames,
        source.intrinsics[0],
        manifest.width,
        manifest.height,
        manifest.subject_distance,
    )
    request = ShotRequest(sample_scene.digest, camera)
    full = [frame.mask.mean() for frame in render_shot(sample_scene, camera, request.render)]
    reduced = shot_coverage(sample_scene, request)
    assert np.abs(reduced.seen - full).max() < 0.01
    assert reduced.view_angle[0] == pytest.approx(0.0, abs=1e-4)


def test_a_sparse_camera_has_rays_of_the_full_one(sample_scene):
    full = sample_scene.source_camera()
    sparse = sparse_camera(full)
    assert max(sparse.width, sparse.height) <= 192
    # Pixel centres of the sparse picture, as rays, and where the full camera sees them.
    centres = np.array([[0.5, 0.5, 1.0], [7.5, 11.5, 1.0], [sparse.width - 0.5, sparse.height - 0.5, 1.0]])
    seen = centres @ np.linalg.inv(sparse.intrinsics[0]).T @ full.intrinsics[0].T
    np.testing.assert_allclose(seen[:, :2] % 1.0, 0.5, atol=1e-9)
    assert (seen[:, :2] < (full.width, full.height)).all()

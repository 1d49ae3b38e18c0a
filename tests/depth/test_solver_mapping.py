"""Bundle adjustment of a path whose short-lived points all drift one way: long tracks keep it straight."""

import copy

import numpy as np
import pytest

from ex4d.depth.solver import mapping

pycolmap = pytest.importorskip("pycolmap", reason="solving cameras needs the extra colmap")

FRAMES, POINTS, SHORT = 18, 90, 3
DRIFT = 0.5  # pixels a frame


@pytest.fixture
def truth():
    """18 cameras about 90 points, which all see all of them."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 1, FRAMES, POINTS
    options.camera_model_id, options.camera_params = pycolmap.CameraModelId.SIMPLE_PINHOLE, [1280.0, 512.0, 384.0]
    options.num_points2D_without_point3D = 0
    pycolmap.set_random_seed(0)
    return pycolmap.synthesize_dataset(options)


def drifting(truth, long: int):
    """The same, but all points after the first ones are seen by three frames alone, and drift from frame to frame."""
    changed = copy.deepcopy(truth)
    for place, number in enumerate(sorted(truth.points3D)):
        if place < long:
            continue
        first = place % (FRAMES - SHORT + 1)
        track = [(one.image_id, one.point2D_idx) for one in changed.point3D(number).track.elements]
        for image, place_there in track:
            if first < image <= first + SHORT:
                feature = changed.image(image).points2D[place_there]
                feature.xy = feature.xy + np.array([DRIFT * image, 0.0])
            else:
                changed.delete_observation(image, place_there)
    return changed


def turned_by(found, truth) -> float:
    """How far the last camera is turned from where it is in truth, by the first one; degrees."""
    turns = []
    for reconstruction in (found, truth):
        first, last = (reconstruction.image(number).cam_from_world().rotation.matrix() for number in (1, FRAMES))
        turns.append(last @ first.T)
    cosine = (np.trace(turns[0] @ turns[1].T) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def test_points_of_many_frames_keep_a_path_straight(truth):
    found = drifting(truth, long=40)
    mapping._adjust(found, True, lambda share: None)
    straight = mapping._straightened(found, lambda share: None)
    assert turned_by(straight, truth) < min(1e-3, 0.5 * turned_by(found, truth))


def test_a_path_of_short_tracks_alone_is_left_as_it_is(truth):
    found = drifting(truth, long=mapping._FEWEST_POINTS - 1)
    mapping._adjust(found, True, lambda share: None)
    assert mapping._straightened(found, lambda share: None) is found


def test_a_path_that_would_lose_most_of_what_frames_see_is_left_as_it_is(truth, monkeypatch):
    monkeypatch.setattr(mapping, "_LEAST_KEPT", 1.01)
    found = drifting(truth, long=40)
    mapping._adjust(found, True, lambda share: None)
    assert mapping._straightened(found, lambda share: None) is found

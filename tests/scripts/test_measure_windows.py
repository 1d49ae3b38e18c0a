"""`measure_windows.py` tells drift and seams from what moves in the shot itself."""

import numpy as np
import pytest

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

import measure_windows


def test_drift_and_seams_are_found_where_they_are():
    """Three windows of which each adds ten levels, over footage that changes a little by itself."""
    lengths = [9, 9, 9]
    frames = measure_windows.shot(17)
    video = np.array([frame.color for frame in frames], np.float64) + 20
    video += np.random.default_rng(0).normal(0, 0.5, video.shape)
    steady = measure_windows.score(frames, video, lengths)
    assert max(steady.drift) < 0.5
    video[9:] += 10
    video[13:] += 10
    drifting = measure_windows.score(frames, video, lengths)
    assert np.allclose(drifting.drift, [10, 20], atol=0.5)
    assert min(drifting.seams) > 1.2 * max(steady.seams)

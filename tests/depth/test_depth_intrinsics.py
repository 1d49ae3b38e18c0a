"""A lens in the artist's words becomes an intrinsic matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.depth import ASSUMED_FOV_NOTE, DEFAULT_FOV_DEGREES, IntrinsicsError, intrinsics_from


def test_field_of_view_focal_length_and_pixels_agree():
    by_angle = intrinsics_from(1920, 1080, fov_degrees=math.degrees(2 * math.atan(18 / 50)))
    assert np.allclose(by_angle, intrinsics_from(1920, 1080, focal_mm=50))
    assert np.allclose(by_angle, intrinsics_from(1920, 1080, focal_px=1920 * 50 / 36))
    assert np.allclose(by_angle, intrinsics_from(1920, 1080, focal_mm=25, sensor_mm=18))
    assert by_angle.dtype == np.float64
    assert by_angle[:, 2].tolist() == [960, 540, 1]
    assert by_angle[0, 0] == by_angle[1, 1]


def test_the_picture_s_edge_lies_at_half_the_angle():
    camera = intrinsics_from(640, 480, fov_degrees=70)
    assert math.degrees(math.atan((640 - camera[0, 2]) / camera[0, 0])) == pytest.approx(35)


def test_an_unknown_lens_gets_the_default_that_the_note_names():
    assert np.allclose(intrinsics_from(512, 512), intrinsics_from(512, 512, fov_degrees=DEFAULT_FOV_DEGREES))
    assert f"{DEFAULT_FOV_DEGREES:g} degrees is assumed" in ASSUMED_FOV_NOTE


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        ({"fov_degrees": 50, "focal_mm": 35}, r"described more than once \(fov_degrees=50, focal_mm=35\)"),
        ({"fov_degrees": 180}, "fov_degrees=180 is not possible"),
        ({"fov_degrees": 0}, "fov_degrees=0 is not possible"),
        ({"focal_mm": -35}, "focal_mm=-35 is not possible"),
        ({"focal_mm": 35, "sensor_mm": 0}, "sensor_mm=0 is not possible"),
        ({"focal_px": math.nan}, "focal_px=nan is not possible"),
    ],
)
def test_impossible_lenses(lens, message):
    with pytest.raises(IntrinsicsError, match=message):
        intrinsics_from(640, 480, **lens)

"""A field of view or focal length becomes an intrinsic matrix, and where several know it, one is trusted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ex4d.depth import (
    ASSUMED_FOV_NOTE,
    DEFAULT_FOV_DEGREES,
    DepthClip,
    KnownIntrinsics,
    intrinsics_from,
    known_intrinsics,
    resolved_intrinsics,
)
from ex4d.media import FootageInfo, VideoWriter, probe
from ex4d_core.blender_cameras import BlenderLens, intrinsics_from_blender
from ex4d_core.cameras import CameraError


def test_field_of_view_focal_length_and_pixels_agree():
    by_angle = intrinsics_from(1920, 1080, fov_degrees=math.degrees(2 * math.atan(18 / 50)))
    assert np.allclose(by_angle, intrinsics_from(1920, 1080, focal_mm=50))
    assert np.allclose(by_angle, intrinsics_from(1920, 1080, focal_px=1920 * 50 / 36))
    assert np.allclose(by_angle, intrinsics_from(1920, 1080, focal_mm=25, sensor_mm=18))
    assert by_angle.dtype == np.float64
    assert by_angle[:, 2].tolist() == [960, 540, 1]
    assert by_angle[0, 0] == by_angle[1, 1]


def test_wide_pixels_have_a_longer_focal_length_downwards(write_clip):
    camera = intrinsics_from(1440, 1080, fov_degrees=60, pixel_aspect=4 / 3)
    assert camera[1, 1] == pytest.approx(camera[0, 0] * 4 / 3)
    assert camera[0, 0] == intrinsics_from(1440, 1080, fov_degrees=60)[0, 0], "the field of view is the width's"
    footage = replace(write_clip(frames=1), pixel_aspect=2.0)
    matrix, _ = resolved_intrinsics(None, footage, depth_of(footage, None))
    assert matrix[1, 1] == pytest.approx(2 * matrix[0, 0])


@pytest.mark.parametrize(("width", "height", "pixel_aspect"), [(320, 192, 1.0), (192, 320, 1.0), (320, 320, 64 / 45)])
def test_millimetres_mean_what_blenders_sensor_fit_auto_means(width, height, pixel_aspect):
    blender = BlenderLens(50, 36, 24, "AUTO", 0, 0, width, height, pixel_aspect_x=pixel_aspect)
    ours = intrinsics_from(width, height, focal_mm=50, pixel_aspect=pixel_aspect)
    assert np.allclose(ours, intrinsics_from_blender(blender))
    if pixel_aspect == 1:
        assert ours[0, 0] == pytest.approx(444.44, abs=0.01)


def test_the_image_s_edge_lies_at_half_the_angle():
    camera = intrinsics_from(640, 480, fov_degrees=70)
    assert math.degrees(math.atan((640 - camera[0, 2]) / camera[0, 0])) == pytest.approx(35)


def test_an_unknown_lens_gets_the_default_that_the_note_names():
    assert np.allclose(intrinsics_from(512, 512), intrinsics_from(512, 512, fov_degrees=DEFAULT_FOV_DEGREES))
    assert f"{DEFAULT_FOV_DEGREES:g} degrees" in ASSUMED_FOV_NOTE


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        ({"fov_degrees": 50, "focal_mm": 35}, r"fov_degrees=50, focal_mm=35"),
        ({"fov_degrees": 180}, "fov_degrees=180"),
        ({"fov_degrees": 0}, "fov_degrees=0"),
        ({"focal_mm": -35}, "focal_mm=-35"),
        ({"focal_mm": 35, "sensor_mm": 0}, "sensor_mm=0"),
        ({"focal_px": math.nan}, "focal_px=nan"),
    ],
)
def test_invalid_lenses(lens, message):
    with pytest.raises(CameraError, match=message):
        intrinsics_from(640, 480, **lens)


def clip_that_states_its_lens(folder: Path, width: int = 64, height: int = 48) -> FootageInfo:
    """Filmed at what would be 28 mm on full frame, as a phone writes it into the movie."""
    phone = {"com.apple.quicktime.camera.focal_length.35mm_equivalent": "28"}
    with VideoWriter(folder / "clip.mp4", width, height, 24, metadata=phone) as movie:
        movie.write(np.zeros((height, width, 3), np.uint8))
    return probe(folder / "clip.mp4")


def depth_of(footage: FootageInfo, focal_px: float | None) -> DepthClip:
    lens = None if focal_px is None else intrinsics_from(footage.width, footage.height, focal_px=focal_px)[None]
    return DepthClip(footage, lens, "metric", "depth.npz", "its own", lambda: iter(()))


def test_who_is_trusted_with_the_lens_where_several_know_it(tmp_path):
    """Each step takes the most trusted voice away; the command line and the service both ask in this way."""
    footage = clip_that_states_its_lens(tmp_path)
    knows, silent = depth_of(footage, 70.0), depth_of(footage, None)
    voices = {
        "stated": intrinsics_from(64, 48, focal_px=30),
        "camera_file": KnownIntrinsics(intrinsics_from(64, 48, focal_px=40)[None], "the camera file solved.npz"),
        "convention": "reference",
        "depth_has_lens": True,
    }
    filmed_at = 28 * math.hypot(64, 48) / math.hypot(36, 24)
    for taken_away, focal_px, origin in (
        (None, 30, "the user"),
        ("stated", 40, "the camera file solved.npz"),
        ("camera_file", 500, "EX-4D"),
        ("convention", 70, "the depth (depth.npz)"),
        ("depth_has_lens", filmed_at, "the footage ("),
    ):
        voices.pop(taken_away, None)
        known = known_intrinsics(footage, **voices)
        assert (known is None) == (taken_away == "convention"), "of these, only files of depth are read later"
        matrix, found = resolved_intrinsics(known, footage, knows)
        assert matrix.reshape(-1, 3, 3)[0, 0, 0] == pytest.approx(focal_px) and found.startswith(origin)
    assert resolved_intrinsics(None, footage, silent)[0][0, 0] == pytest.approx(filmed_at), (
        "depth files that do not know it"
    )


def test_an_unknown_lens_is_assumed_and_reported(write_clip):
    footage = write_clip(frames=1)
    assert known_intrinsics(footage) is None
    assert resolved_intrinsics(None, footage, depth_of(footage, 70.0))[1] == "the depth (depth.npz)", (
        "an estimator's guess"
    )
    matrix, found = resolved_intrinsics(None, footage, depth_of(footage, None))
    assert np.array_equal(matrix, intrinsics_from(96, 64)) and found == ASSUMED_FOV_NOTE


def test_the_normalized_focal_length_is_that_of_the_first_frame_over_the_width():
    assert KnownIntrinsics(intrinsics_from(96, 64, focal_px=48), "the user").normalized_focal(96) == 0.5
    zoom = np.stack([intrinsics_from(96, 64, focal_px=focal) for focal in (96, 200)])
    assert KnownIntrinsics(zoom, "a zoom").normalized_focal(96) == 1.0


@pytest.mark.parametrize(
    ("focal", "centre", "message"),
    [
        (0.9, (0.5, 0.5), r"0\.9 and 0\.9 pixels \(179\.4 x 178\.9 degrees\), principal point \(0\.5, 0\.5\)"),
        (1662.8, (960, 540), r"principal point \(960, 540\), for an image of 320x192"),
    ],
)
def test_intrinsics_of_depth_in_another_unit_or_of_another_size_are_refused(write_clip, focal, centre, message):
    footage = replace(write_clip(frames=1), width=320, height=192)
    lens = np.array([[[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1.0]]])
    with pytest.raises(CameraError, match=message):
        resolved_intrinsics(None, footage, replace(depth_of(footage, None), intrinsics=lens))

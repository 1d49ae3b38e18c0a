"""Lens distortion: what each model does to pixels, and what cannot be undone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ex4d_core.errors import RequestError
from ex4d_core.lens_distortion import COEFFICIENTS, LensDistortion

MILD = {
    "polynomial": (-0.12, 0.02, 0.0),
    "division": (-0.1, 0.02),
    "nuke": (-0.05, 0.01),
    "brown": (-0.1, 0.02, 0.0, 0.0, 0.01, -0.006),
    "fisheye": (0.02, -0.01, 0.0, 0.0),
}


def lens(model: str = "polynomial", coefficients: tuple[float, ...] | None = None) -> LensDistortion:
    return LensDistortion(model, coefficients or MILD[model], 200.0, (101.0, 47.0), 192, 96)


@pytest.mark.parametrize("model", COEFFICIENTS)
def test_the_undistorted_image_is_filled_and_no_larger_than_needed(model):
    one = lens(model)
    at = one.footage_pixels()
    assert at.shape == (96, 192, 2) and np.isfinite(at).all()
    assert (at >= 0).all() and (at[..., 0] <= 192).all() and (at[..., 1] <= 96).all()
    margin = min(at.min(), (192 - at[..., 0]).min(), (96 - at[..., 1]).min())
    assert margin < 0.05, "one more pixel of the footage would fit"


@pytest.mark.parametrize("model", COEFFICIENTS)
def test_the_zoomed_camera_sees_each_point_where_its_pixel_came_from(model):
    one = lens(model)
    ideal = np.array([[200.0, 0, 101], [0, 200, 47], [0, 0, 1]])
    point = np.array([0.2, -0.1, 1.0])
    x, y = np.rint((one.zoomed(ideal) @ point)[:2] - 0.5).astype(int)
    came_from = one.footage_pixels()[y, x]
    filmed = one.distorted((ideal @ point)[:2])
    assert np.abs(came_from - filmed).max() < 1.5  # a pixel of rounding


@pytest.mark.parametrize("model", COEFFICIENTS)
@pytest.mark.parametrize("focal_y", [None, 260.0])
def test_undistorted_undoes_distorted(model, focal_y):
    one = replace(lens(model), focal_y=focal_y)
    pixels = np.stack(np.meshgrid(np.linspace(0, 192, 7), np.linspace(0, 96, 5)), axis=-1)
    np.testing.assert_allclose(one.distorted(one.undistorted(pixels)), pixels, atol=1e-6)


def test_a_focal_length_of_its_own_down_the_image_stretches_the_lens():
    stretched = LensDistortion("brown", MILD["brown"], 200.0, (101.0, 47.0), 192, 96, 400.0)
    square = LensDistortion("brown", MILD["brown"], 200.0, (101.0, 23.5), 192, 48)
    found, expected = stretched.distorted([30.0, 80.0]), square.distorted([30.0, 40.0])
    np.testing.assert_allclose(found, expected * (1, 2))
    assert stretched.resized(96, 48).focal_y == 200
    assert "focal_y" not in square.to_wire() and LensDistortion.from_wire(stretched.to_wire()) == stretched


def test_it_is_the_same_lens_in_a_proxy_of_the_footage():
    half = lens().resized(96, 48)
    np.testing.assert_allclose(half.distorted([[20.0, 30.0]]) * 2, lens().distorted([[40.0, 60.0]]))
    with pytest.raises(RequestError, match="aspect ratio"):
        lens().resized(96, 96)


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [("polynomial", (-9.0, 0.0, 0.0)), ("division", (30.0, 0.0)), ("polynomial", (0.1,)), ("fisheye", (0.1,))],
)
def test_what_cannot_be_undone_is_refused_in_words(model, coefficients):
    with pytest.raises(RequestError):
        lens(model, coefficients)

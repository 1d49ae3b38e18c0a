"""Back limits: the space behind a silhouette counts as solid to half the width of the object."""

from __future__ import annotations

import pytest
import torch

from ex4d.mesh.thickness import back_limits, pixel_angles
from ex4d.mesh.thickness_kernel import STEP_TO_RIGHT

FOCAL, HEIGHT, WIDTH = 100.0, 48, 128
ANGLES = pixel_angles(torch.tensor([[[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]], dtype=torch.float64))


def wall(depth: float) -> torch.Tensor:
    return torch.full((1, HEIGHT, WIDTH), depth)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.2])
def test_a_flat_wall_has_no_silhouette_at_any_angle(slope: float) -> None:
    columns = (torch.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCAL
    depth = (2.0 / (1.0 - slope * columns)).expand(1, HEIGHT, WIDTH)

    found = back_limits(depth, ANGLES)

    assert not found.steps.any()
    assert torch.equal(found.limits[:, 1:-1, 1:-1], depth[:, 1:-1, 1:-1])


def test_limits_are_half_the_width_behind_the_silhouette() -> None:
    depth = wall(6.0)
    depth[:, :, 60:68] = 2.0

    found = back_limits(depth, ANGLES)

    thickness = (found.limits - depth)[0, 1:-1]
    expected = 0.5 * 8 * 2.0 / FOCAL
    assert torch.allclose(thickness[:, [60, 67]], torch.tensor(expected), atol=1e-5)
    others = torch.ones(WIDTH, dtype=torch.bool)
    others[[0, 60, 67, WIDTH - 1]] = False
    assert not thickness[:, others].any()
    steps = (found.steps[0] & STEP_TO_RIGHT).bool()
    assert steps[:, [59, 67]].all() and steps.sum() == 2 * HEIGHT


def test_an_edge_smeared_over_pixels_is_still_a_silhouette() -> None:
    """Estimated depth often has a ramp where an object ends. Each of its steps is like the next, but far too steep."""
    depth = wall(6.0)
    depth[:, :, 44:68] = 2.0
    depth[:, :, 68:70] = torch.tensor([3.0, 4.5])

    found = back_limits(depth, ANGLES)

    assert (found.steps[0, :, [67, 68, 69]] & STEP_TO_RIGHT).bool().all()
    thickness = (found.limits - depth)[0, 1:-1]
    pillar = 0.5 * 24 * 2.0 / FOCAL
    assert (thickness[:, 67:70] > 0.99 * pillar).all(), "pixels of the ramp belong to the pillar and are as thick"

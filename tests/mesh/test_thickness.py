"""Where the space behind an outline stops counting as solid: half the width of what has the outline."""

from __future__ import annotations

import pytest
import torch

from ex4d.mesh.thickness import STEP_TO_RIGHT, back_limits

FOCAL, HEIGHT, WIDTH = 100.0, 48, 128
LENS = torch.tensor([[[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]], dtype=torch.float64)


def wall(depth: float) -> torch.Tensor:
    return torch.full((1, HEIGHT, WIDTH), depth)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.2])
def test_a_flat_wall_has_no_outline_at_any_angle(slope: float) -> None:
    columns = (torch.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCAL
    depth = (2.0 / (1.0 - slope * columns)).expand(1, HEIGHT, WIDTH)

    found = back_limits(depth, LENS)

    assert not found.steps.any()
    assert torch.equal(found.limits[:, 1:-1, 1:-1], depth[:, 1:-1, 1:-1])


def test_limits_are_half_the_width_behind_the_outline() -> None:
    depth = wall(6.0)
    depth[:, :, 60:68] = 2.0

    found = back_limits(depth, LENS)

    thickness = (found.limits - depth)[0, 1:-1]
    expected = 0.5 * 8 * 2.0 / FOCAL
    assert torch.allclose(thickness[:, [60, 67]], torch.tensor(expected), atol=1e-5)
    others = torch.ones(WIDTH, dtype=torch.bool)
    others[[0, 60, 67, WIDTH - 1]] = False
    assert not thickness[:, others].any()
    steps = (found.steps[0] & STEP_TO_RIGHT).bool()
    assert steps[:, [59, 67]].all() and steps.sum() == 2 * HEIGHT


def test_an_edge_smeared_over_pixels_is_still_an_outline() -> None:
    """Estimated depth often has a ramp where an object ends. Each of its steps is like the next, but far too steep."""
    depth = wall(6.0)
    depth[:, :, 44:68] = 2.0
    depth[:, :, 68:70] = torch.tensor([3.0, 4.5])

    found = back_limits(depth, LENS)

    assert (found.steps[0, :, [67, 68, 69]] & STEP_TO_RIGHT).bool().all()
    thickness = (found.limits - depth)[0, 1:-1]
    pillar = 0.5 * 24 * 2.0 / FOCAL
    assert (thickness[:, 67:70] > 0.99 * pillar).all(), "pixels of the ramp belong to the pillar and are as thick"


def test_nothing_thick_at_all_ends_where_it_begins() -> None:
    depth = wall(6.0)
    depth[:, :, 60:68] = 2.0
    assert torch.equal(back_limits(depth, LENS, ratio=0.0).limits, depth)


def test_what_does_not_belong_together_is_named() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        back_limits(wall(1.0), LENS, ratio=-1.0)
    with pytest.raises(ValueError, match=r"intrinsics must be \(1, 3, 3\)"):
        back_limits(wall(1.0), LENS[0])
    with pytest.raises(ValueError, match=r"depth must be \(T, H, W\) float32"):
        back_limits(wall(1.0).double(), LENS)

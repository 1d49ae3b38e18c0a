"""A step that continues a plane is no discontinuity: in meshes, whoever draws or exports them, as in warp's renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ex4d.mesh import DepthSurface, build_surface_mesh, write_ply
from ex4d_core.render_settings import OCCLUSION_RULES

ROWS, COLUMNS, HORIZON, FOCAL = 80, 12, 20, 100.0


def surface_of(depth: torch.Tensor, focal: float = FOCAL, **settings: Any) -> DepthSurface:
    """Of (T, H, W) depth, gray."""
    frames, height, width = depth.shape
    lens = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    color = torch.full((frames, height, width, 3), 90, dtype=torch.uint8)
    return DepthSurface(depth.contiguous(), color, lens.expand(frames, 3, 3), **settings)


def ground() -> torch.Tensor:
    """(1, H, W): ground 1 below the camera before a sky at depth 10,000."""
    below = torch.arange(ROWS) + 0.5 - HORIZON
    depth = torch.where(below > 0, FOCAL / below.clamp_min(0.1), torch.tensor(1e4))
    return depth[None, :, None].expand(1, ROWS, COLUMNS)


def cells(surface: DepthSurface) -> torch.Tensor:
    """(T, H - 1, W - 1) bool: whether one of the two faces between four pixels is occluded."""
    mesh = build_surface_mesh(surface)
    rows, columns = mesh.grid_shape
    faces = mesh.occluded[:, : -mesh.cap_faces].reshape(-1, 2, rows - 1, columns - 1).any(dim=1)
    return faces[:, surface.ring : rows - 1 - surface.ring, surface.ring : columns - 1 - surface.ring]


@pytest.mark.parametrize("rule", OCCLUSION_RULES)
def test_ground_is_whole_up_to_the_horizon_in_every_frame(rule: str) -> None:
    depth = torch.cat([ground(), ground().flip(2), ground() * 7])

    found = cells(surface_of(depth, occlusion_rule=rule))
    original = cells(surface_of(depth, occlusion_rule=rule, convention="reference"))

    assert found[:, HORIZON - 1].all(), "the sky ends at the horizon"
    assert not found[:, HORIZON:].any() and not found[:, : HORIZON - 1].any()
    # EX-4D's own meshes stay as they are; their outermost vertices are at another depth.
    assert original[:2, HORIZON : HORIZON + 2, 1:-1].all()


@pytest.mark.parametrize("pixels", [2, 4, 6])
def test_an_edge_smeared_over_pixels_stays_occluded(pixels: int) -> None:
    disparity = torch.full((1, ROWS, 40), 0.1)
    disparity[:, :, :20] = 2.0
    disparity[:, :, 20 : 20 + pixels] = torch.linspace(2.0, 0.1, pixels + 2)[1:-1]

    found = cells(surface_of(1 / disparity, focal=400.0))

    assert found[:, :, 19 : 20 + pixels].all()
    assert not found[:, :, :19].any() and not found[:, :, 20 + pixels :].any()


def test_an_exported_mesh_keeps_the_ground(tmp_path: Path) -> None:
    surface = surface_of(ground())
    mesh = build_surface_mesh(surface)
    write_ply(tmp_path / "seen.ply", mesh, 0, occluded=False)

    header = (tmp_path / "seen.ply").read_bytes().split(b"end_header")[0]
    whole = 2 * (ROWS - 1) * (COLUMNS - 1)
    assert f"element face {whole - 2 * (COLUMNS - 1)}\n".encode() in header, "all but the step at the horizon"

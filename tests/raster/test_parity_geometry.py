"""`ex4d parity geometry`: what it says of cases that agree, that differ, and of which nothing is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parity import Comparison, ParityCaseError, compare_geometry


def write_case(path: Path, golden_geometry, frames: int = 2, **changes) -> Path:
    """The first frames of the golden data and trajectory "30", as a case of its own."""
    case = {name: golden_geometry[name][:frames] for name in ("depth", "rgb", "frames", "render_30")}
    case |= {name: golden_geometry[name] for name in ("intrinsics", "extrinsics_30")}
    np.savez(path, **{**case, **changes})
    return path


def figures(path: Path) -> dict[str, Comparison]:
    return {comparison.name: comparison for comparison in compare_geometry(path, "warp", "cpu")}


def test_a_case_of_the_originals_is_within_its_bounds(golden_geometry, tmp_path) -> None:
    found = figures(write_case(tmp_path / "case.npz", golden_geometry))
    names = ["extrinsics_30", "render_30, worst mask", "render_30, mean mask", "render_30, worst colour"]
    assert list(found) == names
    assert all(comparison.right for comparison in found.values())


def test_another_image_is_off(golden_geometry, tmp_path) -> None:
    shifted = np.roll(golden_geometry["render_30"][:2], 3, axis=2)
    found = figures(write_case(tmp_path / "case.npz", golden_geometry, render_30=shifted))
    assert [name for name, comparison in found.items() if comparison.right] == ["extrinsics_30"]


def test_another_camera_move_is_off(golden_geometry, tmp_path) -> None:
    other = golden_geometry["extrinsics_60"]
    found = figures(write_case(tmp_path / "case.npz", golden_geometry, extrinsics_30=other))
    assert found["extrinsics_30"].value > 0.1 and not found["extrinsics_30"].right


def test_where_neither_sees_anything_they_agree(golden_geometry, tmp_path) -> None:
    away = np.diag([-1.0, 1.0, 1.0, 1.0])[None].repeat(49, 0)
    away[:, 2, 3] = -5000.0  # everything lies behind the camera
    nothing = np.zeros_like(golden_geometry["render_30"][:2])
    found = figures(write_case(tmp_path / "case.npz", golden_geometry, extrinsics_away=away, render_away=nothing))
    assert found["render_away, worst mask"].value == 1.0
    assert all(comparison.right for comparison in found.values())
    seen = nothing.copy()
    seen[1, 5, 5] = 255
    found = figures(write_case(tmp_path / "case.npz", golden_geometry, extrinsics_away=away, render_away=seen))
    assert not found["render_away, worst mask"].right


def test_a_case_of_one_frame_compares_the_source_frame(golden_geometry, tmp_path) -> None:
    found = figures(write_case(tmp_path / "case.npz", golden_geometry, frames=1))
    assert found["render_30, worst colour"].value == np.inf
    dark = golden_geometry["render_30"][:1] // 2
    found = figures(write_case(tmp_path / "case.npz", golden_geometry, frames=1, render_30=dark))
    assert not found["render_30, worst colour"].right


def test_what_is_no_case_is_refused(golden_geometry, tmp_path) -> None:
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(ParityCaseError, match="cannot be read"):
        figures(tmp_path / "text.npz")
    np.savez(tmp_path / "bare.npz", depth=golden_geometry["depth"])
    with pytest.raises(ParityCaseError, match="lacks the arrays rgb, intrinsics, frames"):
        figures(tmp_path / "bare.npz")
    extra = {"render_90": golden_geometry["render_90"][:2]}
    with pytest.raises(ParityCaseError, match="render_90 but no extrinsics_90"):
        figures(write_case(tmp_path / "case.npz", golden_geometry, **extra))
    for name, message in (
        ("rgb", "rgb is .*; with depth .* it must be"),
        ("render_30", "render_30 is .* it must be"),
        ("extrinsics_30", r"must be \(N, 4, 4\) with at least \d+ steps"),
    ):
        with pytest.raises(ParityCaseError, match=message):
            figures(write_case(tmp_path / "case.npz", golden_geometry, **{name: np.eye(4)}))

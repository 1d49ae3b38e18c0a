"""`ex4d parity geometry`: what it says of cases that agree, that differ, and of which nothing is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.parity import Comparison, ParityCaseError, compare_geometry


def write_case(path: Path, golden_geometry, pose: np.ndarray | None = None, frames: int = 2, **changes) -> Path:
    """The first frames of the golden data, as a case of its own, with trajectory "30" or one raw pose for all."""
    poses = golden_geometry["extrinsics_30"] if pose is None else np.repeat(pose[None], 49, axis=0)
    case = {name: golden_geometry[name][:frames] for name in ("depth", "rgb", "frames", "render_30")}
    case |= {"intrinsics": golden_geometry["intrinsics"], "extrinsics_30": poses.astype(np.float32), **changes}
    np.savez(path, **case)
    return path


def figures(path: Path) -> dict[str, Comparison]:
    return {comparison.name: comparison for comparison in compare_geometry(path, "warp", "cpu")}


def test_a_case_of_the_originals_is_within_its_bounds(golden_geometry, tmp_path) -> None:
    found = figures(write_case(tmp_path / "case.npz", golden_geometry))
    assert list(found) == ["render_30, worst mask", "render_30, mean mask", "render_30, worst colour"]
    assert all(comparison.right for comparison in found.values())


def test_another_picture_is_off(golden_geometry, tmp_path) -> None:
    shifted = np.roll(golden_geometry["render_30"][:2], 3, axis=2)
    found = figures(write_case(tmp_path / "case.npz", golden_geometry, render_30=shifted))
    assert not any(comparison.right for comparison in found.values())


def test_where_neither_sees_anything_they_agree(golden_geometry, tmp_path) -> None:
    away = np.eye(4)
    away[2, 3] = -5000.0  # everything lies behind the camera
    nothing = np.zeros_like(golden_geometry["render_30"][:2])
    found = figures(write_case(tmp_path / "case.npz", golden_geometry, away, render_30=nothing))
    assert found["render_30, worst mask"].value == 1.0
    assert all(comparison.right for comparison in found.values())
    seen = nothing.copy()
    seen[1, 5, 5] = 255
    assert not figures(write_case(tmp_path / "case.npz", golden_geometry, away, render_30=seen))[
        "render_30, worst mask"
    ].right


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

"""Compares DW-Mesh, camera moves and mask renders with the original's, from one .npz laid out like the golden one.

Every trajectory of the case is rendered in the "reference" convention (``render_NAME`` with ``extrinsics_NAME``), also
with the ``boundary`` occlusion rule where the case has it (``render_boundary_NAME``). Trajectories that are named by
their degrees are built again, and so is the mesh of frame 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ex4d.mesh import DepthSurface, build_surface_mesh
from ex4d.mesh.surface import REFERENCE_BORDER_DEPTH
from ex4d.raster import Rasterizer, create_rasterizer, force_first_frame
from ex4d_core.cameras import CameraPath, from_reference
from ex4d_core.render_settings import OcclusionRule
from ex4d_core.trajectories import Trajectory, build_path, is_degrees, subject_distance
from parity.comparison import Comparison, ParityCaseError, read_case


class Tolerance(NamedTuple):
    """Bounds for a rasterizer: each single frame's mask, their mean, and colours where both see something."""

    frame_iou: float
    mean_iou: float
    color_psnr: float


TOLERANCES = {"warp": Tolerance(0.995, 0.999, 40.0), "nvdiffrast": Tolerance(0.999, 0.999, 45.0)}
# Largest difference of a camera matrix, in scene units and without unit: the original's are in float32.
MOVE_BOUND = 1e-4
# A mean of at most so many frames says nothing.
_FEW_FRAMES = 2

_REQUIRED = ("depth", "rgb", "intrinsics", "frames")
_BOUNDARY = "boundary_"


def compare_geometry(path: Path, rasterizer: str = "auto", device: str = "auto") -> Iterator[Comparison]:
    """Yield every comparison that a case has, each as soon as it is computed.

    Raises:
        ParityCaseError: a file that is missing or not laid out like the golden data.
    """
    case = read_case(path, _REQUIRED)
    renders = sorted(name[len("render_") :] for name in case if name.startswith("render_"))
    if not renders:
        raise ParityCaseError(f"{path} has no render_NAME to compare with")
    for render in renders:
        if f"extrinsics_{_trajectory_of(render)}" not in case:
            raise ParityCaseError(f"{path} has render_{render} but no extrinsics_{_trajectory_of(render)}")
    _require_layout(case, path)
    drawn_by = create_rasterizer(rasterizer, device, "research")
    if "mesh_vertices" in case:
        yield from _mesh(case)
    if case["frames"][0] == 0:  # otherwise the depth that scales the moves is missing
        yield from _moves(case)
    for render in renders:
        yield from _render(case, render, drawn_by)


def _trajectory_of(render: str) -> str:
    return render.removeprefix(_BOUNDARY)


def _require_layout(case: dict[str, np.ndarray], path: Path) -> None:
    """Raise ParityCaseError for arrays that do not match."""
    size = case["depth"].shape
    expected = {"rgb": (*size, 3), "intrinsics": (3, 3), "frames": size[:1]}
    expected |= {name: (*size, 4) for name in case if name.startswith("render_")}
    steps = int(case["frames"].max(initial=0)) + 1
    for name, shape in expected.items():
        if case[name].shape != shape:
            raise ParityCaseError(f"{path}: {name} is {case[name].shape}; with depth {size} it must be {shape}")
    for name in case:
        shape = case[name].shape
        if name.startswith("extrinsics_") and (shape[1:] != (4, 4) or shape[0] < steps):
            raise ParityCaseError(f"{path}: {name} is {shape}; it must be (N, 4, 4) with at least {steps} steps")


def surface_of(case: dict[str, np.ndarray], rule: OcclusionRule, device: torch.device | str = "cpu") -> DepthSurface:
    """The surface from which the original builds its mesh: the case's footage and depth."""
    depth, color = (torch.from_numpy(case[name]).to(device) for name in ("depth", "rgb"))
    intrinsics = torch.from_numpy(case["intrinsics"]).expand(len(depth), 3, 3)
    return DepthSurface(depth, color, intrinsics, convention="reference", occlusion_rule=rule)


def _mesh(case: dict[str, np.ndarray]) -> Iterator[Comparison]:
    mesh = build_surface_mesh(surface_of(case, "angle"))
    for name, ours in (
        ("mesh_vertices", mesh.vertices[0].numpy()),
        ("mesh_faces", mesh.faces.numpy()),
        ("mesh_colors", mesh.vertex_rgba()[0].numpy()),
    ):
        theirs = case[name]
        different = float((ours != theirs).sum()) if ours.shape == theirs.shape else float("nan")
        yield Comparison(name, "differences", different, 0)


def _moves(case: dict[str, np.ndarray]) -> Iterator[Comparison]:
    height, width = case["depth"].shape[1:]
    # The nearest surface of the original's mesh, whose border never lies farther away.
    distance = subject_distance(np.minimum(case["depth"][0], REFERENCE_BORDER_DEPTH))
    for name in sorted(case):
        degrees = name.removeprefix("extrinsics_")
        if degrees == name or not is_degrees(degrees):
            continue
        theirs = from_reference(case[name])
        ours = build_path(Trajectory(degrees), len(theirs), case["intrinsics"], width, height, distance)
        yield Comparison(name, "difference", float(np.abs(ours.world_to_camera - theirs).max()), MOVE_BOUND)


def _render(case: dict[str, np.ndarray], render: str, rasterizer: Rasterizer) -> Iterator[Comparison]:
    rule: OcclusionRule = "boundary" if render.startswith(_BOUNDARY) else "angle"
    steps = case["frames"]
    surface = surface_of(case, rule, rasterizer.device)
    poses = from_reference(case[f"extrinsics_{_trajectory_of(render)}"][steps])
    ours = rasterizer.render(surface, CameraPath(poses, case["intrinsics"], *surface.size))
    ours = force_first_frame(ours, surface.color[0]).to("cpu")
    theirs = case[f"render_{render}"]
    overlaps, ratios = [], []
    # Frame 0 is the source image: it says nothing, unless a case has no other.
    for index in range(1, len(steps)) or [0]:
        mask, seen = ours.mask[index].numpy(), theirs[index, ..., 3] > 0
        overlaps.append(_overlap(mask, seen))
        ratios.append(_psnr(ours.color[index].numpy(), theirs[index, ..., :3], mask & seen))
    name, tolerance = f"render_{render}", TOLERANCES[rasterizer.name]
    yield Comparison(f"{name}, worst mask", "IoU", min(overlaps), tolerance.frame_iou, at_least=True)
    mean_bound = tolerance.mean_iou if len(overlaps) > _FEW_FRAMES else tolerance.frame_iou
    yield Comparison(f"{name}, mean mask", "IoU", float(np.mean(overlaps)), mean_bound, at_least=True)
    yield Comparison(f"{name}, worst colour", "PSNR dB", min(ratios), tolerance.color_psnr, at_least=True)


def _overlap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Intersection over union; 1 where neither sees anything."""
    union = (ours | theirs).sum()
    return float((ours & theirs).sum() / union) if union else 1.0


def _psnr(ours: np.ndarray, theirs: np.ndarray, where: np.ndarray) -> float:
    """Over the pixels that both see; infinite where they are equal, or where there are none."""
    difference = ours[where].astype(np.float64) - theirs[where].astype(np.float64)
    error = float(np.mean(difference**2)) if where.any() else 0.0
    return 10 * np.log10(255**2 / error) if error else float("inf")

"""DW-Mesh and mask renders of the "reference" convention beside the original's: one .npz laid out like the golden one.

Every trajectory of the case is compared (``render_NAME`` with ``extrinsics_NAME``), the ``boundary`` occlusion rule
where the case has it (``render_boundary_NAME``), and the mesh of frame 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from backend.mesh import DepthSurface, build_surface_mesh
from backend.parity.comparison import Comparison, ParityCaseError, read_case
from backend.raster import create_rasterizer, force_first_frame
from ex4d_core.cameras import from_reference


class Promise(NamedTuple):
    """How near a rasterizer comes: each single frame's mask, their mean, and colours where both see something."""

    frame_iou: float
    mean_iou: float
    color_psnr: float


PROMISES = {"warp": Promise(0.995, 0.999, 40.0), "nvdiffrast": Promise(0.999, 0.999, 45.0)}
# So few frames say nothing about a mean.
_FEW_FRAMES = 2

_NEEDED = ("depth", "rgb", "intrinsics", "frames")
_BOUNDARY = "boundary_"


def compare_geometry(path: Path, rasterizer: str = "auto", device: str = "auto") -> Iterator[Comparison]:
    """Every comparison that a case has, each as soon as it is made.

    Raises:
        ParityCaseError: a file that is missing or not laid out like the golden data.
    """
    case = read_case(path, _NEEDED)
    renders = sorted(name[len("render_") :] for name in case if name.startswith("render_"))
    if not renders:
        raise ParityCaseError(f"{path} has no render_NAME to compare with")
    drawer = create_rasterizer(rasterizer, device)
    if "mesh_vertices" in case:
        yield from _mesh(case)
    for render in renders:
        rule = "boundary" if render.startswith(_BOUNDARY) else "angle"
        trajectory = render.removeprefix(_BOUNDARY)
        if f"extrinsics_{trajectory}" not in case:
            raise ParityCaseError(f"{path} has render_{render} but no extrinsics_{trajectory}")
        yield from _render(case, render, trajectory, rule, drawer)


def surface_of(case: dict[str, np.ndarray], rule: str, device: torch.device | str = "cpu") -> DepthSurface:
    """The case's footage and depth as the original builds its mesh from them."""
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


def _render(case: dict[str, np.ndarray], render: str, trajectory: str, rule: str, drawer) -> Iterator[Comparison]:
    steps = case["frames"]
    cameras = from_reference(case[f"extrinsics_{trajectory}"][steps])
    height, width = case["depth"].shape[1:]
    intrinsics = np.broadcast_to(case["intrinsics"], (len(steps), 3, 3))
    surface = surface_of(case, rule, drawer.device)
    ours = drawer.render(surface, cameras, intrinsics, width, height)
    ours = force_first_frame(ours, surface.color[0]).to("cpu")
    theirs = case[f"render_{render}"]
    overlaps, ratios = [], []
    # Frame 0 is the source picture: it says nothing, unless a case has no other.
    for index in range(1, len(steps)) or [0]:
        mask, seen = ours.mask[index].numpy(), theirs[index, ..., 3] > 0
        overlaps.append(_overlap(mask, seen))
        ratios.append(_psnr(ours.color[index].numpy(), theirs[index, ..., :3], mask & seen))
    name, promise = f"render_{render}", PROMISES[drawer.name]
    yield Comparison(f"{name}, worst mask", "IoU", min(overlaps), promise.frame_iou, at_least=True)
    mean_bound = promise.mean_iou if len(overlaps) > _FEW_FRAMES else promise.frame_iou
    yield Comparison(f"{name}, mean mask", "IoU", float(np.mean(overlaps)), mean_bound, at_least=True)
    yield Comparison(f"{name}, worst colour", "PSNR dB", min(ratios), promise.color_psnr, at_least=True)


def _overlap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Intersection over union; 1 where neither sees anything."""
    union = (ours | theirs).sum()
    return float((ours & theirs).sum() / union) if union else 1.0


def _psnr(ours: np.ndarray, theirs: np.ndarray, where: np.ndarray) -> float:
    """Over the pixels that both see; infinite where they are equal, or where there are none."""
    difference = ours[where].astype(np.float64) - theirs[where].astype(np.float64)
    error = float(np.mean(difference**2)) if where.any() else 0.0
    return 10 * np.log10(255**2 / error) if error else float("inf")

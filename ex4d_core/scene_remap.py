"""Makes a scene package again with another offset, far limit or unit of its depth, or another mask of what moves.

Only these are computed; everything else of the new package is the old one's. The old package stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from ex4d_core.depth_mapping import DepthMapping
from ex4d_core.mesh_cache import Pc2Writer, frame_positions, grid_vertices
from ex4d_core.pivots import middle_distance
from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.scene_manifest import SceneManifest
from ex4d_core.trajectories import subject_distance


def remap_scene(
    scene: Scene,
    folder: Path,
    mapping: DepthMapping | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    mask: Iterable[np.ndarray] | None = None,
    mask_label: str = "",
) -> Scene:
    """Write a scene with depth under another mapping, with another mask of what moves, or with both into ``folder``.

    Args:
        scene: which says how its own depth was made (`SceneManifest.mapping`).
        folder: for the new package.
        mapping: of the new depth, from the disparity that the scene's depth was made from; None keeps its depth.
        progress: called with frames done and frames in all, of the depth.
        mask: (H, W) bool for each frame, true where something moves; None keeps the scene's, if it has one.
        mask_label: its name, for people.

    Raises:
        SceneError: ``folder`` holds something else, or the scene cannot be read.
    """
    manifest = scene.manifest
    changed = set() if mapping is None else {"depth", "positions"}
    if mask is not None:
        changed.add("motion_mask")
    with SceneWriter(folder) as writer:
        for part in manifest.files.keys() - changed:
            writer.take_over(part, scene)
        made = replace(manifest, files={})
        if mask is not None:
            file = writer.array("motion_mask", (manifest.frames, manifest.height, manifest.width), np.bool_)
            for moving in mask:
                file.write(moving)
            made = replace(made, provenance={**manifest.provenance, "motion mask": mask_label})
        if mapping is not None:
            made = _with_depth(writer, scene, mapping, made, progress)
        return writer.finish(made)


def _with_depth(
    writer: SceneWriter,
    scene: Scene,
    mapping: DepthMapping,
    manifest: SceneManifest,
    progress: Callable[[int, int], None],
) -> SceneManifest:
    """Write a scene's depth, and its mesh if that is part of it, under a mapping; returns the manifest of that."""
    depth, camera, old, frames = scene.depth(), scene.source_camera(), scene.manifest.mapping, manifest.frames
    nearest, farthest, distance, middle = np.inf, 0.0, 0.0, manifest.middle_distance
    file = writer.array("depth", depth.shape, np.float32)
    with ExitStack() as files:
        cache = None
        if "positions" in scene.manifest.files:
            vertices = grid_vertices(manifest.width, manifest.height, manifest.convention)
            cache = files.enter_context(Pc2Writer(writer.path("positions"), vertices, frames))
        for index in range(frames):
            z = mapping.depth(old.disparity(depth[index].astype(np.float64)))
            file.write(z)
            if cache is not None:
                cache.append(frame_positions(z, camera, index, manifest.convention))
            nearest, farthest = min(nearest, float(z.min())), max(farthest, float(z.max()))
            if index == 0:
                # Moves of scenes from before there was a middle keep the subject.
                distance, middle = subject_distance(z), None if middle is None else middle_distance(z)
            progress(index + 1, frames)
    return replace(
        manifest,
        depth_range=(nearest, farthest),
        subject_distance=distance,
        middle_distance=middle,
        depth_scale="relative",
        depth_mapping=mapping,
    )

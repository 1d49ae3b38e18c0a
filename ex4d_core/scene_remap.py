"""Makes a scene package again with other depth from the same relative disparity: another offset, far limit or unit.

Only depth is computed; everything else of the new package is the old one's. The old package stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from ex4d_core.depth_mapping import DepthMapping
from ex4d_core.mesh_cache import Pc2Writer, frame_positions, grid_vertices
from ex4d_core.pivots import middle_distance
from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.trajectories import subject_distance


def remap_scene(
    scene: Scene,
    folder: Path,
    mapping: DepthMapping,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scene:
    """Write a scene with depth under another mapping into ``folder``.

    Args:
        scene: which says how its own depth was made (`SceneManifest.mapping`).
        folder: for the new package.
        mapping: of the new depth, from the disparity that the scene's depth was made from.
        progress: called with frames done and frames in all.

    Raises:
        SceneError: ``folder`` holds something else, or the scene cannot be read.
    """
    manifest, depth, camera = scene.manifest, scene.depth(), scene.source_camera()
    frames, old = manifest.frames, manifest.mapping
    nearest, farthest, distance, middle = np.inf, 0.0, 0.0, manifest.middle_distance
    with SceneWriter(folder) as writer:
        for part in manifest.files.keys() - {"depth", "positions"}:
            writer.take_over(part, scene)
        file = writer.array("depth", depth.shape, np.float32)
        with ExitStack() as files:
            cache = None
            if "positions" in manifest.files:
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
        return writer.finish(
            replace(
                manifest,
                depth_range=(nearest, farthest),
                subject_distance=distance,
                middle_distance=middle,
                depth_scale="relative",
                depth_mapping=mapping,
                files={},
            )
        )

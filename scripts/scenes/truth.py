"""Depth and visibility by ray casts against a scene's faces: the second half of `make_true_scenes.py`.

A surface point was seen by a camera if it lies inside its picture, nothing stands on the straight line between them,
and the camera that looks now is on the same side of the surface: the back of a leaf is not its front.
"""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np
from mathutils.bvhtree import BVHTree

from ex4d_core.cameras import CameraPath
from sample_views import SIGHT_TOLERANCE


@dataclass(frozen=True, eq=False)
class Faces:
    """All faces of a scene at one time, as triangles in Blender's world.

    Attributes:
        corners: (F, 3, 3) float64.
        tree: finds the first of them along a ray.
    """

    corners: np.ndarray
    tree: BVHTree

    @classmethod
    def of_scene(cls) -> Faces:
        """Those of every mesh in the current file, in the order of its objects."""
        graph, parts = bpy.context.evaluated_depsgraph_get(), []
        for thing in bpy.context.scene.objects:
            if thing.type != "MESH":
                continue
            evaluated = thing.evaluated_get(graph)
            mesh = evaluated.to_mesh()
            mesh.calc_loop_triangles()
            points = np.empty(len(mesh.vertices) * 3, np.float32)
            mesh.vertices.foreach_get("co", points)
            index = np.empty(len(mesh.loop_triangles) * 3, np.int32)
            mesh.loop_triangles.foreach_get("vertices", index)
            matrix = np.array(evaluated.matrix_world)
            world = points.reshape(-1, 3).astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
            parts.append(world[index].reshape(-1, 3, 3))
            evaluated.to_mesh_clear()
        corners = np.concatenate(parts)
        order = np.arange(3 * len(corners)).reshape(-1, 3).tolist()
        return cls(corners, BVHTree.FromPolygons(corners.reshape(-1, 3).tolist(), order, all_triangles=True))

    def first(self, eye: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first face along each ray.

        Args:
            eye: (3,) where all rays start.
            directions: (N, 3), of any length.

        Returns:
            (N,) distance, inf where there is none, and (N,) index of the face, -1 there.
        """
        distances, faces = np.full(len(directions), np.inf), np.full(len(directions), -1)
        start, cast = eye.tolist(), self.tree.ray_cast
        for ray, direction in enumerate(directions.tolist()):
            _, _, face, distance = cast(start, direction)
            if face is not None:
                distances[ray], faces[ray] = distance, face
        return distances, faces

    def sides(self, faces: np.ndarray, eye: np.ndarray) -> np.ndarray:
        """(N,) on which side of each of (N,) faces a point (3,) lies, by its sign."""
        corners = self.corners[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return np.einsum("ni,ni->n", normal, eye - corners[:, 0])


@dataclass(frozen=True, eq=False)
class Sight:
    """What a camera sees, pixel by pixel through their centres.

    Attributes:
        eye: (3,) of the camera.
        points: (N, 3) in Blender's world, not finite where there is nothing; N = H * W.
        faces: (N,) index of the face, -1 there.
        depth: (N,) along z, inf there.
    """

    eye: np.ndarray
    points: np.ndarray
    faces: np.ndarray
    depth: np.ndarray


def look(faces: Faces, camera: CameraPath, frame: int = 0) -> Sight:
    """What one frame of a camera sees."""
    rows, columns = np.indices((camera.height, camera.width)).reshape(2, -1) + 0.5
    lens, to_world = camera.intrinsics[frame], camera.camera_to_world[frame]
    rays = np.stack([(columns - lens[0, 2]) / lens[0, 0], (rows - lens[1, 2]) / lens[1, 1], np.ones(len(rows))], 1)
    eye, directions = to_world[:3, 3], rays @ to_world[:3, :3].T
    distance, hit = faces.first(eye, directions)
    depth = distance / np.linalg.norm(rays, axis=1)
    return Sight(eye, eye + directions * np.where(hit >= 0, depth, np.nan)[:, None], hit, depth)


def was_seen(sight: Sight, asked: np.ndarray, faces: Faces, camera: CameraPath, frame: int) -> np.ndarray:
    """Whether a frame of a camera saw the points of a sight.

    Args:
        sight: the points; their faces have the same index in ``faces``.
        asked: (N,) bool, the points that matter; the others count as not seen.
        faces: the scene when that camera looked.

    Returns:
        (N,) bool.
    """
    lens, pose = camera.intrinsics[frame], camera.world_to_camera[frame]
    eye = camera.camera_to_world[frame, :3, 3]
    x, y, z = (sight.points @ pose[:3, :3].T + pose[:3, 3]).T
    with np.errstate(invalid="ignore", divide="ignore"):
        column, row = x / z * lens[0, 0] + lens[0, 2], y / z * lens[1, 1] + lens[1, 2]
        seen = asked & (z > 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    at = np.flatnonzero(seen & (sight.faces >= 0))
    at = at[faces.sides(sight.faces[at], eye) * faces.sides(sight.faces[at], sight.eye) > 0]
    towards = sight.points[at] - eye
    free, _ = faces.first(eye, towards)
    seen = np.zeros(len(asked), bool)
    seen[at] = free > np.linalg.norm(towards, axis=1) - SIGHT_TOLERANCE
    return seen


def still_faces(all_times: list[Faces]) -> np.ndarray:
    """(F,) bool, the faces that are at the same place in every frame."""
    first = all_times[0].corners
    return np.all([np.abs(faces.corners - first).max(axis=(1, 2)) < 1e-6 for faces in all_times], axis=0)

"""Kernels of `key_frames.py`: which pixels of key frames stand still, and what they show where a frame has a hole.

One source for CPU and CUDA. No thread waits for another, so the results are deterministic.
"""

from __future__ import annotations

from typing import Any

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.struct
class Place:
    """Where a point lies in a source image."""

    z: float
    row: int
    column: int
    inside: bool


@wp.func
def point_at(intrinsics: wp.vec4d, row: int, column: int, z: float) -> wp.vec4d:
    """The point that a pixel's centre shows, in its camera's space."""
    depth = wp.float64(z)
    x = (wp.float64(column) + wp.float64(0.5) - intrinsics[2]) / intrinsics[0] * depth
    y = (wp.float64(row) + wp.float64(0.5) - intrinsics[3]) / intrinsics[1] * depth
    return wp.vec4d(x, y, depth, wp.float64(1.0))


@wp.func
def place_of(point: wp.vec4d, pose: wp.mat44d, intrinsics: wp.vec4d, rows: int, columns: int) -> Place:
    """The pixel that shows a point, if nothing hides it."""
    place = Place()
    there = pose * point
    place.z = float(there[2])
    if there[2] > wp.float64(0.0):
        x = there[0] / there[2] * intrinsics[0] + intrinsics[2]
        y = there[1] / there[2] * intrinsics[1] + intrinsics[3]
        if x >= wp.float64(0.0) and y >= wp.float64(0.0) and x < wp.float64(columns) and y < wp.float64(rows):
            place.inside = True
            place.row = int(y)
            place.column = int(x)
    return place


@wp.func
def is_moving(moving: wp.array3d(dtype=wp.uint8), frame: int, row: int, column: int) -> bool:
    """Whether a mask of what moves, which is empty where there is none, covers a pixel."""
    covered = wp.bool(False)
    if moving.shape[0] > 0:
        covered = moving[frame, row, column] != wp.uint8(0)
    return covered


@wp.func
def nearest_around(depth: wp.array3d(dtype=float), frame: int, row: int, column: int) -> float:
    """The least depth of a pixel and its neighbours, which may show a silhouette that the point is beside."""
    nearest = depth[frame, row, column]
    for y in range(wp.max(row - 1, 0), wp.min(row + 2, depth.shape[1])):
        for x in range(wp.max(column - 1, 0), wp.min(column + 2, depth.shape[2])):
            nearest = wp.min(nearest, depth[frame, y, x])
    return nearest


@wp.func
def color_difference(
    color: wp.array4d(dtype=wp.uint8), a: int, a_row: int, a_column: int, b: int, b_row: int, b_column: int
) -> int:
    """The largest difference of two pixels' channels."""
    largest = int(0)
    for channel in range(3):
        difference = int(color[a, a_row, a_column, channel]) - int(color[b, b_row, b_column, channel])
        largest = wp.max(largest, wp.abs(difference))
    return largest


@wp.kernel
def compare_key_frames(
    first: int,
    span: int,
    depth: wp.array3d(dtype=float),
    color: wp.array4d(dtype=wp.uint8),
    intrinsics: wp.array(dtype=wp.vec4d),
    poses: wp.array2d(dtype=wp.mat44d),
    tolerance: float,
    color_tolerance: int,
    moving: wp.array3d(dtype=wp.uint8),
    agreeing: wp.array3d(dtype=wp.uint8),
    contradicting: wp.array3d(dtype=wp.uint8),
):
    """Count for each pixel the other key frames that see its point where it is, and those that see another thing there.

    A frame contradicts where it looks through the point, or sees another colour at its depth; it has no say where
    something hides the point, or where it does not look.

    Args:
        first: number of the key frame of thread 0.
        poses: from the first key frame's camera space to the second's.
        tolerance: share of the depth within which depths are the same.
        color_tolerance: of 255, within which colours are.
        moving: (K, H, W) of their pixels, by the artist's mask: those neither get votes nor have any. Empty without.
    """
    thread, row, part = wp.tid()
    key = first + thread
    rows = depth.shape[1]
    columns = depth.shape[2]
    for column in range(part * span, wp.min(part * span + span, columns)):
        point = point_at(intrinsics[key], row, column, depth[key, row, column])
        agree = int(0)
        contradict = int(0)
        for other in range(depth.shape[0]):
            if other != key and not is_moving(moving, key, row, column):
                place = place_of(point, poses[key, other], intrinsics[other], rows, columns)
                if place.inside and not is_moving(moving, other, place.row, place.column):
                    vote = int(0)
                    if place.z < nearest_around(depth, other, place.row, place.column) * (1.0 - tolerance):
                        vote = -1
                    for y in range(wp.max(place.row - 1, 0), wp.min(place.row + 2, rows)):
                        for x in range(wp.max(place.column - 1, 0), wp.min(place.column + 2, columns)):
                            there = depth[other, y, x]
                            if vote < 1 and wp.abs(place.z - there) < tolerance * there:
                                vote = -1
                                if color_difference(color, key, row, column, other, y, x) <= color_tolerance:
                                    vote = 1
                    if vote > 0:
                        agree += 1
                    if vote < 0:
                        contradict += 1
        agreeing[key, row, column] = wp.uint8(agree)
        contradicting[key, row, column] = wp.uint8(contradict)


@wp.func
def mean_at_depth(
    drawn: wp.array4d(dtype=Any),
    depth: wp.array3d(dtype=float),
    start: int,
    count: int,
    row: int,
    column: int,
    z: float,
    same: float,
) -> wp.vec3:
    """The mean colour of those of some images whose depth at a pixel is about this one."""
    total = wp.vec3(0.0, 0.0, 0.0)
    weight = float(0.0)
    for key in range(count):
        if wp.abs(depth[start + key, row, column] - z) <= same * z:
            weight += 1.0
            for channel in range(3):
                total[channel] = total[channel] + float(drawn[start + key, row, column, channel])
    return total / weight


@wp.kernel
def recall_unseen(
    first: int,
    span: int,
    views: wp.array(dtype=wp.vec4d),
    key_poses: wp.array2d(dtype=wp.mat44d),
    key_intrinsics: wp.array(dtype=wp.vec4d),
    skipped: wp.array(dtype=int),
    still: wp.array3d(dtype=wp.uint8),
    drawn_color: wp.array4d(dtype=wp.uint8),
    drawn_deep: wp.array4d(dtype=wp.float16),
    drawn_mask: wp.array3d(dtype=wp.uint8),
    drawn_depth: wp.array3d(dtype=float),
    own_poses: wp.array(dtype=wp.mat44d),
    own_intrinsics: wp.array(dtype=wp.vec4d),
    own_depth: wp.array3d(dtype=float),
    wall: wp.array3d(dtype=float),
    hole: wp.array3d(dtype=wp.uint8),
    same: float,
    free: float,
    solid: float,
    color: wp.array4d(dtype=wp.uint8),
    deep_color: wp.array4d(dtype=wp.float16),
    depth: wp.array3d(dtype=float),
    remembered: wp.array3d(dtype=wp.uint8),
):
    """Fill unseen pixels of images from key frames that were drawn from their cameras.

    A key frame's surface counts where it stands still, where this frame's own source image does not look through it,
    and as far as this frame's solid does not hide it. Of the depths on which two key frames agree, the farthest wins;
    the colour is the mean of those that agree on it.

    Args:
        first: number of the image of thread 0.
        views: fx, fy, cx, cy of the new cameras (T).
        key_poses: (T, K), from each new camera's space to the key frames' cameras.
        key_intrinsics: (K), as of the views.
        skipped: (T), the key frame that an image's own frame is itself, or -1.
        still: (K, H, W) of the key frames' pixels.
        drawn_color, drawn_deep, drawn_mask, drawn_depth: (T * K, h, w, ...), the key frames from the new cameras; deep
            colours may be empty. Depths of what does not count are overwritten.
        own_poses, own_intrinsics, own_depth: the frames' source cameras, from the new cameras' spaces, and their depth
            (T, H, W).
        wall: (T, h, w), how far a frame's own solid leaves the ray free.
        hole: (T, h, w), which pixels are unseen.
        same: share of the depth within which two key frames agree.
        free: likewise, by which a point may be before what the frame itself sees.
        solid: likewise, by which it may be behind the frame's solid.
        color, deep_color: (T, h, w, 3), or empty where they are not asked for.
        depth, remembered: (T, h, w).
    """
    thread, row, part = wp.tid()
    t = first + thread
    count = key_poses.shape[1]
    start = t * count
    for column in range(part * span, wp.min(part * span + span, hole.shape[2])):
        remembered[t, row, column] = wp.uint8(0)
        if hole[t, row, column] != wp.uint8(0):
            for key in range(count):
                z = drawn_depth[start + key, row, column]
                known = drawn_mask[start + key, row, column] != wp.uint8(0) and key != skipped[t]
                known = known and z <= wall[t, row, column] * (1.0 + solid)
                if known:
                    point = point_at(views[t], row, column, z)
                    place = place_of(point, key_poses[t, key], key_intrinsics[key], still.shape[1], still.shape[2])
                    known = place.inside and still[key, place.row, place.column] != wp.uint8(0)
                    if known:
                        place = place_of(point, own_poses[t], own_intrinsics[t], own_depth.shape[1], own_depth.shape[2])
                        if place.inside:
                            limit = nearest_around(own_depth, t, place.row, place.column)
                            known = place.z >= limit * (1.0 - free)
                if not known:
                    drawn_depth[start + key, row, column] = wp.inf
            farthest = float(0.0)
            for key in range(count):
                z = drawn_depth[start + key, row, column]
                if z < wp.inf and z > farthest:
                    agree = int(0)
                    for other in range(count):
                        if wp.abs(drawn_depth[start + other, row, column] - z) <= same * z:
                            agree += 1
                    if agree >= 2:
                        farthest = z
            if farthest > 0.0:
                depth[t, row, column] = farthest
                remembered[t, row, column] = wp.uint8(1)
                if color.shape[0] > 0:
                    mean = mean_at_depth(drawn_color, drawn_depth, start, count, row, column, farthest, same)
                    for channel in range(3):
                        color[t, row, column, channel] = wp.uint8(int(mean[channel] + 0.5))
                if deep_color.shape[0] > 0:
                    mean = mean_at_depth(drawn_deep, drawn_depth, start, count, row, column, farthest, same)
                    for channel in range(3):
                        deep_color[t, row, column, channel] = wp.float16(mean[channel])

"""Which frames of some footage have a camera, and cameras between those that have one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from ex4d.media import FootageInfo
from ex4d.media.sequences import IMAGE_SUFFIXES, is_sequence, natural_key, sequence_files

# Frames that a message names; more would fill the screen.
_MOST_NAMED = 8
_LAST_NUMBER = re.compile(r"\d+(?=\D*$)")


def frame_order(names: Sequence[str]) -> list[int]:
    """Indices of images in the order of the frames that they are: by the numbers in their names.

    Images of several folders, such as the splits `train` and `test` of one clip, are ordered by the last number of
    their names, unless two have the same one.
    """
    paths = [PurePosixPath(name.replace("\\", "/")) for name in names]
    numbers = [_LAST_NUMBER.search(path.stem) for path in paths]
    if len({path.parent for path in paths}) > 1 and all(numbers):
        values = [int(number.group()) for number in numbers if number]
        if len(set(values)) == len(values):
            return sorted(range(len(names)), key=values.__getitem__)
    return sorted(range(len(names)), key=lambda index: natural_key(names[index]))


def frames_of_images(names: Sequence[str], footage: FootageInfo) -> list[int] | None:
    """The footage frame that each image is, where fewer images than frames have a camera.

    Args:
        names: of the images, in the order of their frames.
        footage: its files tell the frames by their names; the numbers of the images do for a video, which count from
            the first one if they reach as far as the footage, and else from 0 or 1.

    Returns:
        Ascending; None where the names do not tell the frames.
    """
    stems = [PurePosixPath(name.replace("\\", "/")).stem for name in names]
    if is_sequence(footage.path):
        place = {file.stem: index for index, file in enumerate(sequence_files(footage.path, IMAGE_SUFFIXES))}
        if all(stem in place for stem in stems):
            return _ascending([place[stem] for stem in stems], footage.frames)
    found = [_LAST_NUMBER.search(stem) for stem in stems]
    if not all(found):
        return None
    numbers = [int(number.group()) for number in found if number]
    first = numbers[0]
    if numbers[-1] - first + 1 != footage.frames:
        first = 0 if first == 0 or numbers[-1] < first else 1
    return _ascending([number - first for number in numbers], footage.frames)


def _ascending(frames: list[int], count: int) -> list[int] | None:
    rises = all(one < other for one, other in pairwise(frames))
    return frames if rises and frames[0] >= 0 and frames[-1] < count else None


def image_names(frames: Sequence[int], names: Sequence[str], places: Sequence[int], footage: FootageInfo) -> str:
    """Names of images for people: those of frames without a camera, as the others are named.

    Args:
        frames: without a camera.
        names, places: of the images with one, and their frames.
    """
    if is_sequence(footage.path):
        files = sequence_files(footage.path, IMAGE_SUFFIXES)
        texts = [files[frame].stem for frame in frames]
    else:
        stem = Path(names[0]).stem
        number = _LAST_NUMBER.search(stem)
        texts = [f"frame {frame}" for frame in frames]
        if number is not None:
            first = int(number.group()) - places[0]
            texts = [f"{stem[: number.start()]}{first + frame:0{len(number.group())}d}" for frame in frames]
            texts = [f"{text}{stem[number.end() :]}" for text in texts]
    return ", ".join(texts[:_MOST_NAMED]) + (f" and {len(texts) - _MOST_NAMED} more" * (len(texts) > _MOST_NAMED))


def interpolated_poses(poses: Mapping[int, np.ndarray], frames: int) -> np.ndarray:
    """(T, 4, 4) world to camera: positions and rotations between known ones, linearly in time.

    Args:
        poses: (4, 4) of some frames, the first and the last of all among them.
        frames: how many there are in all.
    """
    known = sorted(poses)
    result = np.empty((frames, 4, 4))
    for frame in range(frames):
        after = min(int(np.searchsorted(known, frame)), len(known) - 1)
        if known[after] == frame:
            result[frame] = poses[frame]
            continue
        one, other = known[after - 1], known[after]
        share = (frame - one) / (other - one)
        start, end = np.linalg.inv(poses[one]), np.linalg.inv(poses[other])
        centre = (1 - share) * start[:3, 3] + share * end[:3, 3]
        # The rotation closest to the mean of both matrices.
        left, _, right = np.linalg.svd((1 - share) * poses[one][:3, :3] + share * poses[other][:3, :3])
        rotation = left @ right
        result[frame] = np.eye(4)
        result[frame, :3, :3], result[frame, :3, 3] = rotation, -rotation @ centre
    return result

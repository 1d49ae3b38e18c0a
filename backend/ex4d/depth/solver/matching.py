"""Which frames are matched with which, and the matches that agree with one rigid scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.depth.solver.features import FeatureDatabase, frame_name
from ex4d.depth.solver.package import SEED, Cancellation, colmap

# Key frames carry the solve, whose time grows faster than their number; the frames between are placed afterwards.
MOST_KEY_FRAMES = 120
_NEIGHBOURS = 6  # key frames that each is matched with, and further ones 2, 4, 8, ... away
_FARTHEST = 64
_PAIRS_AT_ONCE = 48  # between two reports of progress
# Pixels of the working size by which a match may miss its epipolar line: features are precise to a fraction of one.
_MOST_ERROR = 2.0

Pair = tuple[int, int]


def key_frames(frames: int) -> list[int]:
    """Evenly spread frames, the first and the last among them."""
    count = min(frames, MOST_KEY_FRAMES)
    return sorted({round(number) for number in np.linspace(0, frames - 1, count)})


def key_pairs(keys: Sequence[int]) -> list[Pair]:
    """Key frames to match: neighbours, and such that lie further apart, which have more parallax."""
    steps = {*range(1, _NEIGHBOURS + 1), *(2**power for power in range(int(np.log2(_FARTHEST)) + 1))}
    places = range(len(keys))
    return [(keys[one], keys[one + step]) for one in places for step in sorted(steps) if one + step < len(keys)]


def between_pairs(keys: Sequence[int], frames: int) -> list[Pair]:
    """Every other frame with the key frames before and after it."""
    after = np.searchsorted(keys, range(frames))
    return [
        (frame, keys[key])
        for frame in range(frames)
        if keys[after[frame]] != frame
        for key in (after[frame] - 1, after[frame])
    ]


class Matches:
    """Matches features of pairs of frames, and reads what was matched."""

    def __init__(self, features: FeatureDatabase) -> None:
        """Take a database whose features are complete."""
        self._colmap = colmap()
        self._features = features
        self._database: Any = None

    def match(self, pairs: Sequence[Pair], folder: Path, progress: Callable[[float], None]) -> None:
        """Match features, and keep those that agree on an essential or fundamental matrix, or on a homography.

        Args:
            folder: for a list of the pairs.
            progress: called with the share that is done; what it raises ends the work.
        """
        matching, pairing = self._colmap.FeatureMatchingOptions(), self._colmap.ImportedPairingOptions()
        matching.use_gpu = False
        verification = self._colmap.TwoViewGeometryOptions()
        verification.ransac.max_error, verification.ransac.random_seed = _MOST_ERROR, SEED
        cancellation = Cancellation(self._colmap, progress)
        pairing.match_list_path = folder / "pairs.txt"
        self.close()
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            some = pairs[start : start + _PAIRS_AT_ONCE]
            lines = [f"{frame_name(one)} {frame_name(other)}\n" for one, other in some]
            pairing.match_list_path.write_text("".join(lines))
            with cancellation.ending():
                self._colmap.match_image_pairs(
                    self._features.path,
                    matching,
                    pairing,
                    verification,
                    self._colmap.Device.cpu,
                    cancellation_token=cancellation.token,
                )
                cancellation.report((start + len(some)) / len(pairs))

    def of(self, one: int, other: int) -> np.ndarray:
        """(n, 2) int64: numbers of matching features in two frames."""
        geometry = self._opened().read_two_view_geometry(one + 1, other + 1)
        return np.asarray(geometry.inlier_matches, dtype=np.int64).reshape(-1, 2)

    def counts(self) -> Iterator[tuple[Pair, int]]:
        """Every pair that matches, and how many features do."""
        numbers, counts = self._opened().read_two_view_geometry_num_inliers()
        for number, count in zip(numbers, counts, strict=True):
            one, other = self._colmap.pair_id_to_image_pair(number)
            if count:
                yield (one - 1, other - 1), count

    def positions(self, frame: int) -> np.ndarray:
        """(n, 2) float64: where a frame's features are, in pixels of the working size."""
        return np.asarray(self._opened().read_keypoints(frame + 1), dtype=np.float64)[:, :2]

    def _opened(self) -> Any:
        if self._database is None:
            self._database = self._colmap.Database.open(self._features.path)
        return self._database

    def close(self) -> None:
        """Let go of the database's file."""
        if self._database is not None:
            self._database.close()
            self._database = None

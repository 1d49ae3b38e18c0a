"""A figure that compares a result with the original's, its bound, and the files of a case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ex4d_core.archives import ArchiveError, read_npz
from ex4d_core.errors import Ex4dError


class ParityCaseError(Ex4dError):
    """A case whose files are missing, damaged, or not laid out like the golden data."""


@dataclass(frozen=True)
class Comparison:
    """One figure and its bound.

    Attributes:
        name: of the array in the case's file, and how it was computed.
        measure: "relative L2", "IoU", "PSNR dB", "difference" (the largest) or "differences" (how many).
        value: measured.
        bound: the largest allowed value, or the smallest.
        at_least: whether higher is better.
    """

    name: str
    measure: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def right(self) -> bool:
        """Whether the value is within the bound; NaN never is."""
        return bool(self.value >= self.bound if self.at_least else self.value <= self.bound)


def relative_l2(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the length of the difference, over that of the original."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-30))


def compare_arrays(name: str, ours: np.ndarray, theirs: np.ndarray, bound: float) -> Comparison:
    """Compare two arrays by relative L2; NaN, which is off, if their shapes differ."""
    value = relative_l2(ours, theirs) if ours.shape == theirs.shape else float("nan")
    return Comparison(name, "relative L2", value, bound)


def read_case(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read a case's arrays.

    Raises:
        ParityCaseError: the file cannot be read, or one of ``needed`` is missing.
    """
    try:
        case = read_npz(path)
    except (OSError, ArchiveError) as error:
        raise ParityCaseError(f"{path} cannot be read as a case of golden data: {error}") from error
    missing = [name for name in needed if name not in case]
    if missing:
        raise ParityCaseError(f"{path} lacks the arrays {', '.join(missing)}: expected a case like the golden data")
    return case


def read_case_with_weights(prefix: Path, needed: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[Path]]:
    """Read the arrays of a case of the generator, and find its weights: the transformer's and the adapter's file.

    Args:
        prefix: the path of the case's files, with or without ``.npz``.
        needed: arrays that it must have.

    Raises:
        ParityCaseError: see `read_case`; or a file of weights is missing.
    """
    prefix = prefix.with_suffix("") if prefix.suffix == ".npz" else prefix
    case = read_case(prefix.with_name(prefix.name + ".npz"), needed)
    weights = [prefix.with_name(prefix.name + ending) for ending in ("_dit.safetensors", "_adapter.ckpt")]
    for path in weights:
        if not path.is_file():
            raise ParityCaseError(f"{path} is missing beside {prefix.name}.npz")
    return case, weights

"""`Estimate`: the time, memory and disk that a scene, a render or a take needs, before any of it is made.

`scene_estimates` and `shot_estimates` make them. Disk and memory are counted: bytes of arrays, and a bound on what is
held at once. Time is measured where something can be: a few frames are made in a temporary folder, and removed.
Otherwise it follows from stated figures, which each estimate names. Nothing here imports torch before it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ex4d.devices import Devices

# Until the first frame: Python, torch and the kernels, with warm caches.
START_SECONDS = 2.0
TWO_CORES = "from figures measured on two processor cores; decoding, disk and other programs may double it"

# Host memory that the system cannot take back; measured: 320 to 370 MB with torch and Warp imported.
BASE_BYTES = 500_000_000
CUDA_BYTES = 4_000_000_000  # CUDA's libraries keep copies of their code in the host's memory

# Bytes a pixel of a frame in movies, of which noise takes more and a title card nothing.
MOVIE_BYTES = 0.1


@dataclass(frozen=True)
class Estimate:
    """What some work needs.

    Attributes:
        seconds: about, without `START_SECONDS`; None where no figure is known.
        disk_bytes: that stay, about.
        memory_bytes: of the host, at most; without footage that is mapped from disk, which the system may drop.
        gpu_bytes: of GPU memory for full speed, about; 0 if none is needed.
        gpu_least_bytes: below which it does not work.
        basis: where the figures come from, for people.
    """

    seconds: float | None
    disk_bytes: int
    memory_bytes: int
    gpu_bytes: int = 0
    gpu_least_bytes: int = 0
    basis: tuple[str, ...] = ()


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Of work that is done one after the other."""
    result = Estimate(0.0, 0, 0)
    for one in estimates:
        unknown = result.seconds is None or one.seconds is None
        result = Estimate(
            None if unknown else (result.seconds or 0) + (one.seconds or 0),
            result.disk_bytes + one.disk_bytes,
            max(result.memory_bytes, one.memory_bytes),
            max(result.gpu_bytes, one.gpu_bytes),
            max(result.gpu_least_bytes, one.gpu_least_bytes),
            tuple(dict.fromkeys((*result.basis, *one.basis))),
        )
    return result


def time_text(seconds: float | None) -> str:
    """A time that is not known exactly, for people: "about 12 s"."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def on_gpu(device: str) -> bool:
    """Whether a device, or the first of several, is a GPU of this machine."""
    return Devices.parse(device).first != "cpu" and Devices.parse(device).resolve().is_cuda

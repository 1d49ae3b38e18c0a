"""Protocols as files: which cameras, frames, sizes, seeds and metrics a table stands for, and what is left open."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ex4d.evaluation.clips import EvaluationClip, Frames, Task
from ex4d.evaluation.errors import EvaluationError
from ex4d.evaluation.metrics import METRICS
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import RequestError
from ex4d_core.scene import PlacedFootage
from ex4d_core.shot import ENGINES, EngineName
from ex4d_core.trajectories import Trajectory, shot_path
from ex4d_core.wan_settings import DEFAULT_PRESET, WanSettings, wan_preset

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

FOLDER = Path(__file__).parent
Reference = Literal["truth", "source"]


@dataclass(frozen=True)
class AngleRange:
    """Cameras on an arc about the clip's subject.

    Attributes:
        name: of its rows in the report.
        degrees: the first and the last angle, 0 at the source view; between them at even speed.
    """

    name: str
    degrees: tuple[float, float]


@dataclass(frozen=True)
class TakeSettings:
    """How this project makes results of its own for a protocol.

    Attributes:
        engine: of every take.
        wan: of the engine wan; the seed is each task's.
    """

    engine: EngineName = "preview"
    wan: WanSettings = field(default_factory=WanSettings)


@dataclass(frozen=True)
class Protocol:
    """How a data set is evaluated.

    Attributes:
        name: of its file.
        title: for people.
        frames: of every result, 0 for all of the footage.
        size: (width, height) at which everything is measured, () for that of the footage.
        seeds: results a clip and camera, one each.
        metrics: names in `METRICS`.
        reference: what FID and FVD compare with: the true views, or the footage.
        ranges: of cameras; () where the data set has its own.
        open: what the source of the protocol leaves open, and what is done here; sentences for the report.
        generate: how `ex4d evaluate --generate` makes results.
    """

    name: str
    title: str
    frames: int
    size: tuple[int, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    reference: Reference
    ranges: tuple[AngleRange, ...] = ()
    open: tuple[str, ...] = ()
    generate: TakeSettings = field(default_factory=TakeSettings)

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            raise EvaluationError(f"protocol {self.name}: no metric {unknown[0]!r}; there are {', '.join(METRICS)}")
        if self.reference not in ("truth", "source"):
            raise EvaluationError(f"protocol {self.name}: reference must be truth or source, not {self.reference!r}")
        if len(self.size) not in (0, 2) or self.frames < 0 or not self.seeds:
            raise EvaluationError(
                f"protocol {self.name}: expected frames >= 0, a size of two numbers or none, and at least one seed"
            )

    @staticmethod
    def load(name_or_path: str) -> Protocol:
        """One of the package by name, or any .toml file.

        Raises:
            EvaluationError: there is none, or it cannot be used.
        """
        path = Path(name_or_path)
        if path.suffix != ".toml":
            path = FOLDER / f"{name_or_path}.toml"
            if not path.is_file():
                raise EvaluationError(
                    f"no protocol {name_or_path!r}; there are {', '.join(protocol_names())}, and files"
                )
        try:
            stored = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise EvaluationError(f"cannot read the protocol {path}: {error}") from error
        return _protocol(path.stem, stored)

    def tasks(self, clip: EvaluationClip, scene: PlacedFootage | None) -> Iterator[Task]:
        """What every method owes for a clip.

        Args:
            scene: its footage with depth, about whose subject the ranges' arcs turn; None where depth is not known.

        Raises:
            EvaluationError: the protocol has ranges, and the clip no depth.
        """
        source = Frames(clip.source)
        count = self.frames or len(source)
        cameras: list[tuple[str, CameraPath | None]] = [("", clip.camera)]
        if self.ranges:
            if scene is None:
                raise EvaluationError(
                    f"{clip.name} has no depth, which says what the cameras of {self.name} turn about: add depth to it"
                )
            cameras = [(one.name, _arc(scene, one, count)) for one in self.ranges]
        for group, camera in cameras:
            path = None if camera is None else self._placed(camera, clip.name, count)
            for seed in self.seeds:
                parts = [clip.name, group, f"seed-{seed}" if len(self.seeds) > 1 else ""]
                yield Task("/".join(filter(None, parts)), clip, path, seed, group)

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at which a clip of that size is measured."""
        return (self.size[0], self.size[1]) if self.size else (width, height)

    def _placed(self, camera: CameraPath, name: str, count: int) -> CameraPath:
        if len(camera) < count:
            raise EvaluationError(f"{name}: its camera has {len(camera)} frames, and {self.name} asks for {count}")
        camera = camera.frames(0, count)
        return camera.framed(self.size[0], self.size[1]) if self.size else camera


def protocol_names() -> list[str]:
    """Those of the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _arc(scene: PlacedFootage, wanted: AngleRange, count: int) -> CameraPath:
    """A camera that turns about the subject from one angle to another, at even speed."""
    # Each frame is the end of an orbit of its own, so that ranges may begin anywhere.
    ends = [
        shot_path(Trajectory("orbit", amount=angle), scene, frames=2) for angle in np.linspace(*wanted.degrees, count)
    ]
    return replace(
        ends[0],
        world_to_camera=np.stack([one.world_to_camera[-1] for one in ends]),
        intrinsics=np.stack([one.intrinsics[-1] for one in ends]),
    )


def _protocol(name: str, stored: dict[str, Any]) -> Protocol:
    known = {one.name for one in fields(Protocol)} - {"name"}
    unknown, missing = set(stored) - known, known - set(stored) - {"ranges", "open", "generate"}
    if unknown or missing:
        wrong = f"unknown {sorted(unknown)[0]!r}" if unknown else f"{sorted(missing)[0]!r} is missing"
        raise EvaluationError(f"protocol {name}: {wrong}; a protocol has {', '.join(sorted(known))}")
    try:
        ranges = tuple(
            AngleRange(str(one["name"]), (float(one["degrees"][0]), float(one["degrees"][1])))
            for one in stored.pop("ranges", ())
        )
        generate = _take_settings(dict(stored.pop("generate", {})))
        lists = {key: tuple(value) for key, value in stored.items() if isinstance(value, list)}
        return Protocol(**{**stored, **lists}, name=name, ranges=ranges, generate=generate)
    except RequestError as error:
        raise EvaluationError(f"protocol {name}: [generate]: {error}") from error
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise EvaluationError(f"protocol {name} cannot be used: {error!r}") from error


def _take_settings(stored: dict[str, Any]) -> TakeSettings:
    engine = stored.pop("engine", TakeSettings.engine)
    if engine not in ENGINES:
        raise RequestError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    return TakeSettings(engine, wan_preset(stored.pop("preset", DEFAULT_PRESET), **stored))

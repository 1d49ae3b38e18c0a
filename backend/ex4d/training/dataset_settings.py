"""`DatasetSettings`: all that decides what `ex4d dataset build` makes of footage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ex4d.training.mask_settings import MoveSettings, RegionSettings, Share
from ex4d_core.cameras import MAX_SIDE
from ex4d_core.errors import RequestError
from ex4d_core.schema import Length, Option, Range, Settings
from ex4d_core.sources import DepthSettings
from ex4d_core.wan_settings import MAX_PROMPT, MAX_WINDOW, Conditioning, WanSettings

# As of the working size, see `ex4d.generation.wan.conditioning.SIZE_STEP`.
_SIZE_STEP = 16
_SIDES = re.compile(r"(\d{1,5})x(\d{1,5})")


def _sides(text: str) -> tuple[int, int]:
    if not (found := _SIDES.fullmatch(text)):
        raise RequestError(f"invalid size {text!r:.80}: expected WIDTHxHEIGHT, such as 512x512")
    return int(found[1]), int(found[2])


def _estimated() -> DepthSettings:
    return DepthSettings("estimator", "auto")


@dataclass(frozen=True)
class DatasetSettings(Settings):
    """What samples are made of footage.

    Attributes:
        frames: of each sample, 4n + 1.
        size: (width, height) of each sample, multiples of 16; footage is scaled to cover it, and its middle is taken.
        stride: frames between the starts of windows; 0 for as many as a window has, so that none overlap.
        windows: most windows of a clip, evenly chosen; 0 for all.
        masks: samples of each window, each with a mask of its own.
        tracked: share of the samples that have a tracking mask; the others have a rendering mask.
        still: windows whose image changes by less than this mean difference, of 1, show no motion and are dropped.
        prompt: of clips without a caption; "" for none, so that every clip needs one.
        seed: of the masks, and of the order of samples.
        shard_samples: of each shard.
        conditioning: how the first frame is given, see `WanSettings`.
        erosion: see `WanSettings`; drawn for each sample.
        precision: of the encoders, and of what is stored.
        depth: of clips without depth files.
        moves, regions: of the masks.

    Raises:
        RequestError: a field of the wrong type or out of range.
    """

    frames: Annotated[int, Range(5, MAX_WINDOW), Option("frames of each sample, 4n + 1", metavar="N")] = 49
    size: Annotated[
        tuple[Annotated[int, Range(_SIZE_STEP, MAX_SIDE)], Annotated[int, Range(_SIZE_STEP, MAX_SIDE)]],
        Option("size of each sample, multiples of 16; the middle of the footage", metavar="WxH", read=_sides),
    ] = (512, 512)
    stride: Annotated[
        int, Range(0), Option("frames between the starts of windows; 0: as many as a window has", metavar="N")
    ] = 0
    windows: Annotated[int, Range(0), Option("most windows of a clip, evenly chosen; 0: all", metavar="N")] = 0
    masks: Annotated[int, Range(1, 64), Option("masks of each window, each a sample", metavar="N")] = 1
    tracked: Annotated[Share, Option("share of the samples that have a tracking mask")] = 0.3
    still: Annotated[
        float, Range(0, 1), Option("mean change of the image, of 1, below which a window shows no motion")
    ] = 0.01
    prompt: Annotated[
        str, Length(MAX_PROMPT), Option("of clips without a caption (default: every clip needs one)", metavar="TEXT")
    ] = ""
    seed: Annotated[int, Range(0, 2**63 - 1), Option("of masks, and of the order of samples")] = 0
    shard_samples: Annotated[int, Range(1, 100_000), Option("samples of each shard", metavar="N")] = 64
    conditioning: Annotated[
        Conditioning, Option("first frame: eroded as the published weights had it (original), or whole (known)")
    ] = "original"
    erosion: Annotated[
        tuple[Annotated[int, Range(0, 64)], Annotated[int, Range(0, 64)]],
        Option("shrink each mask by a random LOW to HIGH pixels", metavar="LOW,HIGH"),
    ] = (2, 8)
    precision: Annotated[Literal["bf16", "float32"], Option("of the encoders, and of what is stored")] = "bf16"
    depth: DepthSettings = field(default_factory=_estimated)
    moves: MoveSettings = field(default_factory=MoveSettings)
    regions: RegionSettings = field(default_factory=RegionSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames % 4 != 1:
            raise RequestError(f"frames must be 4n + 1 (5, 9, 13...), not {self.frames}")
        if any(side % _SIZE_STEP for side in self.size):
            raise RequestError(f"size must have multiples of {_SIZE_STEP}, not {self.size[0]}x{self.size[1]}")
        if self.erosion[0] > self.erosion[1]:
            raise RequestError(f"erosion must be its smallest, then its largest side, not {self.erosion!r}")
        if self.depth.layout != "estimator":
            raise RequestError(f"depth must be estimated where a clip has no files, not of layout {self.depth.layout}")

    @property
    def step(self) -> int:
        """Frames between the starts of windows."""
        return self.stride or self.frames

    def wan(self, erosion_seed: int) -> WanSettings:
        """The engine's settings that a sample is encoded with."""
        return WanSettings(
            conditioning=self.conditioning,
            erosion=self.erosion,
            erosion_seed=erosion_seed,
            window=self.frames,
            overlap=1,
            max_pixels=0,
            precision=self.precision,
        )


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """How two plain forms of settings differ, a sentence's part for each value."""
    found = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {old!r:.60} and is {new!r:.60}")
    return found

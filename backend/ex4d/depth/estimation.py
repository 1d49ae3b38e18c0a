"""From footage through a model to a `DepthClip`: what every estimator does the same way.

Frames are brought to the model's size as they are decoded; its disparity goes to a temporary file, frame by frame;
and when the clip is read, each frame is turned into depth and brought back up to the footage's size along its edges.
Memory does not grow with the footage's size, nor, but for what a model itself remembers, with its length.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from tempfile import TemporaryFile

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth.cuts import CutFinder, cuts_note
from ex4d.depth.depth_clip import DepthClip, DepthError, ignore_progress
from ex4d.depth.depth_models import DepthModel
from ex4d.depth.edges import EdgeSettings, refined_depth
from ex4d.depth.intrinsics import intrinsics_from
from ex4d.depth.temporal_alignment import Steadier
from ex4d.media import FootageInfo, read_frames

Step = Callable[[str, int], None]
Progress = Callable[[int, int], None]

# Disparity under this share of the clip's largest is all the same: so far away that parallax cannot be seen.
_FARTHEST_SHARE = 0.01
_STEADYING = 0.1  # its share of the work, where frames are estimated one by one
_NEAREST_DEPTH = 10_000 / 3900  # of a relative clip, in scene units: where EX-4D's conversion puts its nearest point


class ClipModel(ABC):
    """A loaded model: frames in, raw disparity out."""

    model: DepthModel

    @abstractmethod
    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that footage of this size is brought to for the model."""

    @abstractmethod
    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """Raw disparity (h, w) float32 of each frame (3, h, w) in [0, 1].

        Args:
            step: told a stage of `work` and how many frames it has done; also called with 0 between. It may raise.
        """

    def work(self) -> dict[str, float]:
        """The share of the work in each stage that `predict` reports."""
        return {"predict": 1.0}

    def depth(self, raw: np.ndarray, lowest: float, highest: float) -> np.ndarray:
        """Depth along z (h, w) float32 from a frame's disparity and the clip's range: by default its inverse."""
        if highest <= 0:
            return np.full(raw.shape, _NEAREST_DEPTH, np.float32)
        return (_NEAREST_DEPTH / np.clip(raw / highest, _FARTHEST_SHARE, 1)).astype(np.float32)

    def focal(self, width: int) -> float | None:
        """Focal length in pixels of a picture this wide, as estimated by the last `predict`, where a model can."""
        return None


class ModelEstimator:
    """A `DepthEstimator` around a clip model.

    Args:
        clip_model: loaded.
        edges: how blurred edges are put right; None leaves them.
        steady: whether per-image models are made steady over time.
        device: where frames are resized and edges put right.
    """

    def __init__(
        self,
        clip_model: ClipModel,
        *,
        edges: EdgeSettings | None = EdgeSettings(),  # noqa: B008 (frozen)
        steady: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self._model = clip_model
        self._edges = edges
        self._steady = steady and not clip_model.model.temporal
        self._device = torch.device(device)

    @property
    def name(self) -> str:
        return self._model.model.name

    @property
    def licence(self) -> str:
        return self._model.model.licence

    def estimate(self, footage: FootageInfo, progress: Progress = ignore_progress) -> DepthClip:
        """Runs the model over the footage.

        Args:
            progress: told frames done and frames in all, many times a second; what it raises ends the work at once.

        Raises:
            DepthError: the model gives no usable depth, or memory does not suffice.
            MediaError: the footage cannot be read to its end.
        """
        width, height = self._model.working_size(footage.width, footage.height)
        store = _FrameStore(height, width)
        finder = CutFinder()
        steadier = Steadier(offset=not self._model.model.metric, device=self._device) if self._steady else None
        waiting: list[tuple[torch.Tensor, bool]] = []  # frames that the model has, and its depth is still to come for

        def frames() -> Iterator[torch.Tensor]:
            for picture in read_frames(footage.path):
                is_cut = finder.look(picture)
                frame = resized_frame(picture, height, width, self._device)
                if steadier is not None:
                    waiting.append((frame, is_cut))
                yield frame

        work = self._model.work()
        if steadier is not None:
            work = {**{stage: (1 - _STEADYING) * share for stage, share in work.items()}, "steady": _STEADYING}
        step = _Meter(work, footage.frames, progress).step
        try:
            for raw in self._model.predict(frames(), step):
                self._check(raw, len(store))
                if steadier is not None:
                    picture, is_cut = waiting.pop(0)
                    steadier.look(picture, torch.from_numpy(raw), is_cut)
                store.append(raw)
            if steadier is not None:
                store = self._steadied(footage, store, steadier, step)
        except torch.cuda.OutOfMemoryError as error:
            raise DepthError(
                f"{self._model.model.title} ran out of GPU memory at {width}x{height}. Close other programs, choose a "
                "smaller estimator, or reconstruct a shorter or smaller clip."
            ) from error
        if len(store) != footage.frames:
            raise DepthError(f"{footage.path}: {footage.frames} frames were promised, {len(store)} came out.")
        progress(footage.frames, footage.frames)
        return self._clip(footage, store, finder.cuts)

    def _steadied(self, footage: FootageInfo, store: _FrameStore, steadier: Steadier, step: Step) -> _FrameStore:
        """Second pass over a clip that `steadier` has looked at."""
        height, width = store.shape
        steady = _FrameStore(height, width)
        for raw, picture in zip(store, read_frames(footage.path), strict=False):
            frame = resized_frame(picture, height, width, self._device)
            steady.append(steadier.steady(frame, torch.from_numpy(raw)).cpu().numpy())
            step("steady", 1)
        return steady

    def _check(self, raw: np.ndarray, index: int) -> None:
        if not np.isfinite(raw).all():
            raise DepthError(
                f"{self._model.model.title} gave no number for frame {index}. Its weights are damaged, or half "
                "precision overflowed: try --full-precision, or another estimator."
            )

    def _clip(self, footage: FootageInfo, store: _FrameStore, cuts: list[int]) -> DepthClip:
        model = self._model

        def read() -> Iterator[np.ndarray]:
            pictures = read_frames(footage.path)
            for raw, picture in zip(store, pictures, strict=True):
                depth = torch.from_numpy(model.depth(raw, store.lowest, store.highest))
                yield refined_depth(depth, picture, self._edges, self._device)

        focal = model.focal(footage.width)
        intrinsics = None
        if focal is not None:
            lens = intrinsics_from(footage.width, footage.height, focal_px=focal)
            intrinsics = np.ascontiguousarray(np.broadcast_to(lens, (footage.frames, 3, 3)))
        notes = (cuts_note(cuts),) if cuts else ()
        if store.highest <= store.lowest:
            notes += ("the estimator sees no depth at all in this footage (is it black?): the scene is flat.",)
        return DepthClip(
            frames=footage.frames,
            height=footage.height,
            width=footage.width,
            intrinsics=intrinsics,
            scale="metric" if model.model.metric else "relative",
            source=model.model.title,
            licence=model.model.licence,
            read=read,
            notes=notes,
        )


class Share:
    """Frames that a network works on all at once, told one after the other while it does.

    Args:
        step: as of `ClipModel.predict`.
        frames: how many there are.
        calls: how often `tick` will be called about.
    """

    def __init__(self, step: Step, stage: str, frames: int, calls: int) -> None:
        self._step, self._stage, self._frames, self._calls = step, stage, frames, calls
        self._ticks = self._told = 0

    def tick(self) -> None:
        """Before each part of the work."""
        self._tell(self._frames * min(self._ticks, self._calls) // self._calls)
        self._ticks += 1

    def finish(self) -> None:
        """After the last one."""
        self._tell(self._frames)

    def _tell(self, done: int) -> None:
        self._step(self._stage, done - self._told)
        self._told = done


class _Meter:
    """Frames done in each stage of the work to one number of frames done."""

    def __init__(self, shares: dict[str, float], frames: int, progress: Progress) -> None:
        self._shares, self._frames, self._progress = shares, frames, progress
        self._done = dict.fromkeys(shares, 0)

    def step(self, stage: str, frames: int) -> None:
        self._done[stage] += frames
        share = sum(self._shares[name] * done for name, done in self._done.items())
        self._progress(min(self._frames, math.floor(share + 1e-6)), self._frames)


class _FrameStore:
    """Frames (h, w) float32 in a temporary file that the system removes, and their range."""

    def __init__(self, height: int, width: int) -> None:
        self.shape, self._file, self._count = (height, width), TemporaryFile(), 0  # noqa: SIM115 (lives as long as this)
        self.lowest, self.highest = math.inf, -math.inf

    def __len__(self) -> int:
        return self._count

    def append(self, frame: np.ndarray) -> None:
        frame = np.ascontiguousarray(frame, np.float32)
        if frame.shape != self.shape:
            raise ValueError(f"a frame of {frame.shape} does not belong among those of {self.shape}")
        self._file.seek(self._count * frame.nbytes)
        self._file.write(frame.data)
        self.lowest, self.highest = min(self.lowest, float(frame.min())), max(self.highest, float(frame.max()))
        self._count += 1

    def __iter__(self) -> Iterator[np.ndarray]:
        size = 4 * math.prod(self.shape)
        for index in range(self._count):
            self._file.seek(index * size)
            yield np.frombuffer(bytearray(self._file.read(size)), np.float32).reshape(self.shape)


def resized_frame(picture: np.ndarray, height: int, width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """A decoded frame (H, W, 3) uint8 as (3, height, width) float32 in [0, 1], bicubic without aliasing."""
    frame = torch.from_numpy(picture).to(device).permute(2, 0, 1)[None].float() / 255
    if frame.shape[2:] != (height, width):
        frame = F.interpolate(frame, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    return frame[0]


def pieces(frames: Iterable[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
    """Frames stacked in pieces of up to `count`."""
    source = iter(frames)
    while piece := list(islice(source, count)):
        yield torch.stack(piece)


def sides_of_patches(width: int, height: int, shorter: int, patch: int, widest_ratio: float) -> tuple[int, int]:
    """(width, height) in whole patches with the shorter side near `shorter` pixels.

    Pictures longer than `widest_ratio` get a shorter side that keeps the number of pixels in bounds.
    """
    ratio = max(width, height) / min(width, height)
    if ratio > widest_ratio:
        shorter = shorter * widest_ratio / ratio
    scale = shorter / min(width, height)
    return tuple(max(patch, round(side * scale / patch) * patch) for side in (width, height))

"""Runs a model over footage and returns a `DepthClip`; shared by all estimators.

Frames are resized to the model's size as they are decoded; its disparity goes to a temporary file, frame by frame;
and when the clip is read, each frame is converted to depth, rid of noise, and upsampled to the footage's size along
its edges.
Memory does not grow with the footage's size, nor, except for a model's own memory, with its length. The footage
is decoded once; refining along its edges takes the frames that the reader of the clip holds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ex4d.depth.cut_detection import CutDetector, cuts_note
from ex4d.depth.depth_clip import DepthClip, DepthError, FrameProgress, ignore_frame_progress
from ex4d.depth.depth_models import DepthModel
from ex4d.depth.depth_settings import EdgeSettings
from ex4d.depth.edges import refined_depth
from ex4d.depth.frame_store import FrameStore
from ex4d.depth.intrinsics import intrinsics_from
from ex4d.depth.noise import depth_without_noise
from ex4d.depth.shot_cameras import ShotCameras
from ex4d.depth.temporal_alignment import TemporalAligner
from ex4d.media import FootageInfo, read_frames
from ex4d_core.cameras import CameraPath
from ex4d_core.depth_mapping import NEAREST_DEPTH, DepthMapping

# Called with a stage of the work and how many more of its frames are done, often with 0. It may raise.
Step = Callable[[str, int], None]

# Disparity under this share of the clip's largest is all the same: so far away that parallax cannot be seen.
_FARTHEST_SHARE = 0.01
_ALIGNMENT = 0.1  # its share of the work, where frames are estimated one by one


class ClipModel(ABC):
    """A loaded model: frames in, raw disparity out.

    Attributes:
        model: its entry in the catalogue.
        stages: the share of the work in each stage that `predict` reports.
        farthest_share: disparity under this share of the clip's largest is all the same.
    """

    model: DepthModel
    farthest_share: ClassVar[float] = _FARTHEST_SHARE
    stages: ClassVar[Mapping[str, float]] = {"predict": 1.0}

    @abstractmethod
    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that footage of this size is resized to for the model."""

    @abstractmethod
    def predict(self, frames: Iterable[torch.Tensor], step: Step) -> Iterator[np.ndarray]:
        """Raw disparity (h, w) float32 of each frame.

        Args:
            frames: (3, h, w) in [0, 1] each, of the working size.
            step: called as the work advances; what it raises ends the work.
        """

    def relative(self, raw: np.ndarray, lowest: float, highest: float) -> np.ndarray:
        """Disparity (h, w) of a frame relative to the clip's largest, from the clip's range."""
        return raw / highest if highest > 0 else np.ones_like(raw)

    def depth(self, raw: np.ndarray, lowest: float, highest: float) -> np.ndarray:
        """Depth along z (h, w) float32 from a frame's disparity and the clip's range: by default its inverse."""
        return self.mapping.depth(self.relative(raw, lowest, highest))

    @property
    def mapping(self) -> DepthMapping:
        """How the relative disparity of a relative model becomes depth, unless another mapping is asked for."""
        return DepthMapping(NEAREST_DEPTH, far_limit=1 / self.farthest_share)

    def unit(self, highest: float) -> float:
        """Scene units of one unit of 1 / disparity, from the clip's largest disparity; as `depth` has it."""
        return NEAREST_DEPTH * highest

    def focal(self, width: int) -> float | None:
        """Focal length in pixels of an image this wide, as estimated by the last `predict`, where a model can."""
        return None

    def cameras(self, width: int, height: int) -> CameraPath | None:
        """The cameras of the last `predict`, for images of this size, where a model finds them out.

        Returns:
            One for each frame, in the first one's world, with positions in units of 1 / disparity.
        """
        return None


class ModelEstimator:
    """A `DepthEstimator` around a clip model.

    Args:
        clip_model: loaded.
        edges: how blurred edges are refined; None leaves them.
        noise_filter: whether depth whose pixels are noisy is smoothed.
        temporal_alignment: whether the depth of per-image models is aligned over time.
        device: where frames are resized and edges refined.
    """

    def __init__(
        self,
        clip_model: ClipModel,
        *,
        edges: EdgeSettings | None = EdgeSettings(),  # noqa: B008 (frozen)
        noise_filter: bool = True,
        temporal_alignment: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self._model = clip_model
        self._edges, self._filter_noise = edges, noise_filter
        self._align = temporal_alignment and not clip_model.model.temporal
        self._device = torch.device(device)

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return self._model.model.name

    @property
    def licence(self) -> str:
        """The licence of its weights, for display."""
        return self._model.model.licence

    def estimate(self, footage: FootageInfo, progress: FrameProgress = ignore_frame_progress) -> DepthClip:
        """Runs the model over the footage.

        Args:
            footage: of `ex4d.media.probe`.
            progress: called with frames done and frames in all, many times a second; what it raises ends the work at
                once.

        Raises:
            DepthError: the model produces no usable depth, or memory does not suffice.
            MediaError: the footage cannot be read to its end.
        """
        width, height = self._model.working_size(footage.width, footage.height)
        store, detector = FrameStore(), CutDetector()
        cameras = ShotCameras(self._model, footage.width, footage.height)
        aligner = TemporalAligner(not self._model.model.metric, self._device) if self._align else None
        pending: deque[tuple[torch.Tensor, bool]] = deque()  # frames that the model has and whose depth is to come

        def frames() -> Iterator[torch.Tensor]:
            for image in read_frames(footage.path, count=footage.frames):
                is_cut = detector.begins_shot(image)
                frame = resized_frame(image, height, width, self._device)
                if aligner is not None:
                    pending.append((frame, is_cut))
                yield frame

        stages = dict(self._model.stages)
        if aligner is not None:
            stages = {**{stage: (1 - _ALIGNMENT) * share for stage, share in stages.items()}, "align": _ALIGNMENT}
        step = _WeightedProgress(stages, footage.frames, progress).step
        try:
            for raw in cameras.predict(frames(), lambda: len(detector.cuts), step):
                self._require_finite(raw, len(store))
                if aligner is not None:
                    frame, is_cut = pending.popleft()
                    aligner.observe(frame, torch.from_numpy(raw), is_cut)
                store.append(raw)
            if aligner is not None:
                estimated, store = store, FrameStore()
                for disparity in aligner.aligned(map(torch.from_numpy, estimated)):
                    store.append(disparity.cpu().numpy())
                    step("align", 1)
        except torch.cuda.OutOfMemoryError as error:
            raise DepthError(
                f"{self._model.model.title} ran out of GPU memory at {width}x{height}. Close other programs, choose a "
                "smaller estimator, or reconstruct a shorter or smaller clip."
            ) from error
        progress(footage.frames, footage.frames)
        return self._clip(footage, store, cameras, detector.cuts)

    def _require_finite(self, raw: np.ndarray, index: int) -> None:
        if not np.isfinite(raw).all():
            raise DepthError(
                f"{self._model.model.title} produced NaN or infinity in frame {index}. Its weights are damaged, or "
                "half precision overflowed: try --full-precision, or another estimator."
            )

    def _clip(self, footage: FootageInfo, store: FrameStore, cameras: ShotCameras, cuts: list[int]) -> DepthClip:
        model = self._model

        metric = model.model.metric

        def read() -> Iterator[np.ndarray]:
            stored = model.depth if metric else model.relative
            return (stored(raw, store.lowest, store.highest) for raw in store)

        def refine(depth: np.ndarray, frame: np.ndarray) -> np.ndarray:
            if self._filter_noise:
                depth = depth_without_noise(depth, self._device)
            return refined_depth(torch.from_numpy(depth), frame, self._edges, self._device)

        focal = model.focal(footage.width)
        intrinsics = cameras.intrinsics
        if focal is not None:
            matrix = intrinsics_from(footage.width, footage.height, focal_px=focal)
            intrinsics = np.ascontiguousarray(np.broadcast_to(matrix, (footage.frames, 3, 3)))
        notes = (*((cuts_note(cuts),) if cuts else ()), *cameras.notes)
        if store.highest <= store.lowest:
            notes += ("the estimator found no depth in this footage (is it black?): the scene is flat.",)
        return DepthClip(
            footage=footage,
            intrinsics=intrinsics,
            scale="metric" if metric else "relative",
            source=model.model.title,
            licence=model.model.licence,
            read=read,
            refine=refine,
            notes=notes,
            camera=cameras.path(model.unit(store.highest)),
            mapping=None if metric else model.mapping,
        )


@contextmanager
def before_each(modules: Iterable[nn.Module], call: Callable[[], None]) -> Iterator[None]:
    """Within the block, `call` is called before each pass through one of the modules; it may raise, which ends it."""
    handles = [module.register_forward_pre_hook(lambda *_: call()) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class StageProgress:
    """Frames that a network works on all at once, reported one after the other while it does.

    Args:
        step: as of `ClipModel.predict`.
        stage: of the work.
        frames: how many there are.
        calls: about how often `tick` will be called.
    """

    def __init__(self, step: Step, stage: str, frames: int, calls: int) -> None:
        self._step, self._stage, self._frames, self._calls = step, stage, frames, calls
        self._ticks = self._reported = 0

    def tick(self) -> None:
        """Before each part of the work."""
        self._report(self._frames * min(self._ticks, self._calls) // self._calls)
        self._ticks += 1

    def finish(self) -> None:
        """After the last one."""
        self._report(self._frames)

    def _report(self, done: int) -> None:
        self._step(self._stage, done - self._reported)
        self._reported = done


class _WeightedProgress:
    """Frames done in each stage of the work to one number of frames done."""

    def __init__(self, stages: Mapping[str, float], frames: int, progress: FrameProgress) -> None:
        self._stages, self._frames, self._progress = stages, frames, progress
        self._done = dict.fromkeys(stages, 0)

    def step(self, stage: str, frames: int) -> None:
        self._done[stage] += frames
        share = sum(self._stages[name] * done for name, done in self._done.items())
        self._progress(min(self._frames, math.floor(share + 1e-6)), self._frames)


def resized_frame(image: np.ndarray, height: int, width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """A decoded frame (H, W, 3) uint8 as (3, height, width) float32 in [0, 1], bicubic without aliasing."""
    frame = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255
    if frame.shape[2:] != (height, width):
        frame = F.interpolate(frame, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    return frame[0]


def batches(frames: Iterable[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
    """Frames stacked in batches of up to `count`."""
    source = iter(frames)
    while batch := list(islice(source, count)):
        yield torch.stack(batch)


def size_in_patches(width: int, height: int, shorter: int, patch: int, widest_ratio: float) -> tuple[int, int]:
    """(width, height) in whole patches with the shorter side near `shorter` pixels.

    Images longer than `widest_ratio` get a shorter side that keeps the number of pixels in bounds.
    """
    ratio = max(width, height) / min(width, height)
    side = shorter * widest_ratio / ratio if ratio > widest_ratio else shorter
    scale = side / min(width, height)
    return max(patch, round(width * scale / patch) * patch), max(patch, round(height * scale / patch) * patch)

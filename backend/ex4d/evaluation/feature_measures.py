"""Similarities of CLIP features, and the features whose sets FID and FVD compare."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ex4d.evaluation.clips import Frames
from ex4d.evaluation.inputs import NotMeasuredError, ResultInputs
from ex4d.evaluation.networks import Features, Networks

_BATCH = 8  # pictures
FEWEST_I3D_FRAMES = 10  # fewer leave nothing for its last pooling
# A covariance of fewer samples than two is none, and one of few is far from that of many: what reports warn of.
FEWEST_SAMPLES, FEW_SAMPLES = 2, 2048


@torch.inference_mode()
def measure_clip(inputs: ResultInputs, wanted: frozenset[str]) -> dict[str, float]:
    """Cosines of CLIP features to the footage, and from frame to frame.

    Raises:
        WeightsMissingError: its network is not here.
        NotMeasuredError: the result is one frame.
    """
    embed = inputs.networks.clip()
    made = _features(embed, inputs.result)
    found: dict[str, float] = {}
    if "clip_source" in wanted:
        source = _features(embed, inputs.source)
        count = min(len(made), len(source))
        found["clip_source"] = float((made[:count] * source[:count]).sum(axis=1).mean())
    if "clip_frames" in wanted:
        if len(made) < 2:
            raise NotMeasuredError("one frame alone has no neighbours")
        found["clip_frames"] = float((made[1:] * made[:-1]).sum(axis=1).mean())
    return found


@torch.inference_mode()
def inception_features(frames: Frames, networks: Networks) -> np.ndarray:
    """(T, 2048) float32.

    Raises:
        WeightsMissingError: the network is not here.
    """
    return _features(networks.inception(), frames)


@torch.inference_mode()
def i3d_features(frames: Frames, networks: Networks) -> np.ndarray:
    """(1, 400) float32.

    Raises:
        WeightsMissingError: the network is not here.
        NotMeasuredError: too few frames for it.
    """
    if len(frames) < FEWEST_I3D_FRAMES:
        raise NotMeasuredError(f"FVD needs {FEWEST_I3D_FRAMES} frames of a video, and this one has {len(frames)}")
    return networks.i3d()(frames.array())


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """FID's distance between two sets of features (N, D), by torch-fidelity: covariances over N - 1.

    Raises:
        NotMeasuredError: too few samples.
    """
    return _distance(*map(_statistics, (one, other)))


def video_distance(one: np.ndarray, other: np.ndarray) -> float:
    """FVD's distance between two sets of features (N, D), as cd-fvd publishes it: covariances over N.

    Raises:
        NotMeasuredError: too few samples.
    """
    statistics = [_statistics(each) for each in (one, other)]
    for each, found in zip((one, other), statistics, strict=True):
        found["sigma"] = found["sigma"] * (len(each) - 1) / len(each)
    return _distance(*statistics)


def _statistics(features: np.ndarray) -> dict[str, np.ndarray]:
    """Mean "mu" (D,) and covariance "sigma" (D, D)."""
    from torch_fidelity.metric_fid import fid_features_to_statistics

    if len(features) < FEWEST_SAMPLES:
        raise NotMeasuredError(f"a Fréchet distance needs {FEWEST_SAMPLES} samples, not {len(features)}")
    return fid_features_to_statistics(torch.from_numpy(np.asarray(features, np.float64)))


def _distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    return fid_statistics_to_metric(one, other, verbose=False)[KEY_METRIC_FID]


def _features(embed: Features, frames: Frames) -> np.ndarray:
    return np.concatenate([embed(batch) for batch in _batches(frames)])


def _batches(frames: Frames) -> Iterator[np.ndarray]:
    held: list[np.ndarray] = []
    for frame in frames:
        held.append(frame)
        if len(held) == _BATCH:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)

"""What can be said without a true view: how well a result keeps what the footage saw, and how it flickers elsewhere."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.evaluation.inputs import NotMeasuredError, ResultInputs, as_tensor
from ex4d.evaluation.pixel_measures import FEWEST_PIXELS, psnr

_RIM_PIXELS = 2  # at the rim of what was seen, where a pixel mixes both


def measure_seen(inputs: ResultInputs, wanted: frozenset[str]) -> dict[str, float]:
    """Fidelity of seen pixels to the footage's own, and flicker of the others.

    Raises:
        NotMeasuredError: depth or camera is unknown, or there are no such pixels.
    """
    if inputs.seen is None or inputs.render is None:
        raise NotMeasuredError("neither depth nor a camera says what the footage saw of it")
    found: dict[str, float] = {}
    if "seen_psnr" in wanted:
        found["seen_psnr"] = _fidelity(inputs, _rendered(inputs, inputs.seen), inputs.render)
    if "flicker" in wanted:
        found["flicker"] = _flicker(inputs, ~inputs.seen)
    return found


def _rendered(inputs: ResultInputs, seen: np.ndarray) -> np.ndarray:
    """Where there are pixels to compare with, of those that a data set says were seen."""
    return seen if inputs.rendered is None else seen & inputs.rendered


def _fidelity(inputs: ResultInputs, seen: np.ndarray, render: np.ndarray) -> float:
    decibels = []
    for made, known, mask in zip(inputs.result, render, seen, strict=False):
        inner = _shrunk(torch.from_numpy(mask).to(inputs.device), _RIM_PIXELS)
        if int(inner.sum()) < FEWEST_PIXELS:
            continue
        decibels.append(psnr(as_tensor(made, inputs.device), as_tensor(known, inputs.device), inner))
    if not decibels:
        raise NotMeasuredError("the footage saw nothing of it")
    return float(np.mean(decibels))


def _flicker(inputs: ResultInputs, unseen: np.ndarray) -> float:
    changes: list[float] = []
    frames: list[torch.Tensor] = []
    for index, made in enumerate(inputs.result):
        frames = [*frames[-2:], as_tensor(made, inputs.device)]
        if len(frames) < 3:
            continue
        region = torch.from_numpy(unseen[index - 2 : index + 1].all(axis=0)).to(inputs.device)
        if int(region.sum()) >= FEWEST_PIXELS:
            second = (frames[2] - 2 * frames[1] + frames[0])[0][:, region]
            changes.append(255 * float(second.abs().mean()) / 2)
    if not changes:
        raise NotMeasuredError("the footage saw nearly all of it: there is nothing else to flicker")
    return float(np.mean(changes))


def _shrunk(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """(H, W) bool without its rim."""
    side = 2 * pixels + 1
    return F.max_pool2d((~mask).float()[None, None], side, stride=1, padding=pixels)[0, 0] == 0

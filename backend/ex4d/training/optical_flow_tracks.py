"""Dense tracks through a clip whose camera is not known, by optical flow with forward-backward checks.

The flow is scikit-image's iterative Lucas-Kanade: small, well kept, free for any use, and without weights.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from torch.nn import functional

from ex4d.installation import install_command
from ex4d.media.pixels import resized
from ex4d.training.errors import TrainingDataError

# Flow is found at this many pixels of the longer side at most: motion that hides regions is coarser than that.
_LONGER_SIDE = 256
_RADIUS = 5  # pixels of the window around each pixel that is matched
_WARPS = 5  # iterations at each size of the image; more change little between neighbouring frames


def tracked_from(frames: np.ndarray, start: int, flow_error: float) -> torch.Tensor:
    """Where in frame ``start`` the pixels of all frames come from.

    Args:
        frames: (T, H, W, 3) uint8.
        flow_error: how far a step may miss its start, forwards and backwards, pixels.

    Returns:
        (T, H, W, 2) float32, x and y in pixels of the frame, centres at +0.5; NaN where a track is lost.

    Raises:
        TrainingDataError: scikit-image is not installed.
    """
    _require_scikit_image()
    count, height, width = frames.shape[:3]
    scale = min(1.0, _LONGER_SIDE / max(height, width))
    small = max(8, round(width * scale)), max(8, round(height * scale))
    gray = [_gray(frame, *small) for frame in frames]
    columns, rows = torch.meshgrid(torch.arange(small[0]) + 0.5, torch.arange(small[1]) + 0.5, indexing="xy")
    own = torch.stack([columns, rows], dim=-1)
    found = [own] * count
    for order in (range(start + 1, count), range(start - 1, -1, -1)):
        track = own
        for frame in order:
            before = frame - 1 if frame > start else frame + 1
            track = _step(track, gray[before], gray[frame], flow_error * scale)
            found[frame] = track
    unit = torch.tensor([width / small[0], height / small[1]])
    return torch.stack([_enlarged(track * unit, height, width) for track in found])


def _step(track: torch.Tensor, before: np.ndarray, now: np.ndarray, allowed: float) -> torch.Tensor:
    """The track (h, w, 2) of a frame, from that of the frame before it on the track; both gray."""
    back, forth = _flow(now, before), _flow(before, now)
    source = _pixel_centres(back) + back
    missed = (back + _sampled(forth, source)).norm(dim=-1)
    inside = ((source > 0) & (source < torch.tensor(back.shape[1::-1]))).all(dim=-1)
    return torch.where((inside & (missed <= allowed))[..., None], _sampled(track, source), torch.nan)


def _flow(reference: np.ndarray, moving: np.ndarray) -> torch.Tensor:
    """(h, w, 2) x and y from each pixel of an image to the same point in another."""
    from skimage.registration import optical_flow_ilk

    down, right = optical_flow_ilk(reference, moving, radius=_RADIUS, num_warp=_WARPS, prefilter=True, dtype=np.float32)
    return torch.from_numpy(np.stack([right, down], axis=-1))


def _pixel_centres(like: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in like.shape[:2]), indexing="ij")
    return torch.stack([columns, rows], dim=-1)


def _sampled(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Values (h, w, 2) at places (h, w, 2) in pixels, bilinear; NaN beside a NaN."""
    unit = places / torch.tensor(values.shape[1::-1]) * 2 - 1
    sampled = functional.grid_sample(
        values.permute(2, 0, 1)[None], unit[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0].permute(1, 2, 0)


def _enlarged(track: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if track.shape[:2] == (height, width):
        return track
    return functional.interpolate(track.permute(2, 0, 1)[None], (height, width), mode="bilinear")[0].permute(1, 2, 0)


def _gray(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    return resized(frame, width, height).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255


def _require_scikit_image() -> None:
    if importlib.util.find_spec("skimage") is None:
        raise TrainingDataError(
            "hidden regions follow optical flow where the camera is not known, which needs scikit-image: "
            f"{install_command('train')}, or choose --tracks mesh"
        )


def levels_along(track: torch.Tensor, levels: torch.Tensor, never: int) -> torch.Tensor:
    """The levels (T, H, W) of tracked pixels, from those (H, W) of the frame that tracks start from."""
    height, width = levels.shape
    lost = torch.isnan(track).any(dim=-1)
    places = torch.where(lost[..., None], 0.0, track)
    columns, rows = places[..., 0].long().clamp(0, width - 1), places[..., 1].long().clamp(0, height - 1)
    return torch.where(lost, never, levels.cpu()[rows, columns])

"""Differences to the true view, over all pixels, and over those that the footage saw and did not see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ex4d.evaluation.inputs import NotMeasuredError, ResultInputs, as_tensor

# A region of fewer pixels in a frame says nothing of it.
FEWEST_PIXELS = 64
_SSIM_RIM = 5  # pixels, half of its window of 11
# Of equal pictures, whose PSNR is infinite: what a difference of a thousandth of an 8-bit step has.
BEST_PSNR = 108.0


def measure_pixels(inputs: ResultInputs, wanted: frozenset[str]) -> dict[str, float]:
    """PSNR, SSIM, LPIPS by region, and the temporal error: those of them that are wanted.

    Raises:
        NotMeasuredError: there is no true view.
        WeightsMissingError: LPIPS is wanted and its network not here.
    """
    truth = inputs.true_view()
    lpips = inputs.networks.lpips() if "lpips" in wanted else None
    figures: dict[str, list[float]] = {}
    before: tuple[torch.Tensor, torch.Tensor] | None = None
    for index, pair in enumerate(zip(inputs.result, truth, strict=False)):
        made, true = (as_tensor(image, inputs.device) for image in pair)
        if "temporal_error" in wanted and before is not None:
            change = (made - before[0]) - (true - before[1])
            figures.setdefault("temporal_error", []).append(255 * float(change.abs().mean()))
        before = made, true
        distances: torch.Tensor | None = None
        for region, mask in _regions(inputs.seen, index, inputs.device):
            if "psnr" in wanted:
                figures.setdefault(f"psnr{region}", []).append(psnr(made, true, mask))
            if "ssim" in wanted:
                figures.setdefault(f"ssim{region}", []).append(_ssim(made, true, mask))
            if lpips is not None and mask is None:
                figures.setdefault("lpips", []).append(float(lpips.whole(made, true)))
            elif lpips is not None:
                distances = lpips.spatial(made, true) if distances is None else distances
                figures.setdefault(f"lpips{region}", []).append(_mean(distances, mask))
    if not figures:
        raise NotMeasuredError("one frame alone has no change in time")
    return {name: float(np.mean(values)) for name, values in figures.items()}


def _regions(seen: np.ndarray | None, index: int, device: torch.device) -> Iterator[tuple[str, torch.Tensor | None]]:
    """The whole frame, then the parts of it that are large enough to measure."""
    yield "", None
    if seen is None:
        return
    mask = torch.from_numpy(seen[index]).to(device)
    for name, region in (("/seen", mask), ("/unseen", ~mask)):
        if int(region.sum()) >= FEWEST_PIXELS:
            yield name, region


def psnr(made: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None) -> float:
    """Decibels between two pictures (1, 3, H, W) in 0 to 1, over a mask (H, W) or all pixels; at most `BEST_PSNR`."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    if mask is not None:
        made, true = made[0][:, mask], true[0][:, mask]
    if torch.equal(made, true):
        return BEST_PSNR
    return min(BEST_PSNR, float(peak_signal_noise_ratio(made, true, data_range=1.0)))


def _ssim(made: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, each = structural_similarity_index_measure(made, true, data_range=1.0, return_full_image=True)
    # The rim, where the window sees mirrored pixels, does not count: as in the metric's first publication.
    inner = np.s_[_SSIM_RIM:-_SSIM_RIM, _SSIM_RIM:-_SSIM_RIM] if min(each.shape[-2:]) > 2 * _SSIM_RIM else np.s_[:, :]
    if mask is not None and not mask[inner].any():
        inner = np.s_[:, :]
    return _mean(each.mean(dim=1, keepdim=True)[:, :, inner[0], inner[1]], None if mask is None else mask[inner])


def _mean(values: torch.Tensor, mask: torch.Tensor | None) -> float:
    """Of (1, 1, H, W), over a mask (H, W)."""
    return float(values.mean() if mask is None else values[0, 0][mask].mean())

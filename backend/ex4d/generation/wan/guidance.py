"""Classifier-free guidance, also by CFG-Zero*, and velocities of steps that leave the network out."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def guide(velocities: Sequence[torch.Tensor], guidance: float, *, zero_star: bool = False) -> torch.Tensor:
    """Combine the velocities of the positive and the negative prompt; one alone is returned as it is.

    Args:
        guidance: scale; 1 is the positive prompt's.
        zero_star: scale the negative prompt's velocity first, so that it comes as near to the positive one's as it can
            (CFG-Zero*, Fan et al. 2025, equation 9).
    """
    if len(velocities) == 1:
        return velocities[0]
    positive, negative = velocities
    if zero_star:
        negative = negative * ((positive * negative).sum() / negative.square().sum().clamp_min(1e-12))
    return negative + guidance * (positive - negative)


class VelocityHistory:
    """The last two velocities that the network computed for a prompt, and the line through them.

    Extrapolated is the velocity itself, by sigma, to first order: a Taylor series as TaylorSeer's (Liu et al. 2025),
    but of the network's result instead of every block's, so that it costs no memory and no pass over it.
    """

    def __init__(self) -> None:
        self._known: list[tuple[float, torch.Tensor]] = []

    def add(self, sigma: float, velocity: torch.Tensor) -> None:
        """Keep what was computed at a smaller sigma than all before."""
        self._known = [*self._known[-1:], (sigma, velocity)]

    def at(self, sigma: float) -> torch.Tensor:
        """Return the velocity there: what was computed, or an extrapolation; something was added before."""
        last, velocity = self._known[-1]
        if sigma == last or len(self._known) == 1:
            return velocity
        before, previous = self._known[0]
        return velocity + (sigma - last) / (last - before) * (velocity - previous)

"""Errors of weights: missing files, and damaged or unexpected checkpoints."""

from __future__ import annotations

from ex4d_core.errors import Ex4dError


class WeightsMissingError(Ex4dError):
    """Weights that are not on this machine and cannot be fetched as asked; says which command or setting helps."""


class CheckpointError(Ex4dError):
    """A file of weights that is damaged, incomplete, or of another model; the message names the file and the keys."""

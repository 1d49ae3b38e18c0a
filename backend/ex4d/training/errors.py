"""What a user of training data can act on."""

from __future__ import annotations

from ex4d_core.errors import Ex4dError


class TrainingDataError(Ex4dError):
    """Footage, captions or settings that no data set can be made of, or a data set that cannot be trained on."""


class SampleError(TrainingDataError):
    """A training sample with tensors that are missing, of a wrong shape or type, or not finite."""


class ShardError(TrainingDataError):
    """A shard that is missing, cut off, changed, or holds a bad sample; the message names it."""

"""What a user of training data, or of the trainer, can act on."""

from __future__ import annotations

from ex4d.installation import install_command
from ex4d_core.errors import Ex4dError


class TrainingDataError(Ex4dError):
    """Footage, captions or settings that no data set can be made of, or a data set that cannot be trained on."""


class SampleError(TrainingDataError):
    """A training sample with tensors that are missing, of a wrong shape or type, or not finite."""


class ShardError(TrainingDataError):
    """A shard that is missing, cut off, changed, or holds a bad sample; the message names it."""


class TrainingError(Ex4dError):
    """A training run cannot start or continue."""


class TrainingUnavailableError(TrainingError):
    """Packages of the extra `train` are not installed."""

    @classmethod
    def without(cls, error: ImportError) -> TrainingUnavailableError:
        """For a package that cannot be imported."""
        return cls(f"training needs packages that are not installed ({error}): {install_command('train')}")


class RunDiffersError(TrainingError):
    """A run would be resumed with another configuration than it was started with."""


class NotFiniteError(TrainingError):
    """The loss or its gradient became NaN or infinite."""

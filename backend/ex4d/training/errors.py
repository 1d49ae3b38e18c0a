"""Errors of training that a user can act on."""

from __future__ import annotations

from ex4d.installation import install_command
from ex4d_core.errors import Ex4dError


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
    """The loss or its gradients became NaN or infinite."""

"""The error of this room."""

from __future__ import annotations

from ex4d_core.errors import Ex4dError


class EvaluationError(Ex4dError):
    """A data set, a protocol or results cannot be evaluated as a whole; the message says what to change."""

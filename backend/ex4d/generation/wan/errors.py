"""Errors of the engine `wan`, one type for each kind of mistake."""

from __future__ import annotations

from ex4d_core.errors import Ex4dError
from ex4d_core.shot import RequestError


class WanUnavailableError(Ex4dError):
    """This machine cannot run the engine: a missing extra, no GPU, or too little of its memory."""


class GenerationError(Ex4dError):
    """A generation that failed, for example because a network produced NaN."""


class PromptError(RequestError):
    """A prompt that is too long for the text encoder."""

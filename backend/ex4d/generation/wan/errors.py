"""What can go wrong with the `wan` engine, one kind of error for each kind of mistake."""

from __future__ import annotations

from ex4d_core.errors import Ex4dError
from ex4d_core.shot import RequestError


class WanUnavailableError(Ex4dError):
    """This machine cannot run the engine: a missing extra, no GPU, or too little of its memory."""


class GenerationError(Ex4dError):
    """A generation that went wrong on the way, such as one with values that are no numbers."""


class PromptError(RequestError):
    """A prompt that the text encoder cannot take whole."""

"""What can go wrong with the `wan` engine, one kind of error for each kind of mistake."""

from __future__ import annotations

from ex4d_core.errors import Ex4dError
from ex4d_core.shot import RequestError


class CheckpointError(Ex4dError, ValueError):
    """A file of weights that is damaged, incomplete, or of another model; the message names the file and the keys."""


class ModelsMissingError(Ex4dError, RuntimeError):
    """Weights that are not on this machine; the message holds the command that fetches them."""


class WanUnavailableError(Ex4dError, RuntimeError):
    """This machine cannot run the engine: a missing extra, no GPU, or too little of its memory."""


class GenerationError(Ex4dError, RuntimeError):
    """A generation that went wrong on the way, such as one with values that are no numbers."""


class PromptError(RequestError):
    """A prompt that the text encoder cannot take whole."""

"""How a request that cannot be served is turned down: raised where that is known, sent as `messages.Error`."""

from __future__ import annotations

from typing import Any

from ex4d_core.messages import Error

# An answer stays an answer, however long the thing was that it complains about.
_MAX_TEXT = 2000


class Refusal(ValueError):
    """Why a request is not served. ``code`` is one of `messages.Error`'s codes, the text is for people."""

    def __init__(self, code: str, text: str, details: dict[str, Any] | None = None):
        super().__init__(text)
        self.code = code
        self.details = details or {}

    def message(self) -> Error:
        return Error(self.code, str(self)[:_MAX_TEXT], self.details)

"""Notes about files of weights in the log: each of them once in the life of a process, however often a file is read."""

from __future__ import annotations

import logging
from functools import lru_cache

log = logging.getLogger(__name__)


@lru_cache(None)
def note_once(text: str) -> None:
    """Log a sentence for the user, if it has not been logged before."""
    log.warning(text)

"""How long the present step of a take is likely to take still, from how far it came in how much time."""

from __future__ import annotations

# Below this much time or way a guess would jump about.
_LEAST_SECONDS = 1.0
_LEAST_SHARE = 0.02


class Pace:
    """Remembers where the present step began; a new step begins anew."""

    def __init__(self) -> None:
        self._step: str | None = None
        self._began = 0.0
        self._share = 0.0
        self._changed: tuple[float, float] | None = None
        self._told: tuple[float, float] | None = None
        self._told_at = 0.0

    def seconds_left(self, now: float, step: str, share: float, told: float | None = None) -> float | None:
        """Args:
            now: seconds on any clock that does not jump.
            step: what is being done.
            share: of it that is done, 0 to 1.
            told: what the backend said at that share, which knows better.

        Returns:
            Seconds until the step is over at the average pace so far; None while that says nothing yet.
        """
        if told is not None:
            if self._told != (told, share):
                self._told, self._told_at = (told, share), now
            return max(0.0, told - (now - self._told_at))
        if step != self._step or share < self._share:
            self._step, self._began, self._share, self._changed = step, now, share, None
        if self._changed is None or share != self._changed[1]:
            self._changed = (now, share)
        # Between two reports of progress the clock goes on all the same.
        reported, share = self._changed
        elapsed, way = reported - self._began, share - self._share
        if elapsed < _LEAST_SECONDS or way < _LEAST_SHARE:
            return None
        return max(0.0, (1.0 - share) * elapsed / way - (now - reported))

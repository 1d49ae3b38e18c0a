"""A discrete-event model of a cluster: artists, the service's front, workers that hold models, and their rule.

Artists think, send a shot, wait for it, and think again. The front is one process: what it does for jobs and clients is
done one after the other. A worker that is free takes the first shot that `ex4d.service.cluster_rules` does not leave to
a worker which holds the shot's models; it loads models that it does not hold, and computes.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import simpy

from ex4d.service.cluster_rules import Busy, left_to_warm

# A free worker looks at the first so many shots that need models, as `ex4d.service.cluster_place` does.
_LOOKED_AT = 64

Steps = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Kind:
    """A kind of shot.

    Attributes:
        share: of all shots.
        seconds: that a worker computes, with its models loaded.
        load_seconds: to load its models.
        sets: how many sets of models shots of this kind use, the n-th 1 / n as often as the first; 0 for none.
        megabytes: of scene and frames, over the network.
    """

    name: str
    share: float
    seconds: float
    load_seconds: float = 0.0
    sets: int = 0
    megabytes: float = 0.0

    def models(self, chance: random.Random) -> str:
        """One of its sets."""
        if not self.sets:
            return ""
        return f"{self.name} {chance.choices(range(self.sets), [1 / (1 + one) for one in range(self.sets)])[0]}"


@dataclass(frozen=True)
class Costs:
    """What does not depend on the shot.

    Attributes:
        front_job: seconds of the front for a shot: messages, commits, files.
        front_beat: for a client's sign of life.
        beat_interval: seconds between those of a client.
        megabytes_a_second: of the network at the front.
        dispatch: seconds of a worker between a shot and the next, without computing.
    """

    front_job: float = 0.0
    front_beat: float = 0.0
    beat_interval: float = 2.0
    megabytes_a_second: float = float("inf")
    dispatch: float = 0.0

    def front_share(self, clients: int, shots_a_second: float) -> float:
        """The share of its time that the front works; at 1 it falls behind."""
        return clients / self.beat_interval * self.front_beat + shots_a_second * self.front_job


@dataclass
class _Shot:
    kind: Kind
    models: str
    sent: float
    done: simpy.Event
    waited: float = 0.0


@dataclass
class _Worker:
    held: str = ""
    free_at: float = 0.0
    loading: float = 0.0
    busy: float = 0.0


@dataclass
class Results:
    """What came of a simulation.

    Attributes:
        waits: seconds of every shot between being sent and being started.
        turnarounds: seconds between being sent and being done.
        loading, busy: shares of the workers' time.
        makespan: seconds until the last shot was done.
    """

    waits: list[float] = field(default_factory=list)
    turnarounds: list[float] = field(default_factory=list)
    loading: float = 0.0
    busy: float = 0.0
    makespan: float = 0.0

    @property
    def turnaround(self) -> float:
        """The mean."""
        return sum(self.turnarounds) / len(self.turnarounds)

    def wait(self, share: float) -> float:
        """The wait that so many of the shots do not exceed."""
        return sorted(self.waits)[min(int(share * len(self.waits)), len(self.waits) - 1)] if self.waits else 0.0


class ClusterModel:
    """A cluster that has just started, with nothing loaded."""

    def __init__(self, workers: int, costs: Costs, *, warm: bool = True, clients: int = 0, seed: int = 0):
        """Nothing happens before `run`.

        Args:
            warm: leave shots to workers that hold their models, as the service does.
            clients: whose signs of life the front answers.
        """
        self.chance = random.Random(seed)
        self._clock = simpy.Environment()
        self._costs, self._warm = costs, warm
        self._workers = [_Worker() for _ in range(workers)]
        # Beats are many and alike: they make everything that the front does for shots take longer.
        self._front_job = costs.front_job / max(1 - costs.front_share(clients, 0), 1e-3)
        self._front, self._network = simpy.Resource(self._clock), simpy.Resource(self._clock)
        self._queue: deque[_Shot] = deque()
        self._idle: dict[int, simpy.Event] = {}
        self._holders: dict[str, set[int]] = {}
        self._load_seconds: dict[str, float] = {}
        self._results = Results()
        for number in range(workers):
            self._clock.process(self._work(number))

    def send_at(self, seconds: float, kind: Kind, models: str) -> None:
        """Have a shot sent at a time."""

        def steps() -> Steps:
            yield self._clock.timeout(seconds)
            yield from self._send(kind, models)

        self._clock.process(steps())

    def add_artist(self, kinds: Sequence[Kind], think_seconds: float) -> None:
        """Have shots sent for ever, each some time after the one before is done: exponential, of this mean."""

        def steps() -> Steps:
            while True:
                yield self._clock.timeout(self.chance.expovariate(1 / think_seconds))
                (kind,) = self.chance.choices(kinds, [kind.share for kind in kinds])
                yield from self._send(kind, kind.models(self.chance))

        self._clock.process(steps())

    def run(self, seconds: float | None = None) -> Results:
        """Run for a time, or until all shots are done."""
        self._clock.run(seconds)
        results = self._results
        time = (results.makespan if seconds is None else seconds) * len(self._workers)
        results.loading = sum(worker.loading for worker in self._workers) / time
        results.busy = sum(worker.busy for worker in self._workers) / time
        return results

    def _send(self, kind: Kind, models: str) -> Steps:
        sent = self._clock.now
        with self._front.request() as turn:
            yield turn
            yield self._clock.timeout(self._front_job)
        with self._network.request() as turn:
            yield turn
            yield self._clock.timeout(kind.megabytes / self._costs.megabytes_a_second)
        shot = _Shot(kind, models, sent, self._clock.event())
        self._queue.append(shot)
        self._wake(next((one for one in self._holders.get(models, ()) if one in self._idle), None))
        yield shot.done
        self._results.waits.append(shot.waited)
        self._results.turnarounds.append(self._clock.now - sent)
        self._results.makespan = self._clock.now

    def _wake(self, number: int | None) -> None:
        """Have an idle worker look at the queue: this one, or the one that has been idle longest."""
        if self._idle:
            self._idle.pop(next(iter(self._idle)) if number is None else number).succeed()

    def _work(self, number: int) -> Steps:
        worker = self._workers[number]
        while True:
            shot = self._next_shot(worker)
            if shot is None:
                yield self._idle.setdefault(number, self._clock.event())
                continue
            if self._queue:  # what this worker has left to another one may be left no longer
                self._wake(None)
            began = self._clock.now
            shot.waited = began - shot.sent
            load = shot.kind.load_seconds if shot.models not in ("", worker.held) else 0.0
            worker.free_at = began + load + shot.kind.seconds
            if load:
                self._holders.get(worker.held, set()).discard(number)
                worker.held = shot.models
                self._holders.setdefault(shot.models, set()).add(number)
                yield self._clock.timeout(load)
                self._load_seconds[shot.models] = load
                worker.loading += load
            yield self._clock.timeout(shot.kind.seconds)
            worker.busy += self._clock.now - began
            shot.done.succeed()
            yield self._clock.timeout(self._costs.dispatch)

    def _next_shot(self, worker: _Worker) -> _Shot | None:
        """The first shot that is not left to others."""
        left = set(self._left_to_others(worker)) if self._warm else ()
        for place, shot in enumerate(self._queue):
            if str(place) not in left:
                del self._queue[place]
                return shot
        return None

    def _left_to_others(self, worker: _Worker) -> list[str]:
        queue = [(str(place), shot.models) for place, shot in enumerate(self._queue) if shot.models]
        queue = list(islice(queue, _LOOKED_AT))
        others = [
            Busy(models, max(self._workers[one].free_at - self._clock.now, 0.0))
            for models in {models for _, models in queue}
            for one in self._holders.get(models, ())
            if self._workers[one] is not worker
        ]
        return left_to_warm(queue, worker.held, others, self._load_seconds)

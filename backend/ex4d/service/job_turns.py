"""`JobTurns`: the part of the job store that decides which job is next: priorities, turns of users, and their limits.

Of the queued jobs those of the highest priority come first; among them the next is that of the user whose last turn is
the longest ago, and of a user the oldest. A user who runs as many jobs as they may at once is passed over.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict, deque
from collections.abc import Collection
from heapq import heappop, heappush

from ex4d_core.messages import MAX_JOBS
from ex4d_core.turn_messages import PRIORITIES, JobTurn, Priority

# Users who may run one more job.
_FREE = """
(most IS NULL OR most > (SELECT count(*) FROM jobs AS one WHERE one.state = 'running' AND one.owner = turns.owner))
"""
_NOT_LEFT = "id NOT IN (SELECT value FROM json_each(?))"
# The job that a worker takes up; its parameters are the room on the disk, and a JSON list of jobs that are left out.
# Users who had no turn yet take theirs in the order of their jobs.
NEXT_JOB = f"""
SELECT id, request, jobs.owner FROM jobs JOIN (
    SELECT last, (
        SELECT sequence FROM jobs WHERE state = 'queued' AND jobs.owner = turns.owner AND room <= ?
        AND {_NOT_LEFT}
        ORDER BY priority DESC, sequence LIMIT 1
    ) AS best FROM turns WHERE {_FREE}
) ON sequence = best ORDER BY priority DESC, last, best LIMIT 1
"""


class JobTurns:
    """Methods of `ex4d.service.job_store.JobStore`, which has the connection."""

    _db: sqlite3.Connection

    def set_priority(self, job: str, priority: Priority) -> None:
        """Set the priority of a job unless it has ended; a running one has it when it is queued again."""
        number = PRIORITIES.index(priority)
        self._db.execute("UPDATE jobs SET priority = ? WHERE id = ? AND ended = 0", (number, job))

    def priorities(self, limit: int = MAX_JOBS, owner: str | None = None) -> list[JobTurn]:
        """The jobs of an owner, or of everybody, that have not ended; the newest first."""
        rows = self._db.execute(
            "SELECT id, priority FROM jobs WHERE ended = 0 AND (?1 IS NULL OR owner = ?1) "
            "ORDER BY sequence DESC LIMIT ?2",
            (owner, min(max(limit, 0), MAX_JOBS)),
        )
        return [JobTurn(job, PRIORITIES[number]) for job, number in rows]

    def set_running_limit(self, owner: str, most: int | None) -> None:
        """Let an owner run so many jobs at once; None for any number. Writes only what changes."""
        row = self._db.execute("SELECT most FROM turns WHERE owner = ?", (owner,)).fetchone()
        if row is None or row[0] != most:
            self._db.execute(
                "INSERT INTO turns (owner, last, most) VALUES (?1, 0, ?2) ON CONFLICT (owner) DO UPDATE SET most = ?2",
                (owner, most),
            )

    def owners(self) -> list[str]:
        """Everybody who ever had a job here."""
        return [owner for (owner,) in self._db.execute("SELECT owner FROM turns ORDER BY owner")]

    def has_queued(self, but: Collection[str] = ()) -> bool:
        """Whether a job, other than some, waits for a worker, and not only for others of its user to end."""
        waiting = f"SELECT 1 FROM jobs JOIN turns USING (owner) WHERE state = 'queued' AND {_FREE} AND {_NOT_LEFT}"
        return self._db.execute(f"{waiting} LIMIT 1", (json.dumps(list(but)),)).fetchone() is not None

    def _places(self) -> dict[str, int]:
        """The number of jobs before each queued one, in the order of `NEXT_JOB`.

        Users' limits count as if jobs that run, and those before, ended when nobody may start another.
        """
        rows = self._db.execute(
            "SELECT owner, last, priority, sequence, id FROM jobs JOIN turns USING (owner) WHERE state = 'queued' "
            "ORDER BY priority DESC, sequence"
        ).fetchall()
        limits = dict(self._db.execute("SELECT owner, most FROM turns WHERE most IS NOT NULL"))
        running = "SELECT owner, count(*) FROM jobs WHERE state = 'running' GROUP BY owner"
        started: defaultdict[str, int] = defaultdict(int, self._db.execute(running))
        queues: defaultdict[str, deque[tuple[int, int, str]]] = defaultdict(deque)
        last_turns: dict[str, int] = {}
        for owner, last, priority, sequence, job in rows:
            queues[owner].append((-priority, sequence, job))
            last_turns[owner] = last
        turn, places = max(last_turns.values(), default=0), dict[str, int]()
        heads: list[tuple[int, int, int, str]] = []

        def line_up(owner: str) -> None:
            queue = queues[owner]
            if queue and started[owner] < max(1, limits.get(owner, math.inf)):
                heappush(heads, (queue[0][0], last_turns[owner], queue[0][1], owner))

        while len(places) < len(rows):
            for owner in list(queues):
                line_up(owner)
            while heads:
                *_, owner = heappop(heads)
                places[queues[owner].popleft()[2]] = len(places)
                turn += 1
                last_turns[owner] = turn
                started[owner] += 1
                line_up(owner)
            started.clear()
        return places

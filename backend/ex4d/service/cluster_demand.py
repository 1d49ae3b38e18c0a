"""`ClusterDemand`: how many workers a cluster should have, for Ray's autoscaler and for idle ones that leave.

Without an autoscaler the demand that Ray is told has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Workers that are asked for at most, whatever waits: the autoscaler has its own limit of nodes.
_MOST = 1000


class ClusterDemand:
    """Of one service; see the module."""

    def __init__(self, resources: Mapping[str, Any], request: Callable[..., None]):
        """Without any demand.

        Args:
            resources: of a worker, as options of an actor.
            request: `ray.autoscaler.sdk.request_resources`.
        """
        wanted = {"CPU": resources["num_cpus"], "GPU": resources.get("num_gpus", 0), **resources["resources"]}
        self._bundle = {name: amount for name, amount in wanted.items() if amount}
        self._request = request
        self._told = 0

    def tell(self, jobs: int) -> None:
        """Have Ray's autoscaler see to places for so many queued and running jobs, unless it knows."""
        workers = min(jobs, _MOST)
        if workers != self._told:
            self._request(bundles=[dict(self._bundle)] * workers)
            self._told = workers


def workers_to_have(capacity: int, jobs: int, working: int) -> int:
    """How many workers there should be where idle ones leave: one at least, that tells what can be done here.

    Args:
        capacity: for how many the nodes have room.
        jobs: queued and running ones.
        working: workers that are not to leave.
    """
    return min(capacity, max(1, jobs, working))

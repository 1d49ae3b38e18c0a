"""SIGKILL to a Ray cluster's head, a node, a worker there, their driver, the service or the client while jobs run.

Nothing that was acknowledged is lost, or made twice. The service (its front) is the process that clients talk to. All
nodes end with their head; the service must say so until there is another, whose nodes join anew.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import psutil

from campaigns.kills import begun_since, check, running, start_client, wait_for_running
from campaigns.outcome import Outcome
from campaigns.ray_nodes import RayNodes
from campaigns.service import FRAMES, PATIENCE, ROOT, Service, ask, connected, workplace, write_scene
from ex4d_core.messages import Hello

_NODES = 3
# Of the label "long ...".
_JOB_SECONDS = 0.5 * FRAMES
# A kill costs some seconds, in which other nodes end jobs.
_JOBS_PER_KILL = 4
_TARGETS = ("head", "node", "worker", "worker", "driver", "service", "client")


def run(seed: int, count: int) -> Outcome:
    """Kill ``count`` times, and see everything end."""
    choices, outcome = random.Random(seed), Outcome()
    labels = [f"long {number}" for number in range(_JOBS_PER_KILL * count)]
    killed, blamed = Counter[str](), Counter[str]()
    with workplace() as folder, closing(_Cluster(folder)) as cluster:
        write_scene(folder / "scene")
        (folder / "labels.json").write_text(json.dumps(labels))
        service = Service(folder, forked=True, cluster=cluster.nodes.address, cluster_cores=1)
        artist = start_client(service, folder)
        try:
            while sum(killed.values()) < count:
                wait_for_running(service, folder, artist)
                if not artist.running:
                    break  # all is done: the rest of the kills has nothing to meet
                time.sleep(choices.random() * _JOB_SECONDS)
                target = choices.choice(_TARGETS)
                # At most these: each that did not end by itself is counted once more than it may have been hit.
                looked, before = time.time(), running(service)
                if target == "client":
                    artist.kill()
                    artist = start_client(service, folder)
                elif target == "service":
                    service.kill()
                    service.start()
                elif target == "head":
                    cluster.nodes.kill_head()
                    outcome.require(_says_head_is_gone(service), "the service does not say that the head is gone")
                    cluster.start_again()
                else:
                    cluster.kill(target, service, choices)
                # A job may have begun between the look and the kill, and may be queued again by now.
                blamed.update({*before, *begun_since(service, looked)})
                killed[target] += 1
            code = artist.wait(PATIENCE + _JOB_SECONDS * len(labels))
            outcome.require(code == 0, f"the client ended with {code}: {(folder / 'client.log').read_text()[-500:]}")
            with closing(connected(service.address)) as monitor:
                check(outcome, monitor, folder, labels, blamed)
        finally:
            artist.kill()
            service.stop()
    outcome.figures = {"jobs": len(labels), "kills": sum(killed.values()), **killed, **outcome.figures}
    return outcome


def _says_head_is_gone(service: Service) -> bool:
    """Whether clients are told what to do, within some time."""
    deadline = time.monotonic() + PATIENCE
    with closing(connected(service.address)) as client:
        while time.monotonic() < deadline:
            if any("ray start --head" in device for device in ask(client, Hello("campaign")).devices):
                return True
            time.sleep(0.2)
    return False


class _Cluster:
    """Nodes that are replaced when they are killed."""

    def __init__(self, folder: Path):
        self.nodes = RayNodes(folder, ROOT / "scripts")
        os.environ.update(self.nodes.environment)
        self._running = [self.nodes.add() for _ in range(_NODES)]

    def start_again(self) -> None:
        self.nodes.start_head()
        self._running = [self.nodes.add() for _ in range(_NODES)]

    def kill(self, target: str, service: Service, choices: random.Random) -> None:
        if target == "node":
            self.nodes.kill(self._running.pop(choices.randrange(_NODES)))
            self._running.append(self.nodes.add())
            return
        found = self.nodes.workers() if target == "worker" else service.children()
        with suppress(psutil.NoSuchProcess, IndexError):
            choices.choice(found).kill()

    def close(self) -> None:
        self.nodes.stop()

"""The driver of a Ray cluster: has Ray place the service's workers, and feeds them from the job store.

`ex4d.service.cluster_places` starts it. It is a process of its own, since Ray ends a driver whose node fails, and since
the service must not import Ray. Each worker has a thread here, which claims and records jobs as a worker process does.
Lines on standard input:

    start WORKER | wake WORKER | kill WORKER
    cover NUMBER PART      (a part of a shot's coverage, see `ex4d.service.cluster_coverage`)

and on standard output:

    room COUNT             (workers that the nodes have room for)
    idle COUNT             (workers that could compute coverage)
    covered NUMBER [VALUES]     (a part of it; without values, nobody did)
    WORKER at DEVICE       (of which node it is)
    WORKER starting        (it waits for its place, or loads)
    WORKER ...             (as a worker process says, see `ex4d.service.worker`)
    WORKER over {"reason": ..., "blames": ...}
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

import ray
import ray.exceptions
from ray.autoscaler.sdk import request_resources

from ex4d.devices import Devices
from ex4d.machine import MachineSettings
from ex4d.service.cluster_actor import model_of
from ex4d.service.cluster_demand import ClusterDemand, workers_to_have
from ex4d.service.cluster_head import ClusterHead, head_at
from ex4d.service.cluster_messages import VersionError
from ex4d.service.cluster_place import Cluster, ClusterPlace, why_lost
from ex4d.service.cluster_rules import resources_of, room_of
from ex4d.service.job_execution import Report, WorkerLost, work
from ex4d.service.job_store import JobStore
from ex4d.service.processes import start_child
from ex4d.service.settings import ServiceSettings
from ex4d_core.errors import user_message

log = logging.getLogger("ex4d.service.cluster_driver")

# How often nodes that come and go are looked for.
_LOOK_SECONDS = 1.0


class _Worker:
    """A worker's thread, and how to wake and end it."""

    def __init__(self, cluster: Cluster, head: ClusterHead, name: str, report: Report):
        self.wake = threading.Event()
        self._cluster, self._head, self._name, self._report = cluster, head, name, report
        self._killed = threading.Event()
        self._place: ClusterPlace | None = None
        threading.Thread(target=self._run, name=f"worker {name}", daemon=True).start()

    def kill(self) -> None:
        self._killed.set()
        if self._place:
            self._place.kill()

    def _run(self) -> None:
        place, end = None, ("ended", True)
        try:
            place = self._place = ClusterPlace(
                self._cluster, self._name, resources_of(self._cluster.settings), self.wake
            )
            if self._killed.is_set():
                raise WorkerLost("was stopped", False)
            place.start(self._say)
            work(self._cluster.settings, self._name, self._say, self.wake, place, lambda: 0)
        except WorkerLost as lost:
            end = lost.args
        except VersionError as error:
            end = str(error), False
        except ray.exceptions.RayTaskError as error:
            end = f"cannot work: {user_message(error.cause) if error.cause else error}", True
        except ray.exceptions.RayError as error:
            end = why_lost(error)
        # Its jobs go to others, whatever it is.
        except Exception as error:
            log.exception("worker %s", self._name)
            end = f"failed: {user_message(error)}", True
        finally:
            if place:
                place.leave()
            reason, blames = end
            if blames and not self._head.answers():
                reason, blames = "was lost with the head of the cluster", False
            self._say("over", json.dumps({"reason": reason, "blames": blames}))

    def _say(self, *words: str) -> None:
        self._report(self._name, *words)


def _obey(cluster: Cluster, head: ClusterHead, report: Report) -> None:
    """Do what standard input says, to its end."""
    workers: dict[str, _Worker] = {}
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        if word == "start":
            workers[name] = _Worker(cluster, head, name, report)
        elif word == "cover":
            number, _, part = name.partition(" ")
            for dropped in cluster.questions.add(int(number), part):
                report("covered", str(dropped))
            cluster.wake_all()
        elif word == "wake" and name in workers:
            workers[name].wake.set()
        elif word == "kill" and name in workers:
            workers[name].kill()
    # The service has ended, and so must this process; Ray ends its workers.
    os._exit(0)


def _connect(address: str) -> None:
    """Join the cluster, or end with a sentence."""
    if (head := head_at(address)) and not head.answers():
        sys.exit(head.gone_text())
    try:
        ray.init(address, namespace="ex4d", logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        text = " ".join(str(error).split())[:500]
        sys.exit(
            f"cannot join the Ray cluster {address}: {text}; run 'ray start --address=HOST:PORT' on this machine, with "
            "the same versions of Ray and Python and the same token as on the cluster's head"
        )


def _leave_with(head: ClusterHead, report: Report, workers: Cluster) -> None:
    """In a thread: end this process once the head is gone, so that the next one joins the head that comes."""
    head.wait_until_gone()
    end = json.dumps({"reason": "was lost with the head of the cluster", "blames": False})
    for place in list(workers.places):
        report(place.name, "over", end)
    # Ray would wait for the head at an orderly end.
    print(head.gone_text(), file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    """Drive until the end of standard input."""
    options, output = start_child("The driver of a cluster", "settings")
    given = json.loads(options.settings)
    machine = MachineSettings.from_json(given.pop("machine"))
    given |= {"data": Path(given["data"]), "devices": tuple(given["devices"])}
    settings = ServiceSettings(**given, machine=machine)
    lock = threading.Lock()

    def report(*words: str) -> None:
        line = " ".join(words).encode() + b"\n"
        with lock:
            try:
                output.write(line)
            except OSError:  # the service has ended
                os._exit(0)

    assert settings.cluster, "only a service with a cluster has a driver"
    _connect(settings.cluster)
    model = model_of(Devices.parse(settings.devices[0]).first)
    cluster, resources, told = Cluster(settings, report, model), resources_of(settings), (-1, -1)
    store, demand = JobStore(settings.database), ClusterDemand(resources, request_resources)
    head = ClusterHead(ray.get_runtime_context().gcs_address)
    threading.Thread(target=_leave_with, args=(head, report, cluster), name="head", daemon=True).start()
    threading.Thread(target=_obey, args=(cluster, head, report), name="stdin", daemon=True).start()
    jobs = 0
    while True:
        room = sum(room_of(node["Resources"], resources) for node in ray.nodes() if node["Alive"])
        with contextlib.suppress(sqlite3.OperationalError):  # a full disk, or a moment's lock
            jobs = store.unfinished()
        demand.tell(jobs)
        leaving = None
        if settings.cluster_idle_minutes:
            places, long_ago = list(cluster.places), time.monotonic() - settings.cluster_idle_minutes * 60
            if len(places) > max(1, jobs):
                leaving = next((one for one in places if one.idle_since < long_ago), None)
            room = workers_to_have(room, jobs, len(places) - (leaving is not None))
        idle = sum(place.can_cover for place in list(cluster.places))
        if room != told[0]:
            report("room", str(room))
        if idle != told[1]:
            report("idle", str(idle))
        told = room, idle
        if leaving:  # after the room, so that nobody takes its place
            leaving.leaves = True
            leaving.wake.set()
        time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    main()

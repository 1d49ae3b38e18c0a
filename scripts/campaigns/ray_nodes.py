"""A Ray cluster of some nodes on this machine, in a process of its own: `RayNodes` starts it, and tells it what to do.

Ray takes its token from the environment that it is imported in, so whoever uses this need not import it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import platformdirs
import psutil

ROOT = Path(__file__).parents[2]
# Small, so that large files do not fit at once; Ray takes no less.
_OBJECT_STORE_BYTES = 78_643_200
_TOKEN = "5" * 64


class RayNodes:
    """A cluster whose head has no worker's place.

    Attributes:
        address: HOST:PORT for `ex4d serve --cluster`.
        environment: variables of its nodes, which a service needs, too.
    """

    def __init__(self, folder: Path, *imported: Path):
        """Start the head.

        Args:
            folder: for what nodes cache.
            imported: folders that workers can import from.
        """
        self.environment = {
            "PYTHONPATH": os.pathsep.join(map(str, [ROOT / "backend", ROOT, *imported])),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": _TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "XDG_CACHE_HOME": str(folder),
            # Compiled kernels are the machine's.
            "WARP_CACHE_PATH": os.environ.get("WARP_CACHE_PATH") or platformdirs.user_cache_dir("warp", "NVIDIA"),
        }
        self._log = open(folder / "ray_nodes.log", "ab")  # noqa: SIM115 - until `stop`
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **self.environment},
        )
        self.address = self._answer()

    def add(self, cores: int = 1) -> int:
        """Start a node; returns the number by which it is killed."""
        return int(self._ask("add", cores))

    def kill(self, node: int) -> None:
        """End a node and its workers as a power failure does."""
        self._ask("kill", node)

    def drain(self, node: int) -> None:
        """Announce a node's end to Ray, as a cloud does of a machine that it takes away, and wait until Ray knows."""
        self._ask("drain", node)

    def kill_head(self) -> None:
        """End the head as a power failure does, and all nodes: what a head knows is lost with it, and they leave it."""
        self._ask("kill-head")

    def start_head(self) -> None:
        """Start a head at the address of the one before; nodes must be added again."""
        self._ask("start-head")

    def workers(self) -> list[psutil.Process]:
        """The workers of services on all nodes."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(part.startswith("ray::ClusterWorker") for part in process.cmdline()):
                    found.append(process)
        return found

    def stop(self) -> None:
        """End all nodes."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._log.close()

    close = stop

    def _ask(self, *words: Any) -> str:
        assert self._process.stdin
        print(*words, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"the cluster has ended:\n{Path(self._log.name).read_text()[-2000:]}")
        return answer


def _drain(address: str, node_id: str) -> None:
    words = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "3600", "--reason-message"]
    ray = Path(sys.executable).with_name("ray")
    command = [ray, "drain-node", "--address", address, "--node-id", node_id, *words, "the machine is taken away"]
    subprocess.run(command, check=True)


def main() -> None:
    """Run a cluster until the end of standard input."""
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    cluster, nodes = Cluster(), {}
    head = {"num_cpus": 0, "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster.add_node(**head)
    address, number = cluster.address, 0
    print(address, file=answers)
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "add":
            nodes[number] = cluster.add_node(num_cpus=int(value), object_store_memory=_OBJECT_STORE_BYTES)
            print(number, file=answers)
            number += 1
        elif word == "kill":
            cluster.remove_node(nodes.pop(int(value)), allow_graceful=False)
            print("killed", file=answers)
        elif word == "drain":
            _drain(cluster.address, nodes[int(value)].node_id)
            print("drained", file=answers)
        elif word == "kill-head":
            for node in (cluster.head_node, *nodes.values()):
                node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
            nodes.clear()
            print("killed", file=answers)
        else:
            cluster = Cluster()
            cluster.add_node(**head, gcs_server_port=int(address.rpartition(":")[2]))
            print(cluster.address, file=answers)
    cluster.shutdown()


if __name__ == "__main__":
    main()

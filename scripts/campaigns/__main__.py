"""The command line of the campaigns: runs one, prints its breaches and one line, and ends with 1 after a breach."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext

from campaigns.service import on_cluster
from ex4d_core.errors import Ex4dError

# Each with what it promises and how much it does by default.
CAMPAIGNS = {
    "kills": ("SIGKILL to service, worker and client during jobs: nothing acknowledged is lost; kills", 50),
    "cluster_kills": ("the same with workers on a Ray cluster: also its nodes and its driver; kills", 20),
    "cluster_split": ("a long preview by four nodes: each file is bit-equal to one worker's; frames", 400),
    "cluster_timing": ("what the front costs, and shots on four nodes against the model of a cluster; shots", 60),
    "fuzz": ("damaged and extreme messages: none is an internal error; messages", 20_000),
    "evil_server": ("a server that lies to the client: bounded memory, and an end with a sentence; rounds", 1),
    "strangers_file": ("links and names planted by a stranger: nothing outside the folder is written; trials", 500),
    "load": ("200 clients at once: every job ends, and the service stays as small as it was; jobs", 20_000),
    "full_disk": ("bytes and inodes run out while jobs wait: none fails, all end done; jobs on each disk", 30),
    "power_cuts": ("the power of the disk is cut while a service writes: nothing acknowledged is lost; cuts", 30),
    "bombs": ("small files and messages that claim to be huge: bounded memory, an end in words; rounds", 1),
    "soak": ("whatever clients do, at random: memory, files, threads and disk within bounds; things done", 5000),
    "tidying": ("old jobs are forgotten while a client greets: the service answers all the time; jobs", 50_000),
}

# Those whose services may have their workers anywhere.
_ON_CLUSTER = ("fuzz", "load")


def main(arguments: Sequence[str]) -> int:
    """Run a campaign; returns the exit code."""
    listed = "\n".join(f"  {name:<15} {text} (default: {count})" for name, (text, count) in CAMPAIGNS.items())
    parser = argparse.ArgumentParser(
        prog="campaign.py",
        description=f"Run a campaign with real processes.\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=CAMPAIGNS, metavar="NAME", help="one of the campaigns above")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same choices")
    parser.add_argument("--count", type=int, help="how much to do")
    parser.add_argument(
        "--cluster",
        type=int,
        metavar="NODES",
        help=f"have the workers on a Ray cluster of so many nodes; with {', '.join(_ON_CLUSTER)}",
    )
    options = parser.parse_args(arguments)
    if options.cluster and options.name not in _ON_CLUSTER:
        parser.error(f"--cluster is for {', '.join(_ON_CLUSTER)}; cluster_kills and cluster_split have their own")
    count = options.count or CAMPAIGNS[options.name][1]
    started = time.monotonic()
    # As Ctrl+C: what is mounted and started must go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with on_cluster(options.cluster) if options.cluster else nullcontext():
            outcome = importlib.import_module(f"campaigns.{options.name}").run(options.seed, count)
    except Ex4dError as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 2
    outcome.figures["seconds"] = round(time.monotonic() - started, 1)
    for breach in outcome.breaches[:20]:
        print(f"breach: {breach}", file=sys.stderr)
    print(outcome.line(options.name, options.seed))
    return 1 if outcome.breaches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

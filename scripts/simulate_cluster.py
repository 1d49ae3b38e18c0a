"""Simulates clusters of 1 to 2,000 GPUs with up to 10,000 artists, and prints a table for docs/measured/cluster.md.

    .venv/backend/bin/python scripts/simulate_cluster.py

The costs below are measured, or stated as assumed; `scripts/campaign.py cluster_timing` compares the model with a real
cluster of four nodes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent / "backend"), str(SCRIPTS.parent)]

from cluster_model import ClusterModel, Costs, Kind  # noqa: E402

# Seconds of shots of 49 frames of 512x512 and of loading all networks: docs/measured/speed.md, one H200. A preview's
# are those of writing its frames. How many shots are of which kind is assumed, as are 8 LoRAs, the n-th used 1 / n as
# often as the first; so are 40 MB for a scene and a take, and a network of 10 Gbit/s.
_LOAD, _MEGABYTES = 15.4, 40.0
KINDS = [
    Kind("preview", 0.80, 1.3, megabytes=_MEGABYTES),
    Kind("fast", 0.12, 3.43, _LOAD, 8, _MEGABYTES),
    Kind("standard", 0.07, 14.17, _LOAD, 8, _MEGABYTES),
    Kind("ex4d-reference", 0.01, 38.9, _LOAD, 1, _MEGABYTES),
]
# Processor time of the front on the machine of `cluster_timing` in docs/measured/cluster.md.
COSTS = Costs(front_job=0.0041, front_beat=0.000115, megabytes_a_second=1250.0)
# Artists for each GPU, of which each thinks so long between two shots.
_THINK_SECONDS, _ARTISTS_A_GPU = 60.0, (5, 20)
_SIZES = (1, 4, 16, 64, 256, 1000, 2000)
_MOST_ARTISTS = 10_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of simulated time")
    parser.add_argument("--beat", type=float, default=COSTS.front_beat, help="seconds of the front for a sign of life")
    options = parser.parse_args()
    costs = Costs(COSTS.front_job, options.beat, COSTS.beat_interval, COSTS.megabytes_a_second)
    seconds = 60 * options.minutes
    print("| GPUs | artists | rule | shots an hour | wait: half, 99 % | loading | busy | front |")
    print("|---|---|---|---|---|---|---|---|")
    for workers in _SIZES:
        for artists in sorted({min(workers * each, _MOST_ARTISTS) for each in _ARTISTS_A_GPU}):
            for warm in (True, False):
                model = ClusterModel(workers, costs, warm=warm, clients=artists)
                for _ in range(artists):
                    model.add_artist(KINDS, _THINK_SECONDS)
                found = model.run(seconds)
                rate = len(found.waits) / seconds
                waits = f"{found.wait(0.5):.1f} s, {found.wait(0.99):.1f} s"
                shares = f"{found.loading:.1%} | {found.busy:.0%} | {costs.front_share(artists, rate):.0%}"
                rule = "warm" if warm else "first come"
                print(f"| {workers} | {artists} | {rule} | {3600 * rate:,.0f} | {waits} | {shares} |", flush=True)


if __name__ == "__main__":
    main()

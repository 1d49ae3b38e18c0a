"""Greets a service all the time, from a process of its own, and measures how long the answers take.

python -m campaigns.greeter ADDRESS
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from campaigns.service import PATIENCE, connected
from ex4d_core.messages import Hello

_PAUSE_SECONDS = 0.01


@contextmanager
def greeted(address: str) -> Iterator[dict[str, int | float]]:
    """While the block runs a service is greeted; afterwards the dictionary has figures of the answers."""
    command = [sys.executable, "-m", "campaigns.greeter", address]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    figures: dict[str, int | float] = {}
    try:
        assert process.stdout
        process.stdout.readline()  # it is connected
        yield figures
        figures |= json.loads(process.communicate("\n", timeout=PATIENCE)[0])
    finally:
        process.kill()
        process.wait()


def main(address: str) -> None:
    """Greet until a line comes, or the end, on standard input; then print the figures."""
    ended = threading.Event()
    client = connected(address, "greeter")
    print("connected", flush=True)
    threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
    times = []
    while not ended.wait(_PAUSE_SECONDS):
        asked = time.perf_counter()
        client.ask(Hello("greeter"), timeout=PATIENCE)
        times.append(time.perf_counter() - asked)
    client.close()
    times = sorted(times) or [0.0]
    median, late, worst = (round(1000 * times[int(share * (len(times) - 1))], 1) for share in (0.5, 0.99, 1.0))
    figures = {"greetings": len(times), "ms median": median, "ms of 99 % at most": late, "ms worst": worst}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])

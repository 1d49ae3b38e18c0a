"""A client that is killed and started again: sends takes, keeps their state in files, and ends when all are here.

python -m campaigns.artist ADDRESS FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from campaigns.service import PATIENCE, shot
from ex4d_core.client import Client, ConnectionState
from ex4d_core.remote_job import JobState
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene

# As many at a time as an artist may have.
_AT_A_TIME = 4


def main(address: str, folder: Path) -> int:
    """Follow takes until all are over; returns how many stopped."""
    scene, client = Scene.open(folder / "scene"), Client(address, "artist")
    labels = json.loads((folder / "labels.json").read_text())
    (folder / "states").mkdir(exist_ok=True)
    waiting = [(number, _take(folder, number, label, scene)) for number, label in enumerate(labels)]
    stopped = 0
    while waiting:
        for number, take in waiting[:_AT_A_TIME]:
            _keep(folder, number, take)
            take.advance(client)
            _keep(folder, number, take)
            if take.over:
                waiting.remove((number, take))
                if take.state is JobState.STOPPED:
                    stopped += 1
                    print(f"take {number} stopped: {take.reason}", flush=True)
        if client.state is ConnectionState.CONNECTED:
            (folder / "followed").touch()
        client.wait(0.02)
        client.require_answer(PATIENCE)
    return stopped


def _take(folder: Path, number: int, label: str, scene: Scene) -> RemoteTake:
    path = folder / "states" / f"{number}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    return RemoteTake(folder / "takes" / str(number), shot(scene, label), scene, **known)


def _keep(folder: Path, number: int, take: RemoteTake) -> None:
    """Keep what a .blend keeps, in a file that is always whole."""
    path = folder / "states" / f"{number}.json"
    # Before it is sent, too: its answer may get lost.
    state = {"key": take.key, "job": take.job, "submitted": True, "last_event": take.last_event}
    text = json.dumps(state)
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_suffix(".new")
    partial.write_text(text)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))

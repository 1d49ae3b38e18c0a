"""The viewer process: one camera, one frame, at once; or the coverage of a few. It serves while the workers generate.

Started by `ex4d.service.views` when the first view is asked for. Requests come on standard input and pictures
leave on standard output, as `ex4d.service.processes` writes messages; the end of standard input ends it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ex4d.devices import Devices
from ex4d.machine import MachineSettings
from ex4d.media.jpeg import jpeg_bytes
from ex4d.pipeline.coverage import SceneCoverage
from ex4d.pipeline.view import SceneViews
from ex4d.service.blob_store import BlobStore
from ex4d.service.processes import read_message, write_message
from ex4d.service.worker import failure_text, open_scene, use_one_thread
from ex4d_core.shot import ShotRequest

log = logging.getLogger("ex4d.service.viewer")

# Scenes whose files stay open: one an artist works on, and those of a few others.
_OPEN_SCENES = 8


@dataclass(frozen=True)
class _OpenScene:
    views: SceneViews
    coverage: SceneCoverage


class Viewer:
    """Makes views, keeping recently used scenes open."""

    def __init__(self, blobs: BlobStore, device: str, machine: MachineSettings):
        self._blobs = blobs
        self._place = {"device": device, "machine": machine}
        self._scenes: OrderedDict[str, _OpenScene] = OrderedDict()

    def make(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Whatever `ex4d.service.views` asks for."""
        if "coverage" in wish:
            request = ShotRequest.from_wire(wish["coverage"])
            return dict(self._open(request.scene).coverage.of(request, index=wish["index"]).to_wire())
        return self.view(ShotRequest.from_wire(wish["view"]))

    def view(self, request: ShotRequest) -> dict[str, Any]:
        """The picture, as `ex4d_core.messages.View` has it."""
        shown = self._open(request.scene).views.look(request)
        height, width = shown.picture.shape[:2]
        return {"width": width, "height": height, "seen": shown.seen, "payload": jpeg_bytes(shown.picture)}

    def _open(self, digest: str) -> _OpenScene:
        if digest not in self._scenes:
            scene = open_scene(self._blobs, digest)
            self._scenes[digest] = _OpenScene(SceneViews(scene, **self._place), SceneCoverage(scene, **self._place))
        self._scenes.move_to_end(digest)
        while len(self._scenes) > _OPEN_SCENES:
            self._scenes.popitem(last=False)
        return self._scenes[digest]


def main() -> None:
    parser = argparse.ArgumentParser(description="The viewer of the EX-4D service; the service starts it.")
    for option in ("--data", "--device", "--machine"):
        parser.add_argument(option, required=True)
    arguments = parser.parse_args()
    # Where the service's processes share its console, Ctrl+C is for the service alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print to standard output; only our own messages may go to the service.
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    use_one_thread(arguments.device)
    device, machine = Devices.parse(arguments.device).first, MachineSettings.from_json(arguments.machine)
    viewer = Viewer(BlobStore(Path(arguments.data)), device, machine)
    while (message := read_message(sys.stdin.buffer)) is not None:
        try:
            write_message(output, viewer.make(message))
        # Rendering may raise anything, and the next view may well be fine.
        except Exception as error:
            log.exception("a view could not be made")
            write_message(output, {"error": failure_text(error, Path(arguments.data))})


if __name__ == "__main__":
    main()

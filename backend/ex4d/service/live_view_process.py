"""The live view process: renders one frame at once, or the coverage of a few, while the workers generate.

`ex4d.service.live_views` starts it at the first request. Requests come on standard input and results leave on standard
output; it ends with standard input.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from ex4d.devices import Devices
from ex4d.machine import MachineSettings
from ex4d.media.jpeg import jpeg_bytes
from ex4d.pipeline.coverage import SceneCoverage
from ex4d.pipeline.view import SceneViews
from ex4d.service.blob_store import BlobStore
from ex4d.service.processes import read_messages, start_child, write_message
from ex4d.service.refusals import refusal_for
from ex4d.service.stored_inputs import open_scene
from ex4d.service.users import user_folder
from ex4d.service.worker import use_one_thread
from ex4d_core.shot import ShotRequest

log = logging.getLogger("ex4d.service.live_view_process")

# Scenes whose files stay open: those that artists work on, and a few others.
_OPEN_SCENES = 8


@dataclass(frozen=True)
class _OpenScene:
    views: SceneViews
    coverage: SceneCoverage


class LiveViewRenderer:
    """Renders views and coverage, and keeps recently used scenes open."""

    def __init__(self, data: Path, device: str, machine: MachineSettings):
        """Render scenes of the users of a service's data folder, of each their own.

        Args:
            data: the folder.
            device: "cpu" or "cuda:N".
            machine: its licence.
        """
        self._data = data
        self._device, self._machine = device, machine
        self._scenes: LRUCache[tuple[str, str], _OpenScene] = LRUCache(_OPEN_SCENES)

    def result(self, message: dict[str, Any]) -> dict[str, Any]:
        """The fields of a `View` or of a piece of `Coverage`, or code and text of a `Refusal` as "error".

        Args:
            message: of `ex4d.service.live_views.ViewRequest.next_message`.
        """
        try:
            user = message["user"]
            if "coverage" in message:
                request = ShotRequest.from_wire(message["coverage"])
                return dict(self._open(user, request.scene).coverage.of(request, index=message["index"]).to_wire())
            request = ShotRequest.from_wire(message["view"])
            shown = self._open(user, request.scene).views.look(request)
            height, width = shown.image.shape[:2]
            shares = {"seen": shown.seen, "remembered": shown.remembered}
            return {"width": width, "height": height, **shares, "payload": jpeg_bytes(shown.image)}
        # Rendering may raise anything, and the next view may well be fine.
        except Exception as error:
            log.exception("could not render a view")
            refusal = refusal_for(error, self._data)
            return {"error": [refusal.code, str(refusal)]}

    def _open(self, user: str, digest: str) -> _OpenScene:
        if (user, digest) not in self._scenes:
            scene = open_scene(BlobStore(user_folder(self._data, user)), digest)
            place = {"device": self._device, "machine": self._machine}
            self._scenes[user, digest] = _OpenScene(SceneViews(scene, **place), SceneCoverage(scene, **place))
        return self._scenes[user, digest]


def main() -> None:
    """Serve until the end of standard input."""
    options, output = start_child("The live view process", "data", "device", "machine")
    use_one_thread(options.device)
    renderer = LiveViewRenderer(
        Path(options.data), Devices.parse(options.device).first, MachineSettings.from_json(options.machine)
    )
    with open(0, "rb", buffering=0) as requests:
        for message in read_messages(requests):
            write_message(output, renderer.result(message))


if __name__ == "__main__":
    main()

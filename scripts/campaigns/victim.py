"""A client as the command line has it, for a server that lies: sends a take, follows it, and keeps how that ended."""

from __future__ import annotations

from pathlib import Path

from campaigns.service import shot
from ex4d_core import pending_requests
from ex4d_core.client import Client
from ex4d_core.errors import user_message
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene

# The command line waits for 60; a lie need not take as long.
_ANSWER_SECONDS = 10.0


def main(address: str, folder: Path, seconds: float) -> None:
    """Write the sentence that a user reads into a file ``said``.

    Args:
        address: of the server.
        folder: has the scene; the take goes there, and a file ``ready`` as soon as everything is loaded.
        seconds: for which an answer is waited for while greetings are answered; a user waits longer.
    """
    pending_requests.ANSWER_SECONDS = seconds
    scene, client = Scene.open(folder / "scene"), Client(address, "victim")
    (folder / "ready").touch()
    take = RemoteTake(folder / "take", shot(scene, "arc"), scene)
    try:
        status = client.run(take.conversation(), _ANSWER_SECONDS)
        said = f"{status.state}: {status.reason}"
    except Exception as error:
        said = user_message(error)
    (folder / "said").write_text(said, "utf-8")

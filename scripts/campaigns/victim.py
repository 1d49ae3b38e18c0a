"""A client as the command line has it, for a server that lies: sends a take, follows it, and prints how that ended.

python -m campaigns.victim ADDRESS FOLDER SECONDS
"""

from __future__ import annotations

import sys
from pathlib import Path

from campaigns.service import shot
from ex4d_core import pending_requests
from ex4d_core.client import Client
from ex4d_core.errors import user_message
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene

# The command line waits for 60; a lie need not take as long.
_ANSWER_SECONDS = 10.0


def main(address: str, folder: Path, seconds: float) -> str:
    """Returns the sentence that a user reads.

    Args:
        address: of the server.
        folder: has the scene; the take goes there, and a file as soon as everything is loaded.
        seconds: for which an answer is waited for while greetings are answered; a user waits longer.
    """
    pending_requests.ANSWER_SECONDS = seconds
    scene, client = Scene.open(folder / "scene"), Client(address, "victim")
    (folder / "ready").touch()
    take = RemoteTake(folder / "take", shot(scene, "arc"), scene)
    try:
        status = client.run(take.conversation(), _ANSWER_SECONDS)
    except Exception as error:
        return user_message(error)
    return f"{status.state}: {status.reason}"


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])), end="", flush=True)

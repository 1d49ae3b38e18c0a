"""A process of `ex4d dataset build` for one device: makes one shard after the other.

Messages are those of `ex4d.service.processes`. It gets {"shard": N} and replies with {"done"} (samples of the shard)
and, at the end, {"made": N} or {"error"}. Its first message is {"ready": device}.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

from ex4d.machine import MachineSettings
from ex4d.service.processes import read_messages, start_child, write_message
from ex4d.training.build_plan import PLAN, BuildPlan
from ex4d.training.errors import TrainingDataError
from ex4d_core.errors import is_expected, user_message


def main() -> None:
    """Work until there is no more."""
    options, output = start_child("a worker of ex4d dataset build", "folder", "device", "machine")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that unfinished files are removed
    parent = os.getppid()
    try:
        from ex4d.training.shard_making import ShardMaker

        folder = Path(options.folder)
        plan = BuildPlan.load(folder)
        if plan is None:
            raise TrainingDataError(f"{folder} has no {PLAN} any more")
        maker = ShardMaker(plan, folder, options.device, MachineSettings.from_json(options.machine))
        write_message(output, {"ready": options.device})
        for message in read_messages(os.fdopen(0, "rb", buffering=0)):
            number = message["shard"]
            maker.make(number, lambda done: write_message(output, {"done": done}), lambda: os.getppid() == parent)
            write_message(output, {"made": number})
    except BrokenPipeError:  # the build has ended
        sys.exit(1)
    except Exception as error:
        if not is_expected(error):
            traceback.print_exception(error)
        write_message(output, {"error": user_message(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()

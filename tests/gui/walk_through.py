"""Runs inside a Blender with a window: one session of the walk-through, with a picture of each step.

    blender --enable-event-simulate [FILE.blend] --python walk_through.py -- SESSION ADDRESS FOLDER ZIP

SESSION is ``first``, ``reopen`` or ``again``. FOLDER has the footage in ``clip``, and the .blend is saved in
``project``; pictures and SESSION.json go to its ``pictures``. Every button is pressed by its operator, as the panels
do, and dialogs are answered by keys.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bpy

sys.path.append(str(Path(__file__).parent))

from blender_window import Walk
from first_hour import first_hour
from later import reopen, take_again

session, address, given, zip_file = sys.argv[sys.argv.index("--") + 1 :]
folder = Path(given)
walk = Walk(folder / "pictures", f"{session}.json")
bpy.context.preferences.view.show_splash = False
if session == "first":
    steps = first_hour(
        walk, address, folder / "clip" / "garden.mp4", folder / "documents", folder / "project" / "garden.blend"
    )
elif session == "reopen":
    steps = reopen(walk, Path(zip_file))
else:
    steps = take_again(walk)
walk.start(steps)

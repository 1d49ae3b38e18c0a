"""Another Blender at the same backend: imports a scene, shoots it, and ends well when its take is there.

python second_blender.py ADDRESS PACKAGE FOLDER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import bpy


def main(address: str, package: str, folder: str) -> None:
    import addon_utils  # comes with bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    addon_utils.enable("blender_addon", default_set=True)
    bpy.context.preferences.addons["blender_addon"].preferences.address = address
    from blender_addon.connection.session import session
    from blender_addon.scheduler import tick

    bpy.ops.wm.save_as_mainfile(filepath=str(Path(folder) / "second.blend"))
    bpy.ops.ex4d.import_scene(filepath=str(Path(package) / "manifest.json"))
    bpy.ops.ex4d.add_camera(preset="orbit", other_way=True)
    bpy.context.scene.ex4d_shot.label = "second"
    bpy.ops.ex4d.send_take()
    takes, deadline = bpy.context.scene.ex4d_takes, time.monotonic() + 60
    while takes[0].state in ("sending", "queued", "running", "fetching"):
        if time.monotonic() > deadline:
            sys.exit(f"still {takes[0].state}: {session().state_text()}")
        tick()
        session().client._socket.wait(0.02)
    if len(takes) != 1 or takes[0].state != "done":
        sys.exit(f"{[(take.label, take.state, take.reason) for take in takes]}")


if __name__ == "__main__":
    main(*sys.argv[1:])

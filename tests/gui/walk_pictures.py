"""Makes the pictures of the walk-through page, the README and the docs from those that the walk has taken.

    python tests/gui/walk_pictures.py PICTURES

PICTURES is the folder of a run of test_walk_through.py in Blender 5.2; the pictures go to blender_addon/walkthrough.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

TARGET = Path(__file__).resolve().parents[2] / "blender_addon" / "walkthrough"
PICTURES = {"scene": "05_scene", "camera": "08_coverage", "running": "10_running", "takes": "14_versions"}
# The page loads fast and the zip stays small.
MAX_BYTES = 150_000


def make(pictures: Path) -> None:
    """Write each picture at the best quality that fits."""
    for name, source in PICTURES.items():
        target = TARGET / f"{name}.jpg"
        with Image.open(pictures / f"{source}.png") as image:
            for quality in range(88, 40, -2):
                image.convert("RGB").save(target, quality=quality, optimize=True, progressive=True)
                if target.stat().st_size < MAX_BYTES:
                    break
        print(f"{target.name}: {target.stat().st_size // 1000} kB at quality {quality}")


if __name__ == "__main__":
    make(Path(sys.argv[1]))

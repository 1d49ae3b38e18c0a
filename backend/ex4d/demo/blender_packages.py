"""What the demo adds to a Blender's own Python: our two packages, and pyzmq and msgpack where it lacks them.

Blender's Python comes with numpy alone. The missing wheels are those of the add-on's zip, for that very Python.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ex4d_core
from ex4d.addon.blenders import OLDEST, Blender
from ex4d.addon.published_wheels import fetch_wheels
from ex4d.addon.zip_file import SOURCE, WHEELS_LOCK
from ex4d_core.errors import Ex4dError

_PROBE = """
import importlib.util, json, platform, sys
print("EX4D " + json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "system": sys.platform,
    "machine": platform.machine().lower(),
    "missing": [name for name in ("numpy", "zmq", "msgpack") if importlib.util.find_spec(name) is None],
}), flush=True)
"""


class BlenderError(Ex4dError):
    """This Blender cannot run the demo; the message says what to do."""


@contextmanager
def blender_modules(blender: Blender | None = None) -> Iterator[Path]:
    """A folder with our packages for Blender's Python, and nothing that is installed beside them here.

    Args:
        blender: which also gets pyzmq and msgpack if its own Python lacks them; None for neither.

    Raises:
        BlenderError: the Blender does not start or is too old.
        AddonError: the missing packages cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="ex4d-demo-") as name:
        folder = Path(name)
        for package in (Path(ex4d_core.__file__).parent, SOURCE):
            shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        for wheel in _missing_wheels(blender) if blender else ():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        yield folder


def _missing_wheels(blender: Blender) -> list[Path]:
    """The add-on's published wheels for a Blender's Python, or none where it has both packages."""
    version = blender.version()
    if version and version < OLDEST:
        number = ".".join(map(str, version))
        raise BlenderError(f"{blender.program} is Blender {number}: expected 4.2 or later; name another with --blender")
    found = _probe(blender)
    if "numpy" in found["missing"]:
        raise BlenderError(
            f"the Python {found['python']} of {blender.program} has no numpy: install it (on Debian and Ubuntu the "
            "package python3-numpy), or name another Blender with --blender"
        )
    if not found["missing"]:
        return []
    arm = found["machine"] in ("arm64", "aarch64")
    system = {"linux": "linux-", "darwin": "macos-", "win32": "windows-"}.get(found["system"], "") + "x64"
    return fetch_wheels(WHEELS_LOCK, [system.replace("x64", "arm64") if arm else system], [found["python"]])


def _probe(blender: Blender) -> dict:
    """What a Blender's Python says about itself."""
    with tempfile.TemporaryDirectory(prefix="ex4d-probe-") as folder:
        script = Path(folder) / "probe.py"
        script.write_text(_PROBE, encoding="utf-8")
        command = blender.script(script)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
            )
        except OSError as error:
            raise BlenderError(f"{blender.program} does not start: {error.strerror}; set --blender") from error
    answer = next((line[5:] for line in done.stdout.splitlines() if line.startswith("EX4D ")), None)
    if answer is None:
        raise BlenderError(f"{blender.program} does not run a script: {last_line_of(done.stdout)}; set --blender")
    return json.loads(answer)


def last_line_of(log: str) -> str:
    """The line in which Blender says why it failed: the last exception of Python's, else the last line."""
    # After an exception Blender says farewell, and that a script has failed.
    lines = [line.strip() for line in log.splitlines() if line.strip() and line.strip() != "Blender quit"]
    exceptions = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit): ", line)]
    return ([*lines[-1:], *exceptions[-1:]] or ["no output"])[-1]

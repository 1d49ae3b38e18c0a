"""Runs the demo: builds the scene, starts backend and Blender, shows progress, and collects the results.

The artist's part (import, camera, Generate, strip, save) runs inside Blender: see ``in_blender.py`` beside this.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from rich.progress import Progress, TaskID

from ex4d.addon.blenders import Blender
from ex4d.demo.blender_packages import blender_modules, last_line_of
from ex4d.service.local_service import LocalService, local_service
from ex4d_core.cameras import CameraPath
from ex4d_core.errors import Ex4dError
from ex4d_core.scene import Scene, sha256_of
from ex4d_core.scene_manifest import SceneError

NAME = "orbit"
_IN_BLENDER = Path(__file__).with_name("in_blender.py")
_INSTALLED_DATA = Path(__file__).resolve().parents[1] / "data"
_CHECKOUT = Path(__file__).resolve().parents[3]


class DemoError(Ex4dError):
    """The demo cannot continue; the message says what to do."""


class DemoFiles(NamedTuple):
    """The demo's results: scene package, Blender's file, movie of the take, and image of source, mask and result."""

    scene: Path
    blend: Path
    take: Path
    contact_sheet: Path


def run_demo(folder: Path, blender: str, progress: Progress, takes: int = 1) -> tuple[DemoFiles, dict[str, float]]:
    """Run the whole chain on the sample clip; returns its files, and times measured inside Blender.

    Args:
        folder: for all results; replaces an earlier demo there, but keeps its scene. Nothing else may be in it.
        blender: a Blender executable, or a Python that has ``bpy``.
        progress: shows the bars.
        takes: how many takes of the shot to generate, one after the other.

    Raises:
        DemoError: the folder holds something else, or Blender failed; the message names the log.
        ServiceError: the backend failed; the message names the log.
    """
    folder = folder.absolute()
    names = ("scene", "demo.blend", f"take_{NAME}.mp4", "contact_sheet.png")
    files = DemoFiles(*(folder / name for name in names))
    _claim(folder)
    # Blender first: what is wrong with it should not cost the user the time of all that comes before.
    at = Blender.at(blender)
    with _only_one_demo(folder), blender_modules(at) as modules:
        for earlier in ("takes", "backend"):
            shutil.rmtree(folder / earlier, ignore_errors=True)
        with local_service(folder / "backend") as backend:
            scene = sample_scene(files.scene, progress)
            take_folder, measured = _artist(files, at, modules, backend, progress, takes)
        _collect(files, scene, take_folder)
    return files, measured


@contextmanager
def _only_one_demo(folder: Path) -> Iterator[None]:
    """Wait for another demo that works in the same folder; the system frees the lock however that one ends."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another demo is running in {folder}; waiting for it to end", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _claim(folder: Path) -> None:
    """Make a folder the demo's, so that the next demo may replace what is in it.

    Raises:
        DemoError: it holds something that no demo has made.
    """
    mark = folder / ".ex4d-demo"
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()
    # Demos before version 0.2 left no mark; their scene came first.
    if found and not mark.exists() and not {"scene", "backend"} <= found:
        raise DemoError(f"{folder} holds something else ({min(found)}); choose another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def sample_folder() -> Path:
    """The sample clip: beside this package when installed, in the tests of a checkout."""
    installed = _INSTALLED_DATA / "sample"
    return installed if installed.is_dir() else _CHECKOUT / "tests" / "data" / "sample"


def sample_scene(folder: Path, progress: Progress) -> Scene:
    """The sample's scene package; built, unless the folder has that of the same sample."""
    sample = sample_folder()
    footage_path, depth_path = sample / "footage.mp4", sample / "depth.npz"
    fingerprint = f"{sha256_of(footage_path)} {sha256_of(depth_path)}"
    try:
        scene = Scene.open(folder)
        if scene.manifest.provenance.get("sample") == fingerprint:
            frames = scene.manifest.frames
            progress.add_task("reconstruct", total=frames, completed=frames)
            return scene
    except SceneError:
        pass  # none there yet, or an unfinished one: build it
    # Imported here, so that a second run starts its job at once.
    from ex4d.depth import DepthFiles
    from ex4d.media import probe
    from ex4d.pipeline.scene_building import build_scene

    footage = probe(footage_path)
    bars: list[TaskID] = []

    def show(done: int, total: int) -> None:
        if not bars:  # an error before the first frame should stand alone
            bars.append(progress.add_task("reconstruct"))
        progress.update(bars[0], completed=done, total=total)

    return build_scene(
        footage,
        DepthFiles(depth_path).estimate(footage),
        CameraPath.load(sample / "camera.npz").intrinsics,
        folder,
        name="sample",
        provenance={"footage": footage_path.name, "focal length": "the render's camera", "sample": fingerprint},
        progress=show,
    )


def _artist(
    files: DemoFiles, blender: Blender, modules: Path, backend: LocalService, progress: Progress, takes: int
) -> tuple[Path, dict[str, float]]:
    """Run the artist's part in Blender; returns the folder of the take, and measured times by name."""
    command = [*blender.script(_IN_BLENDER), "--"]
    command += ["--scene", str(files.scene), "--blend", str(files.blend), "--backend", backend.address]
    command += ["--takes", str(takes)]
    log_path = files.blend.with_name("blender.log")
    task = progress.add_task("blender", total=None)
    report = None
    with open(log_path, "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment(modules))
        assert process.stdout
        try:
            # Blender starts at the same time; the add-on waits for the backend anyway.
            backend.wait_until_ready()
            for line in process.stdout:
                backend.require_running()
                log.write(line)
                if line.startswith("{"):
                    message = json.loads(line)
                    progress.update(
                        task, description=message["stage"], completed=message["done"], total=message["total"]
                    )
                    if "take_folder" in message:
                        report = Path(message["take_folder"]), message["measured"]
        except BaseException:
            process.kill()
            raise
    if process.wait() != 0 or report is None:
        last = last_line_of(log_path.read_text(encoding="utf-8", errors="replace"))
        raise DemoError(f"Blender failed (exit code {process.returncode}): {last}; log: {log_path}")
    return report


def _environment(modules: Path) -> dict[str, str]:
    """Our environment, with a folder's modules on Python's path."""
    paths = [str(modules), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _collect(files: DemoFiles, scene: Scene, take_folder: Path) -> None:
    """Copy the take's movies to the names that EX-4D uses, and draw the contact sheet."""
    from ex4d.demo.sheet import draw_contact_sheet

    names = {"color.mp4": f"color_{NAME}.mp4", "mask.mp4": f"mask_{NAME}.mp4", "camera.npz": f"camera_{NAME}.npz"}
    for name, copy in {**names, "take.mp4": files.take.name}.items():
        shutil.copyfile(take_folder / name, files.blend.with_name(copy))
    draw_contact_sheet(files.contact_sheet, scene, take_folder)

"""The demo's conductor: builds the scene, starts backend and Blender, shows progress, and gathers what came of it.

The artist's part (import, camera, Generate, strip, save) happens inside Blender: see ``in_blender.py`` beside this.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

import ex4d_core
from ex4d.subprocesses import module_command, module_environment
from ex4d_core.cameras import CameraPath
from ex4d_core.client import Client, Conversation
from ex4d_core.errors import Ex4dError
from ex4d_core.messages import Hello, Message
from ex4d_core.scene import Scene, SceneError, sha256_of

NAME = "orbit"
_BACKEND_PATIENCE_SECONDS = 60
_STOP_SECONDS = 10
_IN_BLENDER = Path(__file__).with_name("in_blender.py")
_INSTALLED_DATA = Path(__file__).resolve().parents[1] / "data"
_CHECKOUT = Path(__file__).resolve().parents[3]


class DemoError(Ex4dError, RuntimeError):
    """The demo cannot go on; the message says what to do."""


@dataclass(frozen=True)
class DemoFiles:
    """What the demo leaves in its folder."""

    folder: Path

    @property
    def scene(self) -> Path:
        return self.folder / "scene"

    @property
    def blend(self) -> Path:
        return self.folder / "demo.blend"

    @property
    def take(self) -> Path:
        return self.folder / f"take_{NAME}.mp4"

    @property
    def contact_sheet(self) -> Path:
        return self.folder / "contact_sheet.png"


@dataclass(frozen=True)
class ArtistReport:
    """What Blender told at the end of its part: where the take is, and times by name."""

    take_folder: Path
    measured: dict[str, float]


def run_demo(folder: Path, blender: str, progress: Progress, takes: int = 1) -> tuple[DemoFiles, dict[str, float]]:
    """Run the whole chain on the sample clip; returns its files, and what was measured inside Blender.

    Args:
        folder: for everything that is left; an earlier demo there is replaced, its scene used again.
        blender: a Blender executable, or a Python that has ``bpy``.
        progress: shows the bars.
        takes: how many to make of the shot, one after the other.

    Raises:
        DemoError: backend or Blender failed; the message names the log.
    """
    files = DemoFiles(folder.absolute())
    files.folder.mkdir(parents=True, exist_ok=True)
    for earlier in ("takes", "backend"):
        shutil.rmtree(files.folder / earlier, ignore_errors=True)
    with _backend(files.folder / "backend") as backend:
        scene = _sample_scene(files.scene, progress)
        report = _artist(files, blender, backend, progress, takes)
    _gather(files, scene, report.take_folder)
    return files, report.measured


def sample_folder() -> Path:
    """The sample clip: beside this package when installed, in the tests of a checkout."""
    installed = _INSTALLED_DATA / "sample"
    return installed if installed.is_dir() else _CHECKOUT / "tests" / "data" / "sample"


@contextmanager
def blender_modules() -> Iterator[Path]:
    """A folder with what Blender's Python needs of ours, and nothing else: all that is installed here is for ours."""
    with tempfile.TemporaryDirectory(prefix="ex4d-demo-") as folder:
        addon = _INSTALLED_DATA / "blender_addon"
        core = Path(ex4d_core.__file__).parent
        for package in (core, addon if addon.is_dir() else _CHECKOUT / "blender_addon"):
            shutil.copytree(package, Path(folder) / package.name)
        yield Path(folder)


def _sample_scene(folder: Path, progress: Progress) -> Scene:
    """The sample's scene package, built unless the one there is of this very sample."""
    sample = sample_folder()
    footage_path, depth_path = sample / "footage.mp4", sample / "depth.npz"
    fingerprint = f"{sha256_of(footage_path)} {sha256_of(depth_path)}"
    task = progress.add_task("reconstruct", total=None)
    try:
        scene = Scene.open(folder)
        if scene.manifest.provenance.get("sample") == fingerprint:
            progress.update(task, total=scene.manifest.frames, completed=scene.manifest.frames)
            return scene
    except SceneError:
        pass  # none there yet, or an unfinished one: build it
    # Not needed for a second run, which shall start its job at once.
    from ex4d.depth import DepthFiles
    from ex4d.media import probe
    from ex4d.pipeline.reconstruct import build_scene

    footage = probe(footage_path)
    return build_scene(
        footage,
        DepthFiles(depth_path).estimate(footage),
        CameraPath.load(sample / "camera.npz").intrinsics,
        folder,
        name="sample",
        provenance={"footage": footage_path.name, "focal length": "the camera it was made with", "sample": fingerprint},
        progress=lambda done, total: progress.update(task, completed=done, total=total),
    )


@dataclass(frozen=True)
class _Backend:
    """A backend service of our own, as its own process."""

    address: str
    process: subprocess.Popen
    log: Path

    def wait_until_ready(self, progress: Progress) -> None:
        task = progress.add_task("backend", total=1)
        client = Client(self.address, "demo")
        ready = client.start(_greeting())
        begun = time.monotonic()
        try:
            while not ready.done:
                client.wait()
                if self.process.poll() is not None or time.monotonic() > begun + _BACKEND_PATIENCE_SECONDS:
                    raise DemoError(f"the backend did not start; its log is {self.log}")
        finally:
            client.close()
        progress.update(task, completed=1)


@contextmanager
def _backend(folder: Path) -> Iterator[_Backend]:
    """Start a backend; it is ended with the block."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    folder.mkdir(exist_ok=True)
    command = module_command("ex4d", "serve", "--address", address, "--data", str(folder))
    log_path = folder / "serve.log"
    with open(log_path, "w", encoding="utf-8") as log:
        environment = {**module_environment(), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
    try:
        yield _Backend(address, process, log_path)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _greeting() -> Conversation[Message]:
    return (yield Hello("demo"))


def _artist(files: DemoFiles, blender: str, backend: _Backend, progress: Progress, takes: int) -> ArtistReport:
    """Let Blender do the artist's part."""
    command = [blender, *_blender_flags(blender), str(_IN_BLENDER), "--"]
    command += ["--scene", str(files.scene), "--blend", str(files.blend), "--backend", backend.address]
    command += ["--takes", str(takes)]
    log_path = files.folder / "blender.log"
    task = progress.add_task("blender", total=None)
    report = None
    with blender_modules() as modules, open(log_path, "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment(modules))
        # Blender starts while the backend does; the add-on would wait for it anyway.
        try:
            backend.wait_until_ready(progress)
        except DemoError:
            process.kill()
            raise
        for line in process.stdout:
            if backend.process.poll() is not None:
                process.kill()
                raise DemoError(f"the backend ended in the middle of the job; its log is {backend.log}")
            log.write(line)
            if line.startswith("{"):
                told = json.loads(line)
                progress.update(task, description=told["stage"], completed=told["done"], total=told["total"])
                if "take_folder" in told:
                    report = ArtistReport(Path(told["take_folder"]), told["measured"])
    if process.wait() != 0 or report is None:
        raise DemoError(f"Blender's part failed (exit code {process.returncode}); its log is {log_path}")
    return report


def _blender_flags(blender: str) -> list[str]:
    """A Python with bpy runs a script as it is; Blender itself needs to be told."""
    if Path(blender).stem.lower().startswith("blender"):
        # Blender's Python heeds PYTHONPATH only when told to.
        return ["--background", "--factory-startup", "--python-use-system-env", "--python-exit-code", "1", "--python"]
    return []


def _environment(modules: Path) -> dict[str, str]:
    """Our environment, with a folder's modules found by Python."""
    paths = [str(modules), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _gather(files: DemoFiles, scene: Scene, take_folder: Path) -> None:
    """Copy the take's movies to the names the original uses, and draw the contact sheet."""
    from ex4d.demo.sheet import draw_contact_sheet

    names = {"color.mp4": f"color_{NAME}.mp4", "mask.mp4": f"mask_{NAME}.mp4", "camera.npz": f"camera_{NAME}.npz"}
    for name, copy in {**names, "take.mp4": files.take.name}.items():
        shutil.copyfile(take_folder / name, files.folder / copy)
    draw_contact_sheet(files.contact_sheet, scene, take_folder)

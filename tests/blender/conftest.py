"""Fixtures for tests inside Blender: an empty file with the add-on enabled, scene packages, a backend process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

try:
    import bpy
except ModuleNotFoundError:
    pass  # tests/conftest.py skips this folder
else:
    import addon_utils  # comes with bpy

ROOT = Path(__file__).resolve().parent.parent.parent

_EXIT_CODE = pytest.StashKey[int]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.blender)
            # What Blender is about to drop is not used: neither here nor, above all, in the add-on.
            item.add_marker(pytest.mark.filterwarnings("error:.*removed in Blender:DeprecationWarning"))


def fresh_blender() -> None:
    """An empty file, with the add-on enabled as the preferences do it."""
    require_no_failures()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    assert addon_utils.enable("blender_addon", default_set=True) is not None


def linked_into_another_file(blend: Path) -> bpy.types.Scene:
    """Save the open file, and go on in one beside it that links its Blender scene; that scene."""
    bpy.ops.wm.save_mainfile()
    fresh_blender()
    with bpy.data.libraries.load(str(blend), link=True) as (source, wanted):
        wanted.scenes = source.scenes
    edit = str(blend.with_name("edit.blend"))
    bpy.ops.wm.save_as_mainfile(filepath=edit)
    bpy.ops.wm.open_mainfile(filepath=edit)
    linked = [scene for scene in bpy.data.scenes if scene.library is not None]
    edits = [scene.ex4d_edit_scene for scene in linked]
    return next(scene for scene in linked if scene not in edits)


def require_no_failures() -> None:
    """What the add-on's timer met and nobody expected is a bug, although the timer goes on."""
    from blender_addon.errors import failures, forget_failures

    met = failures()
    forget_failures()
    assert not met, "\n".join(met)


@pytest.fixture(autouse=True)
def blender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Where the add-on keeps the secret by which it knows its own files.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "this computer"))
    fresh_blender()
    chosen = bpy.context.preferences.addons["blender_addon"].preferences
    chosen.output_folder = str(tmp_path / "unsaved takes")
    chosen.address = "tcp://127.0.0.1:1"  # nobody listens there; tests that want a backend say so
    yield
    try:
        require_no_failures()
    finally:
        addon_utils.disable("blender_addon", default_set=True)


@pytest.fixture(scope="session")
def backend_python() -> str:
    """The Python that has the backend's packages, which Blender's own has not."""
    python = os.environ.get("EX4D_BACKEND_PYTHON")
    if not python:
        pytest.fail("set EX4D_BACKEND_PYTHON to the Python of the backend's environment; scripts/test.py does")
    return python


def backend_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "backend"), str(ROOT), str(ROOT / "scripts")])}


@pytest.fixture(scope="session")
def write_scene(backend_python: str) -> Callable[..., Path]:
    """Writes a made-up scene package with movie and mesh; see write_scene.py."""

    def write(folder: Path, *options: str) -> Path:
        script = str(Path(__file__).with_name("write_scene.py"))
        command = [backend_python, script, str(folder), *(options or ("9", "48", "32"))]
        subprocess.run(command, check=True, env=backend_environment())
        return folder

    return write


@pytest.fixture(scope="session")
def card_scene(write_scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9 frames, 48x32, from a camera that stands still."""
    return write_scene(tmp_path_factory.mktemp("scenes") / "card")


@pytest.fixture(scope="session")
def moving_scene(write_scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9 frames, 48x32, from a camera that moves and zooms, with a lens off the centre."""
    return write_scene(tmp_path_factory.mktemp("scenes") / "moving", "9", "48", "32", "moving")


@pytest.fixture
def shot(card_scene, tmp_path) -> bpy.types.Object:
    """A saved file with the card's scene at frame 11 and a camera on an arc; the scene is new to the backend."""
    from blender_addon.cameras.presets import camera_from_preset
    from blender_addon.scenes.importing import ImportSettings, import_scene
    from ex4d_core.trajectories import Trajectory

    package = Path(shutil.copytree(card_scene, tmp_path / "scenes" / "card"))
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["name"] = f"card {uuid.uuid4().hex[:6]}"
    (package / "manifest.json").write_text(json.dumps(manifest))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    imported = import_scene(package, ImportSettings(frame_start=11))
    camera_from_preset(imported, Trajectory("30"), name="arc")
    bpy.context.scene.ex4d_shot.camera = bpy.data.objects["arc"]
    bpy.context.scene.ex4d_shot.label = "arc"
    return imported


@pytest.fixture
def images(tmp_path: Path) -> dict[int, Path]:
    """Nine small images, as a take's folder has them."""
    import numpy as np

    from ex4d_core.take_files import frame_file_name

    files = {index: tmp_path / frame_file_name(index) for index in range(9)}
    for index, path in files.items():
        image = bpy.data.images.new(path.name, 8, 6)
        gray = np.tile(np.float32([index / 8, index / 8, index / 8, 1]), 8 * 6)
        image.pixels.foreach_set(gray)
        image.filepath_raw, image.file_format = str(path), "PNG"
        image.save()
        bpy.data.images.remove(image)
    return files


@pytest.fixture
def movie(card_scene: Path, tmp_path: Path) -> Path:
    """Nine frames at 24 a second, as the movie of a take."""
    from ex4d_core.scene import Scene

    return Path(shutil.copy(Scene.open(card_scene).path("footage"), tmp_path / "take.mp4"))


class Backend:
    """A real service process, which tests may kill and start again."""

    def __init__(self, python: str, address: str, data: Path, *options: str):
        self.address = address
        self._command = [python, "-m", "ex4d", "serve", "--address", address, "--data", str(data)]
        self._command += ["--device", "cpu", *options]
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, env=backend_environment(), stderr=sys.stderr)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)


@contextmanager
def backend_process(python: str, address: str, data: Path, *options: str) -> Iterator[Backend]:
    backend = Backend(python, address, data, *options)
    backend.start()
    try:
        yield backend
    finally:
        backend.stop()


@pytest.fixture(scope="module")
def backend(backend_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """One backend for the tests of a module; a worker takes seconds to start."""
    with backend_process(backend_python, free_address(), tmp_path_factory.mktemp("backend")) as running:
        yield running


@pytest.fixture
def connected(backend: Backend, blender: None) -> Backend:
    """The add-on's preferences name the running backend."""
    bpy.context.preferences.addons["blender_addon"].preferences.address = backend.address
    return backend


def free_address() -> str:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{one.getsockname()[1]}"


def tick_until(met: Callable[[], bool], what: str, seconds: float = 240.0) -> None:
    """Do what Blender's timer does until something has happened; the limit only ends a test that is broken."""
    from blender_addon.connection.session import session
    from blender_addon.scheduler import tick

    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"still waiting for {what}: {session().state_text()}"
        tick()
        if session().client is not None:
            session().client._socket.wait(0.02)  # wait for an arrival, as the timer's interval does


def tick_round() -> None:
    """All of the scheduler's work once, however many ticks that takes on a slow machine."""
    from blender_addon.scheduler import scheduler, tick

    tick()
    tick()  # the first one after an undo restores, and does nothing else
    while scheduler.pending:
        tick()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the exit code for `pytest_unconfigure`."""
    session.config.stash[_EXIT_CODE] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End at once, with all results written: Blender as a module may crash or hang at the end of a long session."""
    if "bpy" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash.get(_EXIT_CODE, 1))

"""What is finished survives a power cut, on file systems without a journal too: its content and its names are synced.

A cut cannot be had in a test, so `Disk` notes what each real `os.fsync` has put on the disk: of a file its bytes, of a
folder its names. What it has seen is all that such a file system promises.
"""

from __future__ import annotations

import ast
import hashlib
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ex4d.generation import EngineState
from ex4d.media import write_png
from ex4d.pipeline.take_folder import TakeFolder
from ex4d.service.blob_store import BlobStore
from ex4d.service.inbox import Inbox
from ex4d.service.keys import create_keys
from ex4d.service.uploads import Uploads
from ex4d_core import durable_files
from ex4d_core.client import Client
from ex4d_core.durable_files import make_folder, put_in_place, sync_folder
from ex4d_core.mesh_cache import Pc2Writer
from ex4d_core.messages import CHUNK_BYTES, PutBlob
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene, move_package

ROOT = Path(__file__).parents[2]


class Disk:
    """What is on the disk for sure."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._note)

    def _note(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.is_dir():
            self._names[path.stat().st_ino] = {one.name: one.stat().st_ino for one in path.iterdir()}
        else:
            self._content[os.fstat(descriptor).st_ino] = path.read_bytes()

    def has(self, path: Path, below: Path) -> bool:
        """Whether a file, under its name and in its folders up to ``below``, survives."""
        inode = path.stat().st_ino
        if path.is_file() and self._content.get(inode) != path.read_bytes():
            return False
        while path != below:
            if self._names.get(path.parent.stat().st_ino, {}).get(path.name) != path.stat().st_ino:
                return False
            path = path.parent
        return True

    def remembers(self, folder: Path, name: str) -> bool:
        """Whether a name that a file had in a folder would be there again."""
        return name in self._names.get(folder.stat().st_ino, {name: 0})


pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the disk is watched through /proc")


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def file_at(path: Path, content: bytes = b"all of it") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_rename_alone_would_be_lost(disk, tmp_path):
    os.replace(file_at(tmp_path / "a.partial"), tmp_path / "a")
    assert not disk.has(tmp_path / "a", tmp_path)


def test_a_file_and_a_folder_that_were_put_in_place_stay_there(disk, tmp_path):
    (tmp_path / "done").mkdir()
    put_in_place(file_at(tmp_path / "work" / "a"), tmp_path / "done" / "a")
    file_at(tmp_path / "work" / "scene" / "depth.npy")
    file_at(tmp_path / "work" / "scene" / "more" / "color.npy")
    put_in_place(tmp_path / "work" / "scene", tmp_path / "done" / "scene")
    for name in ("a", "scene/depth.npy", "scene/more/color.npy"):
        assert disk.has(tmp_path / "done" / name, tmp_path / "done")
    assert not disk.remembers(tmp_path / "work", "scene") and not disk.remembers(tmp_path / "work", "a")


def test_new_folders_stay_with_all_above_them(disk, tmp_path):
    make_folder(tmp_path / "takes" / "orbit")
    assert disk.has(tmp_path / "takes" / "orbit", tmp_path)
    make_folder(tmp_path / "takes" / "orbit")


def test_a_disk_that_cannot_sync_folders_is_used_all_the_same(monkeypatch, tmp_path):
    """Some network and FUSE file systems say so; others fail, and that is told."""

    def refuse(code):
        def fsync(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        return fsync

    monkeypatch.setattr(os, "fsync", refuse(22))  # EINVAL
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", refuse(5))  # EIO
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)


def test_an_upload_is_on_disk_when_the_client_hears_that_it_is_complete(disk, tmp_path):
    blobs, data, replies = BlobStore(tmp_path), os.urandom(CHUNK_BYTES + 7), []
    sha256 = hashlib.sha256(data).hexdigest()
    with closing(Inbox()) as inbox:
        uploads = Uploads(blobs, inbox, 0)
        for start in range(0, len(data), CHUNK_BYTES):
            uploads.put(PutBlob(sha256, len(data), start, data[start : start + CHUNK_BYTES]), replies.append)
        while replies[-1].received >= 0 or len(replies) < 2:
            inbox.readable.setblocking(True)
            inbox.readable.recv(1)
            inbox.readable.setblocking(False)
            inbox.run_calls()
    assert disk.has(blobs.path(sha256), tmp_path)
    assert not disk.remembers(blobs.partial, sha256), "or both names would be of one file"


def test_a_result_is_on_disk_before_it_is_announced(disk, tmp_path):
    blobs = BlobStore(tmp_path)
    sha256, _ = blobs.add_file(file_at(tmp_path / "work" / "frame.png"))
    assert disk.has(blobs.path(sha256), tmp_path)


def test_the_artists_take_is_on_disk_as_it_arrives(disk, service, scene, shot, tmp_path):
    client = Client(service.address)
    with closing(client):
        remote = RemoteTake(tmp_path / "takes" / "orbit", request=shot(), scene=scene)
        client.run(remote.conversation(), timeout=240)
    files = [*remote.frames.values(), *remote.files.values()]
    assert len(files) == 7
    assert all(disk.has(path, tmp_path) for path in files)


def _package(folder: Path, scene: Scene) -> Path:
    folder.mkdir()
    for path in scene.path("depth").parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_scene_package_is_on_disk_also_in_the_place_of_an_older_one(disk, scene, tmp_path):
    for _ in range(2):
        move_package(_package(tmp_path / ".new", scene), tmp_path / "scene")
        assert all(disk.has(path, tmp_path) for path in (tmp_path / "scene").iterdir())


def _take_folder(folder: Path) -> Path:
    TakeFolder(folder).frame(0, file_at(folder / "work" / "0001.png"))
    return folder / "0001.png"


def _png(folder: Path) -> Path:
    write_png(folder / "sheet.png", np.zeros((4, 4, 3), np.uint8))
    return folder / "sheet.png"


def _mesh(folder: Path) -> Path:
    with Pc2Writer(folder / "mesh.pc2", 3, 1) as cache:
        cache.append(np.zeros((3, 3), np.float32))
    return folder / "mesh.pc2"


def _state(folder: Path) -> Path:
    EngineState(folder / "engine.pt").save({"step": 3})
    return folder / "engine.pt"


def _keys(folder: Path) -> Path:
    return create_keys(folder, "anna").client_secret


@pytest.mark.parametrize("write", [_take_folder, _png, _mesh, _state, _keys])
def test_other_results_are_on_disk_when_they_have_their_name(disk, tmp_path, write):
    path = write(tmp_path)
    assert disk.has(path, tmp_path)


def test_nothing_gets_its_name_by_a_rename_alone():
    """All renames go through `durable_files`, except those that put an older scene aside and back."""
    calls = {
        (path.relative_to(ROOT).as_posix(), ast.unparse(node))
        for part in ("backend/ex4d", "ex4d_core", "blender_addon")
        for path in (ROOT / part).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.replace", "os.rename", "shutil.move")
    }
    own = Path(durable_files.__file__).relative_to(ROOT).as_posix()
    scene = "ex4d_core/scene.py"
    expected = {(own, "os.replace(source, target)")}
    assert calls == {*expected, (scene, "os.replace(target, old)"), (scene, "os.replace(old, target)")}

"""Files that client and service both reach are copied there by the list of the owner, never by a bare path."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing

import pytest

from ex4d.service import ServiceError, create_keys
from ex4d.service.refusals import Refusal
from ex4d.service.shared_folders import SharedFolders
from ex4d_core.client import Client
from ex4d_core.folder_messages import DescribeFolders, TakeFile, parts_below
from ex4d_core.messages import BlobStatus, Error, GetBlob
from ex4d_core.transfers import Sent, upload_blobs

FOOTAGE = os.urandom(1_500_000)
NAME = hashlib.sha256(FOOTAGE).hexdigest()
SECRET = os.urandom(1_500_000)
SECRET_NAME = hashlib.sha256(SECRET).hexdigest()


@pytest.fixture(scope="module")
def show(tmp_path_factory):
    """The show's folder on the backend's machine, which has footage in it and secrets beside it."""
    folder = tmp_path_factory.mktemp("storage") / "show"
    (folder / "shots").mkdir(parents=True)
    (folder / "shots" / "clip.mov").write_bytes(FOOTAGE)
    (folder.parent / "secret").write_bytes(SECRET)
    if os.name != "nt":
        (folder / "link").symlink_to(folder.parent / "secret")
        (folder / "out").symlink_to(folder.parent)
        os.mkfifo(folder / "pipe")
    return folder


def listed(tmp_path, text):
    file = tmp_path / "folders.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def service(tmp_path_factory, service_process, show):
    """Anna calls the show's folder S:\\show, and as it is called here; Bob may not use it."""
    folder = tmp_path_factory.mktemp("folders")
    for user in ("anna", "bob"):
        create_keys(folder / "keys", user)
    file = listed(folder, f"[[folder]]\npath = '{show}'\nnames = ['S:\\show', '{show}']\nusers = ['anna']\n")
    service = service_process(folder / "data", keys=str(folder / "keys"), folders=str(file))
    yield service
    assert service.stop() == 0


@pytest.fixture
def anna(service, connect, with_key):
    return connect(service, with_key(service.data.parent / "keys", "anna"))


@pytest.fixture
def bob(service, connect, with_key):
    return connect(service, with_key(service.data.parent / "keys", "bob"))


def test_a_folder_is_its_users_and_a_hash_alone_gives_nothing(anna, bob, show, service):
    assert anna.ask(DescribeFolders()).names == ["S:\\show", str(show)] and bob.ask(DescribeFolders()).names == []
    file = TakeFile(NAME, len(FOOTAGE), "s:/Show/shots/clip.mov")
    assert bob.ask(file).code == "unknown-blob"
    other = hashlib.sha256(b"another file").hexdigest()
    for wrong in (TakeFile(other, len(FOOTAGE), file.path), TakeFile(NAME, 3, file.path)):
        assert anna.ask(wrong).code == "bad-blob"
    assert anna.ask(BlobStatus([NAME, other])).received == [0, 0]
    reply = anna.ask(file)
    while reply.received >= 0:
        reply = anna.ask(file)
    assert anna.ask(BlobStatus([NAME])).received == [-1] and anna.download(NAME) == FOOTAGE
    assert bob.ask(BlobStatus([NAME])).received == [0] and bob.ask(GetBlob(NAME, 0)).code == "unknown-blob"
    lines = [json.loads(line) for line in (service.data / "logs" / "audit.log").read_text().splitlines()]
    assert [one["user"] for one in lines if one["event"] == "take file" and one["sha256"] == NAME][-1] == "anna"


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "shots/../../secret",
        "shots/..\\..\\secret",
        "link",
        "out/secret",
        "pipe",
        "shots",
        "",
        "none",
        "a\0b",
    ],
)
def test_no_path_of_a_client_leaves_the_folder(anna, show, path):
    for folder in (str(show), "S:\\show"):
        reply = anna.ask(TakeFile(SECRET_NAME, len(SECRET), f"{folder}/{path}"))
        assert isinstance(reply, Error) and reply.code == "unknown-blob", reply


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "show/shots/clip.mov", "C:\\show\\shots\\clip.mov", "S:show", "x" * 9999]
)
def test_a_path_of_another_place_is_refused(anna, path):
    assert anna.ask(TakeFile(SECRET_NAME, len(SECRET), path)).code in ("unknown-blob", "bad-message")


def test_the_client_sends_nothing_of_what_the_backend_reaches(service, show, start_service, tmp_path):
    """Without keys there is one user; the same client sends what is elsewhere."""
    file = listed(tmp_path, f"[[folder]]\npath = '{show}'\nnames = ['{show}']\n")
    alone = start_service(folders=str(file))
    elsewhere = tmp_path / "elsewhere.mov"
    elsewhere.write_bytes(FOOTAGE[::-1])
    blobs = {NAME: show / "shots" / "clip.mov", hashlib.sha256(FOOTAGE[::-1]).hexdigest(): elsewhere}
    progress = Sent()
    with closing(Client(alone.address)) as client:
        client.run(upload_blobs(blobs, progress), timeout=120)
        assert client.ask(BlobStatus(list(blobs)), timeout=120).received == [-1, -1]
    assert progress.uploaded == progress.upload_size == 2 * len(FOOTAGE)
    lines = (alone.data / "logs" / "audit.log").read_text()
    assert lines.count('"take file"') == 1


@pytest.mark.parametrize(
    ("folder", "path", "parts"),
    [
        ("S:\\show", "s:\\SHOW\\a\\b.mov", ("a", "b.mov")),
        ("\\\\nas\\show", "\\\\NAS\\show\\b.mov", ("b.mov",)),
        ("/Volumes/show", "/Volumes/show/a b.mov", ("a b.mov",)),
        ("/Volumes/show", "/Volumes/Show/b.mov", None),
        ("/Volumes/show", "/Volumes/show2/b.mov", None),
        ("S:\\show", "S:\\show", None),
        ("S:\\show", "/show/b.mov", None),
    ],
)
def test_paths_are_compared_as_their_system_does(folder, path, parts):
    assert parts_below(folder, path) == parts


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("folder = 3", "tables"),
        ("[[folder]]\npath = '/nowhere/at/all'\nnames = ['/a']", "/nowhere/at/all"),
        ("[[folder]]\npath = '{here}'\nnames = []", "names"),
        ("[[folder]]\npath = '{here}'\nnames = ['show']", "absolute"),
        ("[[folder]]\npath = '{here}'\nnames = ['/']", "whole system"),
        ("[[folder]]\npath = '{here}'\nnames = ['/a']\nusers = []", "nobody"),
        ("[[folder]]\npath = '{here}'\nnames = ['/a']\nuser = ['anna']", "users"),
        ("[[folder]", "cannot use"),
    ],
)
def test_an_invalid_list_of_folders_stops_the_start(tmp_path, text, says):
    with pytest.raises(ServiceError, match=says):
        SharedFolders.read(listed(tmp_path, text.replace("{here}", str(tmp_path))))


def test_without_a_list_nothing_is_reached(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refusal):
        SharedFolders.read(None).open("", str(tmp_path / "file"))

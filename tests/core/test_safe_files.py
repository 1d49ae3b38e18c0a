"""Results are written into ordinary files and folders: no link is followed, no matter where it comes from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ex4d_core.errors import Ex4dError, user_message
from ex4d_core.job_status import JobEvent, JobStatus
from ex4d_core.messages import CHUNK_BYTES, BlobChunk, EventsReply, GetBlob, GetEvents
from ex4d_core.remote_job import RemoteJob
from ex4d_core.remote_scene import RemoteScene
from ex4d_core.safe_files import LinkError, create_folder, open_file
from ex4d_core.scene import move_package
from ex4d_core.transfers import fetch_blob, fetch_blobs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights of their own on Windows")

SMALL, LARGE = b"a frame of a backend", bytes(CHUNK_BYTES + 5)
MINE = b"what the artist has elsewhere"


def serve(conversation, blobs: dict[str, bytes], events: list[JobEvent] | None = None):
    """Answer a conversation as a backend does; returns what it returned."""
    reply = None
    try:
        while True:
            asked = conversation.send(reply)
            single = not isinstance(asked, list)
            replies = [_answer(one, blobs, events or []) for one in ([asked] if single else asked)]
            reply = replies[0] if single else replies
    except StopIteration as end:
        return end.value


def _answer(message, blobs, events):
    if isinstance(message, GetEvents):
        status = JobStatus("j1", "arc", "preview", "done", events=len(events))
        return EventsReply(status, [event for event in events if event.number > message.after])
    assert isinstance(message, GetBlob)
    data = blobs[message.sha256]
    return BlobChunk(message.sha256, len(data), message.offset, data[message.offset : message.offset + CHUNK_BYTES])


def blob(data: bytes, path: Path) -> tuple[str, int, Path]:
    return hashlib.sha256(data).hexdigest(), len(data), path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "mine.txt"
    path.parent.mkdir()
    path.write_bytes(MINE)
    return path


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    folder = tmp_path / "takes" / "arc_1"
    folder.mkdir(parents=True)
    return folder


LINKS = {"link": Path.symlink_to, "hard link": Path.hardlink_to}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_link_planted_as_a_partial_file_is_refused_and_named(takes, mine, kind, data):
    planted = takes / "frame_00000.png.partial"
    LINKS[kind](planted, mine)
    wanted = [blob(data, takes / "frame_00000.png"), blob(SMALL + b"2", takes / "frame_00001.png")]
    with pytest.raises(LinkError) as caught:
        serve(fetch_blobs(wanted), {sha256: data for sha256, _, _ in wanted} | {wanted[1][0]: SMALL + b"2"})
    assert mine.read_bytes() == MINE
    assert str(planted) in user_message(caught.value) and "remove it" in user_message(caught.value)


@pytest.mark.parametrize("data", [SMALL, LARGE, MINE], ids=["small", "large", "the same content"])
def test_a_link_planted_as_a_result_is_replaced_by_the_result(takes, mine, data):
    result = takes / "frame_00000.png"
    result.symlink_to(mine)
    wanted = blob(data, result)
    serve(fetch_blob(*wanted), {wanted[0]: data})
    assert mine.read_bytes() == MINE
    assert not result.is_symlink() and result.read_bytes() == data


def test_a_link_that_leads_nowhere_creates_nothing_there(takes, tmp_path):
    (takes / "take.mp4.partial").symlink_to(tmp_path / "elsewhere.txt")
    wanted = blob(SMALL, takes / "take.mp4")
    with pytest.raises(LinkError):
        serve(fetch_blob(*wanted), {wanted[0]: SMALL})
    assert not (tmp_path / "elsewhere.txt").exists()


def test_a_pipe_does_not_hold_anybody_up(takes):
    os.mkfifo(takes / "take.mp4.partial")
    wanted = blob(SMALL, takes / "take.mp4")
    with pytest.raises(LinkError, match="not an ordinary file"):
        serve(fetch_blob(*wanted), {wanted[0]: SMALL})


def test_an_interrupted_download_continues_in_its_ordinary_partial_file(takes):
    (takes / "take.mp4.partial").write_bytes(LARGE[:CHUNK_BYTES])
    wanted = blob(LARGE, takes / "take.mp4")
    serve(fetch_blob(*wanted), {wanted[0]: LARGE})
    assert (takes / "take.mp4").read_bytes() == LARGE and len(list(takes.iterdir())) == 1


@pytest.mark.parametrize("fetch", ["conversation", "fetch_available"])
def test_a_take_whose_folder_is_a_link_is_not_written(tmp_path, mine, fetch):
    folder = tmp_path / "arc_1"
    folder.symlink_to(mine.parent, target_is_directory=True)
    sha256, size, _ = blob(SMALL, mine)
    frame = JobEvent(1, "frame", index=0, sha256=sha256, size=size)
    with pytest.raises(LinkError) as caught:
        serve(getattr(RemoteJob(folder, job="j1"), fetch)(), {sha256: SMALL}, [frame])
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]
    assert str(folder) in str(caught.value) and isinstance(caught.value, Ex4dError)


def test_a_scene_whose_partial_folder_is_a_link_is_not_written(tmp_path, mine):
    job = RemoteScene(tmp_path / "walk_1", job="j1")
    job.results_folder.symlink_to(mine.parent, target_is_directory=True)
    with pytest.raises(LinkError):
        serve(job.conversation(), {}, [])
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]


def test_a_package_that_is_a_link_is_replaced_and_what_it_led_to_stays(tmp_path):
    new, real, target = tmp_path / "new", tmp_path / "real", tmp_path / "target"
    for folder in (new, real):
        folder.mkdir()
        (folder / "manifest.json").write_text('{"format": "ex4d-scene"}')
    (real / "color.npy").write_bytes(MINE)
    target.symlink_to(real, target_is_directory=True)
    move_package(new, target)
    assert not target.is_symlink() and (real / "color.npy").read_bytes() == MINE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real", "target"], "no link is left behind"


def test_folders_and_files_are_made_where_there_is_no_link(tmp_path):
    create_folder(tmp_path / "a" / "b")
    create_folder(tmp_path / "a" / "b")
    with open_file(tmp_path / "a" / "b" / "file") as file:
        file.write(b"longer than the next")
    with open_file(tmp_path / "a" / "b" / "file") as file:
        file.write(b"next")
    with open_file(tmp_path / "a" / "b" / "file", append=True) as file:
        file.write(b", and more")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"next, and more"

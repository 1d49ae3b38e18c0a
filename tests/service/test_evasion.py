"""What users of one service could get around: contents they do not know, their limits, the order of their requests."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from ex4d.service import ServiceSettings, create_keys
from ex4d.service.blob_store import BlobStore
from ex4d.service.job_store import JobStore
from ex4d.service.metrics import Metrics
from ex4d.service.pruning import Tidying
from ex4d.service.users import user_folder
from ex4d_core.folder_messages import TakeFile
from ex4d_core.messages import BlobStatus, GetEvents, ListJobs, PutBlob, Submit, Withdraw

LONG_AGO = time.time() - 7200


@pytest.fixture
def keys(tmp_path) -> Path:
    folder = tmp_path / "keys"
    for user in ("anna", "bob"):
        create_keys(folder, user)
    return folder


def shared_folder(tmp_path: Path, files: dict[str, bytes]) -> str:
    """A folder of files that both sides see as /show, and the settings that say so."""
    show, settings = tmp_path / "show", tmp_path / "folders.toml"
    show.mkdir()
    for name, content in files.items():
        (show / name).write_bytes(content)
    settings.write_text(f"[[folder]]\npath = '{show.as_posix()}'\nnames = ['/show']\n")
    return str(settings)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_refused_file_of_a_shared_folder_tells_neither_its_size_nor_its_hash(
    tmp_path, start_service, connect, with_key, keys
):
    content = os.urandom(30_000)
    service = start_service(keys=str(keys), folders=shared_folder(tmp_path, {"plate": content}))
    anna = connect(service, with_key(keys, "anna"))
    wrong = (sha256_of(content), 1), ("0" * 64, len(content)), ("0" * 64, 1)
    refusals = [anna.ask(TakeFile(*one, "/show/plate")) for one in wrong]
    assert {one.code for one in refusals} == {"bad-blob"} and len({one.text for one in refusals}) == 1


def test_files_that_are_taken_at_once_do_not_pass_the_limit_together(tmp_path, start_service, connect, with_key, keys):
    files = {str(number): os.urandom(400_000) for number in range(6)}
    service = start_service(keys=str(keys), folders=shared_folder(tmp_path, files), user_gb=1e-3)
    anna = connect(service, with_key(keys, "anna"))
    anna.upload(b"s" * 1000)
    asked = [anna.send(TakeFile(sha256_of(one), len(one), f"/show/{name}")) for name, one in files.items()]
    replies = anna.collect(asked)
    assert "disk-full" in {getattr(reply, "code", "") for reply in replies.values()}
    stored = [sha256_of(one) for one in files.values()]
    assert anna.ask(BlobStatus(stored)).received.count(-1) <= 2
    assert BlobStore(user_folder(service.data, "anna")).total_bytes() <= 1e6


def test_an_upload_that_can_never_fit_deletes_nothing(start_service, connect, with_key, keys):
    service = start_service(keys=str(keys), user_gb=1e-3)
    anna = connect(service, with_key(keys, "anna"))
    kept = anna.upload(b"1" * 500_000)
    for path in user_folder(service.data, "anna").rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert anna.ask(PutBlob("3" * 64, 5_000_000, 0, b"3" * 1000)).code == "disk-full"
    assert anna.ask(BlobStatus([kept])).received == [-1]


def test_a_withdrawal_does_not_overtake_a_submission_that_waits_for_room(
    tmp_path, start_service, connect, with_key, keys, scene, shot
):
    service = start_service(keys=str(keys))
    connect(service, with_key(keys, "anna")).upload_scene(scene)
    service.stop()
    service.start()  # the new one has not measured her store
    anna = connect(service, with_key(keys, "anna"))
    anna.collect([anna.send(Submit("mine", shot(f"wait {tmp_path / 'go'}").to_wire())), anna.send(Withdraw("mine"))])
    assert {one.state for one in anna.ask(ListJobs()).jobs} <= {"cancelled"}


def test_an_admin_who_fetches_anothers_job_is_told_whose_it_is(start_service, connect, with_key, keys, scene, shot):
    service = start_service(keys=str(keys), admins=("bob",))
    anna, bob = (connect(service, with_key(keys, user)) for user in ("anna", "bob"))
    anna.upload_scene(scene)
    job = anna.submit(shot())
    anna.finish(job)
    refused = bob.ask(GetEvents(job, 0, wait=0.0))
    assert refused.code == "unknown-job" and "is anna's" in refused.text


def test_an_invalid_file_of_users_does_not_stop_the_tidying(tmp_path, keys):
    settings = ServiceSettings(data=tmp_path / "data", keys=keys, cache_gb=1e-6)
    settings.data.mkdir()
    with closing(JobStore(settings.database)):
        pass
    blobs, file = BlobStore(settings.data), settings.data / "file"
    file.write_bytes(b"1" * 5000)
    sha256, _ = blobs.add_file(file)
    os.utime(blobs.path(sha256), (LONG_AGO, LONG_AGO))
    tidying = Tidying(settings)
    (keys / "users.json").write_text("{")
    assert tidying.run().bytes == 5000


def test_the_end_of_a_cancelled_job_counts_once(tmp_path, shot):
    settings = ServiceSettings(data=tmp_path)
    with closing(JobStore(settings.database)) as store:
        metrics = Metrics(settings, store)
        job = store.submit("key", shot(), [], owner="anna")
        store.claim("worker")
        metrics.job_changed(job)
        store.cancel(job)
        for _ in ("of the front", "of the worker, which has left it"):
            metrics.job_changed(job)
        labels = {"engine": "preview", "state": "cancelled"}
        assert metrics.registry.get_sample_value("ex4d_jobs_ended_total", labels) == 1


def test_the_port_of_metrics_serves_a_few_connections_and_closes_the_rest(tmp_path):
    settings = ServiceSettings(data=tmp_path)
    with closing(JobStore(settings.database)) as store:
        port, stop = Metrics(settings, store).serve("127.0.0.1:0")
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(17)]
        held[-1].settimeout(30)
        assert held[-1].recv(1) == b"", "16 are open already"
        for one in held:
            one.close()
        stop()

"""A job database that its disk has corrupted: the service reports it in a sentence and ends, and changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ex4d.cli.main import main
from ex4d.service import ServiceError, ServiceSettings, run_service
from ex4d.service.job_store import JobStore
from ex4d_core.messages import Error, ListJobs

REPORT = r"jobs\.sqlite is corrupt .*-wal and -shm"


def corrupt(database: Path) -> None:
    """Overwrite all but the first page, as nothing but a broken disk does."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        # Programs that have it open see that something was written, and read the file again.
        connection.execute("UPDATE jobs SET updated = updated + 1")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("PRAGMA page_size").fetchone()
    with open(database, "rb+") as file:
        size = file.seek(0, 2)
        file.seek(page)
        file.write(b"Z" * (size - page))


def test_a_service_does_not_start_on_it(tmp_path, shot, capsys):
    settings = ServiceSettings(address="tcp://127.0.0.1:0", data=tmp_path)
    with closing(JobStore(settings.database)) as store:
        store.submit("key", shot(), [])
        store.check()
    corrupt(settings.database)
    before = settings.database.read_bytes()
    with pytest.raises(ServiceError, match=REPORT):
        run_service(settings)
    assert main(["jobs", "--prune", "1", "--data", str(tmp_path)]) == 1
    assert "is corrupt" in capsys.readouterr().err
    assert settings.database.read_bytes() == before, "a rescue finds it unchanged"


def test_a_service_ends_when_it_finds_out(start_service, connect, scene, shot, tmp_path):
    service = start_service()
    wire = connect(service)
    wire.upload_scene(scene)
    wire.finish(wire.submit(shot("good")))
    corrupt(tmp_path / "data" / "jobs.sqlite")
    reply = wire.ask(ListJobs())
    assert isinstance(reply, Error) and reply.code == "storage" and "report" not in reply.text
    service.wait_for_log(REPORT)
    assert service.process.wait(60) == 1

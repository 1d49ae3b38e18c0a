"""A server that is none of ours: the client neither spins nor takes what it did not ask for."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import zmq

from ex4d_core import pending_requests
from ex4d_core.client import Client, ConnectionState
from ex4d_core.conversations import ClientError, Pause, UnexpectedReply
from ex4d_core.job_status import JobDetails, JobEvent, JobStatus
from ex4d_core.messages import (
    REQUESTS,
    AskSilence,
    BlobChunk,
    BlobStatus,
    BlobStatusReply,
    DescribeFolders,
    DescribeJobs,
    DescribeTurns,
    EventsReply,
    FoldersReply,
    GetBlob,
    GetEvents,
    Hello,
    JobsDescribed,
    JobsReply,
    ListJobs,
    Message,
    PutBlob,
    PutBlobReply,
    Silence,
    TurnsReply,
    Welcome,
)
from ex4d_core.remote_job import RemoteJob
from ex4d_core.transfers import Sent, StorageError, TransferError, fetch_blob, upload_blobs
from ex4d_core.wire import decode, encode

PATIENCE = 240.0
WELCOME = Welcome("evil", "1", ["cpu"], {}, {})


class EvilServer:
    """Answers each type of request with what the test says, at once."""

    def __init__(self, answers: dict[type[Message], Callable[[Message], Message | None]], replies: int = 1):
        self._replies = replies
        self.asked: Counter[str] = Counter()
        usual = {
            AskSilence: Silence([]),
            DescribeTurns: TurnsReply("", "artist", []),
            DescribeFolders: FoldersReply([]),
        }
        self._answers = {
            Hello: lambda _: WELCOME,
            **{kind: lambda _, one=one: one for kind, one in usual.items()},
            **answers,
        }
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(50):
                client, *parts = self._socket.recv_multipart()
                request_id, message = decode(parts, REQUESTS)
                self.asked[type(message).__name__] += 1
                answer = self._answers[type(message)](message)
                for _ in range(self._replies if answer else 0):
                    self._socket.send_multipart([client, *encode(answer, request_id)])

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy()


@pytest.fixture
def evil() -> Iterator[Callable[..., EvilServer]]:
    servers = []

    def start(answers: dict[type[Message], Callable[[Message], Message | None]], replies: int = 1) -> EvilServer:
        servers.append(EvilServer(answers, replies))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_server_that_has_no_news_at_once_is_not_asked_in_a_loop(evil, tmp_path):
    server = evil({GetEvents: lambda _: EventsReply(JobStatus("j", "", "preview", "running"), [])})
    job = RemoteJob(tmp_path, job="j")
    with closing(Client(server.address)) as client:
        client.ask(Hello(), timeout=PATIENCE)
        job.advance(client)
        started = time.monotonic()
        while server.asked["GetEvents"] < 3:
            assert not job.over, job.error
            client.wait()
        # Two pauses lie between three requests, however slow this machine is.
        assert time.monotonic() - started > 0.3
        assert client.busy and job.state.value == "running"


def test_a_pause_ends_and_other_conversations_go_on_meanwhile(evil):
    server = evil({})
    steps = []

    def pausing():
        steps.append("before")
        yield Pause(0.05)
        steps.append("after")
        return (yield Hello())

    with closing(Client(server.address)) as client:
        task = client.start(pausing())
        never = client.start(iter_forever())
        assert client.ask(Hello(), timeout=PATIENCE) == WELCOME
        while not task.done:
            client.wait()
        assert steps == ["before", "after"] and task.outcome() == WELCOME
        client.stop(never)
    assert never.done


def iter_forever():
    while True:
        yield Pause(3600.0)


def test_an_answer_of_another_type_is_refused(evil):
    server = evil({ListJobs: lambda _: WELCOME})
    refused = pytest.raises(UnexpectedReply, match="answered ListJobs with Welcome")
    with closing(Client(server.address)) as client, refused:
        client.ask(ListJobs(), timeout=PATIENCE)


@pytest.mark.parametrize("received", [[], [0, 0]])
def test_a_wrong_number_of_blobs_is_no_bug(evil, received):
    server = evil({BlobStatus: lambda _: BlobStatusReply(received)})
    with closing(Client(server.address)) as client, pytest.raises(TransferError, match="1"):
        client.run(upload_blobs({"ab" * 32: b"data"}, Sent()), timeout=PATIENCE)


def test_an_upload_that_gets_no_further_ends(evil):
    server = evil({BlobStatus: lambda _: BlobStatusReply([0]), PutBlob: lambda put: PutBlobReply(put.sha256, 0)})
    with closing(Client(server.address)) as client, pytest.raises(TransferError, match="keeps only 0 of 4 bytes"):
        client.run(upload_blobs({"ab" * 32: b"data"}, Sent()), timeout=PATIENCE)
    assert server.asked["PutBlob"] < 100


@pytest.mark.parametrize("received", [4, 5, 2**30])
def test_more_of_an_upload_than_there_is_is_no_bug(evil, received):
    server = evil({BlobStatus: lambda _: BlobStatusReply([received])})
    with closing(Client(server.address)) as client, pytest.raises(TransferError, match=f"{received} of 4 bytes"):
        client.run(upload_blobs({"ab" * 32: b"data"}, Sent()), timeout=PATIENCE)


@pytest.mark.parametrize("change", [{"size": 10**9}, {"offset": 1}, {"sha256": "cd" * 32}, {"payload": b"123456"}])
def test_a_chunk_of_something_else_is_not_written(evil, tmp_path, change):
    chunk = BlobChunk("ab" * 32, 5, 0, b"12345")
    server = evil({GetBlob: lambda _: replace(chunk, **change)})
    with closing(Client(server.address)) as client, pytest.raises(UnexpectedReply, match="asked for byte 0 of 5"):
        client.run(fetch_blob("ab" * 32, 5, tmp_path / "film.mp4"), timeout=PATIENCE)
    assert (tmp_path / "film.mp4.partial").stat().st_size == 0


def test_a_result_that_the_disk_has_no_room_for_is_not_begun(evil, tmp_path):
    server = evil({})
    size = shutil.disk_usage(tmp_path).total + 1
    with closing(Client(server.address)) as client, pytest.raises(StorageError, match="are free"):
        client.run(fetch_blob("ab" * 32, size, tmp_path / "film.mp4"), timeout=PATIENCE)
    assert not server.asked["GetBlob"]


def test_a_reply_that_nobody_asked_for_ends_the_connection(evil):
    server = evil({ListJobs: lambda _: JobsReply([])}, replies=2)
    with closing(Client(server.address)) as client:
        with pytest.raises(ClientError, match="nobody asked for"):
            while True:
                client.ask(ListJobs(), timeout=PATIENCE)
        assert client.state is ConnectionState.REFUSED
        asked = server.asked.total()
        client.wait(0.01)
        client.poll()
        assert server.asked.total() == asked, "it is not talked to any more"


def test_a_request_that_is_never_answered_ends_although_greetings_are(evil, monkeypatch):
    monkeypatch.setattr(pending_requests, "ANSWER_SECONDS", 0.2)
    server = evil({ListJobs: lambda _: None})
    with closing(Client(server.address)) as client:
        with pytest.raises(UnexpectedReply, match="has not answered ListJobs"):
            client.ask(ListJobs(), timeout=PATIENCE)
        assert client.ask(Hello(), timeout=PATIENCE) == WELCOME
        assert not client.busy


def test_results_that_cannot_be_are_not_fetched(tmp_path):
    job = RemoteJob(tmp_path, job="j")
    for event in (JobEvent(1, "frame", index=10**9), JobEvent(1, "frame", index=1, size=2**62)):
        assert job.path_for(event) is None
    for name in ("../../.bashrc", "take.mp4/..", "/etc/passwd"):
        assert job.path_for(JobEvent(1, "file", name)) is None
    assert job.path_for(JobEvent(1, "frame", index=3)).parent == tmp_path


def test_a_list_of_jobs_shows_labels_without_their_escape_sequences(evil, capsys):
    from ex4d.cli.main import main

    label = "take\x1b]0;owned\x07\x9b31m\u202e"
    jobs = [JobStatus("j\x1b[2J", label, "preview", "failed", reason="one\ntwo\x1b[8m")]
    owners = [JobDetails("j\x1b[2J", owner="anna\x1b[1m")]
    server = evil({ListJobs: lambda _: JobsReply(jobs), DescribeJobs: lambda _: JobsDescribed(owners)})
    assert main(["jobs", "--backend", server.address]) == 0
    told = capsys.readouterr()
    assert "take" in told.out and not set(told.out + told.err) & set("\x1b\x07\x9b\u202e")


def test_a_log_cannot_be_forged_and_is_bounded(tmp_path):
    import logging

    from ex4d.service.logs import LineLimit, PlainFormatter

    written = tmp_path / "service.log"
    handler = logging.FileHandler(written)
    handler.setFormatter(PlainFormatter("%(levelname)s %(message)s"))
    handler.addFilter(LineLimit(20))
    logger = logging.getLogger("forged")
    logger.propagate = False
    logger.addHandler(handler)
    logger.warning("job %s", "x\nERROR the disk is gone\x1b[31m" + "y" * 10**6)
    for _ in range(1000):
        logger.warning("again")
    handler.close()
    lines = written.read_text().splitlines()
    assert not any(line.startswith("ERROR") for line in lines) and "\x1b" not in "".join(lines)
    assert written.stat().st_size < 10_000 and len(lines) == 21
    assert "left out" in lines[-1]

"""List the jobs of a backend, cancel one, change its priority, or download its results so far.

--watch shows the list until Ctrl-C. Jobs of high priority go before all others, those of low priority after them; only
admins give a high one. Among jobs of the same priority the users take turns.

--prune DAYS frees space in a data folder of this machine, whether a service uses it or not: it forgets jobs that ended
more than DAYS days ago, and deletes footage and results that were not used for as long.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.cli.options import ANSWER_SECONDS, add_backend_arguments, add_overwrite_argument, backend_client
from ex4d.cli.parsing import refuse_without_effect
from ex4d.cli.report import Report, plain_console
from ex4d_core.turn_messages import PRIORITIES, Priority

if TYPE_CHECKING:
    from rich.table import Table

    from ex4d_core.client import Client
    from ex4d_core.job_status import JobSilence, JobStatus
    from ex4d_core.message_base import Message

SUMMARY = "list, watch, order, cancel, fetch and prune the jobs of a backend"

_WATCH_SECONDS = 1.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ex4d jobs`."""
    add_backend_arguments(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--cancel", metavar="JOB", help="cancel a job")
    which.add_argument(
        "--priority", nargs=2, metavar=("JOB", "PRIORITY"), help=f"set the priority of a job: {', '.join(PRIORITIES)}"
    )
    which.add_argument("--watch", action="store_true", help="show the list until Ctrl-C, as it is now")
    which.add_argument("--fetch", metavar="JOB", help="download the results of a job into --out")
    which.add_argument("--prune", metavar="DAYS", type=float, help="forget jobs that ended more than DAYS days ago")
    parser.add_argument("--data", type=Path, help="with --prune: data folder of the service; default: the user's")
    parser.add_argument("-o", "--out", type=Path, help="folder for the files of --fetch")
    add_overwrite_argument(parser, "with --fetch: a take or scene that is in the folder, exactly its files")


def run(options: argparse.Namespace, report: Report) -> int:
    """Run `ex4d jobs`."""
    from ex4d_core.errors import RequestError
    from ex4d_core.messages import Cancel, ListJobs

    if options.prune is None:
        refuse_without_effect(options, ["data"], "without --prune")
    else:
        names = ("backend", "client_key", "server_key")
        refuse_without_effect(options, names, "with --prune, which works on a folder of this machine (--data)")
    if not options.fetch:
        refuse_without_effect(options, ["out"], "without --fetch")
    if options.fetch and not options.out:
        raise RequestError("--fetch needs a folder: add --out FOLDER")
    if options.prune is not None:
        return _prune(options.prune, options.data, report)
    client = backend_client(options)
    try:
        if options.cancel:
            _report_jobs([client.ask(Cancel(options.cancel), timeout=ANSWER_SECONDS).status], report)
        elif options.priority:
            _report_jobs([_set_priority(client, *options.priority)], report)
        elif options.watch:
            _watch(client, report)
        elif options.fetch:
            fetched, job = _fetch(client, options.fetch, options.out, report, overwrite=options.overwrite)
            state = "" if job.state == "done" else f"; the job is {': '.join(filter(None, (job.state, job.reason)))}"
            report.say(f"{fetched} files in {options.out}{state}")
            report.add("files", fetched, "")
            report.add("jobs", [asdict(job)], "")
        else:
            jobs = client.ask(ListJobs(), timeout=ANSWER_SECONDS).jobs
            _report_jobs(jobs, report, _details(client), _silences(client), _priorities(client))
    finally:
        client.close()
    return 0


def _prune(days: float, data: Path | None, report: Report) -> int:
    from ex4d.service import ServiceError, ServiceSettings, prune, used

    if not days >= 0:
        raise ServiceError(f"invalid --prune {days:g}: expected a number of days, 0 or more")
    settings = ServiceSettings() if data is None else ServiceSettings(data=data)
    pruned, left = prune(settings, days), used(settings)
    report.say(f"{pruned.jobs} jobs forgotten, {pruned.bytes / 1e9:.2f} GB freed")
    report.note(f"{left.blobs / 1e9:.2f} GB of footage and results and {left.jobs / 1e9:.3f} GB of jobs are left")
    report.add("forgotten", pruned.jobs, "")
    report.add("freed_bytes", pruned.bytes, "")
    report.add("left_bytes", {"blobs": left.blobs, "jobs": left.jobs}, "")
    return 0


def _set_priority(client: Client, job: str, priority: str) -> JobStatus:
    from ex4d_core.conversations import RequestRefused
    from ex4d_core.errors import RequestError
    from ex4d_core.messages import SetPriority

    names = list(map(str, PRIORITIES))
    if priority not in names:
        raise RequestError(f"--priority: invalid priority {priority!r}: expected {', '.join(PRIORITIES)}")
    try:
        return client.ask(SetPriority(job, PRIORITIES[names.index(priority)]), timeout=ANSWER_SECONDS).status
    except RequestRefused as error:
        if error.code != "bad-message":
            raise
        raise RequestError("--priority: this backend knows no priorities; update it") from error


def _watch(client: Client, report: Report) -> None:
    """Show the list as it is now, until Ctrl-C."""
    import sys
    import time

    from rich.live import Live

    from ex4d_core.errors import RequestError
    from ex4d_core.messages import ListJobs

    if report.as_json or not sys.stdout.isatty():
        raise RequestError("--watch: needs a terminal; without it the command lists the jobs once")
    with Live(console=plain_console(), screen=True, auto_refresh=False) as live:
        while True:
            jobs = client.ask(ListJobs(), timeout=ANSWER_SECONDS).jobs
            owners = {name: one["owner"] for name, one in _details(client).items()}
            table = _table(jobs, _silences(client), owners, _priorities(client))
            live.update(table if jobs else "no jobs", refresh=True)
            time.sleep(_WATCH_SECONDS)


def _details(client: Client) -> dict[str, dict[str, Any]]:
    """What jobs are of, by their names; nothing from a service that is too old to tell."""
    from ex4d_core.messages import DescribeJobs

    described = _if_known(client, DescribeJobs())
    return {one.job: asdict(one) for one in described.jobs} if described else {}


def _silences(client: Client) -> dict[str, JobSilence]:
    """How long running jobs have made no progress; nothing from a service that is too old to tell."""
    from ex4d_core.messages import AskSilence

    told = _if_known(client, AskSilence())
    return {one.job: one for one in told.jobs} if told else {}


def _priorities(client: Client) -> dict[str, Priority]:
    """The priorities of jobs that have not ended; nothing from a service that is too old to tell."""
    from ex4d_core.messages import DescribeTurns

    told = _if_known(client, DescribeTurns())
    return {one.job: one.priority for one in told.jobs} if told else {}


def _if_known(client: Client, question: Message) -> Any:
    """The answer to a question; None from a service that is too old for it."""
    from ex4d_core.conversations import RequestRefused

    try:
        return client.ask(question, timeout=ANSWER_SECONDS)
    except RequestRefused as error:
        if error.code != "bad-message":
            raise
        return None


def _report_jobs(
    jobs: list[JobStatus],
    report: Report,
    details: Mapping[str, dict[str, Any]] | None = None,
    silences: Mapping[str, JobSilence] | None = None,
    priorities: Mapping[str, Priority] | None = None,
) -> None:
    """The jobs, newest first; times are in seconds since 1970."""
    from ex4d_core.stages import NO_ROOM_STAGE

    silences = silences or {}
    silent = {name: {"seconds_without_progress": one.seconds} for name, one in silences.items()}
    given = {name: {"priority": priority} for name, priority in (priorities or {}).items()}
    more = details or {}, silent, given
    told = [asdict(job) | {name: value for one in more for name, value in one.get(job.job, {}).items()} for job in jobs]
    report.add("jobs", told, "")
    owners = {name: one["owner"] for name, one in (details or {}).items()}
    report.show(_table(jobs, silences, owners, priorities or {}) if jobs else "no jobs")
    if any(job.stage == NO_ROOM_STAGE for job in jobs):
        report.note("jobs wait for disk space on the backend, and continue by themselves when there is room")


def _table(
    jobs: list[JobStatus],
    silences: Mapping[str, JobSilence],
    owners: Mapping[str, str],
    priorities: Mapping[str, Priority],
) -> Table:
    """For people, newest job first; owners where the backend has several users."""
    from datetime import datetime

    from rich.table import Column, Table

    from ex4d_core.plain_text import plain_line
    from ex4d_core.stages import silence_text

    # Users copy the name of a job, so never cut it. Labels and reasons may be long, and are wrapped.
    short = [Column(name, no_wrap=True) for name in ("engine", "state", "progress", "since")]
    shown = ["owner"] if any(owners.values()) else []
    table = Table(Column("job", no_wrap=True, min_width=16), *shown, "label", *short, "reason", box=None)
    for job in jobs:
        progress = f"{job.done}/{job.total} {job.stage}" if job.total else ""
        if job.state == "queued":
            progress = job.stage or f"{job.queue_position} ahead"
            if (priority := priorities.get(job.job, "normal")) != "normal":
                progress += f", {priority}"
        silence = silence_text(silences[job.job].seconds, silences[job.job].limit) if job.job in silences else ""
        since = datetime.fromtimestamp(job.created).strftime("%d %b %H:%M:%S")
        whose = [owners.get(job.job, "")] if shown else []
        told = (job.job, *whose, job.label, job.engine, job.state, progress, since, job.reason or silence)
        table.add_row(*map(plain_line, told))
    return table


def _fetch(client: Client, job: str, folder: Path, report: Report, *, overwrite: bool) -> tuple[int, JobStatus]:
    """Download every finished frame and file of a take or a scene into a folder; returns how many, and the status."""
    from ex4d.pipeline.targets import mark_results, remove, require_results_folder, unmark_results
    from ex4d_core.remote_job import RemoteJob

    earlier = require_results_folder(folder, job, overwrite=overwrite)

    def begin() -> None:
        remove(earlier)
        mark_results(folder, job)

    # The folder that was asked for may be a link; what is in it must not.
    remote = RemoteJob(folder.resolve(), job=job)
    remote.before_results = begin
    with report.stages() as progress:
        task = client.start(remote.fetch_available())
        while not task.done:
            client.wait()
            client.require_answer(30)
            progress("fetch", remote.last_event, remote.status.events if remote.status else 0)
    if task.error:
        raise task.error
    unmark_results(folder)
    assert task.result is not None
    return len(remote.files), task.result

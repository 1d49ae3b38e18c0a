"""The short form of each campaign of scripts/campaigns; the long forms run by hand, see docs/measured/campaigns.md."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from campaigns import (
    bombs,
    disks,
    evil_server,
    full_disk,
    fuzz,
    kills,
    load,
    power_cuts,
    soak,
    strangers_file,
    tidying,
)
from campaigns.__main__ import CAMPAIGNS, main
from campaigns.evil_server import ENDLESS
from campaigns.lies import LIES
from campaigns.outcome import Outcome


def test_kills_lose_nothing_that_was_acknowledged():
    outcome = kills.run(seed=1, count=4)
    assert not outcome.breaches
    assert outcome.figures["kills"] == 4


def test_no_message_is_an_internal_error():
    outcome = fuzz.run(seed=1, count=2000)
    assert not outcome.breaches
    assert outcome.figures["bad-message"] > 500


# These keep a client waiting, which takes time; tests/core/test_remote_job.py has them without a clock.
SLOW = ("events without end", "a job that is over and goes on", "a job that is over and has more")


@pytest.mark.parametrize("lie", [one for one in (*LIES, *ENDLESS) if one not in SLOW])
def test_a_lying_server_ends_a_client_with_a_sentence(lie):
    outcome = evil_server.tell(lie, seed=1, seconds=1.0)
    assert not outcome.breaches
    assert outcome.figures["end"]


def test_a_stranger_never_gets_a_file_written_outside_the_folder():
    outcome = strangers_file.run(seed=1, count=60)
    assert not outcome.breaches
    assert outcome.figures["refused"] and outcome.figures["arrived"]


def test_many_clients_at_once_lose_no_job():
    outcome = load.run(seed=1, count=150)
    assert not outcome.breaches
    assert (outcome.figures["clients"], outcome.figures["jobs"]) == (15, 150)


def test_whatever_clients_do_the_service_stays_as_it_was(monkeypatch):
    for name in ("view", "coverage"):  # their process loads torch, which takes longer than all the rest
        monkeypatch.delitem(soak._WEIGHTS, name)
    outcome = soak.run(seed=1, count=80)
    assert not outcome.breaches
    assert outcome.figures["job"] and outcome.figures["disconnect"]


def test_old_jobs_are_forgotten_while_the_service_answers():
    outcome = tidying.run(seed=1, count=600)
    assert not outcome.breaches
    assert outcome.figures["forgotten"]


MESSAGES = ("manifest deep json", "manifest too long", "deep msgpack", "wide msgpack", "many maps in msgpack")


def test_messages_that_unpack_to_much_more_are_refused_in_words():
    outcome = bombs.run(seed=1, count=1, names=MESSAGES)
    assert not outcome.breaches
    assert outcome.figures["bombs"] == len(MESSAGES)


def _mounted() -> set[str]:
    return {line for line in Path("/proc/mounts").read_text().splitlines() if "ex4d-campaign-" in line}


@pytest.fixture
def mounts():
    """Nothing is left mounted; skips where this user cannot mount at all."""
    try:
        disks.require_mounts()
    except disks.DiskNeeded as needed:
        pytest.skip(str(needed))
    before = _mounted()
    yield
    assert _mounted() <= before


def test_a_full_disk_fails_no_job(mounts):
    outcome = full_disk.run(seed=2, count=3)
    assert not outcome.breaches
    assert outcome.figures["done"] == 6


def test_a_power_cut_loses_nothing_that_was_acknowledged(mounts):
    outcome = power_cuts.run(seed=1, count=1)
    assert not outcome.breaches
    assert outcome.figures["cuts on ext4"] == 1 and outcome.figures["jobs"]


@pytest.mark.parametrize("name", ["full_disk", "power_cuts"])
def test_without_root_a_campaign_says_what_it_needs(name, monkeypatch, capsys):
    monkeypatch.setattr(disks.os, "geteuid", lambda: 1000, raising=False)
    assert main([name, "--count", "1"]) == 2
    assert "needs Linux and root" in capsys.readouterr().err


def test_a_breach_is_said_and_is_the_exit_code(monkeypatch, capsys):
    def run(seed: int, count: int) -> Outcome:
        return Outcome({"kills": count}, ["job 1 is lost"] if seed else [])

    monkeypatch.setattr(kills, "run", run)
    assert main(["kills", "--count", "7"]) == 0
    assert main(["kills", "--seed", "1"]) == 1
    told = capsys.readouterr()
    assert told.err == "breach: job 1 is lost\n"
    assert told.out.startswith("kills seed 0: kills 7, seconds ")
    assert "kills seed 1: kills 50" in told.out and told.out.endswith("1 breaches\n")
    assert all(importlib.import_module(f"campaigns.{name}").run for name in CAMPAIGNS)

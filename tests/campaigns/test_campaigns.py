"""The short form of each campaign of scripts/campaigns; the long forms run by hand, see docs/measured/campaigns.md."""

from __future__ import annotations

import pytest

from campaigns import evil_server, fuzz, kills, strangers_file
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
    assert set(CAMPAIGNS) == {"kills", "fuzz", "evil_server", "strangers_file"}

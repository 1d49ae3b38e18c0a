"""The short form of each campaign of scripts/campaigns; the long forms run by hand, see docs/measured/campaigns.md."""

from __future__ import annotations

import pytest

from campaigns import evil_server, fuzz, kills, strangers_file
from campaigns.__main__ import CAMPAIGNS, main
from campaigns.outcome import Outcome


def test_kills_lose_nothing_that_was_acknowledged():
    outcome = kills.run(seed=1, count=4)
    assert not outcome.breaches
    assert outcome.figures["kills"] == 4


def test_no_message_is_an_internal_error():
    outcome = fuzz.run(seed=1, count=2000)
    assert not outcome.breaches
    assert outcome.figures["bad-message"] > 500


# The others take until the end of a time limit, or show what is not mended yet.
QUICK = (
    *("many maps", "a negative upload", "a wrong hash", "a result of negative size"),
    *("chunks of another place", "empty chunks", "a greeting of 20 MB"),
)


@pytest.mark.parametrize("lie", QUICK)
def test_a_lying_server_ends_a_client_with_a_sentence(lie):
    outcome = evil_server.tell(lie, seed=1)
    assert not outcome.breaches and outcome.figures["end"]


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

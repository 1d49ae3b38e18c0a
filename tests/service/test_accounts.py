"""Limits of each user as the owner of a service sets them, and the audit log's own bounds."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from ex4d.cli.main import main
from ex4d.service import ServiceError, ServiceSettings, create_keys
from ex4d.service.accounts import Account, Accounts, read_accounts, write_account
from ex4d.service.audit import Audit
from ex4d.service.job_store import JobStore
from ex4d.service.keys import list_clients


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "keys"
    for name in ("anna", "bob"):
        create_keys(folder, name)
    return folder


@pytest.fixture
def store(tmp_path):
    with closing(JobStore(tmp_path / "jobs.sqlite")) as store:
        yield store


def test_a_user_at_the_limit_of_running_jobs_is_passed_over(store, shot):
    store.set_running_limit("anna", 1)
    hers = [store.submit(f"hers {number}", shot(), [], owner="anna") for number in range(2)]
    his = store.submit("his", shot(), [], owner="bob")
    first = store.claim("one")
    assert first.job == hers[0]
    assert store.claim("two").job == his
    assert store.claim("three") is None and not store.has_queued(), "an idle worker must not ask again and again"
    store.finish(first)
    assert store.has_queued() and store.claim("one").job == hers[1]
    store.submit("third", shot(), [], owner="anna")
    store.set_running_limit("anna", None)
    assert store.claim("three").owner == "anna"


def test_places_in_the_queue_count_with_a_users_limit(store, shot):
    store.set_running_limit("anna", 1)
    hers = [store.submit(f"hers {number}", shot(), [], owner="anna") for number in range(3)]
    assert store.claim("one").job == hers[0]
    his = [store.submit(f"his {number}", shot(), [], owner="bob") for number in range(2)]
    places = {job: store.status(job).queue_position for job in (*hers[1:], *his)}
    assert [places[job] for job in (*his, *hers[1:])] == [0, 1, 2, 3], "hers wait for her own that runs"
    store.set_running_limit("anna", None)
    assert store.status(his[0]).queue_position == 0 and store.status(hers[1]).queue_position == 1


def test_what_is_set_for_a_user_goes_before_the_flags(keys):
    settings = ServiceSettings(keys=keys, user_jobs=7, user_gb=3.0, admins=("bob",))
    accounts = Accounts(settings)
    assert (accounts.role("anna"), accounts.jobs("anna"), accounts.running("anna")) == ("artist", 7, None)
    assert accounts.role("bob") == "admin" and accounts.refresh() is None
    write_account(keys, "anna", Account("admin", jobs=2, running=1, gb=0.5))
    assert accounts.role("anna") == "artist" and set(accounts.refresh()) == {"anna"}
    found = accounts.role("anna"), accounts.jobs("anna"), accounts.running("anna"), accounts.bytes("anna")
    assert found == ("admin", 2, 1, 0.5e9) and accounts.bytes("bob") == 3e9
    (keys / "users.json").write_text('{"anna": {"jobs": 0}}')
    assert accounts.refresh() is None and accounts.jobs("anna") == 2, "an invalid file changes nothing"


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"../x": {}}', '{"anna": {"role": "king"}}', '{"anna": 3}', "[" * 100_000]
)
def test_a_damaged_file_of_users_is_refused_at_the_start(keys, text):
    (keys / "users.json").write_text(text)
    with pytest.raises(ServiceError, match=r"users\.json"):
        Accounts(ServiceSettings(keys=keys))


def test_where_all_are_one_user_nothing_is_limited(keys):
    write_account(keys, "anna", Account(running=1))
    accounts = Accounts(ServiceSettings(keys=keys, shared=True))
    assert (accounts.role(""), accounts.running(""), accounts.bytes("")) == ("admin", None, float("inf"))


def test_keys_are_created_listed_changed_and_removed(keys, capsys):
    def ask(*words):
        code = main(["keys", *words, "--keys", str(keys), "--json"])
        return code, json.loads(capsys.readouterr().out)

    code, said = ask("create", "carl")
    assert code == 0 and said["result"]["client_secret"] == str(keys / "carl.key_secret")
    assert ask("set", "carl", "--role", "admin", "--running", "2")[0] == 0
    assert ask("set", "carl", "--gb", "1.5", "--running", "default")[0] == 0
    rows = {row.pop("name"): row for row in ask("list")[1]["result"]["users"]}
    assert rows["carl"] == {"role": "admin", "jobs": None, "running": None, "gb": 1.5}
    assert rows["anna"] == {"role": "artist", "jobs": None, "running": None, "gb": None}
    assert (keys / "users.json").stat().st_mode & 0o077 == 0
    assert ask("remove", "carl")[0] == 0
    assert [one.name for one in list_clients(keys)] == ["anna", "bob"] and read_accounts(keys) == {}
    assert not (keys / "carl.key_secret").exists()
    for words in (("remove", "carl"), ("set", "../x", "--jobs", "1")):
        code, said = ask(*words)
        assert code == 1 and "anna, bob" in said["error"]
    assert "nothing to set" in ask("set", "anna")[1]["error"]
    assert "jobs" in ask("set", "anna", "--jobs", "0")[1]["error"]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def lines_of(logs):
    return [json.loads(line) for line in (logs / "audit.log").read_text(encoding="ascii").splitlines()]


def test_nothing_that_a_client_sends_begins_a_line_of_the_audit_log(tmp_path):
    audit = Audit(tmp_path, Clock(), Clock())
    audit.record("submit", "anna", label='x\n{"event": "forged"}\x1b[2J\u202e\u2028 é' + "y" * 1000)
    audit.close()
    text = (tmp_path / "audit.log").read_text(encoding="ascii")
    (line,) = lines_of(tmp_path)
    assert text.count("\n") == 1 and "\x1b" not in text and line["event"] == "submit"
    assert len(line["label"]) == 200 and line["time"] == "1970-01-01T00:16:40.000+00:00"


def test_who_does_too_much_cannot_flush_the_audit_log(tmp_path):
    clock = Clock()
    audit = Audit(tmp_path, clock, clock)
    for _ in range(1000):
        audit.record("cancel", "anna")
        audit.count("fetch", "anna", files=1, bytes=10)
    audit.record("cancel", "bob")
    assert len(lines_of(tmp_path)) == 301
    clock.now += 61
    audit.flush_due()
    assert lines_of(tmp_path)[301:] == [
        {"time": "1970-01-01T00:17:41.000+00:00", "event": "fetch", "user": "anna", "files": 1000, "bytes": 10_000},
        {"time": "1970-01-01T00:17:41.000+00:00", "event": "left out", "user": "anna", "lines": 700},
    ]
    audit.record("cancel", "anna")
    audit.close()
    assert len(lines_of(tmp_path)) == 304

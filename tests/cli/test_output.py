"""What commands print where: results, notes, logs, JSON documents, and sentences about wrong usage."""

from __future__ import annotations

import io
import json
import signal
import sys
import threading

import pytest

from ex4d.cli.main import main
from ex4d.cli.report import Report
from ex4d.machine import ENVIRONMENT


class Log(io.StringIO):
    """A standard error that is no terminal; others wait for its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Condition()

    def write(self, text: str) -> int:
        with self.written:
            count = super().write(text)
            self.written.notify_all()
            return count

    def wait_for_lines(self, count: int) -> list[str]:
        with self.written:
            assert self.written.wait_for(lambda: self.getvalue().count("\n") >= count, 120), self.getvalue()
            return self.getvalue().splitlines()


def test_without_a_terminal_a_log_tells_how_far_a_long_step_is(monkeypatch):
    log = Log()
    monkeypatch.setattr(sys, "stderr", log)
    with Report("generate", log_seconds=0.01).stages() as progress:
        progress("denoise", 1, 25)
        lines = log.wait_for_lines(3)  # although the work reports nothing meanwhile
        assert all("generate: denoise 1/25" in line for line in lines)
        progress("denoise", 25, 25)
    told = [line.partition("generate: ")[2] for line in log.getvalue().splitlines()]
    assert "denoise 25/25" in told
    length = len(log.getvalue())
    with Report("generate", quiet=True, log_seconds=0.01).stages() as progress:
        progress("denoise", 1, 25)
    assert len(log.getvalue()) == length


def test_a_log_with_a_long_interval_has_the_start_and_the_end_of_each_stage(monkeypatch):
    log = Log()
    monkeypatch.setattr(sys, "stderr", log)
    with Report("reconstruct").stages() as progress:
        for done in range(1, 6):
            progress("depth", done, 5)
        progress("reconstruct", 1, 1)
    told = [line.partition("reconstruct: ")[2] for line in log.getvalue().splitlines()]
    assert [line.partition(",")[0] for line in told] == ["depth 1/5", "depth 5/5", "reconstruct 1/1"]


def test_a_log_tells_the_part_of_a_long_step_in_the_line_of_its_stage(monkeypatch):
    log = Log()
    monkeypatch.setattr(sys, "stderr", log)
    with Report("generate", log_seconds=0.01).stages() as progress:
        progress("denoise (fp8), part 10 of 40", 1, 25)
        lines = log.wait_for_lines(2)
        assert all("generate: denoise (fp8) 1/25, part 10 of 40" in line for line in lines)
        progress("denoise (fp8)", 25, 25)
    assert "denoise (fp8) 25/25" in log.getvalue()


def test_quiet_leaves_results_and_errors(tmp_path, capsys):
    keys = ["serve", "--create-keys", "anna", "--keys", str(tmp_path)]
    assert main([*keys, "--quiet"]) == 0
    told = capsys.readouterr()
    assert str(tmp_path / "anna.key_secret") in told.out and told.err == ""
    assert main([*keys, "--quiet"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and "has keys for 'anna' already" in told.err


def test_json_is_one_document_whatever_the_end(tmp_path, capsys):
    keys = ["serve", "--create-keys", "anna", "--keys", str(tmp_path), "--json"]
    for code in (0, 1):
        assert main(keys) == code
        told = capsys.readouterr()
        document = json.loads(told.out)
        assert told.err == "" and set(document) == {"ex4d", "verb", "exit_code", "error", "notes", "result"}
        assert (document["verb"], document["exit_code"]) == ("serve", code)
        if code == 0:
            assert document["error"] is None and document["result"]["client_secret"].endswith("anna.key_secret")
            assert "anna's own secret" in document["notes"][0]
        else:
            assert "has keys for 'anna' already" in document["error"] and document["result"] == {}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
def test_a_signal_ends_a_command_with_the_shells_code(number, code, capsys, monkeypatch):
    def interrupted(options, report):
        report.add("half", 1)
        signal.raise_signal(number)
        raise AssertionError("the work goes on")

    monkeypatch.setattr("ex4d.cli.man.run", interrupted)
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        assert main(["man", "--json"]) == code
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    document = json.loads(capsys.readouterr().out)
    assert (document["exit_code"], document["result"]) == (code, {"half": 1})
    assert document["error"].startswith("stopped")


def test_parts_may_stand_before_and_behind_options(tmp_path, capsys):
    models = ["--models", str(tmp_path)]
    for words in (["vae", *models], [*models, "vae"]):
        assert main(["models", "list", *words, "--json"]) == 0
        assert [part["name"] for part in json.loads(capsys.readouterr().out)["result"]["parts"]] == ["vae"]


@pytest.mark.parametrize("verb", ["reconstruct", "models check", "jobs"])
def test_an_unknown_option_points_to_the_help_that_has_the_known_ones(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*verb.split(), "--fpz", "25"])
    told = capsys.readouterr()
    assert ended.value.code == 2 and told.out == ""
    assert told.err.startswith(f"ex4d {verb}: ") and told.err.endswith(f"see ex4d {verb} --help\n")
    assert "--fpz" in told.err or "required" in told.err


def test_help_lists_every_environment_variable(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in ENVIRONMENT)

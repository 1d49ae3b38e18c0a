"""The pages about the command line say what the code does: fields, variables, tables of the configuration, folders."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from ex4d.cli import main
from ex4d.cli.parsing import parse
from ex4d.config import config_file, read_config
from ex4d.leftovers import _TEMPORARY
from ex4d.machine import ENVIRONMENT, MachineSettings, default_models_folder
from ex4d.service.settings import default_data_folder
from ex4d_core.job_status import JobDetails, JobStatus

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ROOT / "docs" / "how-to"
PAGE = (HOW_TO / "command-line.md").read_text(encoding="utf-8")


def test_every_field_of_a_result_is_in_the_page():
    cli = ROOT / "backend" / "ex4d" / "cli"
    code = {path.stem: path.read_text(encoding="utf-8") for path in cli.glob("*.py")}
    rows = re.findall(r"^\| `([a-z]+)[^|]*` \| (.*) \|$", PAGE, re.MULTILINE)
    found = 0
    for verb in main.VERBS:
        row = " ".join(text for name, text in rows if name == verb)
        for field in re.findall(r"report\.add\(\s*\"(\w+)\"", code[verb]):
            assert f"`{field}`" in row, f"{verb}: {field}"
            found += 1
    assert found > 20


def test_every_field_of_a_job_is_in_the_page():
    table = PAGE.partition("A job has:")[2].partition("##")[0]
    for entry in (*fields(JobStatus), *fields(JobDetails)):
        assert f"`{entry.name}`" in table, entry.name


def test_every_exit_code_is_in_the_page():
    codes = (main.DONE, main.FAILED, main.WRONG_USAGE, main.INTERRUPTED, main.BROKEN_PIPE, main.TERMINATED)
    assert all(f"\n| {code} | " in PAGE for code in codes)


def test_the_table_of_variables_is_the_codes_own():
    page = (ROOT / "docs" / "environment-variables.md").read_text(encoding="utf-8")
    for name, (meaning, flag) in ENVIRONMENT.items():
        assert f"| `{name}` | {meaning} | {f'`{flag}` ' if flag else ''}|" in page


def test_every_variable_that_the_product_reads_is_in_the_table():
    files = [path for room in ("backend", "ex4d_core", "blender_addon") for path in (ROOT / room).rglob("*.py")]
    read = {
        name for path in files for name in re.findall(r"[\"'](EX4D_[A-Z_]+)[\"']", path.read_text(encoding="utf-8"))
    }
    assert read == {name for name in ENVIRONMENT if name.startswith("EX4D_")}


def test_the_configuration_in_the_page_is_valid(configure, monkeypatch):
    for variable in ENVIRONMENT:
        if variable != "EX4D_CONFIG":
            monkeypatch.delenv(variable, raising=False)
    configure(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])
    assert MachineSettings.from_environment().vram_limit_gb == 22
    for verb in read_config():
        if verb not in ("machine", "models"):
            module = __import__(f"ex4d.cli.{verb}", fromlist=["SUMMARY"])
            needed = {"generate": ["scene"], "reconstruct": ["clip.mp4"]}.get(verb, [])
            parse(main._verb_parser(verb, module), verb, needed, main.VERBS)


@pytest.mark.skipif(sys.platform != "linux", reason="folders of other systems cannot be asked for here")
def test_the_folders_in_the_page_are_where_things_are(monkeypatch):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "EX4D_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    page = (HOW_TO / "uninstall.md").read_text(encoding="utf-8")
    for folder in (default_models_folder(), default_data_folder(), config_file().parent):
        shown = "~/" + os.path.relpath(folder, Path.home())
        assert f"| `{shown}` |" in page, shown
    for name in re.findall(r"`((?:ex4d|wp_pch)[\w-]*)\*`", page):
        assert _TEMPORARY.fullmatch(f"{name}abcd1234"), name

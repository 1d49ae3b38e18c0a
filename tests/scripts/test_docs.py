"""The documentation: complete, built without other hosts, and true where code can tell."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="building needs the project's own environment, .venv/backend")
import docs_hook
from addon_package import addon_module

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PRODUCT = [path for room in ("backend", "ex4d_core", "blender_addon") for path in (ROOT / room).rglob("*.py")]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built pages; the build itself fails at any warning, such as a link that leads nowhere."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_pages_load_nothing_from_other_hosts(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=\"?(https?:)?//", text)
        assert not loaded, page.name


def test_the_command_line_has_every_verb_with_all_its_flags(site):
    page = (site / "command-line.html").read_text(encoding="utf-8")
    parsers = list(docs_hook.parsers_below(docs_hook.command_line()))
    assert {"ex4d reconstruct", "ex4d generate", "ex4d serve"} <= {parser.prog for parser in parsers}
    for parser in parsers:
        assert f">{parser.prog}" in page
        for flag in parser._option_string_actions:
            assert flag in page, f"{parser.prog} {flag}"


COMMANDS = [
    (page.relative_to(ROOT).as_posix(), line)
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
    for line in re.findall(r"^ {4,}(ex4d .*)$", page.read_text(encoding="utf-8").replace("\\\n", " "), re.MULTILINE)
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_the_commands_in_the_pages_are_accepted(page, line, capsys):
    from ex4d.cli.flags import settings_from
    from ex4d.cli.original import routed
    from ex4d_core.trajectories import Trajectory

    try:
        options = docs_hook.command_line().parse_args(routed(shlex.split(line, comments=True)[1:]))
    except SystemExit as ended:
        assert ended.code == 0, f"{page}: {line}: {capsys.readouterr().err}"
        return
    if hasattr(options, "easing"):
        settings_from(options, Trajectory)  # refuses a move that there is not


def test_the_api_has_everything_that_the_library_offers(site):
    import ex4d

    page = (site / "api" / "ex4d.html").read_text(encoding="utf-8")
    core = (site / "api" / "ex4d_core.html").read_text(encoding="utf-8")
    for name in set(ex4d.__all__) - {"__version__"}:
        shown = f'id="ex4d.{name}"' in page or re.search(rf'id="ex4d_core\.\w+\.{name}"', core)
        assert shown, name


def test_the_table_of_environment_variables_is_complete():
    read = {
        name for path in PRODUCT for name in re.findall(r"[\"'](EX4D_[A-Z_]+)[\"']", path.read_text(encoding="utf-8"))
    }
    assert "EX4D_MODELS" in read
    page = (DOCS / "environment-variables.md").read_text(encoding="utf-8")
    assert read <= set(re.findall(r"`(EX4D_[A-Z_]+)`", page))


def test_the_names_of_the_glossary_are_those_of_the_code():
    files = [*PRODUCT, *(ROOT / "scripts").rglob("*.py")]
    code = "\n".join(f"{path.stem}\n{path.read_text(encoding='utf-8')}" for path in files)
    rows = re.findall(r"^\|.*\| ([^|]*) \|$", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(names) > 50
    assert [name for name in names if not re.search(rf"\b\w*{name}\w*\b", code)] == []


@pytest.mark.parametrize("page", sorted((DOCS / "extend").glob("*.md")), ids=lambda page: page.stem)
def test_an_addition_touches_at_most_three_files_and_each_is_there(page):
    text = page.read_text(encoding="utf-8")
    touched = re.findall(r"^\d\. \*\*`([^`]+)`\*\*", text, re.MULTILINE)
    assert 1 <= len(touched) <= 3
    for name in touched:
        assert (ROOT / name).exists() or "(new)" in text.split(f"**`{name}`**", 1)[1].splitlines()[0], name
    for name in re.findall(r"`((?:backend|ex4d_core|blender_addon|tests|scripts)/[\w/.]+\.py)`", text):
        assert (ROOT / name).exists() or name in touched, name


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_and_images_in_the_root_lead_to_files(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link:
            assert (ROOT / link.partition("#")[0]).exists(), link


def test_paths_of_code_in_the_pages_exist():
    for page in DOCS.rglob("*.md"):
        for name in re.findall(
            r"`((?:backend|ex4d_core|blender_addon|tests|scripts)/[\w/.-]+\.\w+)`", page.read_text()
        ):
            assert (ROOT / name).exists() or page.parent.name == "extend", f"{page.name}: {name}"


SCHEMAS = {
    "vendor.github-workflows": ".github/workflows/*.yml",
    "vendor.github-issue-forms": ".github/ISSUE_TEMPLATE/*_*.yml",
    "vendor.github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "vendor.citation-file-format": "CITATION.cff",
}


@pytest.mark.parametrize(("schema", "pattern"), SCHEMAS.items())
def test_workflows_templates_and_citation_are_valid(schema, pattern):
    files = sorted(map(str, ROOT.glob(pattern)))
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, "-o", "json", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["status"] == "ok", done.stdout + done.stderr


def test_workflows_run_what_is_there():
    text = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
    assert "scripts/test.py" in text
    for folder in re.findall(r"\btests/\w+", text):
        assert (ROOT / folder).is_dir(), folder


def test_a_release_gets_a_zip_for_each_system_and_one_for_all():
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    loop = re.search(r"for platform in ([^;]+); do", text).group(1)
    assert sorted(loop.split()) == sorted(addon_module("published_wheels").PLATFORMS)
    assert text.count("python3 scripts/build_addon.py") == 2
    assert "gh release upload" in text


def test_commits_are_checked_by_the_same_tools():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    for command in ("ruff check", "ruff format", "basedpyright"):
        assert f".venv/backend/bin/{command}" in text


def test_no_file_names_the_host_of_a_package_registry():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a checkout and git, to list the files")
    hosts = [
        ".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("debian", "org"))
    ]
    for host in hosts:
        done = subprocess.run(["git", "grep", "-lIF", host, "--", "."], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == "", host

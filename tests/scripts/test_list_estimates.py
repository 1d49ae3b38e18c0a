"""The table of estimates in the documentation is what the code estimates."""

from pathlib import Path

from list_estimates import table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "finals.md"


def test_the_page_has_the_estimates_of_the_code():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in table() if line not in lines] == []

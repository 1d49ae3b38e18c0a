"""What a result may rest on, by what the request and the machine say."""

from __future__ import annotations

import pytest

from ex4d_core.licences import LicenceError, as_licence, effective_licence, require_allowed


@pytest.mark.parametrize(
    ("requested", "machine", "effective"),
    [
        (None, None, "commercial"),
        (None, "research", "research"),
        (None, "commercial", "commercial"),
        ("research", None, "research"),
        ("research", "research", "research"),
        ("research", "commercial", "commercial"),
        ("commercial", None, "commercial"),
        ("commercial", "research", "commercial"),
    ],
)
def test_commercial_is_what_nobody_takes_back(requested, machine, effective):
    assert effective_licence(requested, machine) == effective


@pytest.mark.parametrize("settings", [("paid", None), (None, "free"), ("research", "")])
def test_a_setting_that_is_none_is_named(settings):
    with pytest.raises(LicenceError, match="expected one of research, commercial"):
        effective_licence(*settings)
    with pytest.raises(LicenceError, match="EX4D_LICENCE 'free'"):
        as_licence("free", "EX4D_LICENCE")


def test_a_part_for_research_only_is_refused_with_what_to_do():
    require_allowed("x", True, "commercial", terms="")
    require_allowed("x", False, "research", terms="")
    require_allowed("x", False, "commercial", ("x",), terms="")
    with pytest.raises(LicenceError, match=r"x may not .*\(for study\): use y; or.*--accept-licence x"):
        require_allowed("x", False, "commercial", ("other",), terms="for study", instead="y")

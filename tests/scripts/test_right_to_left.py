"""Persian is in the add-on in the order and the shapes in which Blender draws it."""

from __future__ import annotations

import pytest

pytest.importorskip("bidi", reason="needs python-bidi, of the extra dev")
pytest.importorskip("arabic_reshaper", reason="needs arabic-reshaper, of the extra dev")

import write_right_to_left


def test_the_catalogues_are_those_that_translators_edit():
    for source in write_right_to_left.SOURCE.glob("*.json"):
        there = (write_right_to_left.TARGET / source.name).read_text(encoding="utf-8")
        assert there == write_right_to_left.catalogue_as_drawn(source), "run scripts/write_right_to_left.py"


def test_letters_are_joined_and_run_to_the_left_as_in_blenders_own_catalogue():
    # "Camera", as Blender 4.3 and 5.2 have it.
    assert write_right_to_left.as_drawn("دوربین") == "\ufee6\ufbff\ufe91\ufead\ufeed\ufea9"


def test_placeholders_are_not_mirrored():
    drawn = write_right_to_left.as_drawn("فریم {done} از {total}")
    assert drawn.startswith("{total}") and "{done}" in drawn
    assert write_right_to_left.as_drawn("اندازه: {width} x {height}").startswith("{width} x {height}")

"""The catalogues of the interface fit the source: nothing is missing, left over, or has other placeholders."""

from __future__ import annotations

import importlib
import json
import sys

import bpy
import pytest

from blender_addon import translations

from .conftest import ROOT


@pytest.fixture(scope="module")
def listing():
    """The script that translators run."""
    # Last, so that scripts/test.py does not hide the standard library's `test`.
    sys.path.append(str(ROOT / "scripts"))
    yield importlib.import_module("list_translations")
    sys.path.remove(str(ROOT / "scripts"))


def test_italian_is_complete(listing):
    texts = listing.texts_of_interface()
    # A property's name, an operator's tooltip and options, a preset's item, a label, a message, a job's state.
    assert {
        "Negative Prompt",
        "Remove this take from the list; its strip and files stay",
        "Replace Camera of Shot",
        "Arc 30°",
        "Every take has a strip already",
        "{path} does not exist; choose a video",
        "fetching",
    } <= texts
    differs = listing.compare(translations.read_catalogue("it_IT"), texts)
    help_ = "; scripts/list_translations.py it_IT lists them"
    assert not differs.missing, f"without Italian: {differs.missing}{help_}"
    assert not differs.excess, f"no longer in the source: {differs.excess}{help_}"
    assert not differs.placeholders, f"with other placeholders: {differs.placeholders}{help_}"


def test_other_catalogues_have_no_wrong_entries(listing):
    texts = listing.texts_of_interface()
    for locale in translations.LOCALES:
        differs = listing.compare(translations.read_catalogue(locale), texts)
        wrong = (differs.excess, differs.placeholders)
        assert wrong == ([], []), f"{locale} has {wrong}; scripts/list_translations.py {locale} lists them"


def test_a_catalogue_that_differs_is_told(listing):
    catalogue = {"*": {"Old": "Vecchio", "{a} of {b}": "{a} di {c}", "{a} files": "file"}}
    differs = listing.compare(catalogue, {"New", "{a} of {b}", "{a} files"})
    assert differs == listing.Difference(["New"], ["Old"], ["{a} files", "{a} of {b}"])


def test_no_translation_is_empty_or_ends_in_another_way():
    """A sentence goes on behind a space, and labels before a value end with a colon."""
    for english, text in translations.read_catalogue("it_IT")["*"].items():
        assert text.strip(), english
        assert english.endswith((" ", ":")) == text.endswith((" ", ":")), english
        assert english[:1].isspace() == text[:1].isspace(), english


def test_operators_are_named_from_the_same_texts():
    messages = translations.messages("it_IT")
    assert messages["*", "Duplicate Shot"] == messages["Operator", "Duplicate Shot"] == "Duplica Inquadratura"
    named = {context for context, _ in messages}
    contexts = bpy.app.translations.contexts
    assert named == {contexts.default, contexts.operator_default, translations.CONTEXT}
    # To move files, and the move of a camera.
    assert (messages["*", "Move"], messages[translations.CONTEXT, "Move"]) == ("Sposta", "Movimento")


def test_an_operators_name_may_read_otherwise(tmp_path, monkeypatch):
    catalogue = {"*": {"Take": "Ripresa", "Shot": "Inquadratura"}, "Operator": {"Take": "Riprendi"}}
    (tmp_path / "it_IT.json").write_text(json.dumps(catalogue))
    monkeypatch.setattr(translations, "__file__", str(tmp_path / "__init__.py"))
    messages = translations.messages("it_IT")
    assert [messages[context, "Take"] for context in ("*", "Operator", "EX-4D")] == ["Ripresa", "Riprendi", "Ripresa"]
    assert [messages[context, "Shot"] for context in ("*", "Operator", "EX-4D")] == ["Inquadratura"] * 3

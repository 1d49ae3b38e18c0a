"""Runs in a Blender with the add-on installed: says what the interface shows in Italian and Persian, as JSON.

blender --background --python languages.py -- REPORT
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import bpy

MODULE = "bl_ext.user_default.ex4d"
PATH = "/a/b.mp4"


def shown() -> dict[str, str]:
    """A panel's label, an operator's name and tooltip, and a message with a value, as Blender translates them."""
    texts, projects = bpy.app.translations, import_module(f"{MODULE}.projects.panel").EX4D_PT_project
    return {
        "panel": texts.pgettext_iface("Final Settings"),
        "project": texts.pgettext_iface("Project", projects.bl_translation_context),
        "operator": texts.pgettext_iface("Duplicate Shot", texts.contexts.operator_default),
        "tooltip": texts.pgettext_tip("Remove this take from the list; its strip and files stay"),
        "message": texts.pgettext_rpt("{path} does not exist; choose a video").format(path=PATH),
    }


def main(report: str) -> None:
    view = bpy.context.preferences.view
    results = {"locales": [one for one in import_module(f"{MODULE}.translations").LOCALES]}
    results["unknown"] = [one for one in results["locales"] if one not in bpy.app.translations.locales]
    for language in ("en_US", "it_IT", "fa_IR"):
        view.language = language
        view.use_translate_interface = view.use_translate_tooltips = view.use_translate_reports = True
        results[language] = shown()
    view.language = "it_IT"
    bpy.ops.preferences.addon_disable(module=MODULE)
    results["disabled"] = shown()
    bpy.ops.preferences.addon_enable(module=MODULE)
    results["enabled again"] = shown()
    Path(report).write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[sys.argv.index("--") + 1])

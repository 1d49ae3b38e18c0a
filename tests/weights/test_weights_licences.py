"""Every weight that an engine rests on is checked against what the result is for, LoRAs too."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from ex4d.generation.wan import WanUnavailableError
from ex4d.generation.wan.wan_engine import create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.weights.catalogue import PARTS
from ex4d_core.licences import LicenceError
from ex4d_core.wan_settings import wan_preset


@pytest.mark.parametrize("name", ["vae", "ex4d", "fast"])
def test_a_part_of_the_engine_for_research_only_is_refused(name, tmp_path, monkeypatch):
    """As the catalogue would have it, had its licence been another; what is allowed then lacks weights and a GPU."""
    parts = tuple(replace(part, commercial=part.name != name, licence="for study") for part in PARTS)
    monkeypatch.setattr("ex4d.generation.wan.wan_engine.PARTS", parts)
    for module in ("places", "wan_files"):
        monkeypatch.setattr(f"ex4d.weights.{module}.PARTS", parts)
    settings = wan_preset("fast")
    for machine, licence in (
        (MachineSettings(tmp_path), None),
        (MachineSettings(tmp_path, licence="commercial"), "research"),
    ):
        with pytest.raises(LicenceError, match=rf"{name} may not .*\(for study\).*--accept-licence {name}"):
            create_wan_engine(settings, "cpu", machine, licence=licence)
    for machine, licence in (
        (MachineSettings(tmp_path), "research"),
        (MachineSettings(tmp_path, licence="commercial", accepted=(name,)), None),
    ):
        with pytest.raises(WanUnavailableError):
            create_wan_engine(settings, "cpu", machine, licence=licence)


def test_a_lora_of_ones_own_is_ones_own_business(tmp_path):
    settings = wan_preset("ex4d-reference", loras=({"name": "mine"},))
    with pytest.raises(WanUnavailableError):
        create_wan_engine(settings, "cpu", MachineSettings(tmp_path, licence="commercial"))

"""What a machine's owner sets: read once, from the environment and from options, and handed on whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ex4d.devices import DeviceError
from ex4d.machine import MachineSettings, default_models_folder
from ex4d_core.licences import LicenceError


@pytest.fixture(autouse=True)
def no_variables(monkeypatch) -> None:
    for name in ("EX4D_MODELS", "EX4D_VRAM_LIMIT_GB", "EX4D_CONVERTED_GB", "EX4D_LICENCE"):
        monkeypatch.delenv(name, raising=False)


def test_variables_are_defaults_and_options_win(monkeypatch, tmp_path):
    assert MachineSettings.from_environment() == MachineSettings(default_models_folder())
    monkeypatch.setenv("EX4D_MODELS", str(tmp_path))
    monkeypatch.setenv("EX4D_VRAM_LIMIT_GB", "12.5")
    monkeypatch.setenv("EX4D_LICENCE", "commercial")
    before = dict(os.environ)
    assert MachineSettings.from_environment() == MachineSettings(tmp_path, 12.5, "commercial")
    given = MachineSettings.from_environment(tmp_path / "other", 3.0, ("nvdiffrast",))
    assert given == MachineSettings(tmp_path / "other", 3.0, "commercial", ("nvdiffrast",))
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("argument", "variable", "found"),
    [(None, "weights", "here/weights"), (Path("other"), "weights", "here/other"), (None, "~/weights", "home/weights")],
)
def test_processes_in_another_folder_find_the_models_that_a_relative_path_names(
    tmp_path, monkeypatch, argument, variable, found
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EX4D_MODELS", variable)
    text = MachineSettings.from_environment(argument).to_json()
    monkeypatch.chdir(tmp_path)
    assert MachineSettings.from_json(text).models == tmp_path / found


def test_all_of_it_reaches_another_process(tmp_path):
    machine = MachineSettings(tmp_path / "a disk", 3.5, "research", ("depthcrafter", "depth-pro"))
    assert MachineSettings.from_json(machine.to_json()) == machine


@pytest.mark.parametrize("limit", ["much", "0", "-3", "nan", "inf"])
def test_a_limit_that_is_no_number_of_gigabytes_is_refused(monkeypatch, limit):
    monkeypatch.setenv("EX4D_VRAM_LIMIT_GB", limit)
    with pytest.raises(DeviceError, match="expected gigabytes above 0"):
        MachineSettings.from_environment()


def test_disk_space_for_converted_weights_may_be_none_at_all(monkeypatch):
    monkeypatch.setenv("EX4D_CONVERTED_GB", "0")
    assert MachineSettings.from_environment().converted_gb == 0
    for text in ("some", "-1", "nan"):
        monkeypatch.setenv("EX4D_CONVERTED_GB", text)
        with pytest.raises(DeviceError, match=text):
            MachineSettings.from_environment()


def test_a_licence_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("EX4D_LICENCE", "free")
    with pytest.raises(LicenceError, match="EX4D_LICENCE 'free': expected one of research, commercial"):
        MachineSettings.from_environment()

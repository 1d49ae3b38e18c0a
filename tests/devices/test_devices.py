"""Devices by name: what is a name, what there is of them on this machine, and what to do where there is none."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ex4d.devices import DeviceError, Devices, torch_device


@pytest.fixture
def gpus(monkeypatch):
    def there_are(count: int) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)

    return there_are


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("auto", ("auto",)),
        ("cpu", ("cpu",)),
        ("cpu+cpu", ("cpu", "cpu")),
        ("cuda", ("cuda",)),
        ("cuda:3", ("cuda:3",)),
        ("cuda:0+1+12", ("cuda:0", "cuda:1", "cuda:12")),
    ],
)
def test_a_name_is_one_device_or_several(text, names):
    devices = Devices.parse(text)
    assert devices.names == names and str(devices) == text
    assert devices.first == names[0] and devices.is_cuda == text.startswith("cuda")


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:a", "cuda:-1", "cuda+1", "cpu:0", "cuda:0+", "cpu+cuda:0"])
def test_any_other_text_is_refused_with_what_is_expected(text):
    with pytest.raises(DeviceError, match=rf"invalid device {text.replace('+', '.')!r}: expected auto, cpu, cuda"):
        Devices.parse(text)


@pytest.mark.parametrize(
    ("text", "count", "names"),
    [
        ("auto", 0, ("cpu",)),
        ("auto", 2, ("cuda:0",)),
        ("cuda", 2, ("cuda:0",)),
        ("cuda:1+0", 2, ("cuda:1", "cuda:0")),
        ("cpu", 2, ("cpu",)),
    ],
)
def test_names_are_resolved_to_what_is_here(gpus, text, count, names):
    gpus(count)
    assert Devices.parse(text).resolve().names == names


@pytest.mark.parametrize(
    ("text", "count", "says"), [("cuda", 0, "use device cpu"), ("cuda:0+2", 2, "no device cuda:2")]
)
def test_what_is_not_here_is_named_with_what_to_do(gpus, text, count, says):
    gpus(count)
    with pytest.raises(DeviceError, match=says):
        Devices.parse(text).resolve()


def test_work_that_is_not_shared_takes_one_device(gpus):
    gpus(2)
    assert torch_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="names several"):
        torch_device("cuda:0+1")


def test_names_of_devices_and_weights_are_known_without_torch():
    """The command line and the service read them."""
    script = "import sys, ex4d.devices, ex4d.machine, ex4d.weights.places; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

"""Which rasterizer draws, by what is installed, by licence and by device; what is said when it cannot."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from ex4d.machine import MachineSettings
from ex4d.raster import (
    RasterizerUnavailableError,
    available_rasterizers,
    choose_rasterizer,
    create_rasterizer,
    quick_speed,
)
from ex4d.raster.nvdiffrast_rasterizer import load_nvdiffrast
from ex4d_core.licences import LicenceError

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


@pytest.fixture
def installed_nvdiffrast(tmp_path, monkeypatch):
    """Puts a package of that name on the path, whose torch part does what it is told when it is imported."""

    def install(on_import: str) -> None:
        package = tmp_path / "nvdiffrast" / "torch"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").write_text("")
        (package / "__init__.py").write_text(on_import)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    for name in [name for name in sys.modules if name.split(".")[0] == "nvdiffrast"]:
        monkeypatch.delitem(sys.modules, name)
    yield install
    for name in [name for name in sys.modules if name.split(".")[0] == "nvdiffrast"]:
        del sys.modules[name]


@pytest.mark.parametrize("licence", ["research", "commercial"])
def test_auto_takes_warp_for_any_use(licence) -> None:
    choice = choose_rasterizer(licence=licence)
    assert choice.name == "warp" and f"free for {licence} use" in choice.reason
    assert choice.device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_commercial_use_refuses_nvdiffrast_whether_it_is_here_or_not(monkeypatch) -> None:
    for choose in (choose_rasterizer, create_rasterizer):
        for licence in ("commercial", None):
            with pytest.raises(LicenceError, match=r"research and evaluation only.*use rasterizer warp"):
                choose("nvdiffrast", licence=licence)
    monkeypatch.setenv("EX4D_LICENCE", "commercial")
    with pytest.raises(LicenceError, match="--accept-licence nvdiffrast"):
        create_rasterizer("nvdiffrast", licence="research")


def test_a_licence_of_ones_own_is_enough_for_nvdiffrast(installed_nvdiffrast) -> None:
    installed_nvdiffrast("")
    machine = MachineSettings(licence="commercial", accepted=("nvdiffrast",))
    if torch.cuda.is_available():
        assert choose_rasterizer("nvdiffrast", machine=machine).name == "nvdiffrast"
    else:
        with pytest.raises(RasterizerUnavailableError, match="CUDA devices only"):
            choose_rasterizer("nvdiffrast", machine=machine)


@pytest.mark.skipif("nvdiffrast" in available_rasterizers(), reason="nvdiffrast is installed here")
def test_nvdiffrast_that_is_not_installed_says_so_and_what_to_do() -> None:
    with pytest.raises(RasterizerUnavailableError, match=r"'nvdiffrast' is not installed.*NVlabs/nvdiffrast.*use warp"):
        create_rasterizer("nvdiffrast", "cuda", "research")
    with pytest.raises(RasterizerUnavailableError, match=r"nvdiffrast is not installed: .*no-build-isolation"):
        load_nvdiffrast()


def test_nvdiffrast_built_for_another_torch_says_so_and_what_to_do(installed_nvdiffrast) -> None:
    installed_nvdiffrast("raise ImportError('undefined symbol: _ZN3c104cuda9SetDeviceEa')")
    with pytest.raises(
        RasterizerUnavailableError,
        match=rf"for another PyTorch than this {torch.__version__[:3]}.*undefined symbol",
    ):
        load_nvdiffrast()


def test_nvdiffrast_without_its_compiled_part_says_so(installed_nvdiffrast) -> None:
    installed_nvdiffrast("import _nvdiffrast_c_that_is_not_there")
    with pytest.raises(RasterizerUnavailableError, match="without its compiled part _nvdiffrast_c_that_is_not_there"):
        load_nvdiffrast()


@no_gpu
def test_nvdiffrast_without_a_gpu_says_so(installed_nvdiffrast) -> None:
    installed_nvdiffrast("")
    assert available_rasterizers() == ("warp", "nvdiffrast")
    with pytest.raises(RasterizerUnavailableError, match=r"CUDA devices only.*finds no usable CUDA device"):
        create_rasterizer("nvdiffrast", licence="research")
    with pytest.raises(RasterizerUnavailableError, match="CUDA devices only"):
        create_rasterizer("nvdiffrast", "cpu", "research")
    assert create_rasterizer("auto", licence="research").name == "warp"


def test_speed_is_measured_in_milliseconds_per_frame() -> None:
    assert quick_speed(create_rasterizer("warp", "cpu")) > 0.01

"""Every kernel compiles for a GPU on machines that have none, so that a change made there cannot break it unseen."""

import pkgutil
from importlib import import_module

import pytest
import warp

import ex4d.raster.warp

HOPPER = 90
MODULES = ["ex4d.mesh.thickness_kernel"] + [
    module.name
    for module in pkgutil.iter_modules(ex4d.raster.warp.__path__, "ex4d.raster.warp.")
    if import_module(module.name) and warp.get_module(module.name).kernels
]


def test_the_kernels_are_found():
    assert "ex4d.raster.warp.drawing" in MODULES


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_kernels_compile_for_a_gpu(module, tmp_path):
    import_module(module)
    warp.compile_aot_module(warp.get_module(module), arch=HOPPER, module_dir=tmp_path, use_ptx=False)
    compiled = list(tmp_path.glob("*.cubin"))
    assert compiled and all(file.stat().st_size for file in compiled)

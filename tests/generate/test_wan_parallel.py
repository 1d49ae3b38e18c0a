"""One shot on several devices: two processes on the processor stand in for two GPUs, where there are none."""

import os
import shutil
from dataclasses import dataclass

import numpy as np
import psutil
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from ex4d.generate.engine import EngineProgress
from ex4d.generate.wan.errors import GenerationError
from ex4d.generate.wan.loaded_networks import LoadedModels
from ex4d.generate.wan.parallel.group import Peers, _parts
from ex4d.generate.wan.random_weights import write_models
from ex4d.generate.wan.wan_engine import WanEngine, create_wan_engine
from ex4d.raster import RenderedFrame
from ex4d_core.shot import wan_preset

FEW = {"steps": 2, "prompt": "a wide street", "negative_prompt": "blurred"}


@dataclass(frozen=True)
class Devices:
    alone: str
    together: str


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def two(request) -> Devices:
    if request.param == "cpu":
        return Devices("cpu", "cpu+cpu")
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    return Devices("cuda:0", "cuda:0+1")


@pytest.fixture(scope="module")
def wide_models(tmp_path_factory):
    """Three heads, so that there is something to share out, and two cannot share evenly."""
    return write_models(tmp_path_factory.mktemp("wide") / "models", heads=3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shot(count: int = 9, width: int = 48, height: int = 48) -> list[RenderedFrame]:
    generator = np.random.default_rng(0)
    mask = np.ones((height, width), bool)
    depth = np.ones((height, width), np.float32)
    colors = generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return [RenderedFrame(index, color, mask, depth) for index, color in enumerate(colors)]


def make(device: str, models, watch=None, **changes) -> np.ndarray:
    engine = create_wan_engine(wan_preset("ex4d-reference", **{**FEW, **changes}), device, models)
    return np.array(list(engine.generate(shot(), count=9, watch=watch)))


class Cancelled(Exception):
    pass


def cancel(step: EngineProgress) -> None:
    if step.stage == "denoise":
        raise Cancelled


def test_two_processes_make_what_one_makes(two, wide_models):
    """27 tokens and 3 heads; guided, each takes a prompt, and unguided, each takes about half of them."""
    for changes in ({"precision": "float32"}, {"precision": "float32", "guidance": 1.0}):
        alone, together = make(two.alone, wide_models, **changes), make(two.together, wide_models, **changes)
        assert np.abs(alone.astype(int) - together).max() <= 1
    # The processes stay for the next shot, and a cancelled one leaves them ready.
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW, precision="float32"), two.together, wide_models)
    processes = engine.models.peers._processes
    with pytest.raises(Cancelled):
        make(two.together, wide_models, cancel, precision="float32", steps=4)
    assert np.array_equal(
        make(two.together, wide_models, precision="float32"), make(two.together, wide_models, precision="float32")
    )
    assert engine.models.peers._processes == processes and processes[0].poll() is None
    engine.models.unload()
    assert processes[0].poll() is not None


def test_four_processes_share_prompts_and_their_tokens(wide_models):
    """Two for each prompt, and for each of its steps two that exchange tokens for heads."""
    alone, together = (make(device, wide_models, precision="float32") for device in ("cpu", "cpu+cpu+cpu+cpu"))
    assert np.abs(alone.astype(int) - together).max() <= 1
    settings = wan_preset("ex4d-reference", **FEW, precision="float32")
    create_wan_engine(settings, "cpu+cpu+cpu+cpu", wide_models).models.unload()


def test_a_shot_cancelled_before_its_first_step_leaves_nothing_in_the_next(two, wide_models):
    """The other process has begun it by then, and would make its steps in place of the next one's."""
    told = []

    def cancel_at_last(step: EngineProgress) -> None:
        told.append(step.stage)
        if told.count("warm up") == 2:
            raise Cancelled

    alone = make(two.alone, wide_models, precision="float32")
    with pytest.raises(Cancelled):
        make(two.together, wide_models, cancel_at_last, precision="float32", negative_prompt="a night with rain")
    assert "denoise" not in told
    together = make(two.together, wide_models, precision="float32")
    assert np.abs(alone.astype(int) - together).max() <= 1
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW, precision="float32"), two.together, wide_models)
    engine.models.unload()


def test_a_process_that_ends_ends_the_shot_alone(two, wide_models):
    """Not rank 0's process, which is the service's worker; and the next shot gets new processes."""
    settings = wan_preset("ex4d-reference", **FEW, precision="float32")
    engine = create_wan_engine(settings, two.together, wide_models)

    def kill(step: EngineProgress) -> None:
        if step.stage == "denoise" and step.done == 1:
            engine.models.peers._processes[0].kill()

    with pytest.raises(
        GenerationError, match=r"the process on (cpu|cuda:1), which shares this shot, was killed by SIGKILL"
    ):
        list(engine.generate(shot(), count=9, watch=kill))
    alone, together = (make(device, wide_models, precision="float32") for device in (two.alone, two.together))
    assert np.abs(alone.astype(int) - together).max() <= 1
    create_wan_engine(settings, two.together, wide_models).models.unload()


def test_what_goes_wrong_in_another_process_is_the_shots_error(two, wide_models, tmp_path):
    folder = shutil.copytree(wide_models, tmp_path / "models")
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW, precision="float32"), two.together, folder)
    assert engine.models.transformer
    (folder / "EX-4D" / "ex4d.ckpt").unlink()
    with pytest.raises(GenerationError, match=r"on (cpu|cuda:1): .*ex4d.ckpt is not there; ex4d models check says"):
        list(engine.generate(shot()))


def test_processes_that_cannot_find_each_other_are_ended_and_it_is_said(monkeypatch):
    with monkeypatch.context() as network:
        network.setenv("GLOO_SOCKET_IFNAME", "nothing0")
        with pytest.raises(GenerationError, match=r"cpu, cpu cannot share a shot: .*nothing0"):
            Peers(("cpu", "cpu"))
    assert not [child for child in psutil.Process().children() if "ex4d.generate.wan.parallel.rank" in child.cmdline()]
    # With the network mended, they find each other.
    Peers(("cpu", "cpu")).close()


# Has the first process beside rank 0 run out of memory in the middle of its first pass, once.
OUT_OF_MEMORY = """
import os, pathlib, sys
marker = pathlib.Path(os.environ["RAN_OUT"])
if "ex4d.generate.wan.parallel.rank" in sys.orig_argv:
    import torch
    calls = []
    def fail(module, inputs):
        if type(module).__name__ == "Block":
            calls.append(module)
            if len(calls) == 2 and not marker.exists():
                marker.touch()
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    torch.nn.modules.module.register_module_forward_pre_hook(fail)
"""


def test_memory_that_runs_out_in_another_process_is_retried_smaller_and_then_said(wide_models, tmp_path, monkeypatch):
    """On processors alone: on GPUs, NCCL may hold rank 0 in the pass, whose process then ends too."""
    (tmp_path / "sitecustomize.py").write_text(OUT_OF_MEMORY)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("RAN_OUT", str(tmp_path / "ran_out"))
    alone, together = (make(device, wide_models, precision="float32") for device in ("cpu", "cpu+cpu"))
    models = create_wan_engine(wan_preset("ex4d-reference", **FEW, precision="float32"), "cpu+cpu", wide_models).models
    assert (tmp_path / "ran_out").exists() and models.mode == "encoders leave"
    assert np.abs(alone.astype(int) - together).max() <= 1

    models.unload()
    # A mode that is given is not chosen again by what is free.
    smallest = LoadedModels(models.choice, "streamed")
    (tmp_path / "ran_out").unlink()
    with pytest.raises(GenerationError, match=r"in the smallest mode too \(on cpu: CUDA out of memory. Tried"):
        list(WanEngine(wan_preset("ex4d-reference", **FEW, precision="float32"), smallest).generate(shot()))
    smallest.unload()


def test_8_bits_share_their_scales(two, wide_models):
    settings = {"precision": "fp8", "fp8_attention": True, "guidance": 1.0}
    alone, together = make(two.alone, wide_models, **settings), make(two.together, wide_models, **settings)
    assert np.abs(alone.astype(float) - together).mean() < 1
    engine = create_wan_engine(wan_preset("ex4d-reference", **{**FEW, **settings}), two.together, wide_models)
    engine.models.unload()


@pytest.mark.parametrize(("total", "parts"), [(7, 2), (27, 4), (3, 5)])
def test_rows_are_shared_as_evenly_as_can_be(total, parts):
    sizes = _parts(total, parts)
    assert sum(sizes) == total and len(sizes) == parts and max(sizes) - min(sizes) <= 1

"""Sequence parallelism: one shot on several devices; without GPUs, processes on the CPU."""

import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from bench.random_weights import write_models
from ex4d.generation.engine import GenerationProgress
from ex4d.generation.wan.conditioning import WindowConditioning
from ex4d.generation.wan.errors import GenerationError
from ex4d.generation.wan.loaded_networks import LoadedNetworks
from ex4d.generation.wan.parallel.group import split_evenly
from ex4d.generation.wan.parallel.processes import RankProcesses, WindowWork, read_work
from ex4d.generation.wan.wan_engine import WanEngine, create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.raster import RenderedFrame
from ex4d_core.wan_settings import wan_preset

FEW = {"steps": 2, "prompt": "a wide street", "negative_prompt": "blurred"}
EXACT = wan_preset("ex4d-reference", **FEW, precision="float32")


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
    """Three heads, which two ranks cannot share evenly."""
    return write_models(tmp_path_factory.mktemp("wide") / "models", heads=3)


def shot(count: int = 9, width: int = 48, height: int = 48) -> list[RenderedFrame]:
    generator = np.random.default_rng(0)
    mask = np.ones((height, width), bool)
    depth = np.ones((height, width), np.float32)
    colors = generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return [RenderedFrame(index, color, mask, depth) for index, color in enumerate(colors)]


def generate(device: str, models, on_progress=None, **changes) -> np.ndarray:
    engine = create_wan_engine(wan_preset("ex4d-reference", **{**FEW, **changes}), device, MachineSettings(models))
    return np.array(list(engine.generate(shot(), count=9, on_progress=on_progress)))


class Cancelled(Exception):
    pass


def cancel(step: GenerationProgress) -> None:
    if step.stage == "denoise":
        raise Cancelled


def cancel_inside(step: GenerationProgress, seen: list[tuple[str, bool]]) -> None:
    seen.append((step.stage, step.parts > 0))
    if step.parts:
        raise Cancelled


def test_two_processes_generate_what_one_generates(two, wide_models):
    """27 tokens and 3 heads; guided, each takes a prompt, and unguided, about half of the tokens; or both in turn."""
    in_turn = {"steps": 5, "guidance_interval": (0.0, 0.9), "step_interval": 2}
    for changes in ({}, {"guidance": 1.0}, in_turn):
        changes = {"precision": "float32", **changes}
        alone, together = generate(two.alone, wide_models, **changes), generate(two.together, wide_models, **changes)
        assert np.abs(alone.astype(int) - together).max() <= 1
    # The processes stay for the next shot, also after a cancelled one.
    engine = create_wan_engine(EXACT, two.together, MachineSettings(wide_models))
    processes = engine.networks.rank_processes._processes
    with pytest.raises(Cancelled):
        generate(two.together, wide_models, cancel, precision="float32", steps=4)
    # Inside a step too, which the other process then computes to its end.
    seen = []
    with pytest.raises(Cancelled):
        generate(two.together, wide_models, lambda step: cancel_inside(step, seen), precision="float32", steps=4)
    assert seen[-1] == ("warm up", True) and "denoise" not in dict(seen)
    first, second = (generate(two.together, wide_models, precision="float32") for _ in range(2))
    assert np.array_equal(first, second)
    assert engine.networks.rank_processes._processes == processes and processes[0].poll() is None
    engine.networks.unload()
    assert processes[0].poll() is not None


def test_four_processes_share_prompts_and_their_tokens(wide_models):
    """Two ranks for each prompt, which exchange tokens for heads."""
    alone, together = (generate(device, wide_models, precision="float32") for device in ("cpu", "cpu+cpu+cpu+cpu"))
    assert np.abs(alone.astype(int) - together).max() <= 1
    settings = wan_preset("ex4d-reference", **FEW, precision="float32")
    create_wan_engine(settings, "cpu+cpu+cpu+cpu", MachineSettings(wide_models)).networks.unload()


def test_a_shot_cancelled_before_its_first_step_leaves_nothing_in_the_next(two, wide_models):
    """The other process has started it by then, and would run its steps in place of the next one's."""
    reported = []

    def cancel_at_last(step: GenerationProgress) -> None:
        reported.append(step.stage)
        if reported.count("warm up") == 2:
            raise Cancelled

    alone = generate(two.alone, wide_models, precision="float32")
    with pytest.raises(Cancelled):
        generate(two.together, wide_models, cancel_at_last, precision="float32", negative_prompt="a night with rain")
    assert "denoise" not in reported
    together = generate(two.together, wide_models, precision="float32")
    assert np.abs(alone.astype(int) - together).max() <= 1
    engine = create_wan_engine(EXACT, two.together, MachineSettings(wide_models))
    engine.networks.unload()


def test_a_process_that_ends_ends_the_shot_alone(two, wide_models):
    """Rank 0's process, which is the service's worker, continues, and the next shot gets new processes."""
    settings = wan_preset("ex4d-reference", **FEW, precision="float32")
    engine = create_wan_engine(settings, two.together, MachineSettings(wide_models))

    def kill(step: GenerationProgress) -> None:
        if step.stage == "denoise" and step.done == 1:
            engine.networks.rank_processes._processes[0].kill()

    with pytest.raises(
        GenerationError, match=r"the process on (cpu|cuda:1), which shares this shot, was killed by SIGKILL"
    ):
        list(engine.generate(shot(), count=9, on_progress=kill))
    alone, together = (generate(device, wide_models, precision="float32") for device in (two.alone, two.together))
    assert np.abs(alone.astype(int) - together).max() <= 1
    create_wan_engine(settings, two.together, MachineSettings(wide_models)).networks.unload()


def test_what_goes_wrong_in_another_process_is_the_shots_error(two, wide_models, tmp_path):
    folder = shutil.copytree(wide_models, tmp_path / "models")
    engine = create_wan_engine(EXACT, two.together, MachineSettings(folder))
    assert engine.networks.transformer
    (folder / "EX-4D" / "ex4d.ckpt").unlink()
    with pytest.raises(GenerationError, match=r"on (cpu|cuda:1): .*ex4d.ckpt .*ex4d models check"):
        list(engine.generate(shot()))


def test_processes_that_cannot_connect_are_ended(monkeypatch):
    with monkeypatch.context() as network:
        network.setenv("GLOO_SOCKET_IFNAME", "nothing0")
        with pytest.raises(GenerationError, match=r"cpu, cpu cannot share a shot: .*nothing0"):
            RankProcesses(("cpu", "cpu"))
    rank = "ex4d.generation.wan.parallel.rank"
    assert not [child for child in psutil.Process().children() if rank in child.cmdline()]
    # On a working network they connect.
    RankProcesses(("cpu", "cpu")).close()


# Lets rank 1 run out of memory in the middle of its first pass, once; on a GPU by asking for more than it has.
OUT_OF_MEMORY = """
import os, pathlib, sys
marker = pathlib.Path(os.environ["RAN_OUT"])
if "ex4d.generation.wan.parallel.rank" in sys.orig_argv:
    import torch
    calls = []
    def fail(module, inputs):
        if type(module).__name__ == "Block":
            calls.append(module)
            if len(calls) == 2 and not marker.exists():
                marker.touch()
                if torch.cuda.is_available():
                    torch.empty(2 * torch.cuda.mem_get_info()[1], dtype=torch.uint8, device="cuda")
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    torch.nn.modules.module.register_module_forward_pre_hook(fail)
"""


@pytest.fixture
def ran_out(tmp_path, monkeypatch) -> Path:
    """A file that exists once rank 1 has run out of memory."""
    (tmp_path / "sitecustomize.py").write_text(OUT_OF_MEMORY)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("RAN_OUT", str(tmp_path / "ran_out"))
    # Without other choices' networks, which would be given up first.
    monkeypatch.setattr("ex4d.generation.wan.loaded_networks._last", None)
    return tmp_path / "ran_out"


def test_out_of_memory_in_another_process_is_retried_in_a_smaller_mode(two, wide_models, ran_out):
    alone, together = (generate(device, wide_models, precision="float32") for device in (two.alone, two.together))
    settings = wan_preset("ex4d-reference", **FEW, precision="float32")
    networks = create_wan_engine(settings, two.together, MachineSettings(wide_models)).networks
    assert ran_out.exists() and networks.mode == "encoders unloaded"
    assert np.abs(alone.astype(int) - together).max() <= 1
    networks.unload()


def test_out_of_memory_in_another_process_in_the_smallest_mode_is_an_error(two, wide_models, ran_out):
    settings = wan_preset("ex4d-reference", **FEW, precision="float32")
    choice = create_wan_engine(settings, two.together, MachineSettings(wide_models)).networks.choice
    # A given mode is not chosen again by what is free.
    smallest = LoadedNetworks(choice, "blocks streamed")
    with pytest.raises(GenerationError, match=r"in the smallest mode too \(on (cpu|cuda:1): CUDA out of memory. Tried"):
        list(WanEngine(settings, smallest).generate(shot()))
    assert ran_out.exists()
    smallest.unload()


def test_fp8_scales_and_the_keys_mean_are_shared_by_all_ranks(two, wide_models):
    settings = {"precision": "fp8", "fp8_attention": True, "guidance": 1.0}
    alone, together = generate(two.alone, wide_models, **settings), generate(two.together, wide_models, **settings)
    assert np.abs(alone.astype(float) - together).mean() < 1
    changed = wan_preset("ex4d-reference", **{**FEW, **settings})
    engine = create_wan_engine(changed, two.together, MachineSettings(wide_models))
    engine.networks.unload()


def test_work_for_other_ranks_is_sent_as_plain_data(toy_models):
    """Equal prompts share memory; and a stream that breaks off has no work."""
    choice = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models)).networks.choice
    assert choice.converted is not None
    text = torch.randn(1, 20, 32)
    inputs = [torch.randn(shape) for shape in ((1, 32, 3, 4, 6), (1, 20, 3, 4, 6), (1, 257, 1280))]
    conditioning = WindowConditioning(text, text, *inputs)
    noise = torch.randn(1, 3, 16, 4, 6).transpose(1, 2)
    settings = wan_preset("draft", prompt="雨", guidance=1.5)
    work = WindowWork(choice, "resident", settings, noise, conditioning)
    message = work.to_bytes()
    received = read_work(io.BytesIO(message))
    assert (received.choice, received.mode, received.settings) == (choice, work.mode, settings)
    assert torch.equal(received.noise, noise)
    for name, tensor in vars(received.conditioning).items():
        assert tensor is None if vars(conditioning)[name] is None else torch.equal(tensor, vars(conditioning)[name])
    assert read_work(io.BytesIO(message[:-1])) is None and read_work(io.BytesIO()) is None


@pytest.mark.parametrize(("total", "parts"), [(7, 2), (27, 4), (3, 5)])
def test_tokens_are_shared_as_evenly_as_possible(total, parts):
    sizes = split_evenly(total, parts)
    assert sum(sizes) == total and len(sizes) == parts and max(sizes) - min(sizes) <= 1

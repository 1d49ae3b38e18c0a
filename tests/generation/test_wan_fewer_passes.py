"""Settings that leave out passes of the network, on a transformer with small random weights, and the bench of them."""

import contextlib
import copy
import dataclasses

import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from bench.fewer_passes import EXACT, FewerPasses
from bench.passes import Case
from bench.peer import measure_peers
from bench.trained_toy import FRAMES, LinearCodec, TrainedToy, moving_scenes
from ex4d.generation.wan import WanUnavailableError
from ex4d.generation.wan.conditioning import WindowConditioning
from ex4d.generation.wan.denoising import denoise
from ex4d.generation.wan.kernels.attention import attention
from ex4d.generation.wan.networks import load_dit
from ex4d.generation.wan.transformer import Transformer
from ex4d.generation.wan.wan_engine import create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.step_plan import pass_count
from ex4d_core.wan_settings import WanSettings, wan_preset

SETTINGS = WanSettings(steps=8)
NOISE = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def loaded(toy_models):
    files = find_wan_files(toy_models)
    return load_dit(files.dit, files.ex4d).float()


@pytest.fixture
def transformer(loaded) -> Transformer:
    dit = copy.deepcopy(loaded)
    return Transformer(dit, dit.blocks)


@pytest.fixture(scope="module")
def conditioning() -> WindowConditioning:
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 20, 32), (1, 20, 32), (1, 32, 3, 4, 6), (1, 20, 3, 4, 6), (1, 257, 1280))
    return WindowConditioning(*(torch.randn(shape, generator=generator) for shape in shapes))


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.fixture
def passes(transformer, monkeypatch) -> list[int]:
    """How many passes each step that runs the network takes; grows as the transformer is used."""
    counted = []
    plain = transformer._run_blocks
    monkeypatch.setattr(
        transformer,
        "_run_blocks",
        lambda streams, running, *rest: (counted.append(len(running)), plain(streams, running, *rest))[1],
    )
    return counted


def test_steps_that_are_left_out_take_no_pass(transformer, conditioning, passes):
    def run(**changes) -> tuple[torch.Tensor, int]:
        passes.clear()
        settings = dataclasses.replace(SETTINGS, **changes)
        made = denoise(transformer, NOISE, conditioning, settings, precision=contextlib.nullcontext)
        assert sum(passes) == pass_count(settings), "the plan is what is run"
        return made, sum(passes)

    exact, all_passes = run()
    assert all_passes == 16
    for changes, count in (
        ({"step_interval": 2, "protected_steps": 3}, 12),
        ({"step_interval": 3}, 8),
        ({"guidance_interval": (0.0, 0.9)}, 13),
        ({"cfg_zero": True, "zero_steps": 1}, 14),
    ):
        made, taken = run(**changes)
        assert taken == count and relative(made, exact) > 1e-4


def test_zero_steps_leave_the_noise_as_it_is(transformer, conditioning):
    """Whatever follows starts from the whole noise, at a smaller sigma."""
    seen = []
    settings = dataclasses.replace(SETTINGS, zero_steps=2)
    denoise(
        transformer,
        NOISE,
        conditioning,
        settings,
        precision=contextlib.nullcontext,
        on_step=lambda step, predicted, seconds: seen.append(predicted),
    )
    assert torch.equal(seen[0], NOISE) and torch.equal(seen[1], NOISE) and not torch.equal(seen[2], NOISE)


def test_protected_steps_have_dense_attention_and_the_others_the_chosen_one(transformer, conditioning, monkeypatch):
    chosen = []

    def counted(query, key, value, head_dim):
        chosen.append(1)
        return attention(query, key, value, head_dim)

    monkeypatch.setattr("ex4d.generation.wan.transformer.choose_attention", lambda name, grid, device: counted)
    settings = dataclasses.replace(SETTINGS, steps=4, attention="sparse", protected_steps=1)
    made = denoise(transformer, NOISE, conditioning, settings, precision=contextlib.nullcontext)
    # Three of four steps; the first block's is shared by both prompts.
    assert len(chosen) == 3 * (2 * len(transformer.blocks) - 1)
    dense = dataclasses.replace(settings, attention="dense")
    assert torch.equal(made, denoise(transformer, NOISE, conditioning, dense, precision=contextlib.nullcontext))


def test_tea_cache_leaves_protected_steps_alone(transformer, conditioning, passes):
    """Weights without time make every step alike, so that it leaves out all that it may."""
    transformer.dit.time_projection[1].weight.data.zero_()
    settings = dataclasses.replace(SETTINGS, tea_cache=1.0, protected_steps=3)
    denoise(transformer, NOISE, conditioning, settings, precision=contextlib.nullcontext)
    assert [bool(count) for count in passes] == [True, True, True, True, False, False, False, True]


def test_an_attention_that_is_not_there_is_refused_before_anything_is_loaded(toy_models):
    settings = wan_preset("ex4d-reference", attention="sage")
    with pytest.raises(WanUnavailableError, match="'sage' needs an NVIDIA GPU"):
        create_wan_engine(settings, "cpu", MachineSettings(toy_models))


def test_the_toys_codec_keeps_most_of_its_scenes():
    scenes = moving_scenes(6, torch.Generator().manual_seed(0))
    codec = LinearCodec(scenes.video)
    latents = codec.encode(scenes.video)
    assert latents.shape[1] == 16 and latents.std().item() == pytest.approx(1, abs=0.2)
    assert (codec.decode(latents) - scenes.video).square().mean().sqrt() < 0.1
    assert scenes.video.shape[2] == FRAMES and 0.5 < scenes.mask.mean() < 1 and (scenes.mask[:, :, 0] == 1).any()


def test_the_bench_trains_counts_and_compares(monkeypatch):
    """In a few steps; the bench itself takes hundreds."""
    monkeypatch.setattr("bench.trained_toy._CLIPS", 12)
    toy = TrainedToy("cpu", 4)
    assert len(toy.losses) == 4 and toy.losses[-1] < toy.losses[0]
    fewer = FewerPasses(toy, 1)
    same = fewer.run(EXACT)
    assert (same.passes, same.relative_l2) == (50, 0.0) and same.psnr > 100
    less = fewer.run(dataclasses.replace(EXACT, step_interval=5))
    assert less.passes == 12 and less.relative_l2 > 0 and less.worst_psnr <= less.psnr < 100


def test_peers_run_the_same_weights_to_the_same_result():
    rows = {row.what: row for row in measure_peers(Case(torch.device("cpu"), 5, 64))}
    for name in ("diffsynth", "diffusers", "ours"):
        error = float(rows[f"peer, {name}, bf16"].remark.partition("relative L2 ")[2].split()[0])
        assert error < 0.02, name
    assert "fastest peer" in rows["peer, ours, bf16"].remark and rows["peer, diffsynth, fp8"].remark == "no GPU"

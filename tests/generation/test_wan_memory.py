"""Memory modes: all give the same video, the mode depends on what is free, and running out leads to a smaller one."""

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from diffsynth.models.wan_video_text_encoder import WanTextEncoder

from ex4d.generation.wan import GenerationError, WanUnavailableError
from ex4d.generation.wan.encode_cache import encodes
from ex4d.generation.wan.layouts import used_layout
from ex4d.generation.wan.loaded_networks import LoadedNetworks
from ex4d.generation.wan.memory import (
    MEMORY_MODES,
    TransformerBytes,
    fitting_mode,
    pinnable_bytes,
    transformer_bytes,
    working_bytes,
)
from ex4d.generation.wan.networks import open_dit
from ex4d.generation.wan.streaming import PinnedMemory
from ex4d.generation.wan.wan_engine import WanEngine, create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.pipeline.estimate import Estimate
from ex4d.pipeline.shot_estimates import add_wan
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.wan_settings import wan_preset
from tests.generation.small_shots import FEW, shot


@pytest.mark.parametrize("mode", MEMORY_MODES)
def test_every_memory_mode_gives_the_same_video(toy_models, mode):
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models))
    plain = list(engine.generate(shot()))
    encodes.clear()
    networks = LoadedNetworks(engine.networks.choice, mode)
    assert np.array_equal(plain, list(WanEngine(engine.settings, networks).generate(shot())))
    assert bool(networks._kept.encoders) == (mode == "resident")
    transformer = networks.transformer
    (kept,) = networks._kept.transformers.values()
    streamed = {id(block) for streaming in kept.streaming for block in streaming._blocks}
    contexts, blocks = ({id(part) for part in parts} for parts in (transformer.contexts, transformer.blocks))
    by_mode = {"context streamed": contexts, "blocks streamed": contexts | blocks}
    assert streamed == by_mode.get(mode, set()), "only what the mode says leaves the device"
    assert all(bool(block.chunk_rows) == (mode in by_mode) for block in transformer.blocks)


def test_the_text_encoder_is_loaded_once_for_both_prompts_and_unloaded(toy_models):
    """It has 11 GB."""
    choice = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models)).networks.choice
    networks, loaded = LoadedNetworks(choice, "encoders unloaded"), []
    networks.on_load = lambda done, total: loaded.append(done)
    before = sum(type(thing) is WanTextEncoder for thing in gc.get_objects())
    street, blurred = networks.text_embeddings([("a wide street", "prompt"), ("blurred", "negative prompt")])
    assert loaded.count(1) == 1 and not torch.equal(street, blurred)
    assert sum(type(thing) is WanTextEncoder for thing in gc.get_objects()) == before
    # A prompt that is known already is not encoded again beside one that is not.
    again, dark = networks.text_embeddings([("a wide street", "prompt"), ("dark", "negative prompt")])
    assert loaded.count(1) == 2 and torch.equal(again, street) and not torch.equal(dark, blurred)


def test_blocks_are_loaded_one_after_the_other_and_none_is_kept(toy_models):
    """All of them as they are stored, before they are made smaller, would take 33 GB of the GPU's or the host's."""
    files, loaded = find_wan_files(toy_models), []
    dit, blocks = open_dit(files.dit, files.ex4d, on_tensor=lambda done, total: loaded.append((done, total)))
    before = len(loaded)
    block = weakref.ref(next(blocks))
    assert block() is None and not list(dit.blocks)
    after = len(loaded)
    rest = list(blocks)
    assert 0 < before < after < len(loaded) and len(rest) == 1
    assert loaded == [(number, len(loaded)) for number in range(1, len(loaded) + 1)]
    assert not any(parameter.is_meta for part in (dit, *rest) for parameter in part.parameters())


def test_out_of_memory_is_retried_in_smaller_modes_and_then_is_an_error(toy_models):
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models))
    plain = list(engine.generate(shot()))
    networks = LoadedNetworks(engine.networks.choice)
    failures = []

    def fail(module, inputs):
        failures.append(networks.mode)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    networks.transformer.blocks[0].register_forward_pre_hook(fail)
    # The hook goes with the model that is unloaded, and the smaller mode succeeds.
    assert np.array_equal(plain, list(WanEngine(engine.settings, networks).generate(shot())))
    assert failures == ["resident"] and networks.mode == "encoders unloaded"

    networks = LoadedNetworks(engine.networks.choice, "blocks streamed")
    networks.transformer.blocks[0].register_forward_pre_hook(fail)
    with pytest.raises(GenerationError, match="in the smallest mode too"):
        list(WanEngine(engine.settings, networks).generate(shot()))


def test_out_of_memory_while_a_prompt_is_encoded_is_retried_in_a_smaller_mode(toy_models):
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models))
    networks = LoadedNetworks(engine.networks.choice)
    encoded = networks.text_embeddings

    def fail_at_first(prompts) -> list[torch.Tensor]:
        networks.text_embeddings = encoded
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 10 GiB")

    networks.text_embeddings = fail_at_first
    result = list(WanEngine(engine.settings, networks).generate(shot()))
    assert networks.mode == "encoders unloaded" and np.array_equal(result, list(engine.generate(shot())))


def test_out_of_memory_while_decoding_is_retried_in_a_smaller_mode(toy_models):
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models))
    plain = list(engine.generate(shot()))
    networks = LoadedNetworks(engine.networks.choice)

    def fail(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    networks.vae.model.decoder.head.register_forward_pre_hook(fail)
    networks.vae.model.decoder.conv1.register_forward_pre_hook(fail)
    assert np.array_equal(plain, list(WanEngine(engine.settings, networks).generate(shot())))
    assert networks.mode == "encoders unloaded"


GIGABYTE = 2**30
# Latents of 49 frames of 512x512, and of 81 of 832x480 and 1280x720.
SMALL, WIDE, LARGE = (13, 64, 64), (21, 60, 104), (21, 90, 160)


@pytest.fixture(scope="module")
def published_bytes() -> Callable[[str], tuple[TransformerBytes, dict[str, int]]]:
    """Counts the published weights, from their layouts alone, as the engine counts its files."""
    dit = used_layout("dit")
    others = {
        part: 2 * sum(tensor.numel() for tensor in used_layout(part).values())
        for part in ("text_encoder", "image_encoder", "vae")
    }
    return lambda precision: (transformer_bytes(dit, 2, fp8=precision == "fp8"), others)


def test_layers_that_work_once_a_window_are_counted_apart(published_bytes):
    fp8, bf16 = (published_bytes(precision)[0] for precision in ("fp8", "bf16"))
    assert fp8.blocks == bf16.blocks == 40
    assert fp8.context == bf16.context == pytest.approx(8.4e9, rel=0.01), "they stay in 16 bits"
    assert fp8.total == pytest.approx(21e9, rel=0.05) and bf16.total == pytest.approx(32.8e9, rel=0.02)


@pytest.mark.parametrize(
    ("gigabytes", "precision", "latents", "mode"),
    [
        (80, "bf16", SMALL, "resident"),
        (44, "bf16", SMALL, "encoders unloaded"),
        (31, "bf16", SMALL, "context streamed"),
        (23, "bf16", SMALL, "blocks streamed"),
        (12, "bf16", SMALL, "blocks streamed"),
        (28, "fp8", SMALL, "encoders unloaded"),
        # What a card of 24 GB has to use beside a desktop: no block is streamed.
        (23, "fp8", SMALL, "context streamed"),
        (23, "fp8", WIDE, "context streamed"),
        (23, "fp8", LARGE, "blocks streamed"),
        (14, "fp8", SMALL, "blocks streamed"),
    ],
)
def test_the_mode_depends_on_memory(published_bytes, gigabytes, precision, latents, mode):
    assert fitting_mode(gigabytes * GIGABYTE, *published_bytes(precision), latents, "cuda:0") == mode


@pytest.mark.parametrize(("preset", "precision"), [("standard", "fp8"), ("ex4d-reference", "bf16")])
def test_estimates_of_full_speed_follow_the_count(published_bytes, preset, precision):
    """What `--dry-run` says: with it no block is streamed, and a little less would not do."""
    estimated = add_wan(Estimate(0.0, 0, 0), wan_preset(preset), 49, 512, 512, "cpu", "wan").gpu_bytes
    counted = published_bytes(precision)
    assert fitting_mode(estimated, *counted, SMALL, "cuda:0") == "context streamed"
    assert fitting_mode(int(0.98 * estimated), *counted, SMALL, "cuda:0") == "blocks streamed"


def test_too_little_memory_is_an_error(published_bytes):
    with pytest.raises(WanUnavailableError, match=r"cuda:0 has 6.0 GB .*at least 7.6 GB"):
        fitting_mode(6 * GIGABYTE, *published_bytes("bf16"), SMALL, "cuda:0")


def test_rows_in_chunks_take_less(published_bytes):
    assert 0.85 < working_bytes(WIDE, in_chunks=True) / working_bytes(WIDE) < 0.95


def test_host_memory_is_pinned_in_proportion_to_what_there_is(monkeypatch):
    """33 GB of weights on a host of 32 GB would leave it nothing that it can swap."""
    assert pinnable_bytes(64 * GIGABYTE, 1) == 32 * GIGABYTE
    assert pinnable_bytes(64 * GIGABYTE, 4) == 8 * GIGABYTE, "each GPU's process pins its own"
    locked = []
    monkeypatch.setattr("ex4d.generation.wan.streaming._page_lock", lambda memory: locked.append(len(memory)))
    pinned = PinnedMemory(100)
    pieces = [torch.empty(size, dtype=torch.uint8) for size in (40, 70, 60, 1)]
    assert [pinned.lock(piece) for piece in pieces] == [True, False, True, False]
    assert locked == [40, 60]

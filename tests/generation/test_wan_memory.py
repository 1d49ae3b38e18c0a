"""Memory modes: all give the same video, the mode depends on what is free, and running out leads to a smaller one."""

import gc
import weakref

import numpy as np
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from diffsynth.models.wan_video_text_encoder import WanTextEncoder

from ex4d.generation.wan import GenerationError, WanUnavailableError
from ex4d.generation.wan.loaded_networks import LoadedNetworks
from ex4d.generation.wan.memory import MEMORY_MODES, fitting_mode
from ex4d.generation.wan.networks import open_dit
from ex4d.generation.wan.wan_engine import WanEngine, create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.weights.places import find_wan_files
from ex4d_core.wan_settings import wan_preset
from tests.generation.small_shots import FEW, shot


@pytest.mark.parametrize("mode", MEMORY_MODES)
def test_every_memory_mode_gives_the_same_video(toy_models, mode):
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models))
    plain = list(engine.generate(shot()))
    networks = LoadedNetworks(engine.networks.choice, mode)
    assert np.array_equal(plain, list(WanEngine(engine.settings, networks).generate(shot())))
    assert bool(networks._kept.encoders) == (mode == "resident")


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


def test_the_mode_depends_on_memory_and_too_little_is_an_error():
    gigabyte = 2**30
    weights = {"dit": 30 * gigabyte, "text_encoder": 11 * gigabyte, "image_encoder": gigabyte, "vae": gigabyte}
    for budget, mode in ((80, "resident"), (40, "encoders unloaded"), (24, "blocks streamed"), (12, "blocks streamed")):
        assert fitting_mode(budget * gigabyte, weights, 6 * gigabyte, "cuda:0") == mode
    with pytest.raises(WanUnavailableError, match=r"cuda:0 has 8.0 GB .*at least 8.5 GB"):
        fitting_mode(8 * gigabyte, weights, 6 * gigabyte, "cuda:0")

"""Switching presets, LoRAs and precision: nothing is loaded twice, and every result is that of a fresh start."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from ex4d.generation.wan import loaded_networks, memory
from ex4d.generation.wan.encode_cache import encodes
from ex4d.generation.wan.loaded_networks import LoadedNetworks, networks_for
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.networks import dit_on_meta, open_dit
from ex4d.generation.wan.transformer import Transformer
from ex4d.generation.wan.wan_engine import WanEngine, create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.service.worker import preload_weights
from ex4d.weights import converted
from ex4d.weights.converted import WRITER, ConvertedWeights
from ex4d.weights.errors import CheckpointError
from ex4d.weights.parallel_files import read_tensors, write_tensors
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.wan_settings import WanSettings, wan_preset
from tests.generation.small_shots import FEW, shot

GIGABYTE = 2**30


@pytest.fixture(autouse=True)
def room(monkeypatch):
    """What the machine has left, so that no other process decides what is kept."""
    left = {"budget": 1000 * GIGABYTE}
    monkeypatch.setattr(memory, "memory_budget", lambda device, limit: left["budget"])
    monkeypatch.setattr(loaded_networks, "_last", None)
    return left


@pytest.fixture
def lora(toy_models, tmp_path):
    """A LoRA that changes one layer of each block."""
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for number in range(2):
        name = f"blocks.{number}.self_attn.q"
        tensors[f"{name}.lora_A.weight"] = torch.randn(4, 128, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(128, 4, generator=generator)
    path = tmp_path / "style.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture
def choose(toy_models, lora):
    """A choice of the toy's weights; with the LoRA at some weight."""

    def chosen(settings: WanSettings, weight: float = 0.0, cache: ConvertedWeights | None = None) -> NetworkChoice:
        loras = ((lora, weight),) if weight else ()
        files = find_wan_files(toy_models)
        return NetworkChoice(files, loras, "cpu", settings.precision, settings.fp8_attention, converted=cache)

    return chosen


_OWN_PRECISION = {key: value for key, value in FEW.items() if key != "precision"}
REFERENCE, STANDARD, FAST = (
    wan_preset("ex4d-reference", **_OWN_PRECISION),
    wan_preset("standard", **_OWN_PRECISION),
    wan_preset("fast", **_OWN_PRECISION, loras=()),
)


def film(settings: WanSettings, networks: LoadedNetworks) -> np.ndarray:
    return np.array(list(WanEngine(settings, networks).generate(shot(1))))


def count_loads(networks: LoadedNetworks) -> list[str]:
    """What is loaded from now on."""
    loads: list[str] = []

    def noted(load):
        def run(*arguments):
            loads.append(arguments[0] if arguments else "transformer")
            return load(*arguments)

        return run

    networks._load_part = noted(networks._load_part)
    networks._load_transformer = noted(networks._load_transformer)
    return loads


def test_presets_share_networks_and_come_back_without_loading_exactly_as_they_were(choose):
    settings = [(REFERENCE, 0.0), (STANDARD, 0.0), (FAST, 1.0), (FAST, 0.5)]
    fresh = [film(one, LoadedNetworks(choose(one, weight))) for one, weight in settings]
    assert not any(np.array_equal(fresh[0], other) for other in fresh[1:])
    encodes.clear()
    transformers = []
    for (one, weight), expected in zip(settings, fresh, strict=True):
        networks = networks_for(choose(one, weight))
        networks.choose_mode((1, 6, 6))
        loads = count_loads(networks)
        assert np.array_equal(film(one, networks), expected)
        # The text encoder's results are on disk.
        first = ["image_encoder", "vae"] if one is REFERENCE else []
        assert sorted(loads) == [*first[:1], "transformer", *first[1:]]
        transformers.append(networks.transformer)
    for (one, weight), expected, transformer in zip(settings, fresh, transformers, strict=True):
        networks = networks_for(choose(one, weight))
        loads = count_loads(networks)
        assert np.array_equal(film(one, networks), expected)
        assert not loads and networks.transformer is transformer


def test_fp8_attention_needs_no_other_weights(choose):
    with_attention = replace(STANDARD, fp8_attention=True)
    first = networks_for(choose(STANDARD)).transformer
    assert networks_for(choose(with_attention)).transformer is first
    assert all(block.fp8_attention for block in first.blocks)
    assert networks_for(choose(STANDARD)).transformer is first
    assert not any(block.fp8_attention for block in first.blocks)


def test_an_engine_of_an_earlier_choice_still_uses_its_own_weights(choose):
    first = WanEngine(REFERENCE, networks_for(choose(REFERENCE)))
    expected = np.array(list(first.generate(shot(1))))
    other = film(STANDARD, networks_for(choose(STANDARD)))
    assert np.array_equal(list(first.generate(shot(1))), expected) and not np.array_equal(other, expected)


def test_other_types_of_the_same_files_replace_them(choose):
    networks = networks_for(choose(REFERENCE))
    vae = networks.vae
    exact = networks_for(choose(replace(REFERENCE, precision="float32")))
    assert not exact._kept.vaes, "the VAE in the other type is no use any more"
    assert next(exact.vae.model.parameters()).dtype == torch.float32 and exact.vae is not vae


def test_where_memory_is_short_what_was_used_longest_ago_goes(choose, room):
    one, other, third = choose(REFERENCE), choose(STANDARD), choose(STANDARD, 1.0)
    first = networks_for(one).transformer
    second = networks_for(other).transformer
    assert networks_for(one).transformer is first
    # Nothing is free, until one was freed.
    freed = []
    networks = networks_for(third)
    networks._kept.give_up_one = lambda own, give_up=networks._kept.give_up_one: (
        give_up(own) and (freed.append(own), room.update(budget=1000 * GIGABYTE))
    )
    room["budget"] = 0
    assert networks.transformer not in (first, second) and len(freed) == 1
    assert networks_for(one).transformer is first
    assert networks_for(other).transformer is not second


def test_out_of_memory_first_takes_what_other_presets_keep(choose):
    fresh = film(STANDARD, LoadedNetworks(choose(STANDARD)))
    film(REFERENCE, networks_for(choose(REFERENCE)))
    networks = networks_for(choose(STANDARD))
    failures = []

    def fail(module, inputs):
        if len(networks._kept.transformers) > 1:
            failures.append(networks.mode)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    networks.transformer.blocks[0].register_forward_pre_hook(fail)
    assert np.array_equal(film(STANDARD, networks), fresh)
    assert failures == ["resident"] and networks.mode == "resident" and len(networks._kept.transformers) == 1


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_other_loras_are_merged_into_the_weights_as_they_are_stored(choose, weight):
    """They are kept where the GPU has room; what was merged before is no part of them."""
    chosen, base = choose(REFERENCE), {}
    open_all(chosen.files, chosen.files.ex4d, (), base)
    kept = {key: tensor.clone() for key, tensor in base.items()}
    loras = choose(REFERENCE, weight).loras
    found = open_all(chosen.files, chosen.files.ex4d, loras, base)
    expected = open_all(chosen.files, chosen.files.ex4d, loras, None)
    assert_equal(found, expected)
    assert_equal(base, kept)


@pytest.mark.parametrize(("settings", "mode"), [(REFERENCE, "resident"), (STANDARD, "blocks streamed")])
def test_a_parked_transformer_comes_back_exactly(choose, settings, mode):
    """Here from the host's memory to the host's memory; on a GPU see below."""
    networks = LoadedNetworks(choose(settings), mode)
    expected = film(settings, networks)
    (kept,) = networks._kept.transformers.values()
    loads = count_loads(networks)
    for _ in range(2):
        kept.park()
        assert np.array_equal(film(settings, networks), expected)
        assert not kept.parked
    assert not [name for name in loads if name != "image_encoder"]


def test_a_service_loads_a_preset_before_its_first_job_unless_a_job_comes(toy_models, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(converted, "LEAST_BYTES", 2**40)
    machine, wake = MachineSettings(toy_models), threading.Event()
    wake.set()
    assert not preload_weights("standard", "cpu", machine, wake), "it is to be tried again"
    wake.clear()
    assert preload_weights("standard", "cpu", machine, wake)
    networks = create_wan_engine(STANDARD, "cpu", machine).networks
    loads = count_loads(networks)
    assert networks.transformer.blocks[0].fp8 and networks.vae is not None and not loads
    caplog.clear()
    assert preload_weights("standard", "cpu", MachineSettings(tmp_path), wake), "there is nothing to try again"
    assert "standard cannot be loaded" in caplog.text and "ex4d models fetch" in caplog.text


@pytest.fixture
def cache(tmp_path, monkeypatch) -> ConvertedWeights:
    monkeypatch.setattr(converted, "LEAST_BYTES", 0)
    monkeypatch.setattr(converted, "FREE_BYTES", 0)  # the disk of this machine may be nearly full
    yield ConvertedWeights(tmp_path / "converted", 1)
    WRITER.wait()


@pytest.mark.parametrize(("settings", "weight"), [(REFERENCE, 0.5), (STANDARD, 0.0)])
def test_converted_weights_give_the_same_video(choose, cache, monkeypatch, settings, weight):
    expected = film(settings, LoadedNetworks(choose(settings, weight, cache)))
    WRITER.wait()
    names = sorted(path.name.partition("-")[0] for path in cache.folder.iterdir())
    assert names == ["image_encoder", "transformer", "vae"]
    monkeypatch.setattr(loaded_networks, "open_dit", None)  # the files are not merged again
    assert np.array_equal(film(settings, LoadedNetworks(choose(settings, weight, cache))), expected)


def test_streamed_blocks_are_converted_and_read_into_the_hosts_memory(choose, cache, monkeypatch):
    chosen = choose(STANDARD, 0.0, cache)
    networks = LoadedNetworks(chosen, "blocks streamed")
    expected = networks.transformer.weights()
    kept = networks._kept.transformers[networks._keys.transformer]
    kept.streaming[1]._before(0)  # a block computes while the file is written
    WRITER.wait()
    monkeypatch.setattr(loaded_networks, "open_dit", None)
    assert_equal(LoadedNetworks(chosen, "blocks streamed").transformer.weights(), expected)


def test_converted_weights_of_other_files_loras_or_types_are_not_used(choose, cache, lora):
    first = LoadedNetworks(choose(REFERENCE, 0.5, cache)).transformer.weights()
    for settings, weight in ((REFERENCE, 1.0), (STANDARD, 0.5)):
        WRITER.wait()
        assert not same(LoadedNetworks(choose(settings, weight, cache)).transformer.weights(), first)
    WRITER.wait()
    changed = {key: 2 * value for key, value in load_file(lora).items()}
    state = lora.stat()
    save_file(changed, lora)
    os.utime(lora, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert not same(LoadedNetworks(choose(REFERENCE, 0.5, cache)).transformer.weights(), first)


def test_damaged_converted_weights_are_made_again(choose, cache, caplog):
    expected = LoadedNetworks(choose(STANDARD, 0.0, cache)).transformer.weights()
    WRITER.wait()
    (path,) = cache.folder.iterdir()
    whole = path.read_bytes()
    tensors = read_tensors(path, "cpu")

    def cut_off() -> None:
        path.write_bytes(whole[:-100])

    def other_type() -> None:
        path.unlink()
        write_tensors(path, {key: value.float() for key, value in tensors.items()})

    def incomplete() -> None:
        path.unlink()
        write_tensors(path, {key: value for key, value in tensors.items() if "blocks.1.up" not in key})

    for damage in (cut_off, other_type, incomplete):
        damage()
        assert_equal(LoadedNetworks(choose(STANDARD, 0.0, cache)).transformer.weights(), expected)
        WRITER.wait()
        assert path.read_bytes() == whole
    assert "made again" in caplog.text


def test_weights_of_another_transformer_are_refused(choose):
    files = choose(REFERENCE).files
    weights = Transformer(*open_dit(files.dit, files.ex4d)).weights()
    del weights["modulation"]
    with pytest.raises(CheckpointError, match="modulation"):
        Transformer(*dit_on_meta(files.dit, files.ex4d), device="cpu", weights=weights)


@pytest.mark.gpu
def test_on_a_gpu_stored_weights_parking_and_converted_weights_give_what_loading_gives(choose, cache, room):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    chosen = [replace(choose(*one), device="cuda:0") for one in ((REFERENCE,), (STANDARD,), (STANDARD, 0.5))]
    fresh = [LoadedNetworks(one).transformer.weights() for one in chosen]
    fresh = [{key: value.cpu() for key, value in weights.items()} for weights in fresh]
    networks = [networks_for(one) for one in chosen]
    for one, expected in zip(networks, fresh, strict=True):
        assert_equal(on_host(one), expected)
    kept = networks[0]._kept
    assert kept.base is not None and all(tensor.is_cuda for tensor in kept.base[1].values())
    while kept.give_up_one(""):
        pass
    assert kept.base is None and all(one.parked for one in kept.transformers.values()) and not kept.device_bytes()
    assert all(not value.is_cuda for one in kept.transformers.values() for _, value in parameters(one.transformer))
    parked = list(kept.transformers.values())
    for _ in range(2):
        for one, expected in zip(networks, fresh, strict=True):
            assert_equal(on_host(one), expected)
        while kept.give_up_one(""):
            pass
    assert parked == list(kept.transformers.values()), "none was loaded again"
    for one, expected in zip(chosen, fresh, strict=True):
        for _ in range(2):
            assert_equal(on_host(LoadedNetworks(replace(one, converted=cache))), expected)
            WRITER.wait()
    assert len(list(cache.folder.iterdir())) == 3


def parameters(transformer: Transformer) -> list[tuple[str, torch.Tensor]]:
    return [pair for _, part in transformer.parts() for pair in part.named_parameters()]


def on_host(networks: LoadedNetworks) -> dict[str, torch.Tensor]:
    return {key: value.cpu() for key, value in networks.transformer.weights().items()}


def open_all(files, adapter, loras, base) -> dict[str, torch.Tensor]:
    return Transformer(*open_dit(files.dit, adapter, loras, base=base)).weights()


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[key].shape == value.shape and torch.equal(found[key].float(), value.float())
        for key, value in expected.items()
    )


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert same(found, expected)
    assert [found[key].dtype for key in expected] == [value.dtype for value in expected.values()]

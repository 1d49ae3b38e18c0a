"""The VAE's decoder, spread over several devices: the same frames."""

from __future__ import annotations

import contextlib

import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from ex4d.generation.wan.decoding import decode_in_order
from ex4d.generation.wan.networks import build_vae, load_vae
from ex4d.generation.wan.spread_decoder import SpreadDecoder, balanced_starts, decoder_layers
from ex4d.generation.wan.wan_engine import create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.wan_settings import wan_preset
from tests.generation.small_shots import FEW

LATENTS = torch.randn(1, 16, 4, 4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def vae(toy_models):
    return load_vae(find_wan_files(toy_models).vae, dtype=torch.float32)


def frames(vae, **how) -> torch.Tensor:
    return torch.cat(list(decode_in_order(vae, LATENTS.clone(), contextlib.nullcontext, **how)))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_layers_of_the_published_decoder_are_shared_evenly(count):
    """By what they cost, none twice; no device has much more than its share."""
    costs = [cost for _, cost in decoder_layers(build_vae().model)]
    starts = balanced_starts(costs, count)
    parts = [sum(costs[start:stop]) for start, stop in zip(starts, [*starts[1:], len(costs)], strict=True)]
    assert starts[0] == 0 and sum(parts) == pytest.approx(sum(costs))
    assert max(parts) < 1.45 * sum(costs) / count


@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_several_devices_decode_the_same_frames(vae, kind):
    if kind == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    devices = [torch.device("cpu")] * 3 if kind == "cpu" else [torch.device("cuda:0"), torch.device("cuda:1")]
    vae.model.to(devices[0])
    latents = LATENTS.to(devices[0])
    alone = torch.cat(list(decode_in_order(vae, latents, contextlib.nullcontext)))
    spread = SpreadDecoder(vae.model, devices)
    assert {parameter.device for parameter in vae.model.decoder.parameters()} == set(devices)
    together = torch.cat(list(decode_in_order(vae, latents, contextlib.nullcontext, ahead=len(devices) - 1)))
    assert together.device == latents.device and torch.equal(together, alone)
    spread.gather()
    assert {parameter.device for parameter in vae.model.parameters()} == {devices[0]}
    assert torch.equal(torch.cat(list(decode_in_order(vae, latents, contextlib.nullcontext))), alone)


def test_latents_are_under_way_on_all_devices_before_frames_are_yielded(vae):
    """Or each device would wait for all others."""
    decoded = []
    vae.model.decoder.register_forward_hook(lambda *_: decoded.append(1))
    stream = decode_in_order(vae, LATENTS.clone(), contextlib.nullcontext, ahead=2)
    assert len(next(stream)) == 1 and len(decoded) == 3
    assert len(next(stream)) == 4 and len(decoded) == 4
    assert [len(each) for each in stream] == [4, 4] and len(decoded) == 4


def test_a_device_that_runs_out_of_memory_leaves_decoding_to_the_first(toy_models, monkeypatch):
    """Before or between frames; no frame is missing or comes twice."""
    engine = create_wan_engine(wan_preset("ex4d-reference", **FEW), "cpu", MachineSettings(toy_models))
    networks, latents = engine.networks, LATENTS.clone()
    expected = torch.cat(list(engine._decode(latents)))
    fallen = []

    def decode(latents: torch.Tensor):
        for number, each in enumerate(decode_in_order(networks.vae, latents, networks.precision)):
            if number == 2 and not fallen:
                raise torch.OutOfMemoryError("CUDA out of memory on the other device")
            yield each

    monkeypatch.setattr(networks, "decode", decode)
    monkeypatch.setattr(networks, "decode_alone", lambda: not fallen and (fallen.append(1) or True))
    assert torch.equal(torch.cat(list(engine._decode(latents))), expected) and fallen

"""Live drafts: the preset, the tiny decoder, and what is not encoded again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from torch import nn
from torch.nn import functional

from bench.random_weights import write_tiny_decoder
from ex4d.cli.main import main
from ex4d.generation.wan.encode_cache import EncodeCache, encodes
from ex4d.generation.wan.loaded_networks import LoadedNetworks
from ex4d.generation.wan.tiny_decoder import load_tiny_decoder
from ex4d.generation.wan.wan_engine import WanEngine, create_wan_engine
from ex4d.machine import MachineSettings
from ex4d.weights.checkpoints import read_checkpoint
from ex4d.weights.errors import CheckpointError
from ex4d.weights.places import find_tiny_decoder
from ex4d_core.wan_settings import wan_preset
from tests.generation.small_shots import FEW, HEIGHT, WIDTH, shot

QUICK = {**FEW, "loras": (), "guidance": 1.0}


@pytest.fixture
def models(toy_models, tmp_path) -> Path:
    """Models with a tiny decoder where ComfyUI keeps one."""
    models = Path(shutil.copytree(toy_models, tmp_path / "models"))
    write_tiny_decoder(models / "vae_approx" / "taew2_1.safetensors")
    return models


def engine_of(models: Path, **changes) -> WanEngine:
    return create_wan_engine(wan_preset("live", **{**QUICK, **changes}), "cpu", MachineSettings(models))


def published_decoder(tensors: dict[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
    """The published network in one piece, layer by layer: (4F - 3, 3, H, W) in [0, 1] of (F, 16, h, w)."""

    def conv(name: str, frames: torch.Tensor) -> torch.Tensor:
        weight = tensors[f"decoder.{name}.weight"].float()
        return functional.conv2d(frames, weight, _bias(tensors, name), padding=weight.shape[-1] // 2)

    frames = functional.relu(conv("1", torch.tanh(latents / 3) * 3))
    for first, count in ((3, 1), (9, 2), (15, 2)):
        for block in range(first, first + 3):
            past = functional.pad(frames, (0, 0, 0, 0, 0, 0, 1, 0))[: len(frames)]
            inner = functional.relu(conv(f"{block}.conv.0", torch.cat([frames, past], 1)))
            inner = conv(f"{block}.conv.4", functional.relu(conv(f"{block}.conv.2", inner)))
            frames = functional.relu(inner + frames)
        frames = nn.Upsample(scale_factor=2)(frames)
        grown = conv(f"{first + 4}.conv", frames)
        assert grown.shape[1] == count * frames.shape[1]
        frames = conv(str(first + 5), grown.reshape(-1, *frames.shape[1:]))
    return conv("22", functional.relu(frames))[3:].clamp(0, 1)


def _bias(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor | None:
    bias = tensors.get(f"decoder.{name}.bias")
    return None if bias is None else bias.float()


def test_the_tiny_decoder_is_the_published_network(tmp_path):
    """In pieces with memory, it makes of six latents what the network makes of all at once."""
    path = write_tiny_decoder(tmp_path / "taew2_1.safetensors", full_size=True)
    tensors = read_checkpoint(path)
    assert sum(key.startswith("decoder.") for key in tensors) == 64
    latents = 2 * torch.randn(1, 16, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    decoder = load_tiny_decoder(path, dtype=torch.float32)
    frames = torch.cat(list(decoder.decode_in_order(latents)))
    expected = published_decoder(tensors, latents[0].transpose(0, 1)) * 2 - 1
    assert frames.shape == (21, 3, 24, 32)
    assert (frames - expected).abs().max() < 1e-5 and frames.std() > 0.1
    image = decoder.image(latents, 0)
    assert np.abs(image - ((frames[0] + 1) * 127.5).permute(1, 2, 0).numpy()).max() <= 1.01


def test_another_network_is_refused_by_what_it_lacks(tmp_path, toy_models, capsys):
    from safetensors.torch import save_file

    path = tmp_path / "taew2_1.safetensors"
    save_file({"decoder.1.weight": torch.zeros(8, 4, 3, 3)}, path)
    with pytest.raises(CheckpointError, match=r"taew2_1.safetensors is not TAEW 2.1.*no layer decoder.8.weight"):
        load_tiny_decoder(path, dtype=torch.float32)
    # A take does not need it.
    models = Path(shutil.copytree(toy_models, tmp_path / "models"))
    shutil.copyfile(path, models / "taew2_1.safetensors")
    assert engine_of(models).tiny_decoder is None
    assert main(["models", "check", "tiny_decoder", "--quick", "--models", str(models)]) == 1
    assert "not those of the published model" in capsys.readouterr().out


def test_the_tiny_decoder_is_found_where_it_is_fetched_and_where_others_keep_it(tmp_path, capsys):
    models = tmp_path / "models"
    models.mkdir()
    assert find_tiny_decoder(models) is None
    write_tiny_decoder(tmp_path / "comfy" / "vae_approx" / "taew2_1.safetensors")
    assert find_tiny_decoder(models, [tmp_path / "comfy"]) == tmp_path / "comfy" / "vae_approx" / "taew2_1.safetensors"
    fetched = write_tiny_decoder(models / "lightx2v" / "Autoencoders" / "taew2_1.safetensors", full_size=True)
    assert find_tiny_decoder(models, [tmp_path / "comfy"]) == fetched
    assert main(["models", "check", "tiny_decoder", "--quick", "--models", str(models)]) == 0
    assert "keys and shapes are those of the published model" in capsys.readouterr().out


def test_a_live_draft_is_decoded_by_the_tiny_decoder(models, toy_models):
    """Its frames and the images of its steps; without the file the VAE decodes."""
    reports = []
    engine = engine_of(models)
    draft = list(engine.generate(shot(), count=5, on_progress=reports.append))
    assert len(draft) == 5 and draft[0].shape == (HEIGHT, WIDTH, 3)
    sketches = [report.image for report in reports if report.image is not None]
    assert len(sketches) == 2 and sketches[0].shape == (HEIGHT, WIDTH, 3)
    assert engine.networks._kept.vaes, "it still encodes"
    decoded = list(engine_of(toy_models).generate(shot(), count=5))
    exact = list(engine_of(models, tiny_decoder=False).generate(shot(), count=5))
    assert np.array_equal(decoded, exact) and not np.array_equal(draft, exact)


def test_a_shot_is_encoded_once_for_several_seeds(toy_models, monkeypatch):
    """To the same frames as if it were encoded for each."""
    encodes.clear()

    def run(seed: int, frames=None) -> np.ndarray:
        return np.array(list(engine_of(toy_models, seed=seed).generate(frames or shot(), count=5)))

    encoded = []

    def counted(networks: LoadedNetworks) -> None:
        encode = networks.vae.single_encode
        monkeypatch.setattr(networks.vae, "single_encode", lambda *args: encoded.append(1) or encode(*args))

    first = run(1)
    counted(engine_of(toy_models).networks)
    second = run(2)
    assert not encoded and not np.array_equal(first, second)
    encodes.clear()
    assert np.array_equal(run(2), second) and len(encoded) == 3
    # Of another clip under the same mask, all but the mask is encoded.
    run(2, shot(seed=5))
    assert len(encoded) == 5


def test_what_is_kept_of_encodings_is_bounded():
    """By bytes: what was used last stays, and what is too large is not kept."""
    cache, made = EncodeCache(1000), []

    def find(value: float, numbers: int = 100) -> torch.Tensor:
        content = torch.full((1, numbers), value)
        return cache.find_or_make(("vae",), content, lambda: made.append(value) or content * 2)

    assert find(1.0)[0, 0] == 2 and find(1.0)[0, 0] == 2 and made == [1.0]
    find(1.0)[:] = 7  # whoever has it may change it
    assert find(1.0)[0, 0] == 2
    for value in (2.0, 1.0, 3.0, 1.0, 2.0):
        find(value)
    assert made == [1.0, 2.0, 3.0, 2.0]
    find(4.0, 1000), find(4.0, 1000)
    assert made[-2:] == [4.0, 4.0]

"""Where weights lie: under their published names, or as the original EX-4D and DiffSynth lay them out."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import save_file

from ex4d.generation.wan import NO_GPU, why_no_preset, why_no_wan
from ex4d.generation.wan.networks import load_image_encoder, load_text_encoder, load_vae
from ex4d.machine import MachineSettings
from ex4d.weights.catalogue import CONVERTED
from ex4d.weights.errors import CheckpointError, WeightsMissingError
from ex4d.weights.places import fetch_command
from ex4d.weights.wan_files import find_wan_files

WAN_FOLDER = "Wan-AI/Wan2.1-I2V-14B-480P"


def test_the_published_file_names_are_found(toy_wan_models):
    files = find_wan_files(toy_wan_models)
    assert [path.name for path in files.dit] == [
        f"diffusion_pytorch_model-{number:05d}-of-00007.safetensors" for number in range(1, 8)
    ]
    assert (files.ex4d.name, files.vae.name) == ("ex4d.ckpt", "Wan2.1_VAE.pth")
    assert files.tokenizer.parts[-2:] == ("google", "umt5-xxl")


def test_the_originals_own_folder_is_found_too(wan_models):
    """Its README downloads into models/Wan-AI, without the model's name."""
    (wan_models / WAN_FOLDER).rename(wan_models / "moved")
    shutil.rmtree(wan_models / "Wan-AI")
    (wan_models / "moved").rename(wan_models / "Wan-AI")
    assert len(find_wan_files(wan_models).dit) == 7


def test_diffsynths_converted_safetensors_are_taken(wan_models):
    """The same keys in another container; the VAE and CLIP may carry DiffSynth's prefix "model."."""
    for name, prefix in (
        ("Wan2.1_VAE.pth", "model."),
        ("models_t5_umt5-xxl-enc-bf16.pth", ""),
        ("models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth", ""),
    ):
        path = wan_models / WAN_FOLDER / name
        (wan_models / CONVERTED).mkdir(parents=True, exist_ok=True)
        converted = {prefix + key: value for key, value in torch.load(path, weights_only=True).items()}
        save_file(converted, (wan_models / CONVERTED / name).with_suffix(".safetensors"))
        path.unlink()
    files = find_wan_files(wan_models)
    assert files.vae.suffix == files.text_encoder[0].suffix == files.image_encoder.suffix == ".safetensors"
    load_vae(files.vae), load_text_encoder(files.text_encoder), load_image_encoder(files.image_encoder)


def test_missing_weights_come_with_the_command_that_fetches_them(wan_models):
    (wan_models / "EX-4D" / "ex4d.ckpt").unlink()
    (wan_models / WAN_FOLDER / "Wan2.1_VAE.pth").unlink()
    with pytest.raises(WeightsMissingError, match=r"missing in .*: vae, ex4d.*ex4d models fetch vae ex4d"):
        find_wan_files(wan_models)


def test_the_command_names_the_folder_unless_it_is_the_users_own(tmp_path, monkeypatch):
    """It is pasted into a shell that need not have the variable which this process was given."""
    monkeypatch.delenv("EX4D_MODELS", raising=False)
    own = MachineSettings.from_environment().models
    assert fetch_command(own, "vae", "ex4d") == "ex4d models fetch vae ex4d"
    monkeypatch.setenv("EX4D_MODELS", str(tmp_path / "a disk"))
    set_by_variable = MachineSettings.from_environment().models
    assert fetch_command(set_by_variable, "fast") == f"ex4d models fetch fast --models '{tmp_path / 'a disk'}'"


def test_what_a_backend_lacks_is_said_with_the_command_last(wan_models):
    machine = MachineSettings(wan_models)
    assert why_no_wan("cpu", machine) == why_no_wan("cuda:0", machine) == ""
    assert why_no_preset("draft", machine) == ""
    assert why_no_preset("fast", machine).endswith(f" with: {fetch_command(wan_models, 'fast')}")
    (wan_models / "EX-4D" / "ex4d.ckpt").unlink()
    assert why_no_wan("cuda:0", machine).endswith(f" with: {fetch_command(wan_models, 'ex4d')}")
    assert why_no_wan("cpu", machine) == NO_GPU, "without a GPU there is nothing to fetch for"


def test_missing_shards_are_named(wan_models):
    (wan_models / WAN_FOLDER / "diffusion_pytorch_model-00004-of-00007.safetensors").unlink()
    with pytest.raises(CheckpointError, match="6 of the transformer's 7 shards; missing: 00004"):
        find_wan_files(wan_models)

"""Reading weights: the published file names, strictly, and errors that say which file, which keys, and what to do."""

import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from safetensors.torch import load_file, save_file

from ex4d.generation.wan.camera_encoder import CameraEncoder, split_adapter
from ex4d.generation.wan.layouts import FINGERPRINTS, fingerprint, full_size_dit, published_layout
from ex4d.generation.wan.networks import (
    export_adapter,
    load_dit,
    load_image_encoder,
    load_text_encoder,
    load_vae,
)
from ex4d.weights.checkpoints import read_checkpoint
from ex4d.weights.errors import CheckpointError
from ex4d.weights.wan_files import find_wan_files

WAN_FOLDER = "Wan-AI/Wan2.1-I2V-14B-480P"


@pytest.fixture
def models(toy_models, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(toy_models, tmp_path / "models"))


def change(path: Path, **edits) -> None:
    """Rewrite a .pth or .ckpt: keys to None go, others are set (dots written as __)."""
    tensors = torch.load(path, weights_only=True)
    for key, value in edits.items():
        key = key.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    torch.save(tensors, path)


# Full-size layouts, without weights.


@pytest.mark.parametrize("part", FINGERPRINTS)
def test_every_model_has_the_layout_that_diffsynth_registers_for_the_published_file(part):
    from diffsynth.configs.model_configs import wan_series

    names = {
        "dit": "WanModel",
        "text_encoder": "WanTextEncoder",
        "vae": "WanVideoVAE",
        "image_encoder": "WanImageEncoder",
    }
    layout = published_layout(part)
    assert fingerprint(layout) == FINGERPRINTS[part]
    registered = {entry["model_hash"]: entry["model_class"].rpartition(".")[2] for entry in wan_series}
    assert registered[FINGERPRINTS[part]] == names[part]
    if part == "dit":
        assert len(layout) == 1303 and FINGERPRINTS[part] == "6bfcfb3b342cb286ce886889d519a77e"


def test_an_adapter_exported_from_the_full_transformer_has_the_published_names():
    layout = export_adapter(full_size_dit())
    lora = {key for key in layout if "lora" in key}
    assert len(lora) == 40 * 10 * 2
    assert layout["blocks.39.cross_attn.o.lora_A.default.weight"].shape == (16, 5120)
    assert layout["blocks.0.ffn.2.lora_B.default.weight"].shape == (5120, 16)
    assert layout["blocks.0.ffn.2.lora_A.default.weight"].shape == (16, 13824)
    camera = {key: tuple(value.shape) for key, value in layout.items() if key not in lora}
    assert camera == {
        "latent_encoder.0.weight": (1024, 32, 1, 1, 1),
        "latent_encoder.0.bias": (1024,),
        "latent_encoder.2.weight": (1024, 1024, 1, 1, 1),
        "latent_encoder.2.bias": (1024,),
        "latent_encoder.4.weight": (1024, 1024, 1, 1, 1),
        "latent_encoder.4.bias": (1024,),
        "latent_patch_embedding.weight": (5120, 1024, 1, 2, 2),
        "latent_patch_embedding.bias": (5120,),
    }


def test_the_exported_names_are_those_of_the_golden_adapter(golden_folder):
    path = golden_folder / "ex4d_generation_adapter.ckpt"
    theirs = {key: tuple(value.shape) for key, value in read_checkpoint(path).items()}
    dit = load_dit([golden_folder / "ex4d_generation_dit.safetensors"], path)
    assert {key: tuple(value.shape) for key, value in export_adapter(dit).items()} == theirs


# Damaged and wrong files.


@pytest.mark.parametrize("name", ["Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_files_that_are_cut_off_are_named(models, name, share):
    path = models / WAN_FOLDER / name
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    load = load_vae if "VAE" in name else load_text_encoder
    with pytest.raises(CheckpointError, match=rf"{name} .*cut off.*ex4d models fetch"):
        load(path)


def test_a_file_that_would_run_code_is_not_run(models, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    path = models / "EX-4D" / "ex4d.ckpt"
    torch.save({"blocks.0.self_attn.q.lora_A.default.weight": Trap()}, path)
    with pytest.raises(CheckpointError, match=r"ex4d\.ckpt"):
        split_adapter(path)
    assert not (tmp_path / "sprung").exists()


def test_missing_unexpected_and_misshapen_keys_are_all_named(models):
    path = models / WAN_FOLDER / "Wan2.1_VAE.pth"
    change(path, conv2__bias=None, surprise__weight=torch.zeros(3), conv1__bias=torch.zeros(7))
    with pytest.raises(CheckpointError) as raised:
        load_vae(path)
    text = str(raised.value)
    assert "Wan2.1_VAE.pth" in text
    assert "1 keys are missing (conv2.bias)" in text
    assert "1 keys are unexpected (surprise.weight)" in text
    assert "conv1.bias is (7,), not (32,)" in text


@pytest.mark.parametrize(
    ("load", "name", "key"),
    [
        (load_vae, "Wan2.1_VAE.pth", "encoder.conv1.weight"),
        (load_text_encoder, "models_t5_umt5-xxl-enc-bf16.pth", "token_embedding.weight"),
        (load_image_encoder, "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth", "visual.head"),
    ],
)
def test_tensors_that_no_size_can_be_read_from_are_named(models, load, name, key):
    path = models / WAN_FOLDER / name
    change(path, **{key.replace(".", "__"): torch.zeros(3)})
    with pytest.raises(CheckpointError, match=rf"{name} is not .*: its {key} is \(3,\); ex4d models fetch"):
        load(path)


def test_whole_and_complex_numbers_are_no_weights(models):
    change(models / WAN_FOLDER / "Wan2.1_VAE.pth", conv1__bias=torch.zeros(32, dtype=torch.int64))
    with pytest.raises(CheckpointError, match=r"1 tensors hold no real numbers \(conv1.bias\)"):
        load_vae(models / WAN_FOLDER / "Wan2.1_VAE.pth")


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (load_vae, "models_t5_umt5-xxl-enc-bf16.pth"),
        (load_text_encoder, "Wan2.1_VAE.pth"),
        (load_image_encoder, "Wan2.1_VAE.pth"),
        (lambda path: load_dit([path], None), "Wan2.1_VAE.pth"),
    ],
)
def test_another_models_file_is_recognised(models, load, name):
    with pytest.raises(CheckpointError, match=rf"{name} is not a"):
        load(models / WAN_FOLDER / name)


def test_a_transformer_without_image_input_is_recognised(models):
    for path in find_wan_files(models).dit:
        save_file({key: value for key, value in load_file(path).items() if "img" not in key}, path)
    with pytest.raises(CheckpointError, match=r"is Wan2\.2-I2V-A14B .*EX-4D needs Wan2\.1-I2V-14B-480P"):
        load_dit(find_wan_files(models).dit, None)


def test_a_key_in_two_shards_is_an_error(models):
    first, second = find_wan_files(models).dit[:2]
    tensors = load_file(first)
    save_file({**load_file(second), next(iter(tensors)): next(iter(tensors.values()))}, second)
    with pytest.raises(CheckpointError, match="an earlier shard holds too"):
        load_dit(find_wan_files(models).dit, None)


def test_an_adapter_for_another_width_is_refused(models):
    change(models / "EX-4D" / "ex4d.ckpt", latent_patch_embedding__weight=torch.zeros(256, 8, 1, 2, 2))
    with pytest.raises(CheckpointError, match=r"ex4d.ckpt is not the CameraEncoder .*\(256, 8, 1, 2, 2\), not \(128,"):
        load_dit(find_wan_files(models).dit, find_wan_files(models).ex4d)


@pytest.mark.parametrize(("prefix", "what"), [("latent_", "camera encoder"), ("blocks.", "LoRA")])
def test_half_an_adapter_is_refused(models, prefix, what):
    path = models / "EX-4D" / "ex4d.ckpt"
    tensors = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in tensors.items() if not key.startswith(prefix)}, path)
    with pytest.raises(CheckpointError, match=f"has no {what}"):
        split_adapter(path)


# Loading.


def test_the_transformer_is_the_same_from_shards_and_from_one_file(toy_models, tmp_path):
    files = find_wan_files(toy_models).dit
    save_file(read_checkpoint(files), tmp_path / "whole.safetensors")
    sharded, whole = load_dit(files, None).state_dict(), load_dit([tmp_path / "whole.safetensors"], None).state_dict()
    assert sharded.keys() == whole.keys()
    assert all(torch.equal(sharded[key], whole[key]) for key in sharded)


def test_a_loaded_model_does_not_change_with_its_file(models):
    path = models / WAN_FOLDER / "Wan2.1_VAE.pth"
    vae = load_vae(path)
    before = vae.model.conv1.weight.clone()
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.write(bytes(size))
    assert torch.equal(vae.model.conv1.weight, before)


def test_the_camera_encoder_halves_height_and_width():
    encoder = CameraEncoder(hidden=4, width=6)
    assert encoder(torch.zeros(1, 32, 3, 8, 12)).shape == (1, 6, 3, 4, 6)

"""Weights of Wan are found by what files hold, in ComfyUI's folders, in Hugging Face's cache and where one says."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import safetensors
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from ex4d.cli.main import main
from ex4d.generation.wan import why_no_preset, why_no_wan
from ex4d.generation.wan.networks import load_dit, load_text_encoder
from ex4d.installation import install_command
from ex4d.machine import MachineSettings
from ex4d.weights.catalogue import WAN, part
from ex4d.weights.checkpoints import read_checkpoint
from ex4d.weights.errors import CheckpointError, WeightsMissingError
from ex4d.weights.places import find_adapter, find_lora, find_part, found_models, list_loras, unfound_files
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.messages import command_in
from tests.weights.wan_layouts import fp8, fp8_scaled, save, write_comfyui, write_gguf

NETWORKS = ("dit", "text_encoder", "vae", "image_encoder")


@pytest.fixture(scope="module")
def networks(toy_wan_models) -> dict[str, dict[str, torch.Tensor]]:
    """The toy networks, without CLIP's text tower."""
    files = find_wan_files(toy_wan_models)
    read = {name: read_checkpoint(getattr(files, name)) for name in NETWORKS}
    read["image_encoder"] = {key: value for key, value in read["image_encoder"].items() if "textual" not in key}
    return read


@pytest.fixture
def models(toy_wan_models, tmp_path) -> Path:
    """A folder of models with EX-4D's adapter and the tokenizer alone."""
    folder = tmp_path / "models"
    shutil.copytree(toy_wan_models / "EX-4D", folder / "EX-4D")
    shutil.copytree(toy_wan_models / WAN / "google", folder / WAN / "google")
    return folder


@pytest.fixture
def comfyui(tmp_path, networks, monkeypatch) -> Path:
    write_comfyui(tmp_path / "ComfyUI", networks)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    return tmp_path / "ComfyUI" / "models"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Hugging Face's cache: a repository's snapshot of links to blobs."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def in_cache(cache: Path, repository: str, name: str, file: Path) -> Path:
    """Put a file into the cache, as a download does."""
    repository_folder = cache / f"models--{repository.replace('/', '--')}"
    blob = repository_folder / "blobs" / name.replace("/", "_")
    link = repository_folder / "snapshots" / ("0" * 40) / name
    blob.parent.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    file.rename(blob)
    link.symlink_to(blob)
    return link


def models_command(capsys, *words: str) -> str:
    main(["models", *words])
    return capsys.readouterr().out


def test_comfyuis_files_make_the_engine_whole(models, comfyui, networks):
    assert why_no_wan("cuda:0", MachineSettings(models)) == ""
    files = find_wan_files(models)
    assert {path.parent.name for path in (*files.dit, *files.text_encoder, files.vae, files.image_encoder)} == {
        *("diffusion_models", "text_encoders", "vae", "clip_vision")
    }
    loaded = load_dit(files.dit, files.ex4d).state_dict()
    assert loaded.keys() > networks["dit"].keys()
    load_text_encoder(files.text_encoder)


def test_diffusers_folders_in_hugging_faces_cache_are_found(models, cache, networks, tmp_path):
    """Sharded, and with the tokenizer beside the text encoder."""
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    theirs = single_file.convert_wan_transformer_to_diffusers(dict(networks["dit"]))
    keys, name = sorted(theirs), "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
    for number in (1, 2):
        path = f"transformer/diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        shard = save(tmp_path / "shard.safetensors", {key: theirs[key] for key in keys[number - 1 :: 2]})
        in_cache(cache, name, path, shard)
    for network in ("vae", "image_encoder"):
        in_cache(cache, name, f"{network}/model.safetensors", save(tmp_path / "x.safetensors", networks[network]))
    text = networks["text_encoder"]
    for number in (1, 2):
        shard = save(tmp_path / "shard.safetensors", {key: text[key] for key in sorted(text)[number - 1 :: 2]})
        in_cache(cache, name, f"text_encoder/model-{number:05d}-of-00002.safetensors", shard)
    for file in (models / WAN / "google" / "umt5-xxl").iterdir():
        in_cache(cache, name, f"tokenizer/{file.name}", file)
    files = find_wan_files(models)
    assert [path.parent.name for path in files.dit] == ["transformer", "transformer"]
    assert load_text_encoder(files.text_encoder).state_dict().keys() == text.keys()
    assert files.tokenizer.name == "tokenizer" and files.vae.parent.name == "vae"


def test_further_folders_are_searched_when_one_names_them(models, networks, tmp_path, monkeypatch):
    write_comfyui(tmp_path / "disk", networks)
    with pytest.raises(WeightsMissingError, match="dit, text_encoder, image_encoder, vae"):
        find_wan_files(models)
    assert find_wan_files(models, further=[tmp_path / "disk"]).vae.name == "wan_2.1_vae.safetensors"
    monkeypatch.setenv("EX4D_MODEL_PATH", f"{tmp_path / 'nowhere'}:{tmp_path / 'disk'}")
    machine = MachineSettings.from_environment(models)
    assert why_no_wan("cuda:0", MachineSettings.from_json(machine.to_json())) == ""


def test_names_do_not_matter_and_the_most_exact_file_is_taken(models, networks, tmp_path):
    place = models / "anything"
    save(place / "a.safetensors", fp8(networks["dit"]))
    save(place / "b.safetensors", fp8_scaled(networks["dit"]))
    assert find_part(models, part("dit")) == (place / "b.safetensors",)
    save(place / "z.safetensors", networks["dit"])
    save(place / "model.safetensors", networks["vae"])
    assert find_part(models, part("dit")) == (place / "z.safetensors",)
    assert find_part(models, part("vae")) == (place / "model.safetensors",)


def test_a_gguf_file_is_found(models, networks):
    pytest.importorskip("gguf")
    path = write_gguf(models / "unet" / "wan-q8.gguf", networks["dit"])
    assert find_part(models, part("dit")) == (path,)


def test_only_what_is_not_here_in_any_layout_is_fetched(models, comfyui):
    """The tokenizer, which no file of ComfyUI holds, has 17 MB; the text encoder itself would have 11 GB."""
    assert not unfound_files(models, part("text_encoder"))
    shutil.rmtree(models / WAN / "google")
    assert {Path(file.path).parent.name for file in unfound_files(models, part("text_encoder"))} == {"umt5-xxl"}
    with pytest.raises(WeightsMissingError, match=r"missing in .*: tokenizer\..*\(17 MB\) with: ex4d models fetch"):
        find_wan_files(models)


def test_without_the_package_gguf_the_list_and_the_doctor_say_how_to_get_it(models, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("ex4d.weights.search.find_spec", lambda name: None)
    (models / "wan-q8.gguf").write_bytes(b"GGUF")
    told = " ".join(models_command(capsys, "list", "--models", str(models)).split())
    assert f"wan-q8.gguf is a GGUF file: it needs the package gguf: {install_command('wan')}" in told
    main(["doctor", "--json", "--backend", "tcp://127.0.0.1:9", "--models", str(models)])
    findings = {one["name"]: one["finding"] for one in json.loads(capsys.readouterr().out)["result"]["findings"]}
    assert "wan-q8.gguf" in findings["GGUF"] and command_in(findings["GGUF"]) == install_command("wan")


# What is not taken.


def without_image(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in tensors.items() if "img" not in key}


def with_input(tensors: dict[str, torch.Tensor], channels: int) -> dict[str, torch.Tensor]:
    return {**tensors, "patch_embedding.weight": torch.zeros(128, channels, 1, 2, 2)}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (without_image, "Wan2.2-I2V-A14B"),
        (lambda tensors: with_input(without_image(tensors), 16), "Wan2.1-T2V-14B or Wan2.2-T2V-A14B (text to video)"),
        (lambda tensors: with_input(without_image(tensors), 48), "Wan2.2-TI2V-5B"),
        (lambda tensors: with_input(tensors, 48), "Wan2.1-Fun-Control"),
        (lambda tensors: {**tensors, "vace_blocks.0.x": torch.zeros(1)}, "Wan2.1-VACE"),
        (lambda tensors: {**tensors, "img_emb.emb_pos": torch.zeros(1)}, "Wan2.1-FLF2V-14B"),
    ],
)
def test_other_transformers_are_refused_under_their_right_names(models, networks, change, name):
    path = save(models / "wan.safetensors", change(networks["dit"]))
    with pytest.raises(WeightsMissingError) as raised:
        find_wan_files(models)
    assert f"{path} is {name}" in str(raised.value) and "EX-4D needs Wan2.1-I2V-14B-480P" in str(raised.value)
    with pytest.raises(CheckpointError) as raised:
        find_wan_files(models, {"dit": path})
    assert f"{path} is {name}" in str(raised.value)
    with pytest.raises(CheckpointError) as raised:
        load_dit([path], None)
    assert f"{path} is {name}" in str(raised.value)


def test_other_encoders_are_not_taken_for_wans(models, networks):
    vae = {**networks["vae"], "conv2.weight": torch.zeros(48, 48, 1, 1, 1)}
    path = save(models / "vae.safetensors", vae)
    clip = save(
        models / "clip.safetensors", {"vision_model.embeddings.patch_embedding.weight": torch.zeros(1024, 3, 14, 14)}
    )
    with pytest.raises(WeightsMissingError) as raised:
        find_wan_files(models)
    assert f"{path} is Wan2.2-VAE (48 latent channels)" in str(raised.value)
    assert f"{clip} is CLIP ViT-L/14" in str(raised.value)


@pytest.mark.parametrize(
    ("file", "name", "trained_on"),
    [
        ("wan2.1_i2v_720p_14B_fp16.safetensors", "Wan2.1-I2V-14B-720P", "the 480P model"),
        ("Wan2.1-Fun-14B-InP/model.safetensors", "Wan2.1-Fun-14B-InP", "Wan2.1-I2V-14B-480P"),
        ("Wan2_1-Fun-V1_1-14B-InP_fp8.safetensors", "Wan2.1-Fun-14B-InP", "Wan2.1-I2V-14B-480P"),
    ],
)
def test_models_of_the_same_layout_are_known_by_name_and_used_only_when_named(
    models, networks, capsys, caplog, file, name, trained_on
):
    path = save(models / file, networks["dit"])
    assert not find_part(models, part("dit"))
    with pytest.raises(WeightsMissingError, match=f"is {re.escape(name)}: EX-4D was trained on {trained_on}"):
        find_wan_files(models)
    assert "not used: " in (told := models_command(capsys, "list", "--models", str(models)))
    assert name.partition("-")[2] in " ".join(told.split())
    save(models / "vae.safetensors", networks["vae"])
    for encoder in ("text_encoder", "image_encoder"):
        save(models / f"{encoder}.safetensors", networks[encoder])
    assert find_wan_files(models, {"dit": path}).dit == (path,)
    assert f"is {name}, and is used since it was named" in caplog.text


def test_two_sharded_models_in_one_folder_are_told_apart(models, networks):
    place = models / WAN
    keys = sorted(networks["dit"])
    right = []
    for number in (1, 2):
        name = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        right.append(save(place / name, {key: networks["dit"][key] for key in keys[number - 1 :: 2]}))
    other = with_input(without_image(networks["dit"]), 16)
    for number in (1, 2, 3):
        name = f"diffusion_pytorch_model-{number:05d}-of-00003.safetensors"
        save(place / name, {key: other[key] for key in sorted(other)[number - 1 :: 3]})
    assert find_part(models, part("dit")) == tuple(right)
    assert load_dit(find_part(models, part("dit")), None).state_dict().keys() == networks["dit"].keys()


# The check and the list.


@pytest.mark.parametrize("style", ["fp8_scaled", "gguf", "diffusers"])
def test_the_check_compares_what_loading_takes(models, networks, capsys, monkeypatch, style):
    """With the toy's layout as the published one."""
    monkeypatch.setattr("ex4d.generation.wan.layouts.published_layout", lambda name: networks[name])
    if style == "fp8_scaled":
        save(models / "x.safetensors", fp8_scaled(networks["dit"]))
        expected = "(packed as fp8 with scales)"
    elif style == "gguf":
        pytest.importorskip("gguf")
        write_gguf(models / "x.gguf", networks["dit"])
        expected = "(packed as Q8_0)"
    else:
        single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
        save(models / "x.safetensors", single_file.convert_wan_transformer_to_diffusers(dict(networks["dit"])))
        expected = "(names of diffusers)"
    assert main(["models", "check", "dit", "--quick", "--models", str(models)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"keys and shapes are those of the published model {expected}" in told


def test_the_check_reads_files_outside_of_the_folder_of_models(models, comfyui, capsys):
    assert main(["models", "check", "vae", "--models", str(models)]) == 1
    assert "wan_2.1_vae.safetensors: no hash is known for it" in " ".join(capsys.readouterr().out.split())


def test_the_list_says_what_was_found_and_what_is_not_used(models, comfyui, networks, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    path = save(models / "high.safetensors", without_image(networks["dit"]))
    adapter = models / "adapters" / "RoboNVS_lora16.ckpt"
    adapter.parent.mkdir()
    shutil.copy(models / "EX-4D" / "ex4d.ckpt", adapter)
    told = models_command(capsys, "list", "--models", str(models))
    assert f"not used: {path} is Wan2.2-I2V-A14B" in told
    assert "umt5_xxl_fp8_e4m3fn_scaled.safetensors, UMT5-XXL, the encoder (fp8 with scales)" in told
    assert "choose it with --adapter RoboNVS_lora16" in told
    found = json.loads(models_command(capsys, "list", "--json", "--models", str(models)))["result"]["found"]
    assert {entry["name"]: entry["used"] for entry in found}["Wan2.1-I2V-14B-480P"]


# LoRAs.


def a_lora(networks, path: Path, layer: str = "diffusion_model.blocks.0.self_attn.q") -> Path:
    width = networks["dit"]["blocks.0.self_attn.q.weight"].shape[0]
    down, up = torch.zeros(2, width), torch.zeros(width, 2)
    return save(path, {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up})


def test_loras_of_other_programs_are_named_where_they_are_for_wan(models, networks, comfyui, tmp_path, capsys):
    other = a_lora(networks, comfyui / "loras" / "sdxl.safetensors", "lora_unet_down_blocks_1_attentions_0_attn1_to_q")
    grain = a_lora(networks, comfyui / "loras" / "wan" / "grain.safetensors")
    a_lora(networks, comfyui / "loras" / "mine.safetensors")
    mine = a_lora(networks, models / "loras" / "mine.safetensors")
    slow = a_lora(networks, tmp_path / "weights" / "loras" / "slow.safetensors", "lora_unet_blocks_0_self_attn_q")
    further = [tmp_path / "weights"]
    assert list_loras(models, further) == [mine, grain, slow]
    assert [find_lora(models, path.stem, further) for path in (mine, grain, slow)] == [mine, grain, slow]
    assert find_lora(models, "sdxl") == other, "it was asked for by name; merging it says what is wrong"
    with pytest.raises(WeightsMissingError, match=r"no LoRA 'x' in .* \(there: grain, mine, slow\)"):
        find_lora(models, "x", further)
    words = ["list", "--models", str(models), "--model-path", str(further[0])]
    assert "grain" in models_command(capsys, *words)


def test_the_lora_of_fast_is_found_by_its_name_in_the_cache(models, networks, cache):
    fast = part("fast")
    assert find_part(models, fast) == ()
    file = Path(fast.files[0].path).name
    here = in_cache(cache, "somebody/loras", file, a_lora(networks, models / "x.safetensors"))
    assert find_part(models, fast) == (here,) and not unfound_files(models, fast)
    assert why_no_preset("fast", MachineSettings(models)) == ""


# Another adapter on the same model.


def test_another_adapter_is_chosen_by_its_name_and_never_taken_for_ex4ds(models):
    (models / "adapters").mkdir()
    robot = models / "adapters" / "RoboNVS_lora16.ckpt"
    (models / "EX-4D" / "ex4d.ckpt").rename(robot)
    assert find_part(models, part("ex4d")) == ()
    assert find_adapter(models, "RoboNVS_lora16") == robot
    with pytest.raises(WeightsMissingError, match=r"no adapter 'other' \(there: RoboNVS_lora16\)"):
        find_adapter(models, "other")


def test_a_worker_tells_what_it_found_in_other_places(models, comfyui, networks):
    """The service's list has it, as `ex4d models list` does; EX-4D's own adapter is none of the further ones."""
    import ex4d.generation  # noqa: F401 - as the runner of shots does
    from ex4d.service.worker import capabilities

    (models / "adapters").mkdir()
    robot = shutil.copy(models / "EX-4D" / "ex4d.ckpt", models / "adapters" / "RoboNVS_lora16.ckpt")
    _, found = capabilities("cpu", MachineSettings(models))
    assert set(found["weights"]) == {"dit", "image_encoder", "vae", "text_encoder"}
    assert Path(found["weights"]["vae"]).is_relative_to(comfyui)
    assert found["adapters"] == {"RoboNVS_lora16": str(robot)}


def test_an_adapter_of_another_kind_or_size_is_refused_by_its_name(models, toy_wan_models):
    (models / "adapters").mkdir()
    adapter = read_checkpoint(models / "EX-4D" / "ex4d.ckpt")
    lora = {key: value for key, value in adapter.items() if "lora" in key}
    save(models / "adapters" / "plain.safetensors", lora)
    with pytest.raises(CheckpointError, match=r"plain\.safetensors is no adapter of EX-4D's kind"):
        find_adapter(models, "plain")
    save(models / "adapters" / "wide.safetensors", {**adapter, "latent_patch_embedding.bias": torch.zeros(9)})
    with pytest.raises(CheckpointError, match=r"wide\.safetensors is not the CameraEncoder"):
        load_dit(find_wan_files(toy_wan_models).dit, find_adapter(models, "wide"))


def test_only_the_header_of_another_programs_model_is_read(tmp_path, monkeypatch):
    """In 8 bits it may have tens of gigabytes, and all of a cache is looked through."""
    save(tmp_path / "language-model.safetensors", {"layers.0.weight": torch.zeros(100_000, dtype=torch.int8)})
    read = []
    monkeypatch.setattr(safetensors, "safe_open", counting_reads(safetensors.safe_open, read))
    assert not found_models(tmp_path)
    assert read == []


def counting_reads(opens, read: list[str]):
    """`safetensors.safe_open`, noting the tensors whose values are asked for."""

    class Counting:
        def __init__(self, *arguments, **options):
            self._file = opens(*arguments, **options)

        def __enter__(self):
            self._file.__enter__()
            return self

        def __exit__(self, *problem):
            return self._file.__exit__(*problem)

        def __getattr__(self, name):
            return getattr(self._file, name)

        def get_tensor(self, key):
            read.append(key)
            return self._file.get_tensor(key)

    return Counting

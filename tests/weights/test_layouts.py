"""The files that people have: networks of Wan in other programs' layouts give the published files' weights."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from ex4d.generation.wan.encoders import encode_image, encode_text
from ex4d.generation.wan.networks import load_dit, load_image_encoder, load_text_encoder, load_vae
from ex4d.weights.checkpoints import read_checkpoint
from ex4d.weights.errors import CheckpointError
from ex4d.weights.gguf_files import read_gguf
from ex4d.weights.wan_files import find_wan_files
from tests.weights.wan_layouts import (
    fp8,
    fp8_by_rows,
    fp8_scaled,
    llama_names,
    prefixed,
    save,
    write_gguf,
)

# Half a step of a type, relative to the largest number it is a step of.
FP8, Q8, Q4 = 2**-4, 2**-7, 2**-3


@pytest.fixture(scope="module")
def dit(toy_wan_models) -> dict[str, torch.Tensor]:
    """The toy transformer's tensors, by their published names."""
    return read_checkpoint(find_wan_files(toy_wan_models).dit)


@pytest.fixture(scope="module")
def umt5() -> torch.nn.Module:
    """A small UMT5 encoder of transformers."""
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(3)
    sizes = {"vocab_size": 96, "d_model": 64, "d_kv": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    return UMT5EncoderModel(UMT5Config(**sizes, feed_forward_proj="gated-gelu", dropout_rate=0)).eval()


def assert_same_weights(network: torch.nn.Module, expected: dict[str, torch.Tensor], error: float) -> None:
    """Every weight is there, and as far from the expected one as its packing allows."""
    loaded = network.state_dict()
    assert loaded.keys() == expected.keys()
    for key, value in expected.items():
        off = (loaded[key].float() - value.float()).abs().max()
        assert off <= error * value.float().abs().max(), f"{key} is off by {off}"


@pytest.mark.parametrize(
    ("style", "error"),
    [
        (lambda tensors: {key: value.half() for key, value in tensors.items()}, 2**-8),
        (fp8, FP8),
        (fp8_scaled, FP8),
        (fp8_by_rows, FP8),
        (prefixed("model.diffusion_model."), 0),
        (lambda tensors: prefixed("model.diffusion_model.")(fp8_scaled(tensors)), FP8),
    ],
    ids=["fp16", "fp8", "fp8_scaled", "weight_scale", "prefix", "prefix and scales"],
)
def test_comfyuis_transformers(dit, tmp_path, style, error):
    path = save(tmp_path / "wan.safetensors", style(dit))
    assert_same_weights(load_dit([path], None), dit, error)


def test_diffusers_transformer_in_shards(dit, tmp_path):
    """Its own converter writes the file."""
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    theirs = single_file.convert_wan_transformer_to_diffusers(dict(dit))
    assert "condition_embedder.time_proj.weight" in theirs
    keys = sorted(theirs)
    files = [
        save(
            tmp_path / f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors",
            {key: theirs[key] for key in keys[number - 1 :: 2]},
        )
        for number in (1, 2)
    ]
    assert_same_weights(load_dit(files, None), dit, 0)


@pytest.mark.parametrize(
    ("packing", "error"), [("Q4_0", Q4), ("Q4_1", Q4), ("Q5_0", Q4 / 2), ("Q5_1", Q4 / 2), ("Q8_0", Q8), ("F16", 2**-8)]
)
def test_gguf_transformers(dit, tmp_path, packing, error):
    """With a patch embedding of five dimensions, which ComfyUI-GGUF writes as it is."""
    pytest.importorskip("gguf")
    path = write_gguf(tmp_path / "wan.gguf", dit, packing)
    assert_same_weights(load_dit([path], None), dit, error)


@pytest.mark.parametrize(
    ("packing", "block", "value"),
    [
        # Scale 1, no offset, scales of the eight groups 1, all weights 3.
        ("Q4_K", [0, 60, 0, 0, *[1] * 4, *[0] * 4, *[1] * 4, *[0x33] * 128], 3),
        ("Q5_K", [0, 60, 0, 0, *[1] * 4, *[0] * 4, *[1] * 4, *[0] * 32, *[0x33] * 128], 3),
        # Six bits count from -32.
        ("Q6_K", [*[0x33] * 128, *[0] * 64, *[1] * 16, 0, 60], 3 - 32),
    ],
)
def test_ggufs_blocks_of_256(tmp_path, packing, block, value):
    """Of which the package only has the way back: blocks by hand, float16's 1 being 0x3C00."""
    gguf = pytest.importorskip("gguf")
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "wan")
    writer.add_array("comfy.gguf.orig_shape.x", [2, 4, 64])
    writer.add_tensor("x", np.array([block, block], np.uint8), raw_dtype=gguf.GGMLQuantizationType[packing])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = read_gguf(tmp_path / "k.gguf")["x"]
    assert (tensor.packing, tuple(tensor.shape)) == (packing, (2, 4, 64)), "the shape that GGUF could not hold"
    assert torch.equal(tensor.to("cpu"), torch.full((2, 4, 64), float(value)))


def test_a_gguf_file_that_is_cut_off_is_named(dit, tmp_path):
    pytest.importorskip("gguf")
    path = write_gguf(tmp_path / "wan.gguf", dit)
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(CheckpointError, match=r"wan\.gguf cannot be read as GGUF"):
        load_dit([path], None)


def test_other_packings_and_orphaned_scales_are_named(dit, tmp_path):
    path = save(tmp_path / "wan.safetensors", fp8_by_rows(dit, "nvfp4"))
    with pytest.raises(CheckpointError, match="packed as nvfp4: expected float8_e4m3fn"):
        load_dit([path], None)
    save(path, {**dit, "blocks.0.nothing.scale_weight": torch.tensor(1.0)})
    with pytest.raises(CheckpointError, match=r"scale for blocks\.0\.nothing\.weight, but no"):
        load_dit([path], None)
    save(path, {**dit, "blocks.0.ffn.0.scale_weight": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"blocks.0.ffn.0.weight of shape \(3,\)"):
        load_dit([path], None)


def encoded(path: Path) -> torch.Tensor:
    ids, mask = torch.arange(6)[None], torch.ones(1, 6, dtype=torch.long)
    with torch.no_grad():
        return encode_text(load_text_encoder(path, dtype=torch.float32), ids, mask)


@pytest.mark.parametrize("style", ["transformers", "prefix", "without copy", "scaled", "llama.cpp"])
def test_the_text_encoder_under_transformers_names_computes_what_transformers_does(umt5, tmp_path, style):
    theirs, path, error = dict(umt5.state_dict()), tmp_path / "umt5.safetensors", 1e-4
    if style == "without copy":
        del theirs["encoder.embed_tokens.weight"]
    if style == "llama.cpp":
        pytest.importorskip("gguf")
        path, error = write_gguf(tmp_path / "umt5.gguf", llama_names(theirs), "F32"), 1e-4
    elif style == "scaled":
        save(path, {**fp8_scaled(theirs), "spiece_model": torch.zeros(9, dtype=torch.uint8)})
        error = 0.2
    else:
        save(path, prefixed("model.")(theirs) if style == "prefix" else theirs)
    with torch.no_grad():
        expected = umt5(torch.arange(6)[None]).last_hidden_state
    torch.testing.assert_close(encoded(path), expected, atol=error * expected.abs().max().item(), rtol=0)


def test_a_whole_umt5_is_taken_apart_and_what_is_left_over_is_named_once(umt5, tmp_path, caplog):
    whole = {**umt5.state_dict(), "lm_head.weight": torch.zeros(3, 3), "decoder.block.0.x.weight": torch.zeros(2)}
    path = save(tmp_path / "whole.safetensors", whole)
    with caplog.at_level(logging.WARNING):
        encoded(path), encoded(path)
    (record,) = caplog.records
    assert "holds 2 tensors that this network does not use: decoder.block.0.x.weight, lm_head.weight" in record.message


def test_clip_under_transformers_names_computes_what_transformers_does(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(4)
    sizes = {"hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 16}
    config = CLIPVisionConfig(**sizes, image_size=224, patch_size=56, projection_dim=16, hidden_act="gelu")
    clip = CLIPVisionModelWithProjection(config).eval()
    path = save(tmp_path / "clip_vision_h.safetensors", clip.state_dict())
    encoder = load_image_encoder(path, dtype=torch.float32)
    image = torch.rand(1, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        made = encode_image(encoder, image)
        mean, deviation = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
        normal = (image / 2 + 0.5 - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
        expected = clip(normal, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(made, expected, atol=2e-4, rtol=1e-3)


def test_diffusers_vae(toy_wan_models, tmp_path):
    """Its own converter writes the file."""
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    own = read_checkpoint(find_wan_files(toy_wan_models).vae)
    theirs = single_file.convert_wan_vae_to_diffusers(dict(own))
    assert "decoder.up_blocks.0.upsamplers.0.resample.1.weight" in theirs
    path = save(tmp_path / "diffusion_pytorch_model.safetensors", theirs)
    assert_same_weights(load_vae(path).model, own, 0)


# EX-4D's adapter.


@pytest.mark.parametrize("style", ["safetensors", "lightning", "prefix", "more"])
def test_the_adapter_in_other_wrappers_is_the_same(toy_wan_models, tmp_path, caplog, style):
    files = find_wan_files(toy_wan_models)
    tensors, path = read_checkpoint(files.ex4d), tmp_path / "ex4d.ckpt"
    if style == "safetensors":
        path = save(tmp_path / "ex4d.safetensors", tensors)
    elif style == "lightning":
        wrapped = prefixed("pipe.dit.")(tensors)
        torch.save({"epoch": 3, "state_dict": wrapped, "optimizer_states": [{"lr": 0.1}], "loops": {}}, path)
    elif style == "prefix":
        torch.save(prefixed("model.")(tensors), path)
    else:
        torch.save({**tensors, "step": torch.tensor(7), "blocks.0.ffn.0.base_layer.weight": torch.zeros(2)}, path)
    expected = load_dit(files.dit, files.ex4d).state_dict()
    with caplog.at_level(logging.WARNING):
        made = load_dit(files.dit, path).state_dict()
        load_dit(files.dit, path)
    assert made.keys() == expected.keys() and all(torch.equal(made[key], expected[key]) for key in expected)
    said = [record.message for record in caplog.records]
    if style == "more":
        (only,) = said
        assert "2 tensors that belong to no adapter" in only and "blocks.0.ffn.0.base_layer.weight, step" in only
    else:
        assert not said


def test_python_objects_beside_the_tensors_are_not_loaded_and_said(toy_wan_models, tmp_path):
    import argparse

    files, path = find_wan_files(toy_wan_models), tmp_path / "ex4d.ckpt"
    tensors = read_checkpoint(files.ex4d)
    torch.save({"state_dict": tensors, "hyper_parameters": argparse.Namespace(rank=16)}, path)
    with pytest.raises(CheckpointError, match=r"ex4d\.ckpt holds Python objects beside tensors.*safetensors"):
        load_dit(files.dit, path)

"""LoRAs: every key style found in the wild means the same change of the same weights."""

from pathlib import Path

import pytest
import torch

from ex4d.generation.wan import CheckpointError
from ex4d.weights.lora import read_lora

WIDTH, HIDDEN, RANK = 12, 20, 3
PATH = Path("some.safetensors")
SHAPES = {
    "patch_embedding.weight": (WIDTH, 4, 1, 2, 2),
    "patch_embedding.bias": (WIDTH,),
    "head.modulation": (1, 2, WIDTH),
    "time_projection.1.weight": (6 * WIDTH, WIDTH),
    "img_emb.proj.1.weight": (WIDTH, WIDTH),
} | {
    f"blocks.{block}.{name}": shape
    for block in (0, 1, 11)
    for name, shape in {
        "self_attn.q.weight": (WIDTH, WIDTH),
        "self_attn.q.bias": (WIDTH,),
        "self_attn.norm_q.weight": (WIDTH,),
        "cross_attn.o.weight": (WIDTH, WIDTH),
        "cross_attn.k_img.weight": (WIDTH, WIDTH),
        "ffn.0.weight": (HIDDEN, WIDTH),
        "ffn.2.weight": (WIDTH, HIDDEN),
        "norm3.weight": (WIDTH,),
        "modulation": (1, 6, WIDTH),
    }.items()
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def merged(tensors: dict[str, torch.Tensor], key: str, weight: float = 1.0) -> torch.Tensor:
    """What a LoRA adds to a weight of zeros."""
    return read_lora(tensors, SHAPES, PATH, weight).merge(key, torch.zeros(SHAPES[key]))


STYLES = {
    "peft, as in ex4d.ckpt": ("blocks.11.self_attn.q", "lora_A.default.weight", "lora_B.default.weight"),
    "peft, named": ("base_model.model.blocks.11.self_attn.q", "lora_A.street-2.weight", "lora_B.street-2.weight"),
    "peft": ("base_model.model.blocks.11.self_attn.q", "lora_A.weight", "lora_B.weight"),
    "diffsynth": ("blocks.11.self_attn.q", "lora_A.weight", "lora_B.weight"),
    "diffusers": ("transformer.blocks.11.attn1.to_q", "lora_A.weight", "lora_B.weight"),
    "diffusers without prefix": ("blocks.11.attn1.to_q", "lora_A.weight", "lora_B.weight"),
    "comfy": ("diffusion_model.blocks.11.self_attn.q", "lora_A.weight", "lora_B.weight"),
    "lightx2v": ("diffusion_model.blocks.11.self_attn.q", "lora_down.weight", "lora_up.weight"),
    "kohya with another prefix": ("lora_unet__blocks_11_self_attn_q", "lora_down.weight", "lora_up.weight"),
    "kohya of diffusers": ("lora_transformer_blocks_11_attn1_to_q", "lora_down.weight", "lora_up.weight"),
    "lycoris": ("lycoris_blocks_11_self_attn_q", "lora_down.weight", "lora_up.weight"),
    "lycoris of diffusers": ("lycoris_blocks_11_attn1_to_q", "lora_down.weight", "lora_up.weight"),
    "whole checkpoint": ("model.diffusion_model.blocks.11.self_attn.q", "lora_A.weight", "lora_B.weight"),
    "unet": ("unet.blocks.11.attn1.to_q", "lora_A.weight", "lora_B.weight"),
    "prefixes in another order": (
        "transformer.base_model.model.blocks.11.self_attn.q",
        "lora_A.default.weight",
        "lora_B.default.weight",
    ),
    "three prefixes": ("base_model.model.unet.transformer.blocks.11.attn1.to_q", "lora_A.weight", "lora_B.weight"),
    "prefix before underscores": ("unet.lora_unet_blocks_11_self_attn_q", "lora_down.weight", "lora_up.weight"),
    "earlier diffusers": ("transformer.blocks.11.attn1.to_q", "lora.down.weight", "lora.up.weight"),
    "parameters of peft": ("base_model.model.blocks.11.self_attn.q", "lora_A", "lora_B"),
    "named parameters of peft": ("blocks.11.self_attn.q", "lora_A.default", "lora_B.default"),
    "bare": ("diffusion_model.blocks.11.self_attn.q", "lora_down", "lora_up"),
    "kohya": ("lora_unet_blocks_11_self_attn_q", "lora_down.weight", "lora_up.weight"),
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_means_the_same(style):
    name, a, b = STYLES[style]
    down, up = random(RANK, WIDTH), random(WIDTH, RANK, seed=1)
    tensors = {f"{name}.{a}": down, f"{name}.{b}": up}
    torch.testing.assert_close(merged(tensors, "blocks.11.self_attn.q.weight"), up @ down)
    assert not merged(tensors, "blocks.1.self_attn.q.weight").any()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("blocks.0.attn2.to_out.0", "blocks.0.cross_attn.o"),
        ("blocks.0.attn2.add_k_proj", "blocks.0.cross_attn.k_img"),
        ("blocks.0.ffn.net.0.proj", "blocks.0.ffn.0"),
        ("blocks.0.ffn.net.2", "blocks.0.ffn.2"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ],
)
def test_diffusers_names_of_layers(theirs, ours):
    rows, columns = SHAPES[f"{ours}.weight"]
    down, up = random(RANK, columns), random(rows, RANK, seed=1)
    tensors = {f"transformer.{theirs}.lora_A.weight": down, f"transformer.{theirs}.lora_B.weight": up}
    torch.testing.assert_close(merged(tensors, f"{ours}.weight"), up @ down)


def test_kohya_names_with_underscores_and_dots_in_them():
    down, up = random(RANK, WIDTH), random(WIDTH, RANK, seed=1)
    tensors = {
        f"lora_unet_blocks_0_cross_attn_k_img.lora_{role}.weight": value for role, value in (("down", down), ("up", up))
    }
    torch.testing.assert_close(merged(tensors, "blocks.0.cross_attn.k_img.weight"), up @ down)


def test_alpha_over_rank_and_the_users_weight_scale_the_change():
    down, up = random(RANK, WIDTH), random(WIDTH, RANK, seed=1)
    name = "lora_unet_blocks_0_self_attn_q"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.5)}
    torch.testing.assert_close(merged(tensors, "blocks.0.self_attn.q.weight", 0.5), 0.5 * (1.5 / RANK) * (up @ down))


def test_lightx2v_files_also_change_biases_norms_and_modulations():
    tensors = {
        "diffusion_model.blocks.0.self_attn.q.diff_b": random(WIDTH),
        "diffusion_model.blocks.0.self_attn.norm_q.diff": random(WIDTH, seed=1),
        "diffusion_model.blocks.0.norm3.diff": random(WIDTH, seed=2),
        "diffusion_model.blocks.0.modulation.diff": random(1, 6, WIDTH, seed=3),
        "diffusion_model.blocks.1.diff_m": random(1, 6, WIDTH, seed=4),
        "diffusion_model.head.diff_m": random(1, 2, WIDTH, seed=5),
        "diffusion_model.patch_embedding.diff": random(WIDTH, 4, 1, 2, 2, seed=6),
    }
    expected = (
        "blocks.0.self_attn.q.bias",
        "blocks.0.self_attn.norm_q.weight",
        "blocks.0.norm3.weight",
        "blocks.0.modulation",
        "blocks.1.modulation",
        "head.modulation",
        "patch_embedding.weight",
    )
    for key, value in zip(expected, tensors.values(), strict=True):
        torch.testing.assert_close(merged(tensors, key, 0.5), 0.5 * value)


def test_convolutions_are_merged_in_their_own_shape():
    down, up = random(RANK, 4, 1, 2, 2), random(WIDTH, RANK, 1, 1, 1, seed=1)
    tensors = {"patch_embedding.lora_down.weight": down, "patch_embedding.lora_up.weight": up}
    expected = (up.flatten(1) @ down.flatten(1)).reshape(WIDTH, 4, 1, 2, 2)
    torch.testing.assert_close(merged(tensors, "patch_embedding.weight"), expected)


def test_half_precision_weights_are_merged_in_full_precision():
    down, up = 1e-3 * random(RANK, WIDTH), random(WIDTH, RANK, seed=1)
    lora = read_lora(
        {"blocks.0.ffn.0.lora_A.weight": down, "blocks.0.ffn.0.lora_B.weight": random(HIDDEN, RANK)}, SHAPES, PATH
    )
    assert lora.merge("blocks.0.ffn.0.weight", torch.ones(HIDDEN, WIDTH, dtype=torch.bfloat16)).dtype == torch.float32
    assert lora.merge("blocks.0.ffn.2.weight", up.bfloat16()).dtype == torch.bfloat16


def test_a_lora_for_text_to_video_is_merged_without_its_patch_embedding(caplog):
    down, up = random(RANK, WIDTH), random(WIDTH, RANK, seed=1)
    tensors = {
        "blocks.0.self_attn.q.lora_A.weight": down,
        "blocks.0.self_attn.q.lora_B.weight": up,
        "patch_embedding.lora_A.weight": random(RANK, 2, 1, 2, 2),
        "patch_embedding.lora_B.weight": random(WIDTH, RANK, 1, 1, 1),
        "patch_embedding.diff_b": random(WIDTH, seed=2),
    }
    path = Path("text to video.safetensors")
    lora = read_lora(tensors, SHAPES, path)
    read_lora(tensors, SHAPES, path)
    zeros = torch.zeros(SHAPES["patch_embedding.weight"])
    assert not lora.merge("patch_embedding.weight", zeros).any()
    torch.testing.assert_close(lora.merge("blocks.0.self_attn.q.weight", torch.zeros(WIDTH, WIDTH)), up @ down)
    torch.testing.assert_close(lora.merge("patch_embedding.bias", torch.zeros(WIDTH)), random(WIDTH, seed=2))
    (record,) = caplog.records
    assert "changes patch_embedding for 2 input channels (text to video), and this model has 4" in record.message


def test_a_lora_of_wan22_is_named(caplog):
    name = "blocks.0.self_attn.q.diff_b"
    for path in (
        "Wan2.2-Lightning_I2V-A14B-4steps-lora_HIGH_fp16.safetensors",
        "Lightning/low_noise_model.safetensors",
    ):
        caplog.clear()
        read_lora({name: random(WIDTH)}, SHAPES, Path(path))
        assert "a LoRA of Wan2.2, such as its Lightning" in caplog.records[0].message
    caplog.clear()
    read_lora({name: random(WIDTH)}, SHAPES, Path("Wan21_I2V_14B_lightx2v.safetensors"))
    assert not caplog.records


# A file that is not what it should be.


def test_keys_of_no_layer_here_are_named():
    tensors = {"transformer.single_blocks.3.lora_A.weight": random(RANK, WIDTH), "blocks.0.strange": random(1)}
    with pytest.raises(CheckpointError, match=r"2 of 2 keys that belong to no layer.*blocks.0.strange"):
        read_lora(tensors, SHAPES, PATH)


@pytest.mark.parametrize(
    "key",
    [
        "blocks.0.ffn.0.lora_magnitude_vector",
        "lora_unet_blocks_0_ffn_0.dora_scale",
        "transformer.blocks.0.attn1.to_q.hada_w1_a",
    ],
)
def test_what_is_more_than_a_plain_lora_is_said_to_be(key):
    tensors = {
        "blocks.0.ffn.0.lora_A.weight": random(RANK, WIDTH),
        "blocks.0.ffn.0.lora_B.weight": random(HIDDEN, RANK),
    }
    with pytest.raises(CheckpointError, match=rf"1 of 3 keys that change a layer in a way unknown here: {key}"):
        read_lora({**tensors, key: random(HIDDEN)}, SHAPES, PATH)


def test_a_half_without_its_partner_is_named():
    with pytest.raises(CheckpointError, match=r"a lora_down of blocks.0.ffn.0 but no lora_up"):
        read_lora({"blocks.0.ffn.0.lora_A.weight": random(RANK, WIDTH)}, SHAPES, PATH)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ((RANK, 8), (WIDTH, RANK)),
        ((RANK, WIDTH), (8, RANK)),
        ((2, WIDTH), (WIDTH, 3)),
        ((RANK,), (WIDTH, RANK)),
        ((RANK, WIDTH), (RANK,)),
    ],
)
def test_shapes_of_another_model_are_named(down, up):
    tensors = {"blocks.0.self_attn.q.lora_A.weight": random(*down), "blocks.0.self_attn.q.lora_B.weight": random(*up)}
    with pytest.raises(CheckpointError, match=r"changes blocks.0.self_attn.q of shape \(12, 12\)"):
        read_lora(tensors, SHAPES, PATH)


def test_a_bias_of_another_size_is_named():
    with pytest.raises(CheckpointError, match=r"blocks.0.self_attn.q.bias of shape \(12,\) by \(5,\)"):
        read_lora({"blocks.0.self_attn.q.diff_b": random(5)}, SHAPES, PATH)


def test_a_change_that_stands_there_twice_is_named():
    """In two styles, of which only one could be merged."""
    name = "blocks.0.self_attn.q.diff_b"
    with pytest.raises(CheckpointError, match=r"changes blocks.0.self_attn.q twice"):
        read_lora({name: random(WIDTH), f"diffusion_model.{name}": random(WIDTH)}, SHAPES, PATH)


def test_whole_numbers_are_no_change_but_may_be_an_alpha():
    layer = "blocks.0.ffn.0"
    tensors = {f"{layer}.lora_A.weight": random(RANK, WIDTH), f"{layer}.lora_B.weight": random(HIDDEN, RANK)}
    read_lora({**tensors, f"{layer}.alpha": torch.tensor(4)}, SHAPES, PATH)
    with pytest.raises(CheckpointError, match=r"a down of blocks.0.ffn.0 that holds no real numbers"):
        read_lora({**tensors, f"{layer}.lora_A.weight": tensors[f"{layer}.lora_A.weight"].long()}, SHAPES, PATH)


def test_a_file_without_any_lora_is_refused():
    with pytest.raises(CheckpointError, match="holds no LoRA"):
        read_lora({}, SHAPES, PATH)

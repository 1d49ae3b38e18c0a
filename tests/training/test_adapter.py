"""The adapter on the transformer's own classes: it begins at nothing, and its gradients are those of DiffSynth."""

import pytest
import torch
from torch import nn

from ex4d.generation.wan.transformer import Recomputation, Transformer
from ex4d.training.adapter import count_parameters, published_tensors
from ex4d.training.settings import AdapterShape
from ex4d.training.trainer import attention_on, conditioned, training_precision
from ex4d.weights.errors import CheckpointError
from tests.training.toy_runs import SHAPE, stir, toy_dit, toy_model, toy_sample

CPU = torch.device("cpu")
LATENTS = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(9))
TIMESTEP = torch.tensor([700.0])


def velocity_of_base() -> torch.Tensor:
    """Of inference's transformer, without any adapter."""
    base = Transformer(*toy_dit())
    _, conditioning = conditioned(toy_sample(), CPU)
    with torch.inference_mode():
        return base.velocities(LATENTS, TIMESTEP, base.prepare(conditioning), which=(0,))[0]


def test_at_step_0_the_adapter_changes_nothing_bit_for_bit():
    model, (_, conditioning) = toy_model(), conditioned(toy_sample(), CPU)
    with torch.no_grad():
        assert torch.equal(model(LATENTS, TIMESTEP, conditioning), velocity_of_base())
        stir(model)
        assert not torch.allclose(model(LATENTS, TIMESTEP, conditioning), velocity_of_base(), rtol=0.1)


def test_what_is_trained_is_float32_and_nothing_else_is():
    model = toy_model(torch.bfloat16)
    trained = model.adapter.parameters()
    assert all(parameter.dtype == torch.float32 for parameter in trained.values())
    assert {id(one) for one in model.parameters() if one.requires_grad} == {id(one) for one in trained.values()}


@pytest.mark.parametrize(
    "recomputation",
    [Recomputation(checkpointing=False), Recomputation(), Recomputation(offload=True)],
    ids=["all kept", "checkpointed", "offloaded"],
)
def test_gradients_are_those_of_diffsynths_own_modules(recomputation):
    from diffsynth.pipelines.wan_video import model_fn_wan_video
    from peft import LoraConfig, inject_adapter_in_model

    from ex4d.generation.wan.camera_encoder import CameraEncoder
    from ex4d.generation.wan.networks import LORA_LAYERS

    model = toy_model(recomputation=recomputation)
    stir(model)
    target, conditioning = conditioned(toy_sample(), CPU)
    (model(LATENTS, TIMESTEP, conditioning) - target).square().mean().backward()

    theirs, blocks = toy_dit()
    theirs.blocks = nn.ModuleList(blocks)
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=list(LORA_LAYERS)), theirs)
    theirs.control_adapter = CameraEncoder(SHAPE.hidden, theirs.dim)
    own = model.adapter.tensors()
    named = {name.removeprefix("control_adapter."): value for name, value in theirs.named_parameters()}
    with torch.no_grad():
        for name, value in own.items():
            named[name].copy_(value)
    velocity = model_fn_wan_video(
        dit=theirs,
        latents=LATENTS,
        timestep=TIMESTEP,
        context=conditioning.prompt_embeds,
        clip_feature=conditioning.image_embeds,
        y=conditioning.image_latents,
        control_camera_latents_input=conditioning.control_latents,
    )
    (velocity - target).square().mean().backward()

    for name, parameter in model.adapter.parameters().items():
        expected = named[name].grad
        assert expected.norm() > 0, name
        assert (parameter.grad - expected).norm() <= 1e-3 * expected.norm(), name


def test_weights_stored_in_8_bits_are_still_trained_through():
    model = toy_model(torch.bfloat16, frozen_in_8_bits=True)
    target, conditioning = conditioned(toy_sample(), CPU)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model(LATENTS, TIMESTEP, conditioning)
    (velocity - target).square().mean().backward()
    base = velocity_of_base()
    assert (velocity - base).norm() < 0.1 * base.norm()
    ups = [value for name, value in model.adapter.parameters().items() if "lora_B" in name]
    assert all(value.grad.norm() > 0 for value in ups)
    frozen = model.blocks[0].qkv.layers[0].base_layer.weight
    assert frozen.dtype == torch.float8_e4m3fn and frozen.element_size() == 1


@pytest.mark.gpu
@pytest.mark.parametrize(
    "building",
    [{}, {"recomputation": Recomputation(offload=True)}, {"frozen_in_8_bits": True}],
    ids=["80GB", "48GB", "8 bits"],
)
def test_a_gpus_gradients_are_those_of_the_processor(building):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    found = {}
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        where = torch.device(device)
        model = toy_model(dtype, device, **(building if device == "cuda" else {}))
        stir(model)
        target, conditioning = conditioned(toy_sample(), where)
        with training_precision(where, "float32" if device == "cpu" else "bf16"):
            velocity = model(LATENTS.to(where), TIMESTEP.to(where), conditioning)
        with attention_on(where):
            (velocity - target).square().mean().backward()
        gradients = [parameter.grad.float().cpu().flatten() for parameter in model.adapter.parameters().values()]
        found[device] = torch.cat(gradients)
    error = (found["cuda"] - found["cpu"]).norm() / found["cpu"].norm()
    assert error < (0.2 if building.get("frozen_in_8_bits") else 0.05)


def test_the_published_size_is_about_100_million_parameters():
    counted = count_parameters(AdapterShape(), width=5120, ffn=13824, blocks=40)
    assert counted == {"LoRA": 76_677_120, "camera encoder": 23_109_632}
    toy = count_parameters(SHAPE, width=128, ffn=64, blocks=2)
    assert sum(toy.values()) == sum(one.numel() for one in toy_model().adapter.parameters().values())


def test_an_adapter_is_continued_from_a_file_with_its_scale(tmp_path):
    first, louder = toy_model(), AdapterShape(rank=4, alpha=8.0, hidden=8)
    stir(first)
    torch.save(published_tensors(first.adapter.tensors(), SHAPE), tmp_path / "first.ckpt")
    second = toy_model(shape=louder)
    second.adapter.continue_from(tmp_path / "first.ckpt")
    _, conditioning = conditioned(toy_sample(), CPU)
    with torch.no_grad():
        expected = first(LATENTS, TIMESTEP, conditioning)
        assert torch.allclose(second(LATENTS, TIMESTEP, conditioning), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [AdapterShape(8, 8.0, 8), AdapterShape(4, 4.0, 16)])
def test_an_adapter_of_another_size_is_not_continued(shape, tmp_path):
    torch.save(toy_model().adapter.tensors(), tmp_path / "first.ckpt")
    with pytest.raises(CheckpointError, match=r"--rank 4|--hidden 8"):
        toy_model(shape=shape).adapter.continue_from(tmp_path / "first.ckpt")

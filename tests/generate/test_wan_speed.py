"""What makes the transformer faster changes its result by no more than it may."""

import numpy as np
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")

from backend.generate.wan.denoising import Conditions, denoise
from backend.generate.wan.files import find_files
from backend.generate.wan.models import load_dit
from backend.generate.wan.speed import Fp8Linear, fastest_attention, speed_up
from backend.generate.wan.streaming import BlockStreaming


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.fixture
def dit(toy_models):
    files = find_files(toy_models)
    return load_dit(files.dit, files.ex4d)


@pytest.fixture(scope="module")
def conditions() -> Conditions:
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return Conditions(
        values(1, 12, 32), values(1, 12, 32), values(1, 32, 3, 4, 6), values(1, 20, 3, 4, 6), values(1, 257, 1280)
    )


def final(dit, conditions: Conditions) -> torch.Tensor:
    noise = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    return denoise(dit, noise, conditions, steps=4, shift=5.0, guidance=5.0, precision=autocast)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def test_real_rotary_embedding_is_the_complex_one(dit, conditions):
    plain = final(dit, conditions)
    speed_up(dit)
    assert relative(final(dit, conditions), plain) < 1e-3
    with fastest_attention():
        assert relative(final(dit, conditions), plain) < 1e-2


def test_products_in_8_bits_are_close(dit, conditions):
    """Random weights and a guidance of 5 make more of the difference than trained ones do."""
    plain = final(dit, conditions)
    speed_up(dit, fp8=True)
    changed = relative(final(dit, conditions), plain)
    assert 1e-4 < changed < 0.1
    layers = [module for module in dit.modules() if isinstance(module, Fp8Linear)]
    assert len(layers) == 8 * len(dit.blocks)
    assert all(layer.weight.dtype == torch.float8_e4m3fn for layer in layers)


def test_products_in_8_bits_stay_within_5_percent_on_the_originals_toy_model(golden_folder):
    with np.load(golden_folder / "ex4d_generation.npz") as arrays:
        case = {key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype == np.float32}
    camera = torch.cat([case["color_latents"], case["mask_latents"]], dim=1)
    inputs = Conditions(case["context_positive"], case["context_negative"], camera, case["y"], case["clip_feature"])
    files = [golden_folder / f"ex4d_generation_{name}" for name in ("dit.safetensors", "adapter.ckpt")]
    made = {}
    for fp8 in (False, True):
        dit = load_dit(files[:1], files[1])
        speed_up(dit, fp8=fp8)
        made[fp8] = denoise(dit, case["noise"], inputs, steps=4, shift=5.0, guidance=5.0, precision=autocast)
    changed = relative(made[True], made[False])
    print(f"relative L2 of the final latents, 8 bits to bfloat16: {changed:.4f}")
    assert changed < 0.05


def test_8_bit_blocks_can_be_streamed(dit, conditions):
    speed_up(dit, fp8=True)
    resident = final(dit, conditions)
    BlockStreaming(dit.blocks, torch.device("cpu"))
    assert torch.equal(final(dit, conditions), resident)


@pytest.mark.gpu
def test_compiled_blocks_are_close_to_the_exact_ones(dit, conditions):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    plain = final(dit, conditions)
    moved = dit.to("cuda")
    speed_up(moved, compiled=True)
    on_gpu = Conditions(
        *(
            value.cuda()
            for value in (
                conditions.positive,
                conditions.negative,
                conditions.camera,
                conditions.y,
                conditions.clip_feature,
            )
        )
    )
    noise = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(1)).cuda()
    made = denoise(
        moved, noise, on_gpu, steps=4, shift=5.0, guidance=5.0, precision=lambda: torch.autocast("cuda", torch.bfloat16)
    )
    assert relative(made.cpu(), plain) < 0.02

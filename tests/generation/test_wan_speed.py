"""Optimizations of the transformer and the VAE stay within the bounds on their results."""

import contextlib
import copy
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffsynth", reason="the engine wan needs the extra wan")


from bench.__main__ import main as bench_main
from bench.original_pass import diffsynth_velocity
from ex4d.generation.wan.arithmetic import arithmetic_on
from ex4d.generation.wan.conditioning import WindowConditioning
from ex4d.generation.wan.decoding import decode_in_order, encode_video
from ex4d.generation.wan.denoising import denoise
from ex4d.generation.wan.errors import GenerationError
from ex4d.generation.wan.kernels import fused, matmul
from ex4d.generation.wan.kernels.attention import attention, fastest_attention
from ex4d.generation.wan.kernels.fp8_attention import fp8_attention, norm_factor, supports_fp8_attention
from ex4d.generation.wan.kernels.matmul import FP8_PRODUCTS, Fp8Linear, Fp8Weights, arithmetic_in_words
from ex4d.generation.wan.kernels.vae import optimize_vae
from ex4d.generation.wan.networks import load_dit, load_vae
from ex4d.generation.wan.streaming import BlockStreaming, PinnedMemory
from ex4d.generation.wan.transformer import Transformer
from ex4d.generation.wan.work_parts import AHEAD_OF_BLOCKS, WorkParts, reported_calls
from ex4d.weights.wan_files import find_wan_files
from ex4d_core.wan_settings import WanSettings

ROOT = Path(__file__).parents[2]


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.fixture(scope="module")
def loaded(toy_models):
    files = find_wan_files(toy_models)
    return load_dit(files.dit, files.ex4d)


@pytest.fixture
def dit(loaded):
    return copy.deepcopy(loaded)


@pytest.fixture(scope="module")
def conditioning() -> WindowConditioning:
    """With prompts of 7 and 12 tokens of 20, the rest padding."""
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    texts = [values(1, 20, 32) for _ in range(2)]
    texts[0][:, 7:] = 0
    texts[1][:, 12:] = 0
    latents = values(1, 32, 3, 4, 6), values(1, 20, 3, 4, 6)
    return WindowConditioning(*texts, *latents, values(1, 257, 1280).bfloat16().float())


SETTINGS = WanSettings(steps=4, shift=5.0, guidance=5.0)
NOISE = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(1))


def rebuild(dit, **options) -> Transformer:
    return Transformer(dit, dit.blocks, **options)


def final(transformer: Transformer, conditioning: WindowConditioning) -> torch.Tensor:
    return denoise(transformer, NOISE, conditioning, SETTINGS, precision=autocast)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.float() - theirs.float()).norm() / theirs.float().norm()).item()


@torch.inference_mode()
def test_the_rebuilt_transformer_is_diffsynths(dit, conditioning):
    """In float32, where nothing hides: one matmul for three, padding counted once, rotation in real numbers."""
    dit = dit.float()
    expected = [diffsynth_velocity(dit, NOISE, torch.tensor(700.0), conditioning, negative=n) for n in (False, True)]
    transformer = rebuild(dit)
    prepared = transformer.prepare(conditioning)
    assert [keys[0].repeats for keys in prepared.prompts] == [13, 8], "padding is one key with repeats"
    result = transformer.velocities(NOISE, torch.tensor(700.0), prepared)
    for ours, theirs in zip(result, expected, strict=True):
        assert relative(ours, theirs) < 1e-5
    # Both prompts share what they have in common, and nothing else.
    for prompt, together in enumerate(result):
        alone = transformer.velocities(NOISE, torch.tensor(700.0), prepared, (prompt,))[0]
        assert torch.equal(alone, together)


def test_every_attention_backend_gives_the_same(dit, conditioning):
    transformer = rebuild(dit)
    plain = final(transformer, conditioning)
    with fastest_attention():
        assert relative(final(transformer, conditioning), plain) < 1e-2


@pytest.mark.parametrize("attention", [False, True], ids=["matmul", "matmul and attention"])
def test_fp8_is_close(dit, conditioning, attention):
    """Random weights and a guidance of 5 make more of the difference than trained ones do."""
    plain = final(rebuild(copy.deepcopy(dit)), conditioning)
    transformer = rebuild(dit, fp8=True, fp8_attention=attention)
    assert 1e-4 < relative(final(transformer, conditioning), plain) < 0.12
    layers = [module for block in transformer.blocks for module in block.modules() if isinstance(module, Fp8Linear)]
    assert len(layers) == 6 * len(transformer.blocks)
    assert all(layer.weight.dtype == torch.float8_e4m3fn for layer in layers)


@pytest.mark.parametrize(("products", "attention"), [("scaled results", True), ("stored weights", False)])
def test_gpus_without_products_of_scaled_rows_come_as_close(dit, conditioning, monkeypatch, products, attention):
    """As on sm_120 and Ampere, here on the CPU; attention in fp8 needs rows in fp8."""
    plain = final(rebuild(copy.deepcopy(dit)), conditioning)
    best = relative(final(rebuild(copy.deepcopy(dit), fp8=True), conditioning), plain)
    monkeypatch.setattr("ex4d.generation.wan.transformer.fp8_products", lambda device: products)
    transformer = rebuild(dit, fp8=True, fp8_attention=True)
    assert all(block.fp8_attention == attention for block in transformer.blocks)
    bytes_of_weights = {
        module.weight.element_size()
        for block in transformer.blocks
        for module in block.modules()
        if isinstance(module, (Fp8Linear, Fp8Weights))
    }
    assert bytes_of_weights == {1}
    error = relative(final(transformer, conditioning), plain)
    assert 1e-4 < error < (0.12 if attention else best), "rounded weights alone are closer than rounded rows as well"


@pytest.mark.parametrize("attention", [False, True], ids=["matmul", "matmul and attention"])
def test_fp8_stays_within_5_percent_on_the_originals_toy_model(golden_folder, attention):
    with np.load(golden_folder / "ex4d_generation.npz") as arrays:
        case = {key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype == np.float32}
    camera = torch.cat([case["color_latents"], case["mask_latents"]], dim=1)
    texts = case["context_positive"], case["context_negative"]
    inputs = WindowConditioning(*texts, camera, case["y"], case["clip_feature"])
    files = [golden_folder / f"ex4d_generation_{name}" for name in ("dit.safetensors", "adapter.ckpt")]
    results = {}
    for fp8 in (False, True):
        transformer = rebuild(load_dit(files[:1], files[1]), fp8=fp8, fp8_attention=attention)
        results[fp8] = denoise(transformer, case["noise"], inputs, SETTINGS, precision=autocast)
    changed = relative(results[True], results[False])
    print(f"relative L2 of the final latents, fp8 to bfloat16: {changed:.4f}")
    assert changed < 0.05


def test_fp8_attention_is_attention_within_fp8s_precision():
    generator = torch.Generator().manual_seed(0)
    weight = 1 + 0.1 * torch.randn(256, generator=generator)
    qkv = torch.randn(300, 768, generator=generator)
    qkv[:, 512:] += 1  # a common mean, so that the average is not mere noise
    angles = torch.randn(300, 64, generator=generator)
    options = (weight, weight, (angles.cos(), angles.sin()), 1e-6, 128)
    factors = torch.tensor([norm_factor(weight)] * 2 + [448 / fused.value_absmax(qkv).item()])
    assert not fused.key_sums(qkv, *options[1:]).isnan().any()
    rows, scales = fp8_attention(fused.qk_norm_rope(qkv.clone(), *options, factors), factors, 128)
    exact = attention(*fused.qk_norm_rope(qkv.clone(), *options).chunk(3, dim=1), 128)
    assert relative(rows.float() * scales, exact) < 0.04


def test_keys_with_a_common_offset_lose_it_before_attention_in_fp8():
    """Their differences decide, and would be lost among fp8's few bits."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.full((256,), 2.0), torch.full((256,), 8.0)
    qkv = torch.randn(600, 768, generator=generator)
    qkv[:, 256:512] += 8 * torch.randn(256, generator=generator)
    angles = torch.arange(600)[:, None] / 100 / 10_000 ** (torch.arange(64) / 64)
    options = (*weights, (angles.cos(), angles.sin()), 1e-6, 128)
    factors = torch.tensor([norm_factor(weights[0]), norm_factor(weights[1]) / 2, 448 / fused.value_absmax(qkv).item()])
    exact = attention(*fused.qk_norm_rope(qkv.clone(), *options).chunk(3, dim=1), 128)
    errors = []
    for means in (None, fused.key_sums(qkv, *options[1:]) / len(qkv)):
        rows, scales = fp8_attention(fused.qk_norm_rope(qkv, *options, factors, means), factors, 128)
        errors.append(relative(rows.float() * scales, exact))
    print(f"relative L2 of attention in fp8: {errors[0]:.3f} as keys are, {errors[1]:.3f} without their mean")
    assert errors[1] < 0.6 * errors[0]


@torch.inference_mode()
def test_a_block_takes_the_mean_of_all_keys(dit, conditioning, monkeypatch):
    transformer = rebuild(dit, fp8=True, fp8_attention=True)
    taken = []
    plain = fused.qk_norm_rope
    monkeypatch.setattr(fused, "qk_norm_rope", lambda *given: (taken.append(given), plain(*given))[1])
    with autocast():
        transformer.velocities(NOISE, torch.tensor(700.0), transformer.prepare(conditioning), (0,))
    assert len(taken) == len(transformer.blocks)
    for qkv, *norms, _, means in taken:
        keys = plain(qkv.clone(), *norms).chunk(3, dim=1)[1]
        torch.testing.assert_close(means, keys.float().mean(dim=0), rtol=1e-2, atol=1e-2)


@torch.inference_mode()
@pytest.mark.parametrize("fp8", [False, True])
def test_feed_forward_layers_in_chunks_of_rows_give_the_same(dit, conditioning, fp8):
    dit = dit.float() if not fp8 else dit
    velocities = []
    for rows in (None, 5):
        transformer = rebuild(copy.deepcopy(dit), fp8=fp8, chunk_rows=rows)
        widest = []
        for block in transformer.blocks:
            block.up.register_forward_hook(lambda module, given, made, widest=widest: widest.append(len(made)))
        with autocast() if fp8 else contextlib.nullcontext():
            prepared = transformer.prepare(conditioning)
            velocities.append(transformer.velocities(NOISE, torch.tensor(700.0), prepared, (0,))[0])
        assert max(widest) == (18 if rows is None else rows) and sum(widest) == 18 * len(transformer.blocks)
    assert relative(velocities[1], velocities[0]) < (2e-2 if fp8 else 1e-5)


def test_every_use_of_fp8_has_its_words():
    words = [arithmetic_in_words(products) for products in (*FP8_PRODUCTS, None)]
    assert words[0] == "fp8" and len(set(words)) == 4 and words[3].startswith("bf16")


def test_what_a_gpu_cannot_do_of_what_was_asked_for_is_said(monkeypatch):
    """Cards are made up; a processor imitates all of it."""
    device = torch.device("cpu")
    assert arithmetic_on(device, "fp8", fp8_attention=True).words == "fp8, attention in fp8"
    assert [arithmetic_on(device, precision).words for precision in ("fp8", "bf16")] == ["fp8", "bf16"]
    assert arithmetic_on(device, "fp8", fp8_attention=True).shortfalls("cpu") == []

    monkeypatch.setattr("ex4d.generation.wan.arithmetic.why_no_fp8_attention", lambda device: "cuDNN has none")
    made = arithmetic_on(device, "fp8", fp8_attention=True)
    assert made.words == "fp8, attention in bf16"
    (sentence,) = made.shortfalls("cuda:0")
    assert "cuda:0: cuDNN has none" in sentence

    monkeypatch.setattr("ex4d.generation.wan.arithmetic.fp8_products", lambda device: "stored weights")
    made = arithmetic_on(device, "fp8", fp8_attention=True)
    assert made.words == "bf16, weights stored in fp8, attention in bf16" and len(made.shortfalls("cuda:0")) == 2
    assert arithmetic_on(device, "bf16", fp8_attention=True).shortfalls("cuda:0") == [], "nobody asked for fp8"


def test_a_gpu_whose_memory_is_full_is_not_taken_for_one_without_fp8(monkeypatch):
    """Found by trying, which needs a little memory; the next try, with some, finds what there is."""
    raised: list[Exception] = [torch.OutOfMemoryError("CUDA out of memory")]

    def product(layer: Fp8Linear, rows: object) -> None:
        for error in raised:
            raise error

    monkeypatch.setattr(Fp8Linear, "forward", product)
    on_processor = partial(matmul._has, device=torch.device("cpu"))
    monkeypatch.setattr(matmul, "_has", lambda products, device: on_processor(products))
    gpu = torch.device("cuda", 77)
    with pytest.raises(GenerationError, match="cuda:77 has no memory left"):
        matmul.fp8_products(gpu)
    raised.clear()
    assert matmul.fp8_products(gpu) == "scaled rows", "the failure was not remembered"
    raised.append(RuntimeError("no such product on sm_120"))
    assert matmul.fp8_products(torch.device("cuda", 78)) == "stored weights"


@pytest.mark.gpu
def test_what_is_said_of_attention_in_fp8_is_what_a_gpu_does_at_the_size_of_a_shot():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda:0")
    made = arithmetic_on(device, "fp8", fp8_attention=True)
    print(made.words, *made.shortfalls("cuda:0"), sep="; ")
    has = made.products in ("scaled rows", "scaled results") and supports_fp8_attention(13_312, 5120, 128, device)
    assert made.fp8_attention == has and bool(made.no_attention) != has


@pytest.mark.gpu
@pytest.mark.parametrize("products", FP8_PRODUCTS)
def test_each_use_of_fp8_is_close_on_a_gpu(products):
    """Those that this GPU has; the last one works on any."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    generator = torch.Generator("cuda").manual_seed(0)
    weight, rows = (torch.randn(256, 512, generator=generator, device="cuda") for _ in range(2))
    bias = torch.randn(256, generator=generator, device="cuda")
    exact = torch.nn.functional.linear(rows, weight, bias)
    if products == "stored weights":
        made = Fp8Weights(weight, bias)(rows.bfloat16())
    else:
        layer = Fp8Linear(weight, bias, products)
        try:
            made = layer(fused.quantize_fp8(rows.bfloat16()))
        except (RuntimeError, ValueError) as error:
            pytest.skip(f"this GPU has no such product: {error}")
    assert relative(made.float(), exact) < 0.06


def test_normed_values_never_leave_the_range_of_fp8():
    """Not even if all of a row is in one channel with the largest weight."""
    weight = torch.linspace(0.1, 3.0, 5120)
    row = torch.zeros(5120)
    row[-1] = 1e4
    largest = torch.nn.functional.rms_norm(row, (5120,), weight).max().item()
    assert 448 / 4 < largest * norm_factor(weight) <= 448


@pytest.mark.parametrize("fp8", [False, True])
def test_blocks_can_be_streamed_whatever_their_precision(dit, conditioning, fp8):
    plain = final(rebuild(copy.deepcopy(dit), fp8=fp8), conditioning)
    transformer = rebuild(dit, fp8=fp8)
    BlockStreaming(transformer.contexts, torch.device("cpu"), cyclic=False)
    BlockStreaming(transformer.blocks, torch.device("cpu"))
    for _ in range(2):
        assert torch.equal(final(transformer, conditioning), plain)


@torch.inference_mode()
def test_the_first_self_attention_is_computed_once_for_both_prompts(dit, conditioning, monkeypatch):
    transformer = rebuild(dit.float())
    prepared = transformer.prepare(conditioning)
    attentions = []
    plain = fused.qk_norm_rope
    monkeypatch.setattr(fused, "qk_norm_rope", lambda *given: (attentions.append(1), plain(*given))[1])
    transformer.velocities(NOISE, torch.tensor(700.0), prepared)
    assert len(attentions) == 2 * len(transformer.blocks) - 1


@torch.inference_mode()
def test_streamed_weights_are_copied_once_for_both_prompts(dit, conditioning, monkeypatch):
    copies = []
    plain = BlockStreaming._fetch
    monkeypatch.setattr(
        BlockStreaming, "_fetch", lambda self, index, number: (copies.append(index), plain(self, index, number))[1]
    )
    transformer = rebuild(dit.float())
    BlockStreaming(transformer.blocks, torch.device("cpu"))
    prepared = transformer.prepare(conditioning)
    for _ in range(3):
        transformer.velocities(NOISE, torch.tensor(700.0), prepared)
    # Two blocks, two buffers: once there, they stay.
    assert len(transformer.blocks) == 2 and copies == [0, 1]


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=["float32", "bf16"])
def test_the_faster_vae_is_diffsynths(toy_models, dtype, bound):
    files = find_wan_files(toy_models)
    video = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    result = []
    for faster in (False, True):
        vae = load_vae(files.vae, dtype=dtype)
        if faster:
            optimize_vae(vae)
        latents = encode_video(vae, video, "cpu")
        result.append((latents, torch.cat(list(decode_in_order(vae, latents, contextlib.nullcontext)))))
    for ours, theirs in zip(result[1], result[0], strict=True):
        assert relative(ours, theirs) < bound


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_triton_kernels_compute_what_their_torch_versions_do(device):
    """Interpreted on the CPU, in a process of its own, since Triton reads the switch when it is imported."""
    pytest.importorskip("triton", reason="no Triton for this system")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    path = Path(__file__).with_name("interpreted_kernels.py")
    done = subprocess.run([sys.executable, str(path), device], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_triton_kernels_compile_for_gpus_that_are_not_here(tmp_path):
    pytest.importorskip("triton", reason="no Triton for this system")
    path = Path(__file__).with_name("compiled_kernels.py")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, str(path)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_gpu_the_bench_runs_at_toy_size_and_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert bench_main(["generate", "--part", "passes", "--part", "memory"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "no GPU" in rows[0] and "diffsynth" in rows[0]
    for what in ("pass, the original", "pass, ours, bf16", "pass, ours, fp8, attention too"):
        assert any(row.startswith(what) for row in rows)
    assert any(row.startswith("memory, cap 12 GB") and "no GPU" in row for row in rows)


@pytest.mark.gpu
@pytest.mark.parametrize("fp8", [False, True])
def test_on_a_gpu_the_result_is_the_cpus(dit, conditioning, fp8):
    """In fp8 the least difference flips roundings, and guidance amplifies it: one rounding more in every matmul moves a
    CPU's own final latents by 5 %. So the GPU's must be as near to the exact ones as the CPU's, and matmuls and kernels
    are compared one by one."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    exact = final(rebuild(copy.deepcopy(dit)), conditioning)
    plain = final(rebuild(copy.deepcopy(dit), fp8=True), conditioning) if fp8 else exact
    result = denoise(
        rebuild(dit, device="cuda", fp8=fp8),
        NOISE.cuda(),
        conditioning.to("cuda"),
        SETTINGS,
        precision=lambda: torch.autocast("cuda", torch.bfloat16),
    )
    bound = 1.3 * relative(plain, exact) if fp8 else 0.02
    assert relative(result.cpu(), exact) < bound


@pytest.mark.gpu
def test_on_a_gpu_attention_in_fp8_without_the_keys_mean_is_the_cpus():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if not supports_fp8_attention(600, 256, 128, torch.device("cuda")):
        pytest.skip("this GPU or cuDNN's frontend has no attention in fp8")
    generator = torch.Generator().manual_seed(0)
    weights = torch.full((256,), 2.0), torch.full((256,), 8.0)
    qkv = torch.randn(600, 768, generator=generator)
    qkv[:, 256:512] += 8 * torch.randn(256, generator=generator)
    angles = torch.arange(600)[:, None] / 100 / 10_000 ** (torch.arange(64) / 64)
    factors = torch.tensor([norm_factor(weights[0]), norm_factor(weights[1]) / 2, 448 / fused.value_absmax(qkv).item()])
    made = []
    for device in ("cpu", "cuda"):
        rows = qkv.bfloat16().to(device)
        on = [weight.bfloat16().to(device) for weight in weights]
        options = (*on, (angles.cos().to(device), angles.sin().to(device)), 1e-6, 128)
        scales = factors.to(device)
        means = fused.key_sums(rows, *options[1:]) / len(rows)
        assert torch.equal(means, fused.key_sums(rows, *options[1:]) / len(rows)), "the same every time"
        values, by = fp8_attention(fused.qk_norm_rope(rows, *options, scales, means), scales, 128)
        made.append((values.float() * by).cpu())
    assert relative(made[1], made[0]) < 0.05


@pytest.mark.gpu
def test_on_a_gpu_parts_are_reported_as_they_are_computed():
    """A callback that comes after the second part has been asked for knows of no more than the first."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    layers = [torch.nn.Linear(4096, 4096, device="cuda") for _ in range(20)]
    rows, told = torch.randn(4096, 4096, device="cuda"), []
    parts = WorkParts(lambda done, total: told.append(done), len(layers), torch.device("cuda"), AHEAD_OF_BLOCKS)
    with torch.inference_mode(), reported_calls(layers, parts):
        for layer in layers:
            rows = layer(rows)
    assert told == [max(0, number - AHEAD_OF_BLOCKS) for number in range(20)]


@pytest.mark.gpu
def test_on_a_gpu_streamed_layers_for_keys_and_values_give_the_same(dit, conditioning):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    made, given = [], conditioning.to("cuda")
    for stay in (True, False):
        transformer = rebuild(copy.deepcopy(dit), device="cuda", fp8=True, contexts_stay=stay, chunk_rows=None)
        if not stay:
            pinned = PinnedMemory(2**20)
            streaming = BlockStreaming(transformer.contexts, torch.device("cuda"), cyclic=False, pinned=pinned)
        precision = lambda: torch.autocast("cuda", torch.bfloat16)  # noqa: E731
        made.append(denoise(transformer, NOISE.cuda(), given, SETTINGS, precision=precision))
        if not stay:
            assert not any(parameter.is_cuda for layer in transformer.contexts for parameter in layer.parameters())
            streaming.stop()
    assert torch.equal(*made)


@pytest.mark.gpu
def test_on_a_gpu_an_fp8_matmul_is_the_cpus():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(256, 512, generator=generator), torch.randn(256, generator=generator)
    layer = Fp8Linear(weight, bias)
    values, scales = fused.quantize_fp8_in_torch(torch.randn(300, 512, generator=generator))
    plain = layer((values, scales))
    result = layer.cuda()((values.cuda(), scales.cuda()))
    # Both round to bfloat16; the GPU adds up with fewer bits.
    assert relative(result.cpu(), plain) < 5e-3

"""The setting `attention`: sparse attention leaves out what is far, and packages are refused by name where missing."""

import sys
import types
import warnings

import pytest
import torch
from torch.nn import functional
from torch.nn.attention.flex_attention import flex_attention

from ex4d.generation.wan import WanUnavailableError
from ex4d.generation.wan.kernels.attention import attention
from ex4d.generation.wan.kernels.attention_choice import choose_attention, require_attention
from ex4d.generation.wan.kernels.sparse_attention import BLOCK, SparseAttention, kept_blocks, token_order

CPU = torch.device("cpu")
# 1,955 tokens: 16 blocks, the last of which is not full.
GRID = (5, 17, 23)


def tokens(count: int, channels: int = 256) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, channels, generator=generator) for _ in range(3)]


def test_where_all_is_near_sparse_attention_is_dense_attention():
    grid = (2, 5, 7)
    given = tokens(70)
    sparse = choose_attention("sparse", grid, CPU)
    assert torch.allclose(sparse(*given, 128), attention(*given, 128), atol=1e-5)
    assert choose_attention("dense", grid, CPU) is None


def test_every_token_is_in_one_block_and_blocks_are_compact():
    assert sorted(token_order(GRID).tolist()) == list(range(5 * 17 * 23))
    first = token_order((4, 16, 16))[:BLOCK]
    places = torch.stack(torch.unravel_index(first, (4, 16, 16)), dim=-1)
    assert (places.amax(dim=0) - places.amin(dim=0)).tolist() == [1, 7, 7]


def test_far_tokens_do_not_matter_and_those_of_the_first_latent_do():
    grid = (21, 16, 64)
    order, kept = token_order(grid), kept_blocks(grid)
    assert kept.diagonal().all() and not kept.all()
    frame, _, column = torch.unravel_index(order, grid)
    query = int(((frame == 20) & (column == 0)).nonzero()[0]) // BLOCK

    def block_of(frame_wanted: int, column_wanted: int) -> int:
        return int(((frame == frame_wanted) & (column == column_wanted)).nonzero()[0]) // BLOCK

    assert kept[query, block_of(20, 8)] and not kept[query, block_of(20, 63)], "near in space, and far"
    assert kept[query, block_of(18, 8)] and not kept[query, block_of(6, 24)], "the reach shrinks with time"
    assert kept[query, block_of(0, 63)], "the source view's frame is seen by all"
    # Longer shots of larger frames leave out more.
    assert kept_blocks((21, 45, 80)).double().mean() < kept_blocks((21, 30, 52)).double().mean() < 0.5


def test_flex_attention_computes_the_same_as_the_masked_one():
    """What runs on a GPU, here not compiled; padding is in neither."""
    sparse, given = SparseAttention(GRID, CPU), tokens(5 * 17 * 23, 128)
    assert sparse.density < 1
    query, key, value = (part[sparse._order][None, None] for part in given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled
        by_flex = flex_attention(query, key, value, block_mask=sparse.block_mask)[0, 0]
    assert torch.allclose(by_flex[sparse._inverse], sparse(*given, 128), atol=1e-5)
    assert torch.equal(sparse.block_mask.to_dense()[0, 0].bool(), kept_blocks(GRID)), "whole blocks are left out"


@pytest.mark.parametrize("name", ["sage", "sparge"])
def test_packages_are_refused_by_name(name, monkeypatch):
    with pytest.raises(WanUnavailableError, match=f"'{name}' needs an NVIDIA GPU, not cpu"):
        require_attention(name, "cpu")
    module = {"sage": "sageattention", "sparge": "spas_sage_attn"}[name]
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    with pytest.raises(WanUnavailableError, match=f"{module}, which is not installed"):
        require_attention(name, "cuda:0")
    for kept in ("dense", "sparse"):
        require_attention(kept, "cpu")


def test_a_sageattention_that_is_too_old_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: object())
    monkeypatch.setattr("importlib.metadata.version", lambda wanted: "1.0.6")
    with pytest.raises(WanUnavailableError, match=r"sageattention 2 or newer, not 1\.0\.6"):
        require_attention("sage", "cuda:0")
    monkeypatch.setattr("importlib.metadata.version", lambda wanted: "2.2.0")
    require_attention("sage", "cuda:0")


def test_packages_get_tokens_and_heads_as_they_want_them(monkeypatch):
    """Stand-ins with the packages' own signatures, which compute exact attention."""

    def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None):
        assert tensor_layout == "NHD"
        return functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v))).transpose(1, 2)

    def sparge(q, k, v, is_causal=False, topk=0.5, tensor_layout="HND", output_dtype=torch.float16):
        assert tensor_layout == "HND" and all(part.is_contiguous() for part in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v).to(output_dtype)

    modules = {"sageattention": {"sageattn": sageattn}, "spas_sage_attn": {"spas_sage2_attn_meansim_topk_cuda": sparge}}
    for name, functions in modules.items():
        module = types.ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    given = tokens(60)
    exact = attention(*given, 128)
    for name in ("sage", "sparge"):
        made = choose_attention(name, (1, 6, 10), CPU)(*given, 128)
        assert made.dtype == exact.dtype and torch.allclose(made, exact, atol=2e-3)


@pytest.mark.gpu
def test_on_a_gpu_compiled_sparse_attention_is_the_cpus():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    given = tokens(5 * 17 * 23)
    exact = SparseAttention(GRID, CPU)(*given, 128)
    on_gpu = SparseAttention(GRID, torch.device("cuda:0"))
    made = on_gpu(*(part.cuda().bfloat16() for part in given), 128).float().cpu()
    assert ((made - exact).norm() / exact.norm()).item() < 0.02

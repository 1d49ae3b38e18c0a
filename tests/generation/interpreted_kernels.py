"""Run by test_wan_speed: every Triton kernel beside its torch version; fails at the first that is off.

Interpreted on the CPU, or with the argument "cuda" on a GPU. In float32, since the interpreter does not round to
bfloat16 and to fp8 as a GPU does. What would be fp8 is left unrounded, and compared to within half a step of the
rounded values.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = str(int(sys.argv[1] == "cpu"))
sys.path.insert(0, os.getcwd())

import torch

from ex4d.generation.wan.kernels import fused
from ex4d.generation.wan.kernels import triton_kernels as kernels

DEVICE = sys.argv[1]
TOKENS, WIDTH, HEAD = 9, 384, 128
EPSILON = 1e-6
# 3 bits of mantissa: rounded values are off by up to a sixteenth.
HALF_STEP = 1 / 16 + 1e-3

torch.manual_seed(0)
torch.set_default_device(DEVICE)
kernels._FP8 = torch.float32


def close(ours: torch.Tensor, theirs: torch.Tensor, bound: float = 1e-4) -> None:
    torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound)


def close_in_fp8(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs.float(), rtol=HALF_STEP, atol=2**-10)


def check_norms() -> None:
    x, added = torch.randn(2, TOKENS, WIDTH)
    gate, scale, shift = torch.randn(3, WIDTH)
    for more, by in ((None, None), (added, None), (added, gate)):
        for one_plus_scale in (False, True):
            for fp8 in (False, True):
                ours, theirs = x.clone(), x.clone()
                options = {"one_plus_scale": one_plus_scale, "fp8": fp8, "dtype": torch.float32}
                result, scales = kernels.norm(ours, more, by, scale, shift, EPSILON, **options)
                wanted = fused.residual_norm(theirs, more, by, scale, shift, EPSILON, **options)
                close(ours, theirs)
                if fp8:
                    close_in_fp8(result, wanted[0])
                    close(scales, wanted[1])
                else:
                    close(result, wanted)
    # The stream may be more exact than what is result of it.
    result, _ = kernels.norm(
        x.clone(), added.bfloat16(), gate, scale, shift, EPSILON, one_plus_scale=True, fp8=False, dtype=torch.bfloat16
    )
    wanted = fused.residual_norm(x.clone(), added.bfloat16(), gate, scale, shift, EPSILON, dtype=torch.float32)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), wanted, rtol=2**-7, atol=1e-3)


def check_rotation() -> None:
    qkv, angles = torch.randn(TOKENS, 3 * WIDTH), torch.randn(TOKENS, HEAD // 2)
    weights, tables = torch.randn(2, WIDTH), (angles.cos(), angles.sin())
    result = kernels.qk_norm_rope(qkv.clone(), *weights, *tables, EPSILON, HEAD, torch.ones(2))
    close(result, fused.qk_norm_rope(qkv.clone(), *weights, tables, EPSILON, HEAD))
    factors = torch.tensor([4.0, 2.0, 50.0])
    result = kernels.qk_norm_rope(qkv, *weights, *tables, EPSILON, HEAD, factors)
    close_in_fp8(result, fused.qk_norm_rope(qkv, *weights, tables, EPSILON, HEAD, factors))
    close(kernels.value_absmax(qkv), fused.value_absmax(qkv))
    options = (weights[1], *tables, EPSILON, HEAD)
    close(kernels.key_sums(qkv, *options), fused.key_sums(qkv, weights[1], tables, EPSILON, HEAD))
    kernels._SUM_PROGRAMS = 4  # fewer than tokens
    means = kernels.key_sums(qkv, *options) / TOKENS
    close(means * TOKENS, fused.key_sums(qkv, weights[1], tables, EPSILON, HEAD))
    result = kernels.qk_norm_rope(qkv, *weights, *tables, EPSILON, HEAD, factors, means)
    close_in_fp8(result, fused.qk_norm_rope(qkv, *weights, tables, EPSILON, HEAD, factors, means))


def check_rounding() -> None:
    x = torch.randn(TOKENS, WIDTH)
    for gelu in (False, True):
        (result, scales), (wanted, wanted_scales) = kernels.quantize_fp8(x, gelu=gelu), fused.quantize_fp8(x, gelu=gelu)
        close_in_fp8(result, wanted)
        close(scales, wanted_scales)


def check_attention() -> None:
    query = torch.randn(TOKENS, WIDTH)
    image = fused.CrossAttentionKV.of(*torch.randn(2, 257, WIDTH))
    for of_image, repeats in ((image, 100), (None, 1)):
        text = fused.CrossAttentionKV.of(*torch.randn(2, 21, WIDTH), repeats)
        result = kernels.cross_attention(query, of_image, text, EPSILON, HEAD)
        # A GPU's matrix units take float32 with 10 bits of mantissa.
        close(result, fused.cross_attention(query, of_image, text, EPSILON, HEAD), 1e-4 if DEVICE == "cpu" else 5e-3)


def check_channel_norm() -> None:
    x = torch.randn(1, 96, 2, 5, 3).contiguous(memory_format=torch.channels_last_3d)
    gamma = torch.randn(96)
    for silu in (False, True):
        wanted = torch.nn.functional.normalize(x, dim=1) * 96**0.5 * gamma.view(-1, 1, 1, 1)
        close(kernels.channel_norm(x, gamma, silu=silu), torch.nn.functional.silu(wanted) if silu else wanted)


check_norms()
check_rotation()
check_rounding()
check_attention()
check_channel_norm()

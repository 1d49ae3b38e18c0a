"""Run by test_wan_speed: every Triton kernel beside its torch version; fails at the first that is off.

Interpreted on the processor, or with the argument "cuda" on a GPU. In float32, since the interpreter does not round to
bfloat16 and to 8 bits as a GPU does. What would be 8 bits is left unrounded, and compared to within half a step of the
rounded values.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = str(int(sys.argv[1] == "cpu"))
sys.path.insert(0, os.getcwd())

import torch

from ex4d.generate.wan.kernels import fused
from ex4d.generate.wan.kernels import triton_kernels as kernels

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


def close_in_8_bits(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs.float(), rtol=HALF_STEP, atol=2**-10)


def check_norms() -> None:
    x, added = torch.randn(2, TOKENS, WIDTH)
    gate, scale, shift = torch.randn(3, WIDTH)
    for more, by in ((None, None), (added, None), (added, gate)):
        for one_more in (False, True):
            for eight_bit in (False, True):
                ours, theirs = x.clone(), x.clone()
                options = {"one_more": one_more, "eight_bit": eight_bit, "dtype": torch.float32}
                made, scales = kernels.norm(ours, more, by, scale, shift, EPSILON, **options)
                wanted = fused.residual_norm(theirs, more, by, scale, shift, EPSILON, **options)
                close(ours, theirs)
                if eight_bit:
                    close_in_8_bits(made, wanted[0])
                    close(scales, wanted[1])
                else:
                    close(made, wanted)
    # The stream may be more exact than what is made of it.
    made, _ = kernels.norm(
        x.clone(), added.bfloat16(), gate, scale, shift, EPSILON, one_more=True, eight_bit=False, dtype=torch.bfloat16
    )
    wanted = fused.residual_norm(x.clone(), added.bfloat16(), gate, scale, shift, EPSILON, dtype=torch.float32)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), wanted, rtol=2**-7, atol=1e-3)


def check_rotation() -> None:
    qkv, angles = torch.randn(TOKENS, 3 * WIDTH), torch.randn(TOKENS, HEAD // 2)
    weights, tables = torch.randn(2, WIDTH), (angles.cos(), angles.sin())
    made = kernels.rotate(qkv.clone(), *weights, *tables, EPSILON, HEAD, torch.ones(2))
    close(made, fused.rotate_heads(qkv.clone(), *weights, tables, EPSILON, HEAD))
    factors = torch.tensor([4.0, 2.0, 50.0])
    made = kernels.rotate(qkv, *weights, *tables, EPSILON, HEAD, factors)
    close_in_8_bits(made, fused.rotate_heads(qkv, *weights, tables, EPSILON, HEAD, factors))
    close(kernels.largest_value(qkv), fused.largest_value(qkv))


def check_rounding() -> None:
    x = torch.randn(TOKENS, WIDTH)
    for gelu in (False, True):
        (made, scales), (wanted, wanted_scales) = kernels.quantize(x, gelu=gelu), fused.quantized(x, gelu=gelu)
        close_in_8_bits(made, wanted)
        close(scales, wanted_scales)


def check_attention() -> None:
    query = torch.randn(TOKENS, WIDTH)
    picture = fused.CrossKeys.of(*torch.randn(2, 257, WIDTH))
    for of_picture, repeats in ((picture, 100), (None, 1)):
        text = fused.CrossKeys.of(*torch.randn(2, 21, WIDTH), repeats)
        made = kernels.cross_attention(query, of_picture, text, EPSILON, HEAD)
        # A GPU's matrix units take float32 with 10 bits of mantissa.
        close(made, fused.cross_attention(query, of_picture, text, EPSILON, HEAD), 1e-4 if DEVICE == "cpu" else 5e-3)


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

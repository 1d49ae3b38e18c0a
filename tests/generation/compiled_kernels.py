"""Run by test_wan_speed: every Triton kernel, compiled for a GPU where there is none, in the types that it is used in.

Nothing is launched: a launch becomes Triton's warm-up, which ends with the machine code.
"""

import os
import sys

sys.path.insert(0, os.getcwd())

import torch
import triton
from triton.backends.compiler import GPUTarget

from ex4d.generation.wan.kernels import triton_kernels as kernels
from ex4d.generation.wan.kernels.fused import CrossAttentionKV

TOKENS, WIDTH, HEAD = 64, 5120, 128
HOPPER, ADA = GPUTarget("cuda", 90, 32), GPUTarget("cuda", 89, 32)
EPSILON = 1e-6
compiled: set[str] = set()


class NoDriver:
    """What compiling asks of a driver."""

    target = HOPPER

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return self.target.arch

    def get_current_stream(self, device):
        return 0


def compile_instead(kernel, grid):
    def warm_up(*arguments, **options):
        result = kernel.warmup(*arguments, grid=grid, **options)
        assert result.asm["cubin"], kernel
        compiled.add(kernel.fn.__name__)

    return warm_up


def compile_all() -> None:
    stream, added = torch.zeros(TOKENS, WIDTH), torch.zeros(TOKENS, WIDTH, dtype=torch.bfloat16)
    gate, weight = torch.zeros(WIDTH), torch.zeros(WIDTH, dtype=torch.bfloat16)
    for x, fp8, dtype in (
        (stream, False, torch.bfloat16),
        (stream, False, torch.float32),
        (added.clone(), True, torch.bfloat16),
        (added.clone(), False, torch.float32),
    ):
        for more, by in ((None, None), (added, None), (added, gate)):
            for scale, one_plus_scale in ((gate, True), (weight, False)):
                kernels.norm(x, more, by, scale, scale, EPSILON, dtype=dtype, one_plus_scale=one_plus_scale, fp8=fp8)
    qkv, angles = torch.zeros(TOKENS, 3 * WIDTH, dtype=torch.bfloat16), torch.zeros(TOKENS, HEAD // 2)
    for factors, means in ((torch.ones(2), None), (torch.ones(3), None), (torch.ones(3), gate)):
        kernels.qk_norm_rope(qkv, weight, weight, angles, angles, EPSILON, HEAD, factors, means)
    kernels.key_sums(qkv, weight, angles, angles, EPSILON, HEAD)
    kernels.value_absmax(qkv)
    for gelu in (False, True):
        kernels.quantize_fp8(added, gelu=gelu)
    keys = CrossAttentionKV.of(*torch.zeros(2, 257, WIDTH, dtype=torch.bfloat16))
    kernels.cross_attention(added, keys, keys, EPSILON, HEAD)
    image = torch.zeros(1, 96, 2, 5, 3, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last_3d)
    for silu in (False, True):
        kernels.channel_norm(image, torch.zeros(96, dtype=torch.bfloat16), silu=silu)


triton.runtime.driver.set_active(NoDriver())
triton.JITFunction.__getitem__ = compile_instead
for target in (HOPPER, ADA):
    NoDriver.target = target
    compiled.clear()
    compile_all()
    missing = {name for name in vars(kernels) if name.endswith("_kernel")} - compiled
    assert not missing, f"not compiled for {target}: {missing}"

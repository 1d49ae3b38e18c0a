"""Benchmark beside other public engines, in one run: `ex4d bench generate --part peer`.

Each engine runs Wan2.1's transformer alone, with the same random weights, inputs and noise: the four steps without
guidance of a distilled LoRA, and one step with guidance, at 832x480 and 81 frames. The peers get what their own
documentation advises: compiled blocks, and the fastest attention of torch. Engines that are not installed are named.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from bench.measuring import Row, median_seconds
from bench.original_pass import diffsynth_velocity
from bench.passes import Case, relative_l2
from bench.transformer_inputs import GRIDS, TOY_GRIDS, TransformerInputs
from ex4d.generation.wan.conditioning import WindowConditioning
from ex4d.generation.wan.denoising import flow_match_schedule
from ex4d.generation.wan.kernels.attention import fastest_attention
from ex4d.generation.wan.memory import free_memory
from ex4d.generation.wan.transformer import Transformer
from ex4d_core.wan_settings import wan_preset

STEPS = wan_preset("fast", loras=()).steps
# Public engines of Wan that are measured where they are installed; none of the others builds without its own kernels.
PEERS = ("diffsynth", "diffusers")

# Velocities (1, 16, F, h, w) of latents at a timestep, for the positive prompt, and with guidance for both.
Velocities = Callable[[torch.Tensor, torch.Tensor, bool], list[torch.Tensor]]


@dataclass(frozen=True)
class _Window:
    """What all engines share."""

    weights: TransformerInputs
    conditioning: WindowConditioning
    noise: torch.Tensor

    @property
    def on_gpu(self) -> bool:
        """Whether there is one; peers are compiled only there."""
        return self.weights.device.type == "cuda"


def measure_peers(case: Case) -> Iterator[Row]:
    """Yield the peers' rows, then ours with their ratio to the fastest peer's in the same precision."""
    weights = TransformerInputs.of_case(case)
    inputs = _Window(weights, *weights.window((GRIDS if case.on_gpu else TOY_GRIDS)["832x480"]))
    frames, height, width = inputs.noise.shape[2:]
    tokens = frames * height * width // 4
    yield Row(
        "peer, size", f"{tokens:,} tokens", f"{4 * frames - 3} frames of {8 * width}x{8 * height}, random weights"
    )
    exact = None
    best: dict[str, float] = {}
    for precision in ("bf16", "fp8"):
        for name in PEERS:
            what = f"{name}, {precision}"
            if find_spec(name) is None:
                yield Row(f"peer, {what}", "not installed", f"pip install {name}")
                continue
            engine = _peer(name, precision, inputs)
            if isinstance(engine, str):
                yield Row(f"peer, {what}", "not measured", engine)
                continue
            steps, guided, result = _times(engine, inputs)
            exact = result if exact is None else exact
            best[precision] = min(steps, best.get(precision, steps))
            yield _row(what, steps, guided, relative_l2(result, exact), "")
            del engine
            free_memory()
    for precision, attention_too in (("bf16", False), ("fp8", False), ("fp8", True)):
        engine = _ours(inputs, fp8=precision == "fp8", fp8_attention=attention_too)
        steps, guided, result = _times(engine, inputs)
        difference = 0.0 if exact is None else relative_l2(result, exact)
        ahead = f"; {best[precision] / steps:.2f} x the fastest peer; target: ahead" if precision in best else ""
        what = f"ours, {precision}{', attention too' if attention_too else ''}"
        yield _row(what, steps, guided, difference, ahead)
        del engine
        free_memory()


def _row(what: str, steps: float, guided: float, difference: float, more: str) -> Row:
    remark = f"{STEPS} steps without guidance; a step with guidance {guided:.3f} s; relative L2 {difference:.4f}"
    return Row(f"peer, {what}", f"{steps:.3f} s", f"{remark} to the first{more}")


def _times(engine: Velocities, inputs: _Window) -> tuple[float, float, torch.Tensor]:
    """Return seconds of the steps without guidance, seconds of one with it, and the final latents."""
    sigmas, timesteps = flow_match_schedule(STEPS, wan_preset("fast", loras=()).shift)
    made: list[torch.Tensor] = []

    def steps() -> None:
        latents = inputs.noise
        for index, timestep in enumerate(timesteps):
            latents = latents + (sigmas[index + 1] - sigmas[index]).item() * engine(latents, timestep, False)[0]
        made[:] = [latents]

    with torch.inference_mode(), torch.autocast(inputs.weights.device.type, torch.bfloat16), fastest_attention():
        of_steps = median_seconds(steps, 1)
        guided = median_seconds(lambda: engine(inputs.noise, timesteps[1], True), 1)
    return of_steps, guided, made[0].float()


def _ours(inputs: _Window, *, fp8: bool, fp8_attention: bool) -> Velocities:
    dit = inputs.weights.dit()
    transformer = Transformer(dit, list(dit.blocks), fp8=fp8, fp8_attention=fp8_attention)
    precision: AbstractContextManager[Any] = torch.autocast(inputs.weights.device.type, torch.bfloat16)
    with torch.inference_mode(), precision:
        prepared = transformer.prepare(inputs.conditioning)
    return lambda latents, timestep, guided: transformer.velocities(
        latents, timestep, prepared, (0, 1) if guided else (0,)
    )


def _peer(name: str, precision: str, inputs: _Window) -> Velocities | str:
    """Return an engine, or why it has none in this precision."""
    if precision == "fp8" and not inputs.on_gpu:
        return "no GPU"
    if name == "diffsynth":
        return _diffsynth(inputs, fp8=precision == "fp8")
    if precision == "fp8" and find_spec("torchao") is None:
        return "its matrix products in fp8 need the package torchao, which is not installed"
    return _diffusers(inputs, fp8=precision == "fp8")


def _diffsynth(inputs: _Window, *, fp8: bool) -> Velocities:
    """DiffSynth's pass; in fp8 by its own layers, all linear ones of the blocks."""
    from diffsynth.pipelines.wan_video import model_fn_wan_video

    dit = inputs.weights.dit()
    given, precision = inputs.conditioning, contextlib.nullcontext()
    if fp8:
        # Its fp8 layers return what they are given, which must be bfloat16: all of it is, as in its own pipelines.
        dit = dit.bfloat16()
        parts = {name: part.bfloat16() for name, part in vars(given).items() if part is not None}
        given = replace(given, **parts)
        precision = torch.autocast(inputs.weights.device.type, enabled=False)
    for block in dit.blocks:
        if fp8:
            _wrap_in_fp8(block, inputs.weights.device)
        if inputs.on_gpu:
            block.forward = torch.compile(block.forward, dynamic=False)

    def velocities(latents: torch.Tensor, timestep: torch.Tensor, guided: bool) -> list[torch.Tensor]:
        if not fp8:
            once = functools.partial(diffsynth_velocity, dit, latents, timestep, given)
            return [once(negative=negative) for negative in ((False, True) if guided else (False,))]
        with precision:
            return [
                model_fn_wan_video(
                    dit=dit,
                    latents=latents.bfloat16(),
                    timestep=timestep.reshape(1).to(latents.device, torch.bfloat16),
                    context=embeds,
                    clip_feature=given.image_embeds,
                    y=given.image_latents,
                ).float()
                for embeds in (given.prompt_embeds, given.negative_prompt_embeds)[: 2 if guided else 1]
            ]

    return velocities


def _wrap_in_fp8(block: nn.Module, device: torch.device) -> None:
    from diffsynth.core.vram.layers import AutoWrappedLinear

    everywhere = {f"{state}_device": device for state in ("offload", "onload", "preparing", "computation")}
    in_fp8 = {f"{state}_dtype": torch.float8_e4m3fn for state in ("offload", "onload", "preparing", "computation")}
    for parent in list(block.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                child.weight = nn.Parameter(child.weight.to(torch.float8_e4m3fn), requires_grad=False)
                setattr(parent, name, AutoWrappedLinear(child, **everywhere, **in_fp8))


def _diffusers(inputs: _Window, *, fp8: bool) -> Velocities:
    """The pass of diffusers; in fp8 by torchao, with scales for each row."""
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    sizes = inputs.weights.sizes
    with torch.device("meta"):
        dit = WanTransformer3DModel(
            patch_size=sizes["patch_size"],
            num_attention_heads=sizes["num_heads"],
            attention_head_dim=sizes["dim"] // sizes["num_heads"],
            in_channels=sizes["in_dim"],
            out_channels=sizes["out_dim"],
            text_dim=sizes["text_dim"],
            freq_dim=sizes["freq_dim"],
            ffn_dim=sizes["ffn_dim"],
            num_layers=sizes["num_layers"],
            eps=sizes["eps"],
            image_dim=1280,
            added_kv_proj_dim=sizes["dim"],
        )
    dit.load_state_dict(convert_wan_transformer_to_diffusers(dict(inputs.weights.state)), assign=True)
    with torch.device(inputs.weights.device):
        # Its tables are no weights, so that they are on the meta device still.
        dit.rope = type(dit.rope)(dit.rope.attention_head_dim, sizes["patch_size"], dit.rope.max_seq_len)
    dit.eval().requires_grad_(False)
    if fp8:
        from torchao.quantization import (  # pyright: ignore[reportMissingImports] (optional)
            Float8DynamicActivationFloat8WeightConfig,
            PerRow,
            quantize_,
        )

        quantize_(dit.blocks, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()))
    if inputs.on_gpu:
        for block in dit.blocks:
            block.forward = torch.compile(block.forward, dynamic=False)
    given = inputs.conditioning

    def velocities(latents: torch.Tensor, timestep: torch.Tensor, guided: bool) -> list[torch.Tensor]:
        hidden = torch.cat([latents, given.image_latents], dim=1).bfloat16()
        results = []
        for embeds in (given.prompt_embeds, given.negative_prompt_embeds)[: 2 if guided else 1]:
            assert embeds is not None
            results.append(
                dit(
                    hidden,
                    timestep.reshape(1).to(latents.device),
                    embeds.bfloat16(),
                    given.image_embeds.bfloat16(),
                    return_dict=False,
                )[0].float()
            )
        return results

    return velocities

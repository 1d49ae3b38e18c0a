"""Wan's transformer as this engine runs it: the same arithmetic as DiffSynth's, with less work and fewer passes.

What does not change from step to step is computed once for a window (`Prepared`): camera encoding, and keys and values
of the cross-attention, in which the text's padding counts as one key that stands for many. Queries, keys and values
come from one product; everything between products is fused (`fused`). Both prompts go through a block together, so that
streamed weights come once for both, and the first block's self-attention, which no prompt has touched yet, is computed
once. DiffSynth's own modules still do what comes before and after the blocks.

As in the original, the residual stream, the modulation, the timestep's embedding and the head are in float32, or the
rounding of 40 blocks would add up. Only with products in 8 bits, which are less exact by far, the stream is bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from ex4d.generate.wan.kernels import fused
from ex4d.generate.wan.kernels.fp8_attention import attention8, can_attend, norm_factor
from ex4d.generate.wan.kernels.fused import FP8_MAX, CrossKeys
from ex4d.generate.wan.kernels.matmul import linear_of

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import DiTBlock, WanModel

    from ex4d.generate.wan.denoising import Conditions
    from ex4d.generate.wan.parallel.group import Split

# A token's residual stream, and what the next norm adds to it: a branch's result and its gate.
Stream = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


@dataclass(frozen=True)
class Prepared:
    """What stays the same for all steps of a window.

    Attributes:
        y: as in `Conditions`.
        camera: (N, C) added to the patches; None without a camera encoder.
        picture: keys and values of the first frame's 257 embeddings for each block.
        prompts: of the text for each block: of the positive prompt, and of the negative one where there is one.
        angles: cosines and sines (N, head / 2) of the rotary embedding, float32.
        grid: (F, h, w) in patches; N is their product.
    """

    y: torch.Tensor
    camera: torch.Tensor | None
    picture: list[CrossKeys]
    prompts: list[list[CrossKeys]]
    angles: tuple[torch.Tensor, torch.Tensor]
    grid: tuple[int, int, int]


class ContextLayers(nn.Module):
    """The cross-attention's layers for keys and values, used once for each window and not at every step."""

    def __init__(self, block: DiTBlock):
        super().__init__()
        cross = block.cross_attn
        self.k, self.v, self.norm_k = cross.k, cross.v, cross.norm_k
        self.k_img, self.v_img, self.norm_k_img = cross.k_img, cross.v_img, cross.norm_k_img
        self.query_weight = cross.norm_q.weight

    def forward(
        self, picture: torch.Tensor, texts: Sequence[tuple[torch.Tensor, int]]
    ) -> tuple[CrossKeys, list[CrossKeys]]:
        """Of the picture (257, C), and of each text (K, C) whose last embedding counts so often."""
        key = (self.norm_k_img(self.k_img(picture)) * self.query_weight).to(picture.dtype)
        made = []
        for text, repeats in texts:
            made.append(
                CrossKeys.of((self.norm_k(self.k(text)) * self.query_weight).to(text.dtype), self.v(text), repeats)
            )
        return CrossKeys.of(key, self.v_img(picture)), made


class Block(nn.Module):
    """One transformer block's layers that run at every step.

    Args:
        block: DiffSynth's; its layers are taken over.
        fp8: products in 8 bits.
    """

    def __init__(self, block: DiTBlock, *, fp8: bool = False, fp8_attention: bool = False):
        super().__init__()
        attention = block.self_attn
        factors = [norm_factor(norm.weight.detach()) for norm in (attention.norm_q, attention.norm_k)]
        self.factors = nn.Parameter(torch.tensor(factors, device=attention.q.weight.device), requires_grad=False)
        self.eight_bit_attention = fp8_attention
        self.head = attention.head_dim
        self.epsilon = block.norm1.eps
        self.norm_epsilon = attention.norm_q.eps
        self.qkv = linear_of((attention.q, attention.k, attention.v), fp8=fp8)
        self.o = linear_of((attention.o,), fp8=fp8)
        self.cross_q = linear_of((block.cross_attn.q,), fp8=fp8)
        self.cross_o = linear_of((block.cross_attn.o,), fp8=fp8)
        self.up = linear_of((block.ffn[0],), fp8=fp8)
        self.down = linear_of((block.ffn[2],), fp8=fp8)
        self.query_weight, self.key_weight = attention.norm_q.weight, attention.norm_k.weight
        self.cross_scale, self.cross_shift = block.norm3.weight, block.norm3.bias
        self.eight_bit = fp8
        self._kind = {"dtype": block.ffn[0].weight.dtype, "eight_bit": fp8}

    def forward(
        self,
        streams: Sequence[Stream],
        modulation: torch.Tensor,
        picture: CrossKeys,
        texts: Sequence[CrossKeys],
        angles: tuple[torch.Tensor, torch.Tensor],
        split: Split | None = None,
    ) -> list[Stream]:
        """Args:
        streams: of each prompt, x (N, C), changed in place; of one object, as long as prompts have not told them apart.
        modulation: (6, C) float32.
        texts: of each prompt.
        picture, angles: as in `Prepared`.
        split: where the rows are a part of all of them, how to reach the others.
        """
        alike = len(streams) > 1 and all(stream is streams[0] for stream in streams)
        attended = [
            self._self_attention(stream, modulation, angles, split) for stream in streams[: 1 if alike else None]
        ]
        if alike:
            x, *more = attended[0]
            attended += [(x.clone(), *more) for _ in streams[1:]]
        return [
            self._after_attention(stream, modulation, picture, text)
            for stream, text in zip(attended, texts, strict=True)
        ]

    def _self_attention(
        self,
        stream: Stream,
        modulation: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        split: Split | None,
    ) -> Stream:
        x, added, gate = stream
        shift, scale, own_gate = modulation[:3]
        rows = fused.residual_norm(x, added, gate, scale, shift, self.epsilon, **self._kind)
        return x, self.o(self._attended(self.qkv(rows), angles, split)), own_gate

    def _after_attention(self, stream: Stream, modulation: torch.Tensor, picture: CrossKeys, text: CrossKeys) -> Stream:
        x, added, gate = stream
        shift, scale, own_gate = modulation[3:]
        rows = fused.residual_norm(
            x, added, gate, self.cross_scale, self.cross_shift, self.epsilon, one_more=False, **self._kind
        )
        attended = fused.cross_attention(self.cross_q(rows), picture, text, self.norm_epsilon, self.head)
        added = self.cross_o(self._rows(attended))
        rows = fused.residual_norm(x, added, None, scale, shift, self.epsilon, **self._kind)
        if self.eight_bit:
            return x, self.down(fused.quantized(self.up(rows), gelu=True)), own_gate
        return x, self.down(self.up(rows, gelu=True)), own_gate

    def _attended(
        self, qkv: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], split: Split | None
    ) -> fused.Rows:
        """Norm, rotation and self-attention: (N, 3 C) to (N, C)."""
        own, total, heads = slice(0, len(qkv)), len(angles[0]), qkv.shape[1] // 3 // self.head
        if split is not None:
            own = split.rows(total)
        turning = (self.query_weight, self.key_weight, tuple(table[own] for table in angles), self.norm_epsilon)
        factors = None
        if self.eight_bit_attention and can_attend(total, heads * self.head, self.head, qkv.device):
            largest = fused.largest_value(qkv)
            largest = largest if split is None else split.largest(largest)
            factors = torch.cat([self.factors, FP8_MAX / largest.clamp_min(1e-12)])
        turned = fused.rotate_heads(qkv, *turning, self.head, factors)
        if split is not None:
            turned = split.to_heads(turned, total, self.head)
        if factors is None:
            made, scales = fused.attention(*turned.chunk(3, dim=1), self.head), None
        else:
            made, scales = attention8(turned, factors, self.head)
        if split is not None:
            made = split.to_tokens(made, total, heads, self.head)
        return self._rows(made) if scales is None else (made, scales[: len(made)])

    def _rows(self, values: torch.Tensor) -> fused.Rows:
        return fused.quantized(values) if self.eight_bit else values


class Transformer:
    """A loaded `WanModel`, taken apart: its blocks are replaced, the rest is used as it is.

    Args:
        dit: as `models.load_dit` gives it; use it for nothing else afterwards.
        blocks: its blocks, where they come apart from it as from `models.open_dit`.
        device: where it computes, and where each block is rebuilt; where it is by default.
        fp8: products of the blocks in 8 bits.
        fp8_attention: self-attention too, where that can be.
        stays: whether block ``number`` may stay on the device; those that may not are to be streamed.

    Attributes:
        blocks, contexts: the layers of each block that run at every step, and once for each window.
        dtype, stream_dtype: of what goes into products, and of the residual stream.
    """

    def __init__(
        self,
        dit: WanModel,
        blocks: Iterable[DiTBlock] | None = None,
        *,
        device: torch.device | str | None = None,
        fp8: bool = False,
        fp8_attention: bool = False,
        stays: Callable[[int], bool] = lambda number: True,
    ):
        self.device = torch.device(device) if device is not None else next(dit.parameters()).device
        self.dtype = dit.patch_embedding.weight.dtype
        self.stream_dtype = self.dtype if fp8 else torch.float32
        given = iter(blocks) if blocks is not None else _one_by_one(list(dit.blocks))
        dit.blocks = nn.ModuleList()
        self.dit = dit.to(self.device)
        self._tables = [
            (torch.view_as_real(table) if table.is_complex() else table).float().to(self.device) for table in dit.freqs
        ]
        modulations: list[torch.Tensor] = []
        self.contexts: list[ContextLayers] = []
        self.blocks: list[Block] = []
        # One at a time: as they are, all of them may not fit, neither here nor in the host's memory.
        while (block := next(given, None)) is not None:
            block.to(self.device)
            modulations.append(block.modulation.detach()[0])
            context, made = ContextLayers(block), Block(block, fp8=fp8, fp8_attention=fp8 and fp8_attention)
            if not stays(len(self.blocks)):
                context, made = context.to("cpu"), made.to("cpu")
            self.contexts.append(context)
            self.blocks.append(made)
            del block, context, made
        self._modulation = torch.stack(modulations)

    def prepare(self, conditions: Conditions) -> Prepared:
        """What a window's steps share. In the context of the precision, as `velocities`."""
        dit = self.dit
        frames, height, width = conditions.y.shape[2:]
        _, down, across = dit.patch_size
        grid = (frames, height // down, width // across)
        camera = None
        if dit.control_adapter is not None:
            camera = dit.control_adapter(conditions.camera)[0].flatten(1).T.to(self.dtype).contiguous()
        picture = dit.img_emb(conditions.clip_feature)[0].to(self.dtype)
        given = [conditions.positive] if conditions.negative is None else [conditions.positive, conditions.negative]
        texts = [_without_padding(text[0]) for text in given]
        embedded = [(dit.text_embedding(text[None])[0].to(self.dtype), repeats) for text, repeats in texts]
        pictures, prompts = [], [[] for _ in texts]
        for layers in self.contexts:
            of_picture, of_texts = layers(picture, embedded)
            pictures.append(of_picture)
            for prompt, keys in zip(prompts, of_texts, strict=True):
                prompt.append(keys)
        return Prepared(conditions.y, camera, pictures, prompts, self._angles(grid), grid)

    def _angles(self, grid: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        parts = []
        for axis, (table, length) in enumerate(zip(self._tables, grid, strict=True)):
            shape = [1, 1, 1]
            shape[axis] = length
            parts.append(table[:length].view(*shape, *table.shape[1:]).expand(*grid, *table.shape[1:]))
        both = torch.cat(parts, dim=-2).flatten(0, 2)
        return both[..., 0].contiguous(), both[..., 1].contiguous()

    def velocities(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        prepared: Prepared,
        which: Sequence[int] = (0, 1),
        caches: Sequence = (None, None),
        split: Split | None = None,
    ) -> list[torch.Tensor]:
        """One pass for each prompt of ``which``: (1, 16, F, h, w) float32 each, noise minus picture.

        Args:
            timestep: one number in [0, 1000], float32.
            which: 0 for the positive prompt, 1 for the negative one.
            caches: DiffSynth's TeaCache of each prompt.
            split: what this rank does of it, where there are several; the result is the same on all.
        """
        time, modulation = self._time(timestep.reshape(1).to(latents.device, torch.float32))
        patches = self._patches(latents, prepared)
        if split is not None:
            patches = patches[split.rows(len(patches))].contiguous()
            which = which if split.half is None else (split.half,)
        start: Stream = (patches, None, None)
        streams: dict[int, Stream] = {}
        running = []
        for prompt in which:
            cache = caches[prompt]
            if cache is not None and cache.check(self.dit, patches, modulation):
                streams[prompt] = (cache.update(patches), None, None)
            else:
                streams[prompt] = start
                running.append(prompt)
        self._run_blocks(streams, running, modulation, prepared, split)
        made = []
        for prompt in which:
            x, added, gate = streams[prompt]
            if caches[prompt] is not None and prompt in running:
                x, added, gate = (x.float() + gate * added.float()).to(x.dtype), None, None
                caches[prompt].store(x)
            made.append(self._finish((x, added, gate), time, prepared, split))
        return made if split is None or split.half is None else split.of_both_halves(made[0])

    def _time(self, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embedding (1, C) and modulation (1, 6, C) of a timestep (1,), float32."""
        from diffsynth.models.wan_video_dit import sinusoidal_embedding_1d

        dit = self.dit
        first, _, second = dit.time_embedding
        time = _exact(second, functional.silu(_exact(first, sinusoidal_embedding_1d(dit.freq_dim, timestep))))
        modulation = _exact(dit.time_projection[1], functional.silu(time), pieces=6)
        return time, modulation.unflatten(1, (6, dit.dim))

    def _run_blocks(
        self,
        streams: dict[int, Stream],
        running: Sequence[int],
        modulation: torch.Tensor,
        prepared: Prepared,
        split: Split | None,
    ) -> None:
        if not running:
            return
        modulations = self._modulation.float() + modulation
        for number, block in enumerate(self.blocks):
            made = block(
                [streams[prompt] for prompt in running],
                modulations[number],
                prepared.picture[number],
                [prepared.prompts[prompt][number] for prompt in running],
                prepared.angles,
                split,
            )
            streams.update(zip(running, made, strict=True))

    def _patches(self, latents: torch.Tensor, prepared: Prepared) -> torch.Tensor:
        """(N, C) of patches and camera, as the stream's first value."""
        layer = self.dit.patch_embedding
        frames, height, width = prepared.grid
        _, down, across = self.dit.patch_size
        x = torch.cat([latents[0], prepared.y[0]]).to(self.dtype)
        x = x.view(-1, frames, height, down, width, across).permute(1, 2, 4, 0, 3, 5).flatten(3).flatten(0, 2)
        # As on GPUs, where torch adds a convolution's bias to its rounded result.
        x = functional.linear(x, layer.weight.flatten(1))
        x += layer.bias.to(x.dtype)
        return (x if prepared.camera is None else x + prepared.camera).to(self.stream_dtype)

    def _finish(self, stream: Stream, time: torch.Tensor, prepared: Prepared, split: Split | None) -> torch.Tensor:
        head = self.dit.head
        shift, scale = head.modulation[0].float() + time
        x, added, gate = stream
        made = _exact(head.head, fused.residual_norm(x, added, gate, scale, shift, head.norm.eps, dtype=torch.float32))
        if split is not None:
            made = split.gathered(made, len(prepared.angles[0]))
        return self.dit.unpatchify(made[None], prepared.grid)


def _one_by_one(blocks: list[DiTBlock]) -> Iterator[DiTBlock]:
    """Blocks in order, and none of them kept here."""
    while blocks:
        yield blocks.pop(0)


def _exact(layer: nn.Linear, rows: torch.Tensor, pieces: int = 1) -> torch.Tensor:
    """A layer's product in float32, whatever its weight is in; in pieces, since the weight's copy takes room."""
    parts = zip(layer.weight.chunk(pieces), layer.bias.chunk(pieces), strict=True)
    with torch.autocast(rows.device.type, enabled=False):
        made = [functional.linear(rows.float(), weight.float(), bias.float()) for weight, bias in parts]
    return torch.cat(made, dim=-1)


def _without_padding(text: torch.Tensor) -> tuple[torch.Tensor, int]:
    """(K, C) embeddings whose last one stands for the returned number of equal ones at the end."""
    differs = (text != text[-1]).any(dim=1).nonzero()
    kept = int(differs[-1]) + 2 if len(differs) else 1
    # A copy has the same place in memory's grid however the embeddings came; products on a processor depend on that.
    return text[:kept].clone(), len(text) - kept + 1

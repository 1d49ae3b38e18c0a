"""One block of the transformer: self-attention, cross-attention and feed-forward layers, rebuilt from DiffSynth's.

Queries, keys and values come from one matmul, and everything between matmuls is fused (`kernels.fused`). All prompts go
through a block together, so that streamed weights are copied once for all, and the self-attention that no prompt has
influenced yet (the first block's) is computed once.

For training the same classes are built with ``trained``: then queries, keys and values keep layers of their own, which
carry the LoRA, and nothing is fused or changed in place (`kernels.differentiable`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from ex4d.generation.wan.kernels import differentiable, fused
from ex4d.generation.wan.kernels.attention import attention
from ex4d.generation.wan.kernels.attention_choice import Attend
from ex4d.generation.wan.kernels.fp8_attention import fp8_attention, norm_factor, supports_fp8_attention
from ex4d.generation.wan.kernels.fused import FP8_MAX, CrossAttentionKV
from ex4d.generation.wan.kernels.matmul import Fp8Products, join_linear, merge_linear
from ex4d.weights.notes import note_once

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import DiTBlock

    from ex4d.generation.wan.parallel.group import PassShard

# The tokens' residual stream x (N, C), and what the next norm adds to it: a branch's result and its gate.
Stream = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]

# Cosines and sines (N, head_dim / 2) float32 of the rotary embedding.
Angles = tuple[torch.Tensor, torch.Tensor]


class ContextLayers(nn.Module):
    """A block's cross-attention layers for keys and values, which run once per window."""

    def __init__(self, block: DiTBlock):
        super().__init__()
        cross = block.cross_attn
        self.k, self.v, self.norm_k = cross.k, cross.v, cross.norm_k
        self.k_img, self.v_img, self.norm_k_img = cross.k_img, cross.v_img, cross.norm_k_img
        self.query_weight = cross.norm_q.weight

    def forward(
        self, image: torch.Tensor, texts: Sequence[tuple[torch.Tensor, int]]
    ) -> tuple[CrossAttentionKV, list[CrossAttentionKV]]:
        """Compute keys and values of the image (257, C), and of each text (K, C) with its last embedding's repeats."""
        key = (self.norm_k_img(self.k_img(image)) * self.query_weight).to(image.dtype)
        of_texts = [
            CrossAttentionKV.of((self.norm_k(self.k(text)) * self.query_weight).to(text.dtype), self.v(text), repeats)
            for text, repeats in texts
        ]
        return CrossAttentionKV.of(key, self.v_img(image)), of_texts


class Block(nn.Module):
    """A block's layers that run at every step; with ``fp8`` and ``fp8_attention``, computed in fp8.

    With ``trained``, the layers are taken as they are, LoRAs included, and all carries gradients; without fp8.
    """

    def __init__(
        self,
        block: DiTBlock,
        *,
        fp8: Fp8Products | None = None,
        fp8_attention: bool = False,
        chunk_rows: int | None = None,
        trained: bool = False,
    ):
        super().__init__()
        self.chunk_rows = chunk_rows
        self.trained = trained
        self_attn, ffn = block.self_attn, cast(Sequence[nn.Linear], block.ffn)
        norms = [norm.weight.detach() for norm in (self_attn.norm_q, self_attn.norm_k)]
        # On the meta device there are no values yet.
        factors = [1.0 if weight.is_meta else norm_factor(weight) for weight in norms]
        factors[1] /= 2  # keys without their mean may be twice as large
        self.factors = nn.Parameter(torch.tensor(factors, device=self_attn.q.weight.device), requires_grad=False)
        # Whether rows between the layers are in fp8, too.
        self.fp8 = fp8 in ("scaled rows", "scaled results")
        self.fp8_attention = fp8_attention and self.fp8
        self.head_dim = self_attn.head_dim
        self.epsilon = block.norm1.eps
        self.norm_epsilon = self_attn.norm_q.eps
        merge = join_linear if trained else partial(merge_linear, fp8=fp8)
        self.qkv = merge((self_attn.q, self_attn.k, self_attn.v))
        self.o = merge((self_attn.o,))
        self.cross_q = merge((block.cross_attn.q,))
        self.cross_o = merge((block.cross_attn.o,))
        self.up = merge((ffn[0],))
        self.down = merge((ffn[2],))
        self.query_weight, self.key_weight = self_attn.norm_q.weight, self_attn.norm_k.weight
        self.cross_scale, self.cross_shift = block.norm3.weight, block.norm3.bias
        # Frozen weights below a LoRA may be stored in 8 bits; norms never are.
        self._dtype = self.query_weight.dtype if trained else ffn[0].weight.dtype

    def forward(
        self,
        streams: Sequence[Stream],
        modulation: torch.Tensor,
        image: CrossAttentionKV,
        texts: Sequence[CrossAttentionKV],
        angles: Angles,
        shard: PassShard | None = None,
        attend: Attend | None = None,
    ) -> list[Stream]:
        """Run the block for all prompts.

        Args:
            streams: of each prompt; changed in place, unless in training. One object for all while they are equal.
            modulation: (6, C) float32.
            angles: of all tokens; with a ``shard``, the streams have a part of them.
            attend: self-attention in the place of the dense one.
        """
        shared = len(streams) > 1 and all(stream is streams[0] for stream in streams)
        attended = [
            self._self_attention(stream, modulation, angles, shard, attend)
            for stream in streams[: 1 if shared else None]
        ]
        if shared:
            x, added, gate = attended[0]
            attended += [(x.clone(), added, gate) for _ in streams[1:]]
        return [
            self._cross_attention_and_ffn(stream, modulation, image, text)
            for stream, text in zip(attended, texts, strict=True)
        ]

    def _self_attention(
        self,
        stream: Stream,
        modulation: torch.Tensor,
        angles: Angles,
        shard: PassShard | None,
        attend: Attend | None,
    ) -> Stream:
        x, added, gate = stream
        shift, scale, own_gate = modulation[:3]
        x, rows = self._residual_norm(x, added, gate, scale, shift)
        qkv = self.qkv(rows)
        del rows  # attention takes the most memory, and needs them no more
        return x, self.o(self._attend(qkv, angles, shard, attend)), own_gate

    def _cross_attention_and_ffn(
        self, stream: Stream, modulation: torch.Tensor, image: CrossAttentionKV, text: CrossAttentionKV
    ) -> Stream:
        x, added, gate = stream
        shift, scale, own_gate = modulation[3:]
        x, rows = self._residual_norm(x, added, gate, self.cross_scale, self.cross_shift, one_plus_scale=False)
        cross_attention = fused.cross_attention_in_torch if self.trained else fused.cross_attention
        attended = cross_attention(self.cross_q(rows), image, text, self.norm_epsilon, self.head_dim)
        added = self.cross_o(self._rows(attended))
        x, rows = self._residual_norm(x, added, None, scale, shift)
        return x, self._feed_forward(rows), own_gate

    def _residual_norm(
        self,
        x: torch.Tensor,
        added: torch.Tensor | None,
        gate: torch.Tensor | None,
        scale: torch.Tensor,
        shift: torch.Tensor,
        *,
        one_plus_scale: bool = True,
    ) -> tuple[torch.Tensor, fused.Rows]:
        """Return the residual stream with what is added to it, and its modulated norm; see `fused.residual_norm`."""
        if self.trained:
            x = differentiable.add_branch(x, added, gate)
            rows = fused.modulated_norm(x, scale, shift, self.epsilon, one_plus_scale=one_plus_scale)
            return x, rows.to(self._dtype)
        norm = partial(fused.residual_norm, dtype=self._dtype, one_plus_scale=one_plus_scale, fp8=self.fp8)
        return x, norm(x, added, gate, scale, shift, self.epsilon)

    def _feed_forward(self, rows: fused.Rows) -> torch.Tensor:
        """Map rows (N, C) to (N, C), in chunks where that is asked for: the values between are wider."""
        if self.chunk_rows is None:
            return self._feed_chunk_forward(rows)
        if isinstance(rows, tuple):
            chunks = zip(*(part.split(self.chunk_rows) for part in rows), strict=True)
        else:
            chunks = iter(rows.split(self.chunk_rows))
        result, start = None, 0
        for chunk in chunks:
            made = self._feed_chunk_forward(chunk)
            if result is None:
                count = len(rows[0] if isinstance(rows, tuple) else rows)
                result = made.new_empty(count, made.shape[1])
            result[start : start + len(made)] = made
            start += len(made)
        assert result is not None, "there are no shots without tokens"
        return result

    def _feed_chunk_forward(self, rows: fused.Rows) -> torch.Tensor:
        if self.fp8:
            return self.down(fused.quantize_fp8(self.up(rows), gelu=True))
        return self.down(self.up(rows, gelu=True))

    def _attend(self, qkv: torch.Tensor, angles: Angles, shard: PassShard | None, attend: Attend | None) -> fused.Rows:
        """Norm, rotate and attend: (N, 3 C) to (N, C)."""
        own, total, heads = slice(0, len(qkv)), len(angles[0]), qkv.shape[1] // 3 // self.head_dim
        if shard is not None:
            own = shard.token_slice(total)
        factors, means = None, None
        dense_in_fp8 = self.fp8_attention and attend is None
        if dense_in_fp8 and supports_fp8_attention(total, heads * self.head_dim, self.head_dim, qkv.device):
            absmax = fused.value_absmax(qkv)
            absmax = absmax if shard is None else shard.all_reduce_max(absmax)
            factors = torch.cat([self.factors, FP8_MAX / absmax.clamp_min(1e-12)])
        elif self.fp8_attention:
            note_once(f"{qkv.device} has no attention in fp8 for {total} tokens: it is computed in bf16")
        own_angles = (angles[0][own], angles[1][own])
        norms = (self.query_weight, self.key_weight, own_angles, self.norm_epsilon, self.head_dim)
        if factors is not None:
            # What all keys have in common changes no weight of a softmax, but takes fp8's few bits.
            sums = fused.key_sums(qkv, *norms[1:])
            means = (sums if shard is None else shard.all_reduce_sum(sums)) / total
        if self.trained:
            rotated = differentiable.qk_norm_rope(qkv, *norms)
        else:
            rotated = fused.qk_norm_rope(qkv, *norms, factors, means)
        if shard is not None:
            rotated = shard.tokens_to_heads(rotated, total, self.head_dim)
        if factors is None:
            query, key, value = rotated.chunk(3, dim=1)
            attended, scales = (attend or attention)(query, key, value, self.head_dim), None
        else:
            attended, scales = fp8_attention(rotated, factors, self.head_dim)
        if shard is not None:
            attended = shard.heads_to_tokens(attended, total, heads, self.head_dim)
        return self._rows(attended) if scales is None else (attended, scales[: len(attended)])

    def _rows(self, values: torch.Tensor) -> fused.Rows:
        return fused.quantize_fp8(values) if self.fp8 else values

"""Wan's transformer as this engine runs it: DiffSynth's arithmetic, with less work and fewer passes over memory.

What is the same at every step is computed once per window (`PreparedConditioning`): the camera encoder, and keys and
values of the cross-attention, in which a text's padding counts as one key with many repeats. DiffSynth's own modules
compute everything before and after the blocks (`transformer_block`).

As in the original, the residual stream, the modulation, the timestep embedding and the head are float32, or the
rounding of 40 blocks would add up. Only with fp8 matmuls, which are far less exact, the stream is bfloat16.

The same class is trained: with a `Recomputation`, nothing is merged, fused or in fp8, and gradients pass through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional

from ex4d.generation.wan.kernels import differentiable, fused
from ex4d.generation.wan.kernels.attention_choice import Attend, choose_attention
from ex4d.generation.wan.kernels.fused import CrossAttentionKV
from ex4d.generation.wan.kernels.matmul import fp8_products
from ex4d.generation.wan.transformer_block import Angles, Block, ContextLayers, Stream
from ex4d.weights.checkpoints import require_layout, shapes_of
from ex4d.weights.errors import CheckpointError
from ex4d_core.wan_settings import AttentionName

if TYPE_CHECKING:
    from diffsynth.models.wan_video_dit import DiTBlock, WanModel
    from diffsynth.pipelines.wan_video import TeaCache

    from ex4d.generation.wan.conditioning import WindowConditioning
    from ex4d.generation.wan.parallel.group import PassShard


@dataclass(frozen=True)
class PreparedConditioning:
    """What stays the same for all steps of a window.

    Attributes:
        image_latents: as in `WindowConditioning`.
        camera: (N, C) added to the patches; None without a camera encoder.
        image: keys and values of the first frame's 257 embeddings for each block.
        prompts: keys and values for each block, of the positive prompt and, with guidance, of the negative one.
        angles: of all tokens.
        grid: (F, h, w) in patches; N is their product.
        attend: self-attention in the place of the dense one; None: dense.
    """

    image_latents: torch.Tensor
    camera: torch.Tensor | None
    image: list[CrossAttentionKV]
    prompts: list[list[CrossAttentionKV]]
    angles: Angles
    grid: tuple[int, int, int]
    attend: Attend | None = None


@dataclass(frozen=True)
class Recomputation:
    """How a transformer that is trained keeps what its gradients need.

    Attributes:
        checkpointing: keep each block's input alone, and run the block again in the backward pass.
        offload: keep these inputs in the host's memory.
    """

    checkpointing: bool = True
    offload: bool = False


class Transformer:
    """A loaded `WanModel` whose blocks are rebuilt; the rest is used unchanged.

    Attributes:
        blocks, contexts: the layers of each block that run at every step, and once per window.
        dtype, stream_dtype: of the matmuls' operands, and of the residual stream.
    """

    def __init__(
        self,
        dit: WanModel,
        blocks: Iterable[nn.Module],
        *,
        device: torch.device | str | None = None,
        fp8: bool = False,
        fp8_attention: bool = False,
        blocks_stay: bool = True,
        contexts_stay: bool = True,
        chunk_rows: int | None = None,
        weights: Mapping[str, torch.Tensor] | None = None,
        trained: Recomputation | None = None,
    ):
        """Take over a network, as `networks.open_dit` returns it, for nothing else to use.

        Args:
            device: where it computes; by default where ``dit`` is.
            fp8: matmuls of the blocks in fp8, as far as the device has them; see `kernels.matmul.fp8_products`.
            fp8_attention: with ``fp8``, self-attention in fp8 too, where it is supported.
            blocks_stay: keep the blocks on the device; if not, they are in the host's memory, to be streamed.
            contexts_stay: the same of the contexts.
            chunk_rows: how many tokens go through the feed-forward layers at once, where memory is short; None for all.
            weights: from `weights`, on their devices; then ``dit`` and ``blocks`` are on the meta device.
            trained: build it for training: whatever of ``dit`` and ``blocks`` requires gradients gets them.

        Raises:
            CheckpointError: ``weights`` are of another transformer.
        """
        self.device = torch.device(device) if device is not None else next(dit.parameters()).device
        built_on = torch.device("meta") if weights is not None else self.device
        self.dtype = dit.patch_embedding.weight.dtype
        self.trained = trained
        products = fp8_products(self.device) if fp8 else None
        self.stream_dtype = self.dtype if products else torch.float32
        remaining = cast("Iterator[DiTBlock]", iter(blocks))
        dit.blocks = nn.ModuleList()
        self.dit = dit.to(built_on)
        self._tables = [
            (torch.view_as_real(table) if table.is_complex() else table).float().to(self.device) for table in dit.freqs
        ]
        modulations: list[torch.Tensor] = []
        self.contexts: list[ContextLayers] = []
        self.blocks: list[Block] = []
        # One at a time: all of DiffSynth's blocks may fit neither the device's nor the host's memory.
        while (block := next(remaining, None)) is not None:
            block.to(built_on)
            modulations.append(block.modulation.detach()[0])
            self.contexts.append(ContextLayers(block).to(built_on if contexts_stay or weights is not None else "cpu"))
            form = partial(Block, fp8=products, fp8_attention=fp8_attention, chunk_rows=chunk_rows)
            own = form(block, trained=trained is not None)
            self.blocks.append(own.to(built_on if blocks_stay or weights is not None else "cpu"))
            del block
        self._modulation = torch.stack(modulations)
        if weights is not None:
            self._take(weights)

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """All that has weights, with the beginning of their names."""
        yield "dit.", self.dit
        for number, (context, block) in enumerate(zip(self.contexts, self.blocks, strict=True)):
            yield f"contexts.{number}.", context
            yield f"blocks.{number}.", block

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights as they are now, LoRAs merged and in 8 bits where they are: from these it can be built again."""
        found = {
            prefix + name: value.detach() for prefix, part in self.parts() for name, value in part.state_dict().items()
        }
        return {**found, "modulation": self._modulation}

    def use_fp8_attention(self, chosen: bool) -> None:
        """Compute self-attention in fp8 from now on, where the matmuls are; or no longer."""
        for block in self.blocks:
            block.fp8_attention = chosen and block.fp8

    def _take(self, weights: Mapping[str, torch.Tensor]) -> None:
        expected = self.weights()
        require_layout(weights, shapes_of(expected), Path("the converted file"), "transformer")
        if wrong := [key for key, value in expected.items() if weights[key].dtype != value.dtype]:
            raise CheckpointError(f"the converted file has {len(wrong)} tensors of another type ({wrong[0]})")
        for prefix, part in self.parts():
            own = {name: weights[prefix + name] for name in part.state_dict()}
            part.load_state_dict(own, assign=True)
            part.requires_grad_(False).eval()
        self._modulation = weights["modulation"]

    def prepare(self, conditioning: WindowConditioning, attention: AttentionName = "dense") -> PreparedConditioning:
        """Compute what a window's steps share, in the same precision context as `velocities`."""
        dit = self.dit
        frames, height, width = conditioning.image_latents.shape[2:]
        _, down, across = dit.patch_size
        grid = (frames, height // down, width // across)
        camera = self.encode_camera(conditioning.control_latents)
        if camera is not None:
            camera = camera[0].flatten(1).T.to(self.dtype).contiguous()
        image_embeds = dit.img_emb(conditioning.image_embeds)[0].to(self.dtype)
        texts = [
            _merge_padding(embeds[0])
            for embeds in (conditioning.prompt_embeds, conditioning.negative_prompt_embeds)
            if embeds is not None
        ]
        embedded = [(dit.text_embedding(text[None])[0].to(self.dtype), repeats) for text, repeats in texts]
        image, prompts = [], [[] for _ in texts]
        for layers in self.contexts:
            of_image, of_texts = layers(image_embeds, embedded)
            image.append(of_image)
            for prompt, keys in zip(prompts, of_texts, strict=True):
                prompt.append(keys)
        attend = choose_attention(attention, grid, self.device)
        return PreparedConditioning(
            conditioning.image_latents, camera, image, prompts, self._angles(grid), grid, attend
        )

    def encode_camera(self, control_latents: torch.Tensor) -> torch.Tensor | None:
        """Map (1, 32, F, h, w) to (1, C, F, h / 2, w / 2); None without a camera encoder."""
        return None if self.dit.control_adapter is None else self.dit.control_adapter(control_latents)

    def _angles(self, grid: tuple[int, int, int]) -> Angles:
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
        prepared: PreparedConditioning,
        which: Sequence[int] = (0, 1),
        caches: Sequence[TeaCache | None] = (None, None),
        shard: PassShard | None = None,
    ) -> list[torch.Tensor]:
        """Predict the velocity (noise minus sample), (1, 16, F, h, w) float32, for each prompt of ``which``.

        Args:
            timestep: one number in [0, 1000], float32.
            which: 0 for the positive prompt, 1 for the negative one.
            caches: DiffSynth's TeaCache of each prompt.
            shard: this rank's part of the pass; the result is the same on all ranks.
        """
        time, modulation = self._time(timestep.reshape(1).to(latents.device, torch.float32))
        patches = self._patches(latents, prepared)
        if shard is not None:
            patches = patches[shard.token_slice(len(patches))].contiguous()
            which = which if shard.prompt is None else (shard.prompt,)
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
        self._run_blocks(streams, running, modulation, prepared, shard)
        results = []
        for prompt in which:
            cache = caches[prompt]
            if cache is not None and prompt in running:
                x = differentiable.add_branch(*streams[prompt])
                cache.store(x)
                streams[prompt] = (x, None, None)
            results.append(self._head(streams[prompt], time, prepared, shard))
        return results if shard is None or shard.prompt is None else shard.all_gather_prompts(results[0])

    def _time(self, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return embedding (1, C) and modulation (1, 6, C) of a timestep (1,), float32."""
        from diffsynth.models.wan_video_dit import sinusoidal_embedding_1d

        dit = self.dit
        first, _, second = cast("Sequence[nn.Linear]", dit.time_embedding)
        projection = cast("nn.Linear", dit.time_projection[1])
        time = _float32_linear(
            second, functional.silu(_float32_linear(first, sinusoidal_embedding_1d(dit.freq_dim, timestep)))
        )
        modulation = _float32_linear(projection, functional.silu(time), chunks=6)
        return time, modulation.unflatten(1, (6, dit.dim))

    def _run_blocks(
        self,
        streams: dict[int, Stream],
        running: Sequence[int],
        modulation: torch.Tensor,
        prepared: PreparedConditioning,
        shard: PassShard | None,
    ) -> None:
        if not running:
            return
        modulations = self._modulation.float() + modulation
        for number, block in enumerate(self.blocks):
            run = block if self.trained is None else partial(_run_trained, block, self.trained)
            results = run(
                [streams[prompt] for prompt in running],
                modulations[number],
                prepared.image[number],
                [prepared.prompts[prompt][number] for prompt in running],
                prepared.angles,
                shard,
                prepared.attend,
            )
            streams.update(zip(running, results, strict=True))

    def _patches(self, latents: torch.Tensor, prepared: PreparedConditioning) -> torch.Tensor:
        """Embed (N, C) patches and add the camera: the stream's first value."""
        layer = self.dit.patch_embedding
        frames, height, width = prepared.grid
        _, down, across = self.dit.patch_size
        x = torch.cat([latents[0], prepared.image_latents[0]]).to(self.dtype)
        x = x.view(-1, frames, height, down, width, across).permute(1, 2, 4, 0, 3, 5).flatten(3).flatten(0, 2)
        x = functional.linear(x, layer.weight.flatten(1))
        # As on GPUs, where torch adds a convolution's bias to its rounded result.
        if layer.bias is not None:
            x += layer.bias.to(x.dtype)
        return (x if prepared.camera is None else x + prepared.camera).to(self.stream_dtype)

    def _head(
        self, stream: Stream, time: torch.Tensor, prepared: PreparedConditioning, shard: PassShard | None
    ) -> torch.Tensor:
        """Map a stream to the velocity."""
        head = self.dit.head
        shift, scale = head.modulation[0].float() + time
        x, added, gate = stream
        if self.trained is None:
            normed = fused.residual_norm(x, added, gate, scale, shift, head.norm.eps, dtype=torch.float32)
        else:
            normed = fused.modulated_norm(differentiable.add_branch(*stream), scale, shift, head.norm.eps)
        rows = _float32_linear(head.head, cast(torch.Tensor, normed))
        if shard is not None:
            rows = shard.all_gather_tokens(rows, len(prepared.angles[0]))
        frames, height, width = prepared.grid
        _, down, across = self.dit.patch_size
        patches = rows.view(frames, height, width, down, across, -1).permute(5, 0, 1, 3, 2, 4)
        return patches.reshape(1, -1, frames, height * down, width * across)


def _run_trained(block: Block, trained: Recomputation, streams: Sequence[Stream], *others: Any) -> list[Stream]:
    """Run a block so that each prompt's stream is one tensor, all that is kept of the block with checkpointing."""

    def run(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = block([(value, None, None) for value in values], *others)
        return tuple(differentiable.add_branch(*stream) for stream in results)

    values = [differentiable.add_branch(*stream) for stream in streams]
    if trained.checkpointing and torch.is_grad_enabled():
        results = differentiable.recomputed(run, *values, offload=trained.offload)
    else:
        results = run(*values)
    return [(value, None, None) for value in results]


def _float32_linear(layer: nn.Linear, rows: torch.Tensor, chunks: int = 1) -> torch.Tensor:
    """Apply a layer in float32 whatever its weight's type; in chunks, since the weight's copy takes memory."""
    parts = zip(layer.weight.chunk(chunks), layer.bias.chunk(chunks), strict=True)
    with torch.autocast(rows.device.type, enabled=False):
        results = [functional.linear(rows.float(), weight.float(), bias.float()) for weight, bias in parts]
    return torch.cat(results, dim=-1)


def _merge_padding(text: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return (K, C) embeddings whose last one stands for the returned number of equal ones at the end."""
    differs = (text != text[-1]).any(dim=1).nonzero()
    count = int(differs[-1]) + 2 if len(differs) else 1
    # A copy, always aligned alike: results of matmuls on a CPU depend on their operands' alignment.
    return text[:count].clone(), len(text) - count + 1

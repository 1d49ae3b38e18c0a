"""`ConvertedNetworks`: loads the networks of a choice from their converted weights, and keeps those beside the weights.

See `ex4d.weights.converted`. Without a cache, or with nothing in it, networks load from their files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from ex4d.generation.wan.kernels.matmul import Fp8Products
from ex4d.generation.wan.network_choice import NetworkChoice
from ex4d.generation.wan.networks import dit_on_meta
from ex4d.generation.wan.transformer import Transformer
from ex4d.weights.checkpoints import OnTensor
from ex4d.weights.errors import CheckpointError
from ex4d.weights.parallel_files import read_tensors

_Network = TypeVar("_Network")


class ConvertedNetworks:
    """The converted weights of one choice, for one device."""

    def __init__(self, choice: NetworkChoice):
        self._choice = choice
        self._cache = choice.converted

    def load_part(self, name: str, load: Callable[..., _Network], **arguments: Any) -> _Network:
        """Load the VAE or an encoder, as ``load`` does from files.

        Args:
            name: of its files in `WanFiles`.
            load: `networks.load_vae` or the like.
            arguments: what it takes beside files.
        """
        source, cache = getattr(self._choice.files, name), self._cache
        # Files of the text encoder are hardly larger than what is used of them, and rarely needed.
        if cache is None or name == "text_encoder":
            return load(source, **arguments)
        path = cache.path(name, [source], self._choice.dtype)
        if cache.find(path):
            try:
                return load(path, **arguments)
            except CheckpointError as error:
                cache.discard(path, error)
        network = load(source, **arguments)
        model = cast(nn.Module, getattr(network, "model", network))
        cache.write_later(path, {key: value.detach() for key, value in model.state_dict().items()})
        return network

    def read_transformer(
        self, products: Fp8Products | None, on_tensor: OnTensor | None, **computing: Any
    ) -> Transformer | None:
        """Load the transformer; None if there are no weights that can be used.

        Args:
            products: in which its weights were rounded; None for no 8 bits.
            on_tensor: see `read_tensors`.
            computing: what `Transformer` takes beside the network.
        """
        choice, cache, path = self._choice, self._cache, self._transformer_path(products)
        if cache is None or path is None or not cache.find(path):
            return None
        device = computing["device"]
        # What is streamed to the device is read into the host's memory.
        stays = {"blocks.": computing["blocks_stay"], "contexts.": computing["contexts_stay"]}
        in_host = tuple(prefix for prefix, on_device in stays.items() if not on_device)
        try:
            weights = read_tensors(path, lambda key: "cpu" if key.startswith(in_host) else device, on_tensor)
            dit, blocks = dit_on_meta(choice.files.dit, choice.files.ex4d, dtype=choice.dtype)
            return Transformer(dit, blocks, **computing, weights=weights)
        except CheckpointError as error:
            cache.discard(path, error)
            return None

    def keep_transformer(self, transformer: Transformer, products: Fp8Products | None) -> None:
        """Write a transformer's weights, in a thread."""
        path = self._transformer_path(products)
        if self._cache is not None and path is not None:
            self._cache.write_later(path, transformer.weights())

    def _transformer_path(self, products: Fp8Products | None) -> Path | None:
        choice, files = self._choice, self._choice.files
        if self._cache is None:
            return None
        sources = (*files.dit, files.ex4d, *(path for path, _ in choice.loras))
        settings = (choice.dtype, products, torch.device(choice.device).type, [weight for _, weight in choice.loras])
        return self._cache.path("transformer", sources, *settings)

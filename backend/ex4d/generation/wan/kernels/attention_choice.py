"""The setting `attention`: what each choice needs of this machine, and the function that computes it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata, util

import torch

from ex4d.generation.wan.errors import WanUnavailableError
from ex4d.generation.wan.kernels.sparse_attention import sparse_attention
from ex4d_core.wan_settings import AttentionName

# Maps (N, C) queries, (N, C) keys and values and the channels of a head to (N, C).
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]

# Module and distribution of each package, and its first release with the functions used here.
_PACKAGES = {"sage": ("sageattention", "sageattention", 2), "sparge": ("spas_sage_attn", "spas-sage-attn", 0)}
# Share of the blocks of keys that SpargeAttn keeps, its own default.
_SPARGE_TOP = 0.5


def require_attention(name: AttentionName, device: torch.device | str) -> None:
    """Check that an attention can be computed here.

    Raises:
        WanUnavailableError: it needs a GPU, or a package that is not installed, or a newer one.
    """
    if name not in _PACKAGES:
        return
    module, distribution, first = _PACKAGES[name]
    instead = "use --attention dense, or sparse, which needs no package"
    if torch.device(device).type != "cuda":
        raise WanUnavailableError(f"attention {name!r} needs an NVIDIA GPU, not {device}: {instead}")
    if util.find_spec(module) is None:
        raise WanUnavailableError(
            f"attention {name!r} needs the package {module}, which is not installed: build it as its own page says "
            f"(both are Apache-2.0), or {instead}"
        )
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return
    if int(version.split(".")[0]) < first:
        raise WanUnavailableError(
            f"attention {name!r} needs {module} {first} or newer, not {version}: build it as its own page says, or "
            f"{instead}"
        )


def choose_attention(name: AttentionName, grid: tuple[int, int, int], device: torch.device) -> Attend | None:
    """Return the self-attention of a grid of tokens (F, h, w); None for dense attention, which needs no grid."""
    if name == "sparse":
        return sparse_attention(grid, device)
    return {"dense": None, "sage": _sage, "sparge": _sparge}[name]


def _sage(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, head_dim: int) -> torch.Tensor:
    from sageattention import sageattn  # pyright: ignore[reportMissingImports] (optional)

    parts = (part.unflatten(1, (-1, head_dim))[None] for part in (query, key, value))
    return sageattn(*parts, tensor_layout="NHD", is_causal=False)[0].flatten(1)


def _sparge(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, head_dim: int) -> torch.Tensor:
    from spas_sage_attn import (  # pyright: ignore[reportMissingImports] (optional)
        spas_sage2_attn_meansim_topk_cuda,
    )

    parts = [part.unflatten(1, (-1, head_dim)).transpose(0, 1)[None].contiguous() for part in (query, key, value)]
    attended = spas_sage2_attn_meansim_topk_cuda(*parts, topk=_SPARGE_TOP, is_causal=False)
    return attended[0].transpose(0, 1).flatten(1).to(query.dtype)

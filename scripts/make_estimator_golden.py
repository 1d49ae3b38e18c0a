"""Writes golden data of Depth Anything 3 and MoGe-2 at toy size, computed by the authors' own packages.

Run once, in a source checkout, with the two packages and what they import on the path:

    PYTHONPATH=backend:.:DEPTH_ANYTHING_3/src:MOGE python scripts/make_estimator_golden.py tests/data/golden

Of `utils3d`, which MoGe imports, nothing is called here. The weights are those of `tests.depth.toy_checkpoints`.
Nothing else in the project imports the packages.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.depth.toy_checkpoints import (
    MOGE_CONFIG,
    TOY_METRIC,
    TOY_VIEWS,
    depth_anything_3_weights,
    moge_weights,
    pushed_points,
)

_FULL_VIEWS = {"depth-anything-3-small": "vits", "depth-anything-3-base": "vitb"}
_SIZES = {"vits": (384, 12, 6), "vitb": (768, 12, 12), "vitl": (1024, 24, 16)}


def main() -> None:
    """Writes depth_anything_3.npz and moge.npz, and adds full-size layouts to depth_layouts.json.gz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--moge-config", type=Path, help="MoGe's configs/train/v2.json")
    options = parser.parse_args()
    np.savez_compressed(options.folder / "depth_anything_3.npz", **_depth_anything_3())
    np.savez_compressed(options.folder / "moge.npz", **_moge())
    path = options.folder / "depth_layouts.json.gz"
    layouts = json.loads(gzip.decompress(path.read_bytes()))
    layouts.update(_full_layouts())
    if options.moge_config is not None:
        layouts["moge-2"] = _full_moge(json.loads(options.moge_config.read_text())["model"])
    path.write_bytes(gzip.compress(json.dumps(layouts).encode(), mtime=0))


@torch.no_grad()
def _depth_anything_3() -> dict[str, np.ndarray]:
    frames = torch.from_numpy(np.random.default_rng(1).standard_normal((5, 3, 28, 42)).astype(np.float32))
    arrays: dict[str, Any] = {"frames": frames.numpy()}
    for kind, size in (("views", TOY_VIEWS), ("metric", TOY_METRIC)):
        network = _network(
            (size.backbone.width, size.backbone.depth, size.backbone.heads, size.backbone.trained_size),
            size.taps,
            size.channels,
            size.features,
            size.alternate_from,
        )
        layout = _layout(network)
        network.load_state_dict(depth_anything_3_weights(layout), strict=False)
        arrays[f"{kind}/layout"] = json.dumps(layout)
        if kind == "metric":
            found = network.eval().head(network.backbone(frames[:, None])[0], 28, 42, patch_start_idx=0)
            arrays |= {"metric/depth": found.depth.numpy(), "metric/sky": found.sky.numpy()}
            continue
        for count in (1, 2, 5):
            found = network.eval()(frames[None, :count])
            for name in ("depth", "depth_conf", "extrinsics", "intrinsics"):
                arrays[f"views/{count}/{name}"] = found[name][0].numpy()
    return arrays


def _network(sizes: tuple[int, int, int, int], taps: tuple, channels: tuple, features: int, alternate: int):
    from depth_anything_3.model.cam_dec import CameraDec  # pyright: ignore[reportMissingImports]
    from depth_anything_3.model.cam_enc import CameraEnc  # pyright: ignore[reportMissingImports]
    from depth_anything_3.model.da3 import DepthAnything3Net  # pyright: ignore[reportMissingImports]
    from depth_anything_3.model.dinov2.vision_transformer import (  # pyright: ignore[reportMissingImports]
        DinoVisionTransformer,
    )
    from depth_anything_3.model.dpt import DPT  # pyright: ignore[reportMissingImports]
    from depth_anything_3.model.dualdpt import DualDPT  # pyright: ignore[reportMissingImports]

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width, depth, heads, trained = sizes
            start = alternate or -1
            self.pretrained = DinoVisionTransformer(
                img_size=trained,
                patch_size=14,
                embed_dim=width,
                depth=depth,
                num_heads=heads,
                alt_start=start,
                qknorm_start=start,
                rope_start=start,
                cat_token=bool(alternate),
            )

        def forward(self, images: torch.Tensor, **options: Any) -> Any:
            return self.pretrained.get_intermediate_layers(images, list(taps), **options)

    width, heads = sizes[0], 16 if sizes[0] > 100 else 4
    if not alternate:
        return DepthAnything3Net(Backbone(), DPT(width, output_dim=1, features=features, out_channels=channels))
    head = DualDPT(2 * width, output_dim=2, features=features, out_channels=channels)
    return DepthAnything3Net(Backbone(), head, CameraDec(2 * width), CameraEnc(dim_out=width, num_heads=heads))


def _layout(network: torch.nn.Module) -> dict[str, list[int]]:
    """Names and shapes; of a tensor with several names only the first, as .safetensors files have it."""
    named: dict[int, tuple[str, list[int]]] = {}
    for name, value in network.state_dict(keep_vars=True).items():
        named.setdefault(id(value), (name, list(value.shape)))
    return dict(named.values())


def _full_layouts() -> dict[str, dict[str, list[int]]]:
    from ex4d.depth.depth_anything_3.network import BASE, METRIC_LARGE, SMALL

    layouts = {}
    sizes = {"depth-anything-3-small": SMALL, "depth-anything-3-base": BASE, "depth-anything-3-metric": METRIC_LARGE}
    for name, size in sizes.items():
        backbone = _SIZES[_FULL_VIEWS.get(name, "vitl")]
        network = _network((*backbone, 518), size.taps, size.channels, size.features, size.alternate_from)
        layouts[name] = {f"model.{key}": shape for key, shape in _layout(network).items()}
    return layouts


@torch.no_grad()
def _moge() -> dict[str, np.ndarray]:
    from moge.model.dinov2.hub import backbones  # pyright: ignore[reportMissingImports]
    from moge.model.dinov2.models.vision_transformer import (  # pyright: ignore[reportMissingImports]
        DinoVisionTransformer,
    )
    from moge.model.v2 import MoGeModel  # pyright: ignore[reportMissingImports]
    from moge.utils.geometry_torch import recover_focal_shift  # pyright: ignore[reportMissingImports]

    backbones.toy = lambda pretrained=False: DinoVisionTransformer(
        img_size=70,
        patch_size=14,
        embed_dim=32,
        depth=4,
        num_heads=2,
        init_values=1.0,
        block_chunks=0,
        interpolate_offset=0.1,
    )
    network = MoGeModel(**MOGE_CONFIG).eval()
    layout = _layout(network)
    network.load_state_dict(moge_weights(layout))
    images = torch.from_numpy(np.random.default_rng(2).random((2, 3, 32, 48)).astype(np.float32))
    found = network(images, MOGE_CONFIG["num_tokens_range"][1])
    points, solid = pushed_points(1.7, 0.5, noise=0.01)
    lenses = [recover_focal_shift(points[None], solid[None], focal) for focal in (None, torch.tensor([1.9]))]
    names = {"points": "points", "solid": "mask", "normals": "normal", "metres": "metric_scale"}
    return {
        "images": images.numpy(),
        "layout": np.array(json.dumps(layout)),
        **{name: found[theirs].numpy() for name, theirs in names.items()},
        "lenses": np.array([[float(value) for value in one] for one in lenses]),
    }


def _full_moge(config: dict[str, Any]) -> dict[str, list[int]]:
    from moge.model.v2 import MoGeModel  # pyright: ignore[reportMissingImports]

    return _layout(MoGeModel(**config))


if __name__ == "__main__":
    main()

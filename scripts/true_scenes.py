"""Scenes with known depth and true new views: loads them, adds errors to their depth, and scores masks and colours.

Two clips of a garden are committed, ``sample`` (a camera that stands still) and ``moving_camera``, and six scenes
of `make_true_scenes.py`. Further ones are .npz files as `load_scene` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ex4d.depth.depth_files import DepthFiles
from ex4d.evaluation.mask_measures import mask_figures
from ex4d.media import probe, read_frames
from ex4d.mesh import DepthSurface
from ex4d.pipeline.array_clip import ArrayClip
from ex4d_core.cameras import CameraPath
from ex4d_core.render_settings import OcclusionModel

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
TRUE_SCENES = DATA / "true_scenes"
COMMITTED = ("sample", "moving_camera", "foliage", "side_street", "room", "pond", "courtyard", "garden")

DepthError = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TrueView:
    """What another camera really sees of one footage frame.

    Attributes:
        name: such as "orbit 30".
        frame: of the footage.
        camera: one frame, in the scene's world.
        color: (H, W, 3) uint8 sRGB.
        visible: (H, W) bool, whether the pixel's scene point was seen in its own footage frame.
        depth: (H, W) float32 along the view's z, of what it really sees; within 0.8 %.
        elsewhere: (H, W) bool, whether any other frame of the clip saw it; None where that is not known.
    """

    name: str
    frame: int
    camera: CameraPath
    color: np.ndarray
    visible: np.ndarray
    depth: np.ndarray
    elsewhere: np.ndarray | None = None


@dataclass(frozen=True)
class TrueScene:
    """A clip with exact depth, and true views of it.

    Attributes:
        name: of the scene.
        color: (T, H, W, 3) uint8 sRGB.
        depth: (T, H, W) float32 along z, scene units.
        camera: of T frames, which saw them.
        views: in the order of the file.
    """

    name: str
    color: np.ndarray
    depth: np.ndarray
    camera: CameraPath
    views: tuple[TrueView, ...]

    def surface(
        self, frames: Sequence[int], occlusion: OcclusionModel, depth: np.ndarray | None = None
    ) -> DepthSurface:
        """What some footage frames show, with the exact depth or another (T, H, W) in its place."""
        seen_by, shown = self.camera.at(frames), list(frames)
        return DepthSurface(
            torch.from_numpy((self.depth if depth is None else depth)[shown]),
            torch.from_numpy(self.color[shown]),
            torch.tensor(seen_by.intrinsics),
            torch.from_numpy(seen_by.camera_to_world),
            occlusion=occlusion,
        )

    def clip(self, depth: np.ndarray | None = None) -> ArrayClip:
        """What the pipeline renders, with the exact depth or another (T, H, W) in its place."""
        return _FilmedClip(self, self.depth if depth is None else depth)


class _FilmedClip(ArrayClip):
    """A clip in memory whose camera may have moved."""

    def __init__(self, scene: TrueScene, depth: np.ndarray) -> None:
        super().__init__(scene.name, depth, scene.color, scene.camera.intrinsics)
        self._camera = scene.camera

    def source_camera(self) -> CameraPath:
        return self._camera


@dataclass(frozen=True)
class Score:
    """How one view, or several on average, agrees with the truth.

    Attributes:
        false: share of all pixels that are called seen, and were not.
        missed: share of all pixels that were seen, and are not called so.
        agreement: of the masks, intersection over union.
        psnr: decibels over the pixels that both call seen.
        specks: regions of at most `ex4d.evaluation.mask_measures.SPECK_PIXELS` pixels, of either kind, a megapixel.
    """

    false: float
    missed: float
    agreement: float
    psnr: float
    specks: float

    @classmethod
    def mean(cls, scores: Sequence[Score]) -> Score:
        """Of several views; of each figure where it is defined."""
        return cls(*(float(np.nanmean([getattr(one, field.name) for one in scores])) for field in fields(cls)))

    def __str__(self) -> str:
        return (
            f"{100 * self.false:.2f} % | {100 * self.missed:.2f} % | {self.agreement:.3f} | {self.psnr:.2f} dB "
            f"| {self.specks:.0f}"
        )


def load_scenes(folder: Path | None = None) -> list[TrueScene]:
    """The committed scenes, and those of a folder of .npz files."""
    return [
        *(load_committed(name) for name in COMMITTED),
        *(load_scene(path) for path in (sorted(folder.glob("*.npz")) if folder is not None else ())),
    ]


def load_committed(name: str) -> TrueScene:
    """One of `COMMITTED`."""
    if (TRUE_SCENES / f"{name}.npz").exists():
        return load_scene(TRUE_SCENES / f"{name}.npz")
    folder = DATA / name
    footage = probe(folder / "footage.mp4")
    color = np.stack(list(read_frames(footage.path)))
    depth = np.stack(list(DepthFiles(folder / "depth.npz").estimate(footage)))
    with np.load(folder / "camera.npz") as stored:
        camera = CameraPath(stored["extrinsics"], stored["intrinsics"], int(stored["width"]), int(stored["height"]))
    with np.load(folder / "true_views.npz") as stored:
        views = tuple(
            TrueView(name, int(frame), CameraPath(pose[None], matrix, *image.shape[1::-1]), image, visible, seen)
            for name, frame, pose, matrix, image, visible, seen in zip(
                *(stored[key] for key in ("view", "frames", "extrinsics", "intrinsics", "rgb", "visible", "depth")),
                strict=True,
            )
        )
    return TrueScene(name, color, depth, camera, views)


def load_scene(path: Path) -> TrueScene:
    """A scene of one .npz file.

    It has ``rgb`` (T, H, W, 3), ``depth`` (T, H, W), ``intrinsics`` (3, 3), ``source_extrinsics`` (T, 4, 4); and of V
    views ``view_name``, ``view_frame`` (V,), ``extrinsics`` (V, 4, 4), ``view_intrinsics`` (V, 3, 3), ``true_rgb``,
    ``true_visible``, ``true_depth`` and, not of whole moves, ``elsewhere`` (V, H, W). Extrinsics are world to camera,
    OpenCV.
    """
    with np.load(path) as stored:
        color, depth = stored["rgb"], stored["depth"]
        size = color.shape[2], color.shape[1]
        keys = ("view_name", "view_frame", "extrinsics", "view_intrinsics", "true_rgb", "true_visible", "true_depth")
        arrays = [stored[key] for key in keys]
        arrays.append(stored["elsewhere"] if "elsewhere" in stored else [None] * len(arrays[0]))
        views = tuple(
            TrueView(str(name), int(frame), CameraPath(pose[None], matrix, *size), image, visible, seen, elsewhere)
            for name, frame, pose, matrix, image, visible, seen, elsewhere in zip(*arrays, strict=True)
        )
        camera = CameraPath(stored["source_extrinsics"], stored["intrinsics"], *size)
    return TrueScene(path.stem, color, depth, camera, views)


def save_scene(scene: TrueScene, path: Path) -> None:
    """Write a scene as `load_scene` and `ex4d evaluate` read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    views = scene.views
    elsewhere = [view.elsewhere for view in views if view.elsewhere is not None]
    np.savez(
        path,
        rgb=scene.color,
        depth=scene.depth,
        intrinsics=scene.camera.intrinsics,
        source_extrinsics=scene.camera.world_to_camera,
        view_name=np.array([view.name for view in views]),
        view_frame=np.array([view.frame for view in views]),
        extrinsics=np.concatenate([view.camera.world_to_camera for view in views]),
        view_intrinsics=np.concatenate([view.camera.intrinsics for view in views]),
        true_rgb=np.stack([view.color for view in views]),
        true_visible=np.stack([view.visible for view in views]),
        true_depth=np.stack([view.depth for view in views]),
        **({"elsewhere": np.stack(elsewhere)} if elsewhere else {}),
    )


def score(view: TrueView, seen: np.ndarray, color: np.ndarray) -> Score:
    """Compare a render of a view's camera: (H, W) bool and (H, W, 3) uint8."""
    found = mask_figures(seen, view.visible, color, view.color)
    return Score(
        false=found["mask_false"] / 100,
        missed=found["mask_missed"] / 100,
        agreement=found.get("mask_iou", np.nan),
        psnr=found.get("mask_psnr", np.nan),
        specks=found["mask_specks"],
    )


def blurred(pixels: float) -> DepthError:
    """Disparity blurred by a Gaussian, as when a model's small map is upsampled."""

    def apply(depth: np.ndarray) -> np.ndarray:
        reach = int(3 * pixels + 0.5)
        kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * pixels**2))
        kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
        value = F.pad(1 / torch.from_numpy(depth)[:, None], (reach,) * 4, mode="replicate")
        value = F.conv2d(F.conv2d(value, kernel), kernel.transpose(2, 3))
        return (1 / value)[:, 0].numpy()

    return apply


def flickering(share: float) -> DepthError:
    """A factor and an offset of disparity, new in every frame, as where each frame is estimated by itself."""

    def apply(depth: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(1)
        scale = 1 + share * random.standard_normal((len(depth), 1, 1))
        shift = share * (1 / depth).mean() * random.standard_normal((len(depth), 1, 1))
        return (1 / np.clip(scale / depth + shift, 1e-3, None)).astype(np.float32)

    return apply


def drifting(share: float) -> DepthError:
    """Scale that grows evenly over the clip, and is right in its middle."""
    half = share / 2
    return lambda depth: (depth * np.linspace(1 - half, 1 + half, len(depth))[:, None, None]).astype(np.float32)


def noisy(share: float) -> DepthError:
    """Noise in each pixel of each frame."""
    random = np.random.default_rng(2)
    return lambda depth: (depth * (1 + share * random.standard_normal(depth.shape))).astype(np.float32)


def grown(pixels: int) -> DepthError:
    """Near things too large by some pixels, then blurred: how many models bleed."""

    def apply(depth: np.ndarray) -> np.ndarray:
        size = 2 * pixels + 1
        disparity = F.max_pool2d(1 / torch.from_numpy(depth)[:, None], size, stride=1, padding=pixels)
        return blurred(1)((1 / disparity)[:, 0].numpy())

    return apply

"""The metrics: what each one is, which way is better, and what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Needs = Literal["truth", "scene", "camera", "masks"]


@dataclass(frozen=True)
class Metric:
    """One kind of figure in a report.

    Attributes:
        title: of its columns.
        unit: "" for none.
        higher_is_better: or lower.
        needs: what a clip must have: a true view, depth (from which what is seen follows), a camera, or masks; the
            last are the result's own.
        weights: the part of `ex4d.weights.catalogue` whose network it uses; "" for none.
        of_sets: whether it is of all results together, not of each.
        regions: whether it is also given over seen and over unseen pixels.
        meaning: one sentence for the report.
    """

    title: str
    unit: str
    higher_is_better: bool
    needs: tuple[Needs, ...]
    meaning: str
    weights: str = ""
    of_sets: bool = False
    regions: bool = False


METRICS: dict[str, Metric] = {
    "psnr": Metric(
        "PSNR",
        "dB",
        True,
        ("truth",),
        "Difference to the true view, of each frame, averaged over frames.",
        regions=True,
    ),
    "ssim": Metric(
        "SSIM", "", True, ("truth",), "Structural similarity to the true view (Gaussian window of 11).", regions=True
    ),
    "lpips": Metric(
        "LPIPS",
        "",
        False,
        ("truth",),
        "Perceptual distance to the true view (AlexNet, version 0.1).",
        weights="evaluation-lpips",
        regions=True,
    ),
    "temporal_error": Metric(
        "temporal error",
        "of 255",
        False,
        ("truth",),
        "Mean difference between changes from frame to frame, of the result and of the truth.",
    ),
    "seen_psnr": Metric(
        "seen PSNR",
        "dB",
        True,
        ("scene", "camera"),
        "Difference to the footage's own pixels where the footage saw them.",
    ),
    "flicker": Metric(
        "flicker",
        "of 255",
        False,
        ("scene", "camera"),
        "Mean second difference in time, in pixels that the footage did not see: steady change does not count.",
    ),
    "mask_false": Metric(
        "falsely seen",
        "%",
        False,
        ("truth", "masks"),
        "Share of all pixels that the method's mask calls seen, and that the footage did not see.",
    ),
    "mask_missed": Metric(
        "missed",
        "%",
        False,
        ("truth", "masks"),
        "Share of all pixels that the footage saw, and that the method's mask calls unseen.",
    ),
    "mask_iou": Metric(
        "mask IoU", "", True, ("truth", "masks"), "Intersection over union of the method's mask and the true one."
    ),
    "mask_psnr": Metric(
        "PSNR, both seen",
        "dB",
        True,
        ("truth", "masks"),
        "Difference to the true view where the method's mask and the true one both call it seen.",
    ),
    "mask_specks": Metric(
        "specks",
        "a megapixel",
        False,
        ("truth", "masks"),
        "Regions of the method's mask of at most 4 pixels, seen or unseen.",
    ),
    "camera_rotation": Metric(
        "rotation error", "degrees", False, ("camera",), "Of the camera that COLMAP recovers from the result."
    ),
    "camera_translation": Metric(
        "translation error",
        "of the path",
        False,
        ("camera",),
        "Mean distance of its positions from the path that was asked for, as a share of that path's length.",
    ),
    "camera_matrix": Metric(
        "CamMC",
        "",
        False,
        ("camera",),
        "Mean Frobenius norm of the difference of [R|t], positions in lengths of the path that was asked for.",
    ),
    "clip_source": Metric(
        "CLIP source",
        "",
        True,
        (),
        "Cosine of CLIP features (ViT-B/32) of each frame and its footage frame.",
        weights="evaluation-clip",
    ),
    "clip_frames": Metric(
        "CLIP frames",
        "",
        True,
        (),
        "Cosine of CLIP features (ViT-B/32) of neighbouring frames.",
        weights="evaluation-clip",
    ),
    "fid": Metric(
        "FID",
        "",
        False,
        (),
        "Fréchet distance of Inception features (2048) of all frames to those of the reference.",
        weights="evaluation-inception",
        of_sets=True,
    ),
    "fvd": Metric(
        "FVD",
        "",
        False,
        (),
        "Fréchet distance of I3D features of all results to those of the reference.",
        weights="evaluation-i3d",
        of_sets=True,
    ),
    "vbench": Metric(
        "VBench",
        "",
        True,
        (),
        "VBench's own figures, read from the files that its command wrote; a column a dimension.",
    ),
}


def metric_of(value: str) -> str:
    """The metric whose figure this is: "psnr" of "psnr/seen", "vbench" of "vbench/motion_smoothness"."""
    return value.partition("/")[0]


def title_of(value: str) -> str:
    """A figure's column title: with its region, or VBench's dimension."""
    name, _, part = value.partition("/")
    return f"{METRICS[name].title}{f', {part}' if part else ''}".replace("_", " ")

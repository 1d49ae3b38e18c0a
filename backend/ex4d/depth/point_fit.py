"""Fits depth to the sparse points of a solved camera: a factor and an offset of disparity for every frame.

Monocular models are right up to a factor and an offset of disparity (1 / depth), and the points of a solve know both,
in the unit of its camera. Each frame is fitted robustly (the least median of residuals of random pairs, then least
squares reweighted by Cauchy's function), and the fits are smoothed over time as far as they hardly change anyway. Depth
that is true to scale is left as it is, and compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ex4d.depth.depth_clip import DepthClip, DepthError
from ex4d.depth.source_camera import KnownCamera, in_first_frames_world
from ex4d.depth.sparse_points import SparsePoints
from ex4d_core.lens_distortion import LensDistortion

FEWEST_POINTS = 12  # a frame with fewer takes its neighbours' fit
_TRIALS, _ROUNDS = 300, 20
_EDGE = 1.15  # ratio of a pixel's disparities to its neighbours' from which on a point lies on an edge
_CONTRADICTS = 0.2  # median relative error of depth at the points that no estimator has where the poses are right
_OUTLIER = 3.0  # how many times the clip's median error a frame must have to contradict where others do not
_FARTHEST = 4.0  # how many times as far as the points a surface may be: where disparity is hardly above 0
_NAMED_FRAMES = 5  # that a message names


@dataclass(frozen=True, eq=False)
class PointFit:
    """What brings each frame's disparity to that of the points, and how well it does: arrays (T,) float64.

    Attributes:
        factor, offset: true disparity = factor * disparity + offset.
        error: median of |depth / the points' depth - 1| after the fit; NaN in frames without a fit of their own.
        points: (T,) int64, how many the fit of each frame rests on; 0 where it is its neighbours'.
    """

    factor: np.ndarray
    offset: np.ndarray
    error: np.ndarray
    points: np.ndarray


def disparity_at(depth: DepthClip, points: SparsePoints, distortion: LensDistortion | None = None) -> np.ndarray:
    """The clip's disparity where its frames see the points, one frame in memory at a time.

    Args:
        depth: stored depth is sampled as it is, before it is refined along the footage's edges.
        points: of the same footage.
        distortion: of the footage's lens where the points are in pixels of the undistorted image.

    Returns:
        (N,) float64; NaN outside of the image and at edges of depth, where half a pixel decides.
    """
    width, height = depth.footage.width, depth.footage.height
    pixels = points.pixel
    if distortion is not None:
        # Where in the footage each pixel of the undistorted image is; depth has the footage's pixels.
        table = distortion.footage_pixels()
        x, y = (np.clip(np.floor(pixels).astype(int), 0, (width - 1, height - 1))).T
        pixels = table[y, x] + (pixels - (np.floor(pixels) + 0.5))
    found = np.full(len(points), np.nan)
    for frame, disparity in enumerate(_disparities(depth)):
        part = points.of_frame(frame)
        scale = disparity.shape[1] / width, disparity.shape[0] / height
        found[part] = _sampled(disparity, pixels[part] * scale - 0.5)
    return found


def fit_disparity(disparity: np.ndarray, points: SparsePoints, frames: int) -> PointFit | None:
    """Factor and offset of every frame.

    Args:
        disparity: (N,) of `disparity_at`.
        points: of which it is the disparity.
        frames: of the footage.

    Returns:
        None where no frame has enough points.
    """
    thetas, precisions = np.zeros((frames, 2)), np.zeros((frames, 2, 2))
    counts = np.zeros(frames, dtype=np.int64)
    known = np.isfinite(disparity)
    if not known.any():
        return None
    unit = float(np.median(disparity[known]))
    for frame in range(frames):
        part = points.of_frame(frame)
        of_frame = known[part]
        if of_frame.sum() < FEWEST_POINTS:
            continue
        own = _robust_line(disparity[part][of_frame] / unit, 1 / points.depth[part][of_frame])
        if own is not None:
            thetas[frame], precisions[frame] = own
            counts[frame] = of_frame.sum()
    if not counts.any():
        return None
    factor, offset = _smoothed(thetas, precisions, counts > 0).T
    factor = factor / unit
    error = np.full(frames, np.nan)
    for frame in np.flatnonzero(counts):
        part = points.of_frame(int(frame))
        fitted = factor[frame] * disparity[part] + offset[frame]
        error[frame] = _relative_error(fitted, points.depth[part])
    return PointFit(factor, offset, error, counts)


def fitted_to_points(
    depth: DepthClip, points: SparsePoints, disparity: np.ndarray
) -> tuple[DepthClip, tuple[str, ...]]:
    """Relative depth in the unit of the solved camera that saw the points, and sentences for the artist about it.

    Args:
        depth: relative.
        points: in the unit of the camera's positions.
        disparity: (N,) of `disparity_at`.

    Raises:
        DepthError: no frame has enough points on surfaces with depth.
    """
    fit = fit_disparity(disparity, points, len(depth))
    if fit is None:
        raise DepthError(
            f"{depth.source} cannot be fitted to the camera's points: of {len(points)} in {len(depth)} frames, no "
            f"frame has {FEWEST_POINTS} that relate to its depth. Solve the camera with more features, or give metric "
            "depth."
        )
    farthest = _FARTHEST * float(np.quantile(points.depth, 0.98))

    def read() -> Iterator[np.ndarray]:
        for disparity, factor, offset in zip(_disparities(depth), fit.factor, fit.offset, strict=True):
            yield (1 / np.maximum(factor * disparity + offset, 1 / farthest)).astype(np.float32)

    missing = np.flatnonzero(fit.points == 0)
    notes = []
    if len(missing):
        notes.append(
            f"{_named('frame', missing)} {'has' if len(missing) == 1 else 'have'} fewer than {FEWEST_POINTS} of the "
            "camera's points that relate to depth: its scale there is that of the frames beside"
        )
    notes += contradictions(fit.error)
    source = f"{depth.source}, fitted to the camera's points"
    return replace(depth, scale="metric", source=source, read=read, mapping=None), tuple(notes)


def with_points(
    camera: KnownCamera,
    depth: DepthClip,
    points: SparsePoints,
    *,
    solved: bool = False,
    distortion: LensDistortion | None = None,
) -> tuple[KnownCamera, DepthClip]:
    """A camera and the depth of its footage in one unit, by the points that the camera was solved with.

    Relative depth is fitted to the points; depth that is true to scale stays. What contradicts the points is among the
    camera's notes.

    Args:
        camera: which saw the points.
        points: in the unit of its positions.
        solved: the unit means nothing, so that the depth's unit is taken; a file's unit is kept.
        distortion: as for `disparity_at`.

    Raises:
        DepthError: no points lie on surfaces with depth.
    """
    disparity = disparity_at(depth, points, distortion)
    if solved:
        scale = camera_scale(disparity, points)
        points = points.scaled(scale)
        camera = camera._replace(path=in_first_frames_world(camera.path, scale))
    if depth.scale == "relative":
        depth, notes = fitted_to_points(depth, points, disparity)
    else:
        notes = notes_on_metric_depth(disparity, points, len(depth))
    return camera._replace(notes=(*camera.notes, *notes)), depth


def camera_scale(disparity: np.ndarray, points: SparsePoints) -> float:
    """By which the positions of a solved camera are multiplied so that they have the unit of a clip's depth.

    Args:
        disparity: (N,) of `disparity_at`.
        points: with at least one on a surface with depth.

    Raises:
        DepthError: no point lies on a surface with depth.
    """
    known = disparity > 0  # false for NaN, too
    ratio = 1 / (disparity[known] * points.depth[known])
    if not len(ratio):
        raise DepthError(
            "none of the solved camera's points lies on a surface with depth. Check that both belong together."
        )
    return float(np.median(ratio))


def notes_on_metric_depth(disparity: np.ndarray, points: SparsePoints, frames: int) -> tuple[str, ...]:
    """Sentences for the artist where depth that is true to scale and the camera's points contradict each other."""
    error = np.full(frames, np.nan)
    for frame in range(frames):
        part = points.of_frame(frame)
        if np.isfinite(disparity[part]).sum() >= FEWEST_POINTS:
            error[frame] = _relative_error(disparity[part], points.depth[part])
    if not np.isfinite(error).any():
        return ()
    scale = camera_scale(disparity, points)
    if abs(np.log(scale)) > _CONTRADICTS and np.nanmedian(error) > _CONTRADICTS:
        return (
            f"depth is {scale:.3g} times as far as the camera's points: with a camera scale of {scale:.3g} both would "
            "have one unit",
        )
    return contradictions(error)


def contradictions(error: np.ndarray) -> tuple[str, ...]:
    """Sentences for the artist about frames (T,) whose depth differs from the points by too much; NaN is unknown."""
    known = np.isfinite(error)
    typical = float(np.median(error[known])) if known.any() else 0.0
    if typical > _CONTRADICTS:
        return (
            f"depth and the camera's points contradict each other, by {100 * typical:.0f} % on the median frame. Check "
            "that the camera belongs to this footage.",
        )
    bad = np.flatnonzero(known & (error > max(_CONTRADICTS, _OUTLIER * typical)))
    if not len(bad):
        return ()
    worst = 100 * float(error[bad].max())
    return (
        f"depth and the camera's points contradict each other in {_named('frame', bad)}, by up to {worst:.0f} %. Check "
        "the camera there.",
    )


def _disparities(depth: DepthClip) -> Iterator[np.ndarray]:
    """(h, w) float64 of each frame, before it is refined."""
    return (1 / values.astype(np.float64) for values in depth.unrefined())


def _sampled(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(n,): values (h, w) at places (n, 2), x and y as indices of pixels, bilinearly; NaN outside and at edges."""
    height, width = values.shape
    inside = (at > -0.5).all(axis=1) & (at[:, 0] < width - 0.5) & (at[:, 1] < height - 0.5)
    x, y = np.clip(at, 0, (width - 1, height - 1)).T
    left, above = np.floor(x).astype(int), np.floor(y).astype(int)
    right, below = np.minimum(left + 1, width - 1), np.minimum(above + 1, height - 1)
    corners = np.stack([values[above, left], values[above, right], values[below, left], values[below, right]])
    across, down = x - left, y - above
    weights = [(1 - across) * (1 - down), across * (1 - down), (1 - across) * down, across * down]
    flat = corners.max(axis=0) <= _EDGE * corners.min(axis=0)
    return np.where(inside & flat, (corners * np.stack(weights)).sum(axis=0), np.nan)


def _robust_line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(factor, offset) of the line through most points (n,), and its precision (2, 2); None where they have no line.

    Residuals count relative to the disparity and half the median one: near points are precise, and far ones matter.
    """
    relative = 1 / (y + 0.5 * np.median(y))
    random = np.random.default_rng(0)
    one, other = random.integers(0, len(x), (2, _TRIALS))
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = (y[one] - y[other]) / (x[one] - x[other])
    offsets = y[one] - factors * x[one]
    usable = np.isfinite(factors) & (factors > 0)
    if not usable.any():
        return None
    factors, offsets = factors[usable], offsets[usable]
    residuals = np.abs(factors[:, None] * x + offsets[:, None] - y) * relative
    best = int(np.median(residuals, axis=1).argmin())
    theta = np.array([factors[best], offsets[best]])
    rows = np.stack([x, np.ones_like(x)], axis=1) * relative[:, None]
    target = y * relative
    normal, spread = np.eye(2), 1.0
    for _ in range(_ROUNDS):
        residual = np.abs(rows @ theta - target)
        spread = max(1.5 * float(np.median(residual)), 1e-9)
        weight = 1 / (1 + (residual / spread) ** 2)
        normal = rows.T @ (weight[:, None] * rows)
        if np.linalg.cond(normal) > 1e10:
            return None
        theta = np.linalg.solve(normal, rows.T @ (weight * target))
    return (theta, normal / spread**2) if theta[0] > 0 else None


def _smoothed(thetas: np.ndarray, precisions: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fits (T, 2) smoothed over time: a random walk whose steps are as large as the fits' own changes say.

    Where frames truly differ, as those of per-image estimators do, the steps are large and the fits stay; where they
    differ by no more than their own uncertainty, they become one. Frames without a fit take that of their neighbours.
    """
    frames = np.flatnonzero(known)
    variances = np.array([np.diag(np.linalg.inv(precisions[frame])) for frame in frames])
    steps = (
        np.diff(thetas[frames], axis=0) ** 2 - variances[1:] - variances[:-1] if len(frames) > 1 else np.zeros((1, 2))
    )
    # 0.455 is the median of a squared standard normal variable.
    step = np.maximum(np.median(steps, axis=0) / 0.455, 1e-3 * variances.mean(axis=0) + 1e-18)
    tie = np.diag(1 / step)
    # A block tridiagonal system, solved from front to back and back again.
    count = len(thetas)
    inverses, rights = np.zeros((count, 2, 2)), np.zeros((count, 2))
    for frame in range(count):
        neighbours = (frame > 0) + (frame < count - 1)
        block, right = precisions[frame] + neighbours * tie, precisions[frame] @ thetas[frame]
        if frame:
            block = block - tie @ inverses[frame - 1] @ tie
            right = right + tie @ inverses[frame - 1] @ rights[frame - 1]
        inverses[frame], rights[frame] = np.linalg.inv(block + 1e-12 * np.trace(block) * np.eye(2)), right
    smooth = np.zeros((count, 2))
    for frame in reversed(range(count)):
        beyond = tie @ smooth[frame + 1] if frame < count - 1 else 0.0
        smooth[frame] = inverses[frame] @ (rights[frame] + beyond)
    return smooth


def _relative_error(disparity: np.ndarray, depth: np.ndarray) -> float:
    """Median of |depth / the points' - 1| where there is disparity."""
    known = np.isfinite(disparity)
    with np.errstate(divide="ignore"):
        fitted = 1 / np.maximum(disparity[known], 0)
    return float(np.median(np.abs(np.minimum(fitted / depth[known], 1e6) - 1)))


def _named(what: str, frames: np.ndarray) -> str:
    numbers = ", ".join(map(str, frames[:_NAMED_FRAMES])) + (", ..." if len(frames) > _NAMED_FRAMES else "")
    return f"{what}{'s' if len(frames) > 1 else ''} {numbers}"

"""`HalfSphere`: an equirectangular image of 180 by 180 degrees, drawn as six perspective tiles and resampled once.

Rasterizers draw perspective cameras. The half sphere in front of one is seen by the front face of a cube and the front
halves of its four neighbours: six upright halves of faces, all of one size, so that they are drawn in one pass. A pixel
of the image has a grid of rays, evenly spaced in longitude and latitude, each of which takes the nearest pixel of a
tile. Tiles are as fine in their middles, where they are coarsest, as the rays, so nothing is smoothed twice, and masks
and depths are not mixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ex4d.raster.frames import RenderedFrame
from ex4d_core.cameras import CameraPath

# Axes (right, down, forward) of each tile in the camera's own, and whether it is its face's right half.
_TILES: tuple[tuple[tuple[tuple[int, int, int], ...], bool], ...] = (
    (((1, 0, 0), (0, 1, 0), (0, 0, 1)), False),  # front
    (((1, 0, 0), (0, 1, 0), (0, 0, 1)), True),
    (((0, 0, 1), (0, 1, 0), (-1, 0, 0)), True),  # left
    (((0, 0, -1), (0, 1, 0), (1, 0, 0)), False),  # right
    (((0, 0, 1), (-1, 0, 0), (0, -1, 0)), True),  # up, on its side
    (((0, 0, 1), (1, 0, 0), (0, 1, 0)), True),  # down, on its side
)
TILES = len(_TILES)


def directions(side: int, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Unit directions (..., 3), OpenCV axes, of places in an equirectangular image of 180 by 180 degrees.

    Args:
        side: of the image, pixels.
        across, down: pixels from its top left corner; the first pixel's middle is 0.5.
    """
    longitude, latitude = (across / side - 0.5) * math.pi, (down / side - 0.5) * math.pi
    longitude, latitude = np.broadcast_arrays(longitude, latitude)
    return np.stack(
        [np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], axis=-1
    )


class HalfSphere:
    """Splits cameras into tiles, and assembles what they show."""

    def __init__(self, side: int, samples: int) -> None:
        """Compute where each ray meets the tiles.

        Args:
            side: of the image, pixels.
            samples: rays of each pixel, per axis.
        """
        self.side, self.samples = side, samples
        # Rays are pi / (side * samples) apart, pixels in the middle of a face 2 / face.
        face = 2 * math.ceil(side * samples / math.pi)
        self._width, self._height = face // 2, face
        places = (np.arange(samples) + 0.5) / samples
        self._pixels: list[np.ndarray] = []
        for y in places:
            for x in places:
                rays = directions(side, np.arange(side)[None] + x, np.arange(side)[:, None] + y)
                self._pixels.append(self._met(rays))
        down = (np.arange(face) + 0.5) / (face / 2) - 1
        lengths = np.sqrt(1 + down[:, None] ** 2 + down[None] ** 2).astype(np.float32)
        # Distance along the ray of each pixel of a tile whose depth is 1: of left and right halves.
        self._lengths = lengths[:, : self._width], lengths[:, self._width :]

    def tiles(self, camera: CameraPath) -> CameraPath:
        """The tiles of each camera of a path, those of a frame after each other; its lens does not matter."""
        turned = np.zeros((TILES, 4, 4))
        turned[:, :3, :3], turned[:, 3, 3] = [axes for axes, _ in _TILES], 1
        world_to_camera = turned[None] @ camera.world_to_camera[:, None]
        focal = self._height / 2
        intrinsics = np.array(
            [[[focal, 0, 0 if right else focal], [0, focal, focal], [0, 0, 1]] for _, right in _TILES], np.float64
        )
        return CameraPath(
            world_to_camera.reshape(-1, 4, 4), np.tile(intrinsics, (len(camera), 1, 1)), self._width, self._height
        )

    def assembled(self, index: int, tiles: Sequence[RenderedFrame]) -> RenderedFrame:
        """The image of one frame's tiles, which have one sample of each pixel.

        Its depth is the distance along the ray, since depth along z is 0 at the image's sides. It has no
        `source_centre`: what a moving camera slides along are straight lines through that point in a perspective
        image, and great circles in this one, which no single point tells. Holes are filled from all sides alike.
        """
        color = np.stack([tile.color for tile in tiles]).reshape(-1, 3)
        mask = np.stack([tile.mask for tile in tiles]).ravel()
        halves = [self._lengths[right] for _, right in _TILES]
        depth = np.stack([tile.depth * length for tile, length in zip(tiles, halves, strict=True)]).ravel()
        remembered = [tile.remembered for tile in tiles if tile.remembered is not None]
        recalled = np.stack(remembered).ravel() if remembered else None
        deeper = [tile.deep_color for tile in tiles if tile.deep_color is not None]
        pictures = [color] if not deeper else [color, np.stack(deeper).reshape(-1, 3)]
        count = self.side**2
        seen, known = np.zeros(count, np.int32), np.zeros(count, np.int32)
        # Sums of 8 bits are exact in integers, and of half floats in none; float32 rounds finer than they do.
        kinds = np.int32, np.float32
        seen_colors, known_colors = (
            [np.zeros((count, 3), kind) for _, kind in zip(pictures, kinds, strict=False)] for _ in range(2)
        )
        nearest, nearest_seen = np.full(count, np.inf, np.float32), np.full(count, np.inf, np.float32)
        for pixels in self._pixels:
            nearest = np.minimum(nearest, depth[pixels])
            # Most of a half sphere shows nothing, and colours are the most of the work.
            hit = np.flatnonzero(mask[pixels])
            seen[hit] += 1
            for picture, total in zip(pictures, seen_colors, strict=True):
                total[hit] += picture[pixels[hit]]
            nearest_seen[hit] = np.minimum(nearest_seen[hit], depth[pixels[hit]])
            if recalled is not None:
                held = np.flatnonzero(recalled[pixels] & ~mask[pixels])
                known[held] += 1
                for picture, total in zip(pictures, known_colors, strict=True):
                    total[held] += picture[pixels[held]]
        every = self.samples**2
        alpha = ((255 * seen + every // 2) // every).astype(np.uint8)
        whole = alpha >= 128
        images, remembered = [_mean(total, seen) for total in seen_colors], None
        if recalled is not None:
            remembered = ~whole & (2 * (seen + known) >= every) & (known > 0)
            rays = (seen + known)[remembered]
            for image, one, other in zip(images, seen_colors, known_colors, strict=True):
                image[remembered] = _mean(one[remembered] + other[remembered], rays)
        nearest = np.where(whole, nearest_seen, nearest)
        size = self.side, self.side
        image, *deep = (one.reshape(*size, 3) for one in images)
        return RenderedFrame(
            index,
            image,
            whole.reshape(size),
            nearest.reshape(size),
            alpha=alpha.reshape(size),
            remembered=None if remembered is None else remembered.reshape(size),
            deep_color=deep[0] if deep else None,
        )

    def _met(self, rays: np.ndarray) -> np.ndarray:
        """The pixel that each ray meets, of all tiles' one after the other."""
        axes = np.array([axes for axes, _ in _TILES], np.float64)
        # Faces, of which the first two tiles are one: the ray leaves through the one that it leans to most.
        forward = np.stack([rays @ axes[tile, 2] for tile in range(1, TILES)])
        tile = forward.argmax(axis=0) + 1
        tile = np.where((tile == 1) & (rays[..., 0] < 0), 0, tile)
        local = np.einsum("...ij,...j->...i", axes[tile], rays)
        right_half = np.array([right for _, right in _TILES])[tile]
        focal = self._height / 2
        across = local[..., 0] / local[..., 2] * focal + np.where(right_half, 0, focal)
        down = local[..., 1] / local[..., 2] * focal + focal
        column = across.astype(np.int64).clip(0, self._width - 1)
        row = down.astype(np.int64).clip(0, self._height - 1)
        return ((tile * self._height + row) * self._width + column).astype(np.int32).ravel()


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(N, 3), the mean colour of so many rays; black of none; uint8 of sums in int32, float16 of those in float32."""
    mean = total / np.maximum(count, 1)[:, None]
    return (mean + 0.5).astype(np.uint8) if total.dtype == np.int32 else mean.astype(np.float16)

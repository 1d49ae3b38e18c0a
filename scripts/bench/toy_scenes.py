"""Procedural moving scenes with known geometry: a textured room with boxes and spheres, seen by any camera.

Rays are cast in closed form by batches of scenes in torch, so that depth and colour are exact, and thousands of clips
take seconds on a GPU. Cameras follow the conventions of `ex4d_core.cameras`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial

import torch

# Objects of each scene: of either kind the first one moves, the others stand still.
BOXES, SPHERES = 2, 2
# Distance of the point that all cameras look at, and of the first object from the source camera; scene units.
PIVOT = 4.0
# Half of the room's width, and its ceiling, floor, near and far wall; y points down.
_ROOM_LOW, _ROOM_HIGH = (-4.5, -2.2, -2.5), (4.5, 1.3, 7.5)
_FIELD_OF_VIEW = math.radians(60)
# Of the sines of a texture: two on every surface.
_WAVES = 2
# Share of a ray's length within which two points count as one.
_SAME_POINT = 0.005
_LIGHT = (0.35, -0.8, -0.5)


@dataclass(frozen=True)
class Cameras:
    """Cameras of B scenes over T frames.

    Attributes:
        camera_to_world: (B, T, 4, 4) float32.
        side: of the square images, pixels.
    """

    camera_to_world: torch.Tensor
    side: int

    @property
    def focal_length(self) -> float:
        """Pixels."""
        return self.side / (2 * math.tan(_FIELD_OF_VIEW / 2))

    @property
    def intrinsics(self) -> torch.Tensor:
        """(3, 3) float64, equal for all."""
        focal, middle = self.focal_length, self.side / 2
        return torch.tensor([[focal, 0, middle], [0, focal, middle], [0, 0, 1]], dtype=torch.float64)

    def moved(self, local: torch.Tensor) -> Cameras:
        """Cameras whose poses are (B, T, 4, 4) ``local`` ones in these cameras' own axes."""
        return Cameras(self.camera_to_world @ local, self.side)


@dataclass(frozen=True)
class Images:
    """What cameras see of scenes.

    Attributes:
        color: (B, T, H, W, 3) float32 in [0, 1].
        depth: (B, T, H, W) float32 along z, scene units.
        points: (B, T, H, W, 3) float32, the seen points in the world.
    """

    color: torch.Tensor
    depth: torch.Tensor
    points: torch.Tensor


@dataclass(frozen=True)
class MovingScenes:
    """B scenes; the first axis of every tensor. N objects: first the boxes, then the spheres.

    Attributes:
        centres, velocities: (B, N, 3), at the first frame, and what is added to them until the last.
        sizes: (B, N, 3), half of each side; the radius for spheres.
        yaws: (B, N) about the vertical axis, radians.
        colors: (B, N + 2, 3) in [0, 1], of the objects, the walls and the floor.
        waves: (B, N + 2, _WAVES, 4), wave vectors of the textures (radians for each scene unit) and their phase.
    """

    centres: torch.Tensor
    velocities: torch.Tensor
    sizes: torch.Tensor
    yaws: torch.Tensor
    colors: torch.Tensor
    waves: torch.Tensor

    def __len__(self) -> int:
        return len(self.centres)

    def to(self, device: torch.device | str) -> MovingScenes:
        """The same on a device."""
        return MovingScenes(*(getattr(self, entry.name).to(device) for entry in fields(self)))

    def part(self, chosen: slice) -> MovingScenes:
        """Some of the scenes."""
        return MovingScenes(*(getattr(self, entry.name)[chosen] for entry in fields(self)))

    def cast(self, cameras: Cameras) -> Images:
        """Cast a ray through the centre of every pixel; T frames are spread evenly over the scenes' motion."""
        poses, side = cameras.camera_to_world, cameras.side
        across = (torch.arange(side, device=poses.device) + 0.5 - side / 2) / cameras.focal_length
        down, right = torch.meshgrid(across, across, indexing="ij")
        rays = torch.stack([right, down, torch.ones_like(down)], dim=-1).view(1, 1, -1, 3)
        # Of length 1 along z, so that a ray's length is the depth.
        directions = rays @ poses[..., :3, :3].transpose(-1, -2)
        origins = poses[..., None, :3, 3]
        depth, color = self._trace(origins, directions)
        points = origins + directions * depth[..., None]
        shape = (*poses.shape[:2], side, side)
        return Images(color.clamp(0, 1).view(*shape, 3), depth.view(shape), points.view(*shape, 3))

    def visible(self, points: torch.Tensor, cameras: Cameras) -> torch.Tensor:
        """Whether cameras see (B, T, H, W, 3) points of surfaces: inside the image, with nothing before them."""
        poses, flat = cameras.camera_to_world, points.flatten(2, 3)
        origins = poses[..., None, :3, 3]
        local = (flat - origins) @ poses[..., :3, :3]
        place = local[..., :2].abs() * cameras.focal_length
        inside = (local[..., 2] > 0) & (place < local[..., 2:] * cameras.side / 2).all(dim=-1)
        reached, _ = self._trace(origins, flat - origins)
        return (inside & (reached > 1 - _SAME_POINT)).view(points.shape[:-1])

    def _trace(self, origins: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Length (B, T, P), in units of the direction, to what (B, T, P, 3) rays hit first, and its colour."""
        time = torch.linspace(0, 1, directions.shape[1], device=directions.device).view(1, -1, 1)
        length, color = self._room(origins, directions)
        for number in range(BOXES + SPHERES):
            centre = (self.centres[:, number, None] + self.velocities[:, number, None] * time)[:, :, None]
            turn = _turns(self.yaws[:, number])[:, None]
            local_origins, local_directions = (origins - centre) @ turn, directions @ turn
            size = self.sizes[:, number, None, None]
            find = _hit_box if number < BOXES else _hit_sphere
            hit, normal = find(local_origins, local_directions, size)
            nearer = hit < length
            length = torch.where(nearer, hit, length)
            points = local_origins + local_directions * torch.where(nearer, hit, 0.0)[..., None]
            painted = self._painted(number, points, normal @ turn.transpose(-1, -2))
            color = torch.where(nearer[..., None], painted, color)
        return length, color

    def _room(self, origins: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Length (B, T, P) and colour (B, T, P, 3) of the walls, seen from inside."""
        low, high = (origins.new_tensor(corner) for corner in (_ROOM_LOW, _ROOM_HIGH))
        safe = torch.where(directions.abs() < 1e-6, 1e-6, directions)
        exits = (torch.where(safe > 0, high, low) - origins) / safe
        depth, axis = exits.min(dim=-1)
        facing = torch.nn.functional.one_hot(axis, 3)
        normal = -facing * safe.sign()
        points = origins + directions * depth[..., None]
        objects = BOXES + SPHERES
        floor = (normal[..., 1:2] < 0).float()
        color = torch.lerp(self._painted(objects, points, normal), self._painted(objects + 1, points, normal), floor)
        return depth, color

    def _painted(self, surface: int, points: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
        """Colour of (B, T, P, 3) points in the surface's own coordinates, with their normals in the world."""
        waves = self.waves[:, surface, None, None]
        phases = points @ waves[..., :3].squeeze(1).transpose(-1, -2) + waves[..., 3]
        texture = torch.sin(phases).mean(dim=-1, keepdim=True)
        light = normals @ torch.nn.functional.normalize(normals.new_tensor(_LIGHT), dim=0)
        shade = 0.75 + 0.25 * light[..., None]
        return self.colors[:, surface, None, None] * shade * (1 + 0.45 * texture)


def random_scenes(count: int, seed: int) -> MovingScenes:
    """Scenes of one seed, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    drawn = partial(torch.rand, generator=generator)
    objects = BOXES + SPHERES

    def values(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * drawn(count, *shape)

    sizes = values(0.3, 0.75, objects, 3)
    sizes[:, BOXES:] = sizes[:, BOXES:, :1]
    across, along = values(-1.6, 1.6, objects), values(PIVOT - 1.0, PIVOT + 1.8, objects)
    # Boxes stand on the floor, and so do spheres that stay; the moving one flies.
    floor = _ROOM_HIGH[1] - sizes[..., 1]
    floor[:, BOXES] = values(-0.8, 0.6)
    velocities = torch.zeros(count, objects, 3)
    for moving in (0, BOXES):
        velocities[:, moving, 0], velocities[:, moving, 2] = values(-1.6, 1.6), values(-0.8, 0.8)
    waves = torch.cat([values(-2.5, 2.5, objects + 2, _WAVES, 3), values(0, 2 * math.pi, objects + 2, _WAVES, 1)], -1)
    return MovingScenes(
        torch.stack([across, floor, along], dim=-1),
        velocities,
        sizes,
        values(0, math.pi / 2, objects),
        values(0.15, 0.95, objects + 2, 3),
        waves,
    )


def random_cameras(count: int, frames: int, side: int, seed: int, *, moving: float) -> Cameras:
    """The cameras of monocular clips, which look at the pivot: a share of them moves on a circle about it."""
    generator = torch.Generator().manual_seed(seed)
    start, turn, climb = torch.rand(3, count, 1, generator=generator) * 2 - 1
    still = torch.rand(count, 1, generator=generator) >= moving
    time = torch.linspace(0, 1, frames)
    azimuths = math.radians(15) * start + torch.where(still, 0.0, math.radians(45) * turn) * time
    elevations = math.radians(4) * (start + torch.where(still, 0.0, climb) * time)
    return Cameras(orbit_poses(azimuths, elevations), side)


def orbit_poses(azimuths: torch.Tensor, elevations: torch.Tensor, closer: torch.Tensor | None = None) -> torch.Tensor:
    """Poses (B, T, 4, 4) on a sphere about the pivot of a camera at the origin, from angles (B, T) in radians.

    Args:
        azimuths, elevations: positive to the right and up.
        closer: (B, T), by which share of its distance the camera has come closer to the pivot.
    """
    cosine, sine = azimuths.cos(), azimuths.sin()
    up_cosine, up_sine = elevations.cos(), elevations.sin()
    zero = torch.zeros_like(azimuths)
    # Columns: the camera's axes in the world.
    right = torch.stack([cosine, zero, sine], dim=-1)
    forward = torch.stack([-sine * up_cosine, up_sine, cosine * up_cosine], dim=-1)
    down = torch.linalg.cross(forward, right)
    distance = PIVOT * (1 - (zero if closer is None else closer))[..., None]
    place = torch.stack([zero, zero, zero + PIVOT], dim=-1) - distance * forward
    poses = torch.eye(4).repeat(*azimuths.shape, 1, 1)
    poses[..., :3, :] = torch.stack([right, down, forward, place], dim=-1)
    return poses


def _turns(yaws: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3) matrices that turn row vectors of the world into an object's axes."""
    cosine, sine, zero = yaws.cos(), yaws.sin(), torch.zeros_like(yaws)
    rows = [cosine, zero, -sine, zero, zero + 1, zero, sine, zero, cosine]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def _hit_box(origins: torch.Tensor, directions: torch.Tensor, size: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Length (B, T, P), infinite beside the box, and normal (B, T, P, 3) where rays enter it."""
    safe = torch.where(directions.abs() < 1e-6, 1e-6, directions)
    entering, axis = ((-safe.sign() * size - origins) / safe).max(dim=-1)
    leaving = ((safe.sign() * size - origins) / safe).amin(dim=-1)
    hit = torch.where((entering < leaving) & (entering > 1e-4), entering, torch.inf)
    return hit, -torch.nn.functional.one_hot(axis, 3) * safe.sign()


def _hit_sphere(
    origins: torch.Tensor, directions: torch.Tensor, size: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Length (B, T, P), infinite beside the sphere, and normal (B, T, P, 3) where rays enter it."""
    radius = size[..., 0]
    squared = directions.square().sum(-1)
    half = (origins * directions).sum(-1)
    beneath = half.square() - squared * (origins.square().sum(-1) - radius.square())
    hit = (-half - beneath.clamp_min(0).sqrt()) / squared
    hit = torch.where((beneath > 0) & (hit > 1e-4), hit, torch.inf)
    points = origins + directions * torch.where(hit.isfinite(), hit, 0.0)[..., None]
    return hit, points / radius[..., None]

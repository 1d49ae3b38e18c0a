"""The `nvdiffrast` rasterizer, with which EX-4D's own masks were drawn. CUDA only, research only.

Builds the DW-Mesh of a batch of frames on the GPU and draws all of them in one call. nvdiffrast is in no package
registry and its licence forbids commercial use, so no other module depends on it: it is imported on request.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import ModuleType

import numpy as np
import torch

from ex4d.mesh import DepthSurface, DWMesh, build_surface_mesh
from ex4d.raster.frames import RenderedBatch, joined
from ex4d.raster.mask_cleaning import can_be_cleaned, remove_specks
from ex4d.raster.rasterizer import (
    REFERENCE_FAR,
    REFERENCE_NEAR,
    REFERENCE_SEEN_ALPHA,
    RasterizerUnavailableError,
    camera_to_draw,
    indexed_device,
    samples_to_draw,
)
from ex4d.raster.supersampling import render_supersampled
from ex4d_core.cameras import CameraPath

HOW_TO_INSTALL = (
    "get its source from https://github.com/NVlabs/nvdiffrast and, in this backend's environment and with a CUDA "
    "compiler installed, run: pip install --no-build-isolation ./nvdiffrast; or use rasterizer warp"
)

# A batch's memory: a mesh and building it; clip coordinates and colours; nvdiffrast's triangle lists; images.
BYTES_PER_VERTEX = 340
BYTES_PER_PIXEL = 110
BATCH_BYTES = 8 << 30
# nvdiffrast's limit on triangles of one image, with room for those that clipping splits.
MAX_FACES = (1 << 24) - (1 << 16)

OCCLUSION_MODELS = ("watertight", "open")

# Times a frame's nearest depth. Depth is stored as 1/z in 32 bits: a nearer plane takes precision from farther depths.
CENTERED_NEAR = 1e-2


def load_nvdiffrast() -> ModuleType:
    """Import ``nvdiffrast.torch``.

    Raises:
        RasterizerUnavailableError: it is not installed, or does not work with this PyTorch; the message says what to
            do.
    """
    try:
        return importlib.import_module("nvdiffrast.torch")
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "nvdiffrast":
            raise RasterizerUnavailableError(f"nvdiffrast is not installed: {HOW_TO_INSTALL}") from error
        raise RasterizerUnavailableError(
            f"nvdiffrast is installed without its compiled part {error.name}: {HOW_TO_INSTALL}"
        ) from error
    except (ImportError, OSError) as error:
        raise RasterizerUnavailableError(
            f"nvdiffrast was built for another PyTorch than this {torch.__version__} ({error}): {HOW_TO_INSTALL}"
        ) from error


class NvdiffrastRasterizer:
    """Draws with nvdiffrast; see `Rasterizer`.

    In the "reference" convention it does what the original does, antialiasing included. In the "centered" convention it
    follows our own rules for what is seen, without antialiasing, which would blend seen colours into unseen ones. It
    makes no exception for a source pixel that is met exactly, so the source camera reproduces the footage except at
    depth discontinuities.
    """

    name = "nvdiffrast"
    licence = "Nvidia Source Code License: research and evaluation only, no commercial use"

    def __init__(self, device: torch.device | str = "cuda") -> None:
        """Create a CUDA context.

        Raises:
            RasterizerUnavailableError: see `load_nvdiffrast`; or the device is not a CUDA device.
        """
        self._nvdiffrast = load_nvdiffrast()
        if torch.device(device).type != "cuda":
            raise RasterizerUnavailableError(f"nvdiffrast needs a CUDA device, not {device}: use rasterizer warp")
        self.device = indexed_device(device)
        self._context = self._nvdiffrast.RasterizeCudaContext(device=self.device)
        self._edges: tuple[tuple[tuple[int, int], str], object] | None = None  # shared edges of the last topology

    def render(
        self, surface: DepthSurface, camera: CameraPath, *, with_depth: bool = False, samples: int = 1
    ) -> RenderedBatch:
        """Render frame t of the surface with camera t; see `Rasterizer.render`.

        Raises:
            ValueError: see `Rasterizer.render`.
            RasterizerUnavailableError: the footage has more pixels than nvdiffrast can draw at once, or its occlusion
                model is "thickness", which only warp draws.
        """
        if surface.occlusion not in OCCLUSION_MODELS:
            raise RasterizerUnavailableError(
                f"rasterizer nvdiffrast draws the occlusion models {' and '.join(OCCLUSION_MODELS)}, not "
                f"{surface.occlusion!r}: use rasterizer warp"
            )
        camera = camera_to_draw(surface, camera)
        rows, columns = surface.grid_shape
        if 2 * rows * columns > MAX_FACES:
            raise RasterizerUnavailableError(
                f"nvdiffrast draws at most {MAX_FACES:,} faces of an image, and footage of {surface.size[0]} x "
                f"{surface.size[1]} pixels has {2 * rows * columns:,}: use rasterizer warp, or smaller footage"
            )
        surface = surface.to(self.device)
        frame_bytes = rows * columns * BYTES_PER_VERTEX + camera.width * camera.height * BYTES_PER_PIXEL
        size = max(1, BATCH_BYTES // frame_bytes)
        samples = samples_to_draw(surface, samples)
        cleans = surface.clean and can_be_cleaned(surface.size, camera.size)
        keeps_depth = with_depth or cleans  # by which a pixel that is cleaned finds its surface

        def draw(start: int) -> RenderedBatch:
            part = surface.frame_range(start, start + size)
            seen_by = camera.frames(start, start + size)
            if samples == 1:
                drawn = self._draw_batch(part, seen_by, keeps_depth)
            else:
                drawn = render_supersampled(
                    lambda shifted: self._draw_batch(part, shifted, keeps_depth), seen_by, samples
                )
            if cleans:
                remove_specks(drawn)
            return drawn if with_depth else replace(drawn, depth=None)

        return joined([draw(start) for start in range(0, surface.frames, size)])

    def masks_in_tiles(
        self, surface: DepthSurface, camera: CameraPath, known: torch.Tensor, marked: torch.Tensor
    ) -> torch.Tensor:
        """See `Rasterizer.masks_in_tiles`; nvdiffrast always draws all of an image."""
        del known, marked
        return self.render(surface, camera).mask

    def _draw_batch(self, surface: DepthSurface, camera: CameraPath, with_depth: bool) -> RenderedBatch:
        reference = surface.convention == "reference"
        mesh = build_surface_mesh(surface)
        clip = self._clip_coordinates(mesh.vertices, self._projections(surface, camera))
        attributes = mesh.vertex_rgba() if reference and surface.occlusion == "watertight" else mesh.colors
        attributes = torch.cat([attributes.float(), clip[..., 3:]], dim=2)
        faces, ranges = mesh.faces, None
        if surface.occlusion == "open":
            kept = (~_obstacles(mesh)).nonzero()
            if not len(kept):
                return _empty_batch(camera, self.device, with_depth)
            faces, ranges = _faces_of_each_frame(mesh, kept)
            clip, attributes = clip.flatten(0, 1), attributes.flatten(0, 1)

        draw = self._nvdiffrast
        hits, derivatives = draw.rasterize(self._context, clip, faces, camera.size[::-1], ranges=ranges, grad_db=False)
        image, _ = draw.interpolate(attributes, hits, faces)
        depth = torch.where(hits[..., 3] > 0, image[..., -1], torch.inf) if with_depth else None
        if reference:
            image = image[..., :-1].contiguous()
            if surface.occlusion == "open":
                image = torch.cat([image, 255.0 * (hits[..., 3:] > 0)], dim=3)
            image = draw.antialias(image, hits, clip, faces, topology_hash=self._shared_edges(surface, faces))
            mask = image[..., 3] > REFERENCE_SEEN_ALPHA
            color = image[..., :3]
        else:
            mask = _seen(mesh, hits, derivatives, surface.occlusion == "open")
            color = image[..., :3] + 0.5
        return RenderedBatch((color * mask[..., None]).to(torch.uint8), mask, depth)

    def _projections(self, surface: DepthSurface, camera: CameraPath) -> torch.Tensor:
        """(T, 4, 4) float32: world to clip coordinates; nvdiffrast's first row of pixels is at y = -1."""
        projection = np.zeros((len(camera), 4, 4))
        for axis, side in enumerate(camera.size):
            projection[:, axis, axis] = 2 * camera.intrinsics[:, axis, axis] / side
            projection[:, axis, 2] = 2 * camera.intrinsics[:, axis, 2] / side - 1
        projection[:, 3, 2] = 1.0
        if surface.convention == "reference":
            near, far = REFERENCE_NEAR, REFERENCE_FAR
            projection[:, 2, 2], projection[:, 2, 3] = (far + near) / (far - near), -2 * far * near / (far - near)
        else:
            nearest = surface.depth_range[0].cpu().numpy()
            projection[:, 2, 2], projection[:, 2, 3] = 1.0, -2 * CENTERED_NEAR * nearest
        return torch.from_numpy(projection @ camera.world_to_camera).float().to(self.device)

    def _clip_coordinates(self, vertices: torch.Tensor, projections: torch.Tensor) -> torch.Tensor:
        """(T, V, 4) float32. Not by matmul, which PyTorch may be configured to compute in fewer bits."""
        clip = torch.empty(*vertices.shape[:2], 4, device=self.device)
        x, y, z = vertices.unbind(2)
        for axis in range(4):
            row = projections[:, axis, :, None].unbind(1)
            clip[..., axis] = (x * row[0]).addcmul_(y, row[1]).addcmul_(z, row[2]).add_(row[3])
        return clip

    def _shared_edges(self, surface: DepthSurface, faces: torch.Tensor) -> object:
        """The edge table of antialiasing, which nvdiffrast would otherwise build again in each call."""
        if surface.occlusion == "open":
            return None
        key = (surface.grid_shape, surface.convention)
        if self._edges is None or self._edges[0] != key:
            self._edges = (key, self._nvdiffrast.antialias_construct_topology_hash(faces))
        return self._edges[1]


def _empty_batch(camera: CameraPath, device: torch.device, with_depth: bool) -> RenderedBatch:
    """The render of no faces at all, which nvdiffrast refuses to draw."""
    shape = len(camera), camera.height, camera.width
    return RenderedBatch(
        torch.zeros(*shape, 3, dtype=torch.uint8, device=device),
        torch.zeros(shape, dtype=torch.bool, device=device),
        torch.full(shape, torch.inf, device=device) if with_depth else None,
    )


def _obstacles(mesh: DWMesh) -> torch.Tensor:
    """(T, F) bool, true for the faces that an open surface omits: occluded ones, the border's, and caps."""
    rows, columns = mesh.grid_shape
    omitted = mesh.occluded.clone()
    sides = omitted[:, : -mesh.cap_faces].unflatten(1, (2, rows - 1, columns - 1))
    for edge in (sides[:, :, 0], sides[:, :, -1], sides[..., 0], sides[..., -1]):
        edge.fill_(True)
    omitted[:, -mesh.cap_faces :] = True
    return omitted


def _faces_of_each_frame(mesh: DWMesh, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces (N, 3) of all frames, as indices into the vertices of all frames, and each frame's (first, count)."""
    faces = mesh.faces[kept[:, 1]] + (kept[:, :1] * mesh.vertices.shape[1]).int()
    counts = torch.bincount(kept[:, 0], minlength=mesh.frames).cpu()
    return faces.int().contiguous(), torch.stack([counts.cumsum(0) - counts, counts], dim=1).int().contiguous()


def _seen(mesh: DWMesh, hits: torch.Tensor, derivatives: torch.Tensor, is_open: bool) -> torch.Tensor:
    """(T, H, W) bool: the front of a face that is not occluded.

    Barycentric coordinates u and v of a face turn on the screen as its corners do, so the sign of their Jacobian alone
    tells front from back.
    """
    du_dx, du_dy, dv_dx, dv_dy = derivatives.unbind(3)
    front = du_dx * dv_dy - du_dy * dv_dx > 0
    face = hits[..., 3].long() - 1
    if is_open:
        return front & (face >= 0)
    hidden = mesh.occluded.gather(1, face.clamp_min(0).flatten(1)).view_as(face)
    return front & (face >= 0) & ~hidden

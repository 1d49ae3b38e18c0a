"""Coverage of a shot: visible fraction and view angle of each frame, fast enough for dragging a keyframe.

The viewer of the service keeps one `SceneCoverage` for each scene it has open. What does not depend on the camera is
computed once for each frame of footage, and a frame whose camera did not change is not drawn again.
`ex4d.raster.visible_fraction` computes the fraction of a frame.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from cachetools import LRUCache

from ex4d.devices import cpu_cores
from ex4d.machine import MachineSettings
from ex4d.pipeline.remembered_shares import RememberedShares
from ex4d.pipeline.surfaces import scene_surface
from ex4d.raster import Rasterizer, create_rasterizer, sparse_camera, view_angles, visible_fractions
from ex4d.raster.simplified_frame import SimplifiedFrame
from ex4d_core.cameras import CameraPath
from ex4d_core.lead_in import shows_first_frame
from ex4d_core.render_settings import RenderSettings
from ex4d_core.scene import PlacedFootage
from ex4d_core.shot import ShotRequest
from ex4d_core.source_frames import require_footage

# A simplified frame of 512x512 takes about 1 MB: some hundred frames of footage stay ready.
_KEPT_BYTES = 256 * 2**20
# Shares of frames under cameras that were tried: a number each.
_KEPT_SHARES = 50_000
# Frames that a GPU draws at once.
_DRAWN_FRAMES = 64


@dataclass(frozen=True)
class PathCoverage:
    """Coverage of a camera path.

    Attributes:
        seen: (T,) float64, share of each frame that the footage saw, 0 to 1.
        view_angle: (T,) float64, degrees between the directions from which the source camera and the new camera look
            at the subject.
        remembered: (T,) float64, share that only other frames of the clip saw, as far as the shot shows it.
    """

    seen: np.ndarray
    view_angle: np.ndarray
    remembered: np.ndarray

    def to_wire(self) -> Mapping[str, list[float]]:
        """As `ex4d_core.view_messages.Coverage` has it."""
        return {name: getattr(self, name).tolist() for name in ("seen", "view_angle", "remembered")}


class SceneCoverage:
    """Coverage of any shot of one scene; keeps what the next question will need."""

    def __init__(self, scene: PlacedFootage, *, device: str = "auto", machine: MachineSettings | None = None):
        self._scene = scene
        self._source = scene.source_camera()
        self._device, self._machine = device, machine
        self._rasterizers: dict[RenderSettings, Rasterizer] = {}
        self._frames: LRUCache[Hashable, SimplifiedFrame] = LRUCache(_KEPT_BYTES, _size)
        self._frames_lock = threading.Lock()
        self._shares: LRUCache[Hashable, float] = LRUCache(_KEPT_SHARES)
        self._memory: RememberedShares | None = None
        self._recalled: LRUCache[Hashable, float] = LRUCache(_KEPT_SHARES)
        self._threads = ThreadPoolExecutor(cpu_cores(), "coverage")  # which keep working memory, too

    def of(self, request: ShotRequest, *, index: int = 0) -> PathCoverage:
        """Coverage and view angle of each frame of a shot, or of a part of it.

        Args:
            index: which frame of the shot the request's first one is.

        Raises:
            RequestError: the shot shows frames that the footage does not have.
            LicenceError, DeviceError, RasterizerUnavailableError: see `ex4d.raster.create_rasterizer`.
        """
        request = replace(request, render=request.settled_render)
        camera, settings, shown = request.camera, request.render, request.footage_frames
        require_footage(shown, self._scene.manifest.frames)
        if settings not in self._rasterizers:
            self._rasterizers[settings] = create_rasterizer(
                settings.rasterizer, self._device, settings.licence, self._machine
            )
        keys = [_key(settings, shown[k], camera, k) for k in range(len(camera))]
        found = {k: self._shares[key] for k, key in enumerate(keys) if key in self._shares}
        missing = [k for k in range(len(keys)) if k not in found]
        if missing:
            on_cpu = self._rasterizers[settings].device.type == "cpu"
            shares = (self._counted if on_cpu else self._drawn)(request, missing)
            for k, share in zip(missing, shares, strict=True):
                found[k] = self._shares[keys[k]] = share
        seen = np.array([found[k] for k in range(len(keys))])
        if index == 0 and shows_first_frame(self._scene.manifest, camera, settings.convention):
            seen[0] = 1.0
        remembered = np.zeros(len(keys))
        if settings.remember:
            remembered = (1 - seen) * self._recalled_shares(keys, request)
        angles = view_angles(self._source.at(shown), camera, self._scene.manifest.pivot_distance)
        return PathCoverage(seen, angles, remembered)

    def _recalled_shares(self, keys: list[Hashable], request: ShotRequest) -> np.ndarray:
        """(T,), the share of each frame's unseen pixels that the clip knows."""
        camera, missing = request.camera, [k for k, key in enumerate(keys) if key not in self._recalled]
        found = {key: self._recalled[key] for key in keys if key in self._recalled}
        if missing:
            if self._memory is None:
                self._memory = RememberedShares(self._scene, request.render, self._device, self._machine)
            new = CameraPath(camera.world_to_camera[missing], camera.intrinsics[missing], *camera.size)
            shares = self._memory.of(new, [request.footage_frames[k] for k in missing])
            for k, share in zip(missing, shares.tolist(), strict=True):
                found[keys[k]] = self._recalled[keys[k]] = share
        return np.array([found[key] for key in keys])

    def _drawn(self, request: ShotRequest, missing: list[int]) -> list[float]:
        """On a GPU, frames that follow each other at once."""
        camera, shown = request.camera, request.footage_frames
        shares = []
        for start, stop in _runs(missing, _DRAWN_FRAMES):
            surface = scene_surface(self._scene, self._source, request.render, shown[start:stop])
            rasterizer = self._rasterizers[request.render]
            shares += visible_fractions(rasterizer, surface, camera.frames(start, stop)).tolist()
        return shares

    def _counted(self, request: ShotRequest, missing: list[int]) -> list[float]:
        """On a CPU, from sparse rays and simplified meshes, a frame for each core."""
        sparse, shown = sparse_camera(request.camera, request.render.convention), request.footage_frames

        def count(k: int) -> float:
            frame = self._simplified(request.render, shown[k])
            return frame.visible_fraction(sparse.frames(k, k + 1))

        return list(self._threads.map(count, missing))

    def _simplified(self, settings: RenderSettings, footage_frame: int) -> SimplifiedFrame:
        key = footage_frame, settings.convention, settings.occlusion_rule, settings.occlusion
        with self._frames_lock:
            frame = self._frames.get(key)
        if frame is None:
            # What it keeps of the footage is the file, mapped into memory.
            part = range(footage_frame, footage_frame + 1)
            frame = SimplifiedFrame(scene_surface(self._scene, self._source, settings, part, copy=False))
            with self._frames_lock:
                self._frames[key] = frame
        return frame


def _size(frame: SimplifiedFrame) -> int:
    """Bytes of a frame in the cache, which keeps the last one whatever its size."""
    return min(frame.bytes, _KEPT_BYTES)


def _key(settings: RenderSettings, footage_frame: int, camera: CameraPath, k: int) -> Hashable:
    """All that a frame's share depends on."""
    view = camera.world_to_camera[k].tobytes(), camera.intrinsics[k].tobytes(), camera.size
    return settings, footage_frame, *view


def _runs(numbers: list[int], longest: int) -> Iterator[tuple[int, int]]:
    """Ascending numbers as ranges start..stop-1 without gaps."""
    start = stop = numbers[0]
    for number in numbers:
        if number != stop or stop - start == longest:
            yield start, stop
            start = number
        stop = number + 1
    yield start, stop

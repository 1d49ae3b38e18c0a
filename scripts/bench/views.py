"""Benchmarks live queries: views and coverage, requested over a loopback socket of a real service.

Part of `ex4d bench render`. The service runs in processes of its own, as `ex4d serve` starts them. The time is measured
from sending a request until its answer has arrived, with another camera each time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from bench.measuring import Row
from ex4d.raster.speed import SUBJECT_DISTANCE, synthetic_camera, synthetic_surface
from ex4d.service.local_service import local_service
from ex4d_core.cameras import CameraPath
from ex4d_core.client import Client
from ex4d_core.messages import Message
from ex4d_core.render_settings import OcclusionModel, RenderSettings
from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.scene_manifest import SceneManifest
from ex4d_core.shot import ShotRequest
from ex4d_core.transfers import ask_about
from ex4d_core.view_messages import GetCoverage, GetView

VIEW_SIZE = (1024, 576)
COVERAGE_CLIP = (49, 512, 512)
TARGET_MS = {"cpu": 120, "cuda": 16}  # our targets, for a view
_MODELS: tuple[OcclusionModel, ...] = ("watertight", "thickness")
_VIEWS = 41
_EDITS = 9
_TIMEOUT_SECONDS = 180.0


def measure_service(device: str) -> Iterator[Row]:
    """Rows of one device, "cpu" or "cuda"."""
    with tempfile.TemporaryDirectory(prefix="ex4d-bench-") as name:
        folder = Path(name)
        view_scene = write_scene(folder / "view", 3, *VIEW_SIZE)
        clip = write_scene(folder / "clip", *COVERAGE_CLIP)
        name = "cpu" if device == "cpu" else "cuda:0"
        with local_service(folder / "service", "--device", name) as service, closing(Client(service.address)) as client:
            # A worker that is still loading would share the processor with what is measured.
            service.wait_until_ready()
            for occlusion in _MODELS:
                milliseconds = _views(client, view_scene, occlusion)
                what = f"view over the socket, {VIEW_SIZE[0]}x{VIEW_SIZE[1]}"
                slow = f"{np.quantile(milliseconds, 0.9):.1f} ms at the 90th percentile"
                remark = f"{device}, {occlusion}, median of {len(milliseconds)}; {slow}; target {TARGET_MS[device]}"
                yield Row(what, f"{np.median(milliseconds):.1f} ms", remark)
                plain = float(np.median(_views(client, view_scene, occlusion, remember=False)))
                ratio = f"{device}, {occlusion}; with it {np.median(milliseconds) / plain:.2f} x, target 1.5 x"
                yield Row("view without the clip's memory", f"{plain:.1f} ms", ratio)
            yield from _coverage(client, clip, device)


def _views(client: Client, scene: Scene, occlusion: OcclusionModel, remember: bool | None = None) -> list[float]:
    camera = synthetic_camera(_VIEWS + 1, *VIEW_SIZE, 30)
    times = []
    for k in range(1, len(camera)):
        view = camera.frames(k, k + 1)
        render = RenderSettings(occlusion=occlusion, remember=remember)
        request = ShotRequest(scene.digest, view, first_frame=1, render=render)
        times.append(_milliseconds(client, scene, GetView(request.to_wire())))
    return times[1:]  # the first one uploads the scene and starts the live view process


def _coverage(client: Client, scene: Scene, device: str) -> Iterator[Row]:
    """A new path, a path of which half the frames changed, and one that did not change."""
    frames, width, height = COVERAGE_CLIP

    def arc(degrees: float) -> CameraPath:
        return synthetic_camera(*COVERAGE_CLIP, degrees)

    def ask(camera: CameraPath, remember: bool | None = None) -> float:
        shot = ShotRequest(scene.digest, camera, render=RenderSettings(remember=remember))
        return _milliseconds(client, scene, GetCoverage(shot.to_wire()))

    first = ask(arc(20))
    edits = [ask(arc(21 + edit)) for edit in range(_EDITS)]
    camera = arc(21 + _EDITS - 1)
    halves = []
    for edit in range(_EDITS):
        poses = np.concatenate([camera.world_to_camera[: frames // 2], arc(60 + edit).world_to_camera[frames // 2 :]])
        camera = replace(camera, world_to_camera=poses)
        halves.append(ask(camera))
    same = [ask(camera) for _ in range(_EDITS)]
    plain = [ask(arc(21 + edit), remember=False) for edit in range(_EDITS)]
    what = f"coverage over the socket, {frames} frames"
    yield Row(what, f"{np.median(edits):.0f} ms", f"{device}, {width}x{height}, all cameras new; first {first:.0f} ms")
    ratio = f"{device}, all cameras new; with it {np.median(edits) / np.median(plain):.2f} x, target 3 x"
    yield Row("coverage without the clip's memory", f"{np.median(plain):.0f} ms", ratio)
    yield Row(what, f"{np.median(halves):.0f} ms", f"{device}, {width}x{height}, half of the cameras new")
    yield Row(what, f"{np.median(same):.1f} ms", f"{device}, {width}x{height}, no camera new")


def _milliseconds(client: Client, scene: Scene, request: Message) -> float:
    start = time.perf_counter()
    client.run(ask_about(scene, request), timeout=_TIMEOUT_SECONDS)
    return 1000 * (time.perf_counter() - start)


def write_scene(folder: Path, frames: int, width: int, height: int) -> Scene:
    """The synthetic shot as a scene package."""
    surface = synthetic_surface(frames, width, height)
    span = float(surface.depth.min()), float(surface.depth.max())
    manifest = SceneManifest("bench", frames, width, height, Fraction(24), "centered", span, SUBJECT_DISTANCE)
    with SceneWriter(folder) as writer:
        writer.array("color", tuple(surface.color.shape), np.uint8).write(surface.color.numpy())
        writer.array("depth", tuple(surface.depth.shape), np.float32).write(surface.depth.numpy())
        synthetic_camera(frames, width, height, 0).save(writer.path("source_camera"))
        return writer.finish(manifest)

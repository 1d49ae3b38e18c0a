"""A long preview, and its coverage, by four nodes of a Ray cluster, and the same by one worker: equal, bit for bit.

The nodes see nothing of the service's files, as if they were other machines.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from campaigns.outcome import Outcome
from campaigns.ray_nodes import RayNodes
from campaigns.service import PATIENCE, ROOT, Service, connected, workplace
from ex4d_core.cameras import CameraPath, intrinsics_matrix
from ex4d_core.messages import Hello
from ex4d_core.remote_job import JobState
from ex4d_core.remote_take import RemoteTake
from ex4d_core.scene import Scene, SceneWriter
from ex4d_core.scene_manifest import SceneManifest
from ex4d_core.shot import ShotRequest
from ex4d_core.take_files import REQUEST_FILE
from ex4d_core.view_messages import Coverage, GetCoverage

_NODES = 4
_WIDTH, _HEIGHT, _FOCAL = 256, 144, 240.0


def run(seed: int, count: int) -> Outcome:
    """Make a shot of ``count`` frames at both, and compare all files."""
    outcome = Outcome()
    with workplace() as folder:
        scene = _write_scene(folder / "scene", count, seed)
        request = ShotRequest(scene.digest, _orbit(count), label="split")
        runner: dict[str, Any] = {"runner": "ex4d.pipeline.take:generate_take"}
        seconds, coverage = {}, {}
        (folder / "one").mkdir()
        service = Service(folder / "one", **runner)
        seconds["one"], coverage["one"] = _take(service, folder / "one", scene, request, outcome)
        with closing(FourNodes(folder)) as nodes:
            (folder / "four").mkdir()
            place: dict[str, Any] = {"cluster": nodes.address, "cluster_cores": 1, "cluster_shared": False}
            service = Service(folder / "four", **place, **runner)
            seconds["four"], coverage["four"] = _take(service, folder / "four", scene, request, outcome, workers=_NODES)
        log = (folder / "four" / "data" / "logs" / "cluster.log").read_text()
        helped = len(re.findall(r"frames \d+ to \d+ of job", log))
        outcome.require(helped > 0, "no range was rendered by another worker")
        covered = len(re.findall(r"coverage of shots of scene", log))
        outcome.require(covered > 0, "no other worker has computed coverage")
        outcome.require(coverage["one"] == coverage["four"], "their coverage differs")
        one, four = (sorted((folder / name / "take").iterdir()) for name in ("one", "four"))
        outcome.require([path.name for path in one] == [path.name for path in four], "they have other files")
        # All but what says when and where it was made.
        compared = [pair for pair in zip(one, four, strict=False) if pair[0].name != REQUEST_FILE]
        for mine, theirs in compared:
            outcome.require(mine.read_bytes() == theirs.read_bytes(), f"{mine.name} differs")
    outcome.figures = {
        "frames": count,
        "ranges by others": helped,
        "workers with coverage": covered,
        "files compared": len(compared),
        **{f"seconds with {name}": round(value, 1) for name, value in seconds.items()},
        **outcome.figures,
    }
    return outcome


def _take(
    service: Service, folder: Path, scene: Scene, request: ShotRequest, outcome: Outcome, workers: int = 1
) -> tuple[float, Coverage]:
    """Make a take; returns the seconds from when all workers were there, and the coverage."""
    try:
        with closing(connected(service.address)) as client:
            deadline = time.monotonic() + PATIENCE
            while sum("core" in one for one in client.ask(Hello("campaign"), timeout=PATIENCE).devices) < workers:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the workers are not there: {service.log.read_text()[-2000:]}")
                time.sleep(0.2)
            take, began = RemoteTake(folder / "take", request, scene), time.monotonic()
            while not take.over:
                take.advance(client)
                client.wait(0.02)
                client.require_answer(PATIENCE)
            outcome.require(take.state is not JobState.STOPPED, f"the take stopped: {take.reason}")
            seconds = time.monotonic() - began
            return seconds, client.ask(GetCoverage(request.to_wire()), timeout=PATIENCE)
    finally:
        service.stop()


class FourNodes(RayNodes):
    """Four nodes of one core."""

    def __init__(self, folder: Path):
        super().__init__(folder, ROOT / "scripts")
        os.environ.update(self.environment)
        for _ in range(_NODES):
            self.add()


def _write_scene(folder: Path, frames: int, seed: int) -> Scene:
    """A ball that moves before a wall, both with a random pattern."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
    wall, ball = random.integers(0, 256, (2, _HEIGHT // 8, _WIDTH // 8, 3)).astype(np.uint8)
    wall, ball = (np.kron(one, np.ones((8, 8, 1), np.uint8)) for one in (wall, ball))
    manifest = SceneManifest("ball", frames, _WIDTH, _HEIGHT, Fraction(24), "centered", (2.0, 4.0), 3.0)
    with SceneWriter(folder) as writer:
        color = writer.array("color", (frames, _HEIGHT, _WIDTH, 3), np.uint8)
        depth = writer.array("depth", (frames, _HEIGHT, _WIDTH), np.float32)
        for index in range(frames):
            centre = _WIDTH * (0.3 + 0.4 * index / frames)
            inside = (rows - _HEIGHT / 2) ** 2 + (columns - centre) ** 2 < (_HEIGHT / 4) ** 2
            color.write(np.where(inside[..., None], ball, wall)[None])
            depth.write(np.where(inside, 2.0, 4.0).astype(np.float32)[None])
        _still(frames).save(writer.path("source_camera"))
        return writer.finish(manifest)


def _still(frames: int) -> CameraPath:
    lens = intrinsics_matrix(_FOCAL, _FOCAL, _WIDTH / 2, _HEIGHT / 2)
    return CameraPath(np.repeat(np.eye(4)[None], frames, axis=0), lens, _WIDTH, _HEIGHT)


def _orbit(frames: int) -> CameraPath:
    """A camera that moves to the side."""
    still = _still(frames)
    moves = still.world_to_camera.copy()
    moves[:, 0, 3] = np.linspace(0.0, 0.5, frames)
    return CameraPath(moves, still.intrinsics, _WIDTH, _HEIGHT)

"""This project's own results: a take of every task of a protocol, in folders where `Method` finds them.

The pipeline makes the takes; a take that is there stays, and an interrupted one is continued.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ex4d.evaluation.clip_scene import ClipInputs
from ex4d.evaluation.clips import EvaluationClip, Task
from ex4d.evaluation.datasets import load_clips
from ex4d.evaluation.errors import EvaluationError
from ex4d.evaluation.protocols import Protocol
from ex4d.evaluation.results import Method
from ex4d.machine import MachineSettings
from ex4d.pipeline.take_folder import take_into_folder
from ex4d.progress import Progress, ignore_progress
from ex4d_core.errors import Ex4dError
from ex4d_core.render_settings import RenderSettings, default_occlusion
from ex4d_core.scene import Scene
from ex4d_core.shot import MAX_LABEL, ShotRequest

STAGE = "generate"


def generate_takes(
    dataset: Path,
    name: str,
    folder: Path,
    protocol: Protocol,
    work: Path,
    *,
    layout: str | None = None,
    device: str = "auto",
    machine: MachineSettings | None = None,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
) -> Method:
    """Make what a method of this project owes: a take for each task, with the protocol's engine and settings.

    Args:
        dataset, work, layout: as in `evaluate`, which takes up the scenes.
        name: of the method.
        folder: for the takes, one folder each; takes of the same request stay.
        device: as in `take_into_folder`.
        machine: the environment's settings by default.
        progress: called with `STAGE`, clips done, and clips in all.
        note: called with sentences about takes.

    Returns:
        The method, with the reasons of the tasks for which there is no take.

    Raises:
        EvaluationError: the data set cannot be used.
    """
    _, clips = load_clips(dataset, work, layout)
    folder.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    machine = machine or MachineSettings.from_environment()
    for number, clip in enumerate(clips):
        progress(STAGE, number, len(clips))
        try:
            inputs = ClipInputs.prepare(clip, protocol, work, device)
        except Ex4dError:
            continue  # `evaluate` prepares the clip again, and names what is wrong with it
        for task in inputs.tasks:
            try:
                request = _request(task, clip, inputs.scene, protocol)
                take_into_folder(
                    *(_scene(inputs.scene), request, folder / task.name),
                    device=device,
                    machine=machine,
                    note=lambda text, task=task: note(f"{task.name}: {text}"),
                    resume=True,
                )
            except Ex4dError as error:
                failed[task.name] = f"no take was made: {error}"
    progress(STAGE, len(clips), len(clips))
    return Method(name, folder, failed)


def _scene(scene: Scene | None) -> Scene:
    assert scene is not None, "requests are of a scene"
    return scene


def _request(task: Task, clip: EvaluationClip, scene: Scene | None, protocol: Protocol) -> ShotRequest:
    if scene is None:
        raise EvaluationError(f"{clip.name} has no depth, from which a take is rendered: add depth to it")
    if task.camera is None:
        raise EvaluationError(f"{clip.name} has no new camera: add camera.npz, or take a protocol with ranges")
    engine, convention = protocol.generate.engine, scene.manifest.convention
    return ShotRequest(
        scene=scene.digest,
        camera=task.camera,
        render=RenderSettings.from_wire({"convention": convention, "occlusion": default_occlusion(engine, convention)}),
        engine=engine,
        wan=replace(protocol.generate.wan, seed=task.seed),
        label=task.name[-MAX_LABEL:],
    )

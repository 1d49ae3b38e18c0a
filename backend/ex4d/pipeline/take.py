"""Generates a take from a shot request: renders, lets the engine repaint, and delivers each frame when it exists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ex4d.devices import Devices
from ex4d.generation import EngineState, GenerationProgress, create_engine
from ex4d.generation.frame_strides import fill_between, generated_places
from ex4d.machine import MachineSettings
from ex4d.media import BackgroundVideoWriter, Sound, VideoWriter, read_png, read_png_metadata, sound_of
from ex4d.pipeline.clip_memory import ClipMemory
from ex4d.pipeline.deep_take import DeepTake, draws_deep_colors, require_deep_take
from ex4d.pipeline.frame_files import FrameFiles, StateAfterFrames, write_for_sink
from ex4d.pipeline.keep_seen import FootageKeeper, gains_of_frame
from ex4d.pipeline.provenance import MADE_BY, generated_at, made_by
from ex4d.pipeline.render import nothing_seen_note, render_shot, shows_nothing
from ex4d.pipeline.shot_start import from_source_frame, settings_of_start, shot_start, start_note
from ex4d.pipeline.stereo import render_eyes
from ex4d.raster import RenderedFrame
from ex4d_core.errors import RequestError
from ex4d_core.scene import Scene
from ex4d_core.scene_manifest import SceneError
from ex4d_core.shot import ShotRequest
from ex4d_core.stages import DECODE_STAGE, StageDetails, stage_with_eta
from ex4d_core.take_files import REMEMBERED_FILE, REQUEST_FILE, frame_file_name


class TakeSink(Protocol):
    """Receives a take: the service's job store, or a folder."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` frames have completed ``stage``. May raise to stop the work."""
        ...

    def frame(self, index: int, path: Path) -> None:
        """Frame ``index`` is finished; the sink takes the file away."""
        ...

    def estimate(self, number: int, path: Path) -> None:
        """A small PNG of the expected result, after step ``number``; the sink takes the file away."""
        ...

    def file(self, name: str, path: Path, sha256: str = "") -> None:
        """One of `ex4d_core.take_files.TAKE_FILES` is finished; the sink takes the file away.

        ``sha256`` is that of its content, where it is known.
        """
        ...


def generate_take(
    scene: Scene,
    request: ShotRequest,
    *,
    device: str,
    sink: TakeSink,
    work_folder: Path,
    machine: MachineSettings | None = None,
    finished: Sequence[Path] = (),
    state: EngineState | None = None,
    note: Callable[[str], None] = lambda text: None,
    render: Callable[..., Iterator[RenderedFrame]] = render_shot,
) -> None:
    """Generate every frame and file of a take.

    The take's frames are PNGs (lossless, and they can arrive one by one); its movies are for editors and for people:
    ``take.mp4``, and ``color.mp4`` and ``mask.mp4`` as EX-4D's generator reads them; with the clip's memory also
    ``remembered.mp4``. Its request comes first, so that an interrupted take can be told from other files and be
    continued. What it has in more than 8 bits comes with each frame, just before it, or as a movie at the end.

    Args:
        device: as in `create_engine`.
        work_folder: an existing folder for files on their way to the sink.
        machine: the environment's settings by default.
        finished: the first frames, where an interrupted take has them already; they are not made again. None of a take
            with a movie of more than 8 bits, which is made in one go.
        state: the engine's, of that take and for the next interruption.
        note: called with sentences about what the user should know of the shot.
        render: yields the frames that the engine repaints, as `render_shot` does; others may compute them.

    Raises:
        RequestError: the request does not fit the scene or this backend.
        SceneError, ColourSpaceError: see `require_deep_take`.
        MediaError: a file cannot be read or written.
        RuntimeError: this machine cannot run the engine, or it failed; each engine has its own kinds.
    """
    request.require_footage(scene.manifest.frames)
    require_deep_take(scene, request)
    camera, fps, done = request.camera, scene.manifest.fps, len(finished)
    places = generated_places(len(camera), _stride(request))
    start = shot_start(scene, request)
    wan = settings_of_start(request.wan, start, len(places))
    engine = create_engine(replace(request, wan=wan), device, machine)
    generated = generated_at(request)
    if generated != request.frame_size:
        note("generated at {}x{}, enlarged to {}x{} by {}".format(*generated, *camera.size, engine.enlarging))
    description = describe(scene, request)
    metadata = {"ex4d_engine": engine.name, "ex4d_request": json.dumps(description, indent=1, ensure_ascii=False)}
    if request.label:
        metadata["title"] = request.label

    announced = False

    def announce() -> None:
        """Deliver the request once there is something to show, so that a failing start leaves an earlier take alone."""
        nonlocal announced
        if not announced:
            announced = True
            described = {**description, MADE_BY: made_by(scene, request, engine, device, machine)}
            text = json.dumps(described, indent=1, ensure_ascii=False)
            (work_folder / REQUEST_FILE).write_text(text, encoding="utf-8")
            sink.file(REQUEST_FILE, work_folder / REQUEST_FILE)
            camera.save(work_folder / "camera.npz")
            sink.file("camera.npz", work_folder / "camera.npz")

    last = max((place for place in places if place < done), default=None)
    deep = None
    if request.output.is_deep:
        made = places if last is None else places[places.index(last) + 1 :]
        of_lead_in = [None] * start.hidden if last is None else []
        deep = DeepTake(scene, request, description, work_folder, [*of_lead_in, *made])
    reports = _EngineReports(sink, work_folder, announce, engine.name, done, len(camera), deep)
    settings = request.settled_render
    names = ["color.mp4", "mask.mp4", *([REMEMBERED_FILE] if settings.remember else []), "take.mp4"]
    with ExitStack() as opened:
        sounds = {"take.mp4": _sound_of(scene, request)}
        movies = {
            name: opened.enter_context(
                BackgroundVideoWriter(
                    work_folder / name,
                    *request.frame_size,
                    fps,
                    pixel_aspect=request.stereo.pixel_aspect(camera),
                    metadata=metadata,
                    sound=sounds.get(name),
                    stereo=request.stereo.kind_of_movie,
                )
            )
            for name in names
        }
        if deep is not None:
            opened.enter_context(deep)
        take = movies["take.mp4"]
        files = opened.enter_context(FrameFiles(reports.deliver, {"ex4d_engine": engine.name}))
        state = state and StateAfterFrames(state, files)
        # Several devices are for the engine; the first one renders.
        how = {"source_frames": start.shown, "machine": machine, "device": Devices.parse(device).first, "note": note}
        how |= {"deep": draws_deep_colors(scene, request)}
        if request.stereo.is_on:
            rendered = render_eyes(scene, start.camera, settings, request.stereo, **how)
        else:
            rendered = render(scene, start.camera, settings, **how)
        shown = from_source_frame(rendered, scene, start)
        told = partial(start_note, start, request.wan, len(places))
        recorded = _recorded(shown, start.hidden, movies, told, note)
        for index, path in enumerate(finished):
            take.write(_finished_image(path, request))
            sink.progress(engine.name, index + 1, len(camera))
        keeper = _keeper(request, done, None if last is None else finished[last])
        if done < len(camera):
            watched = recorded if keeper is None else keeper.watch(recorded, start.hidden)
            if deep is not None:
                watched = deep.watch(watched, start.hidden, done)
            chosen = _chosen(watched, start.hidden, places)
            on_progress = partial(reports, files=files)
            generate = partial(
                engine.generate,
                chosen,
                count=start.hidden + len(places),
                on_progress=on_progress,
                state=state,
                **({} if deep is None else {"on_unrounded": deep.add}),
            )
            before = None if last is None else (last, _finished_image(finished[last], request))
            images = _continued(generate, start.hidden, places, done, before, keeper)
        else:
            images = iter(())
        for index, image in enumerate(images, start=done):
            delivered, told_of_frame, before = image, {}, None
            if keeper is not None:
                delivered, told_of_frame = keeper.finish(index, image)
            if deep is not None:
                before = deep.written(deep.picture(index, image, gains_of_frame(told_of_frame)))
            files.write(index, work_folder / frame_file_name(index), delivered, told_of_frame, before)
            take.write(delivered)
        files.deliver_all()
        for _ in recorded:  # the rest of colour and mask, which no engine has asked for
            pass

    announce()
    if request.output.is_deep and not request.output.is_sequence:
        names = [*names, *request.deep_files]
    for name in names:
        sink.file(name, work_folder / name)


class PartRenderer:
    """Renders parts of a take of 8 bits, in any order, as `generate_take` renders all of it."""

    def __init__(self, scene: Scene, request: ShotRequest, *, device: str, machine: MachineSettings | None = None):
        """Args are those of `generate_take`."""
        start, settings = shot_start(scene, request), request.settled_render
        how = {"machine": machine, "device": Devices.parse(device).first}
        memory = ClipMemory(scene, settings, **how) if settings.remember else None
        how |= {"source_frames": start.shown, "memory": memory}
        self._render = partial(render_shot, scene, start.camera, settings, **how)

    def frames(self, part: range) -> Iterator[RenderedFrame]:
        """Some frames, hidden ones before the take's first counted, too."""
        return self._render(part=part)


def _finished_image(path: Path, request: ShotRequest) -> np.ndarray:
    image, (width, height) = read_png(path), request.frame_size
    if image.shape != (height, width, 3):
        raise RequestError(
            f"{path} is not a frame of this take: it is {image.shape[1]}x{image.shape[0]}, the take is "
            f"{width}x{height}; delete it to have it made again"
        )
    return image


class _EngineReports:
    """Passes an engine's steps and frames on to a sink; with the first estimate or frame the take is announced."""

    def __init__(
        self,
        sink: TakeSink,
        work_folder: Path,
        announce: Callable[[], None],
        engine: str,
        frames: int,
        total: int,
        deep: DeepTake | None = None,
    ):
        self._sink, self._work_folder, self._announce = sink, work_folder, announce
        self._engine, self._frames, self._total, self._deep = engine, frames, total, deep

    def deliver(self, index: int, path: Path) -> None:
        """Hand a frame over that is complete, and first what there is of it in more than 8 bits."""
        self._announce()
        if self._deep is not None and (image := self._deep.image_of(index)) is not None:
            self._sink.file(image.name, image)
        self._sink.frame(index, path)
        self._frames = index + 1
        self._sink.progress(self._engine, self._frames, self._total)

    def __call__(self, step: GenerationProgress, files: FrameFiles) -> None:
        """Report a step, and first the ``files`` that are complete."""
        files.deliver_ready()  # the last frames of a window, which no further frame follows soon
        if step.stage == DECODE_STAGE:
            # Decoding comes between frames, and is told as a part of the next.
            details = StageDetails(self._engine, part=step.done, parts=step.total)
            self._sink.progress(str(details), self._frames, self._total)
            return
        self._sink.progress(stage_with_eta(str(step.details), step.eta_seconds), step.done, step.total)
        if step.image is not None:
            self._announce()
            path = self._work_folder / "estimate.png"
            write_for_sink(path, step.image)
            self._sink.estimate(step.done, path)


def describe(scene: Scene, request: ShotRequest) -> dict[str, Any]:
    """See `ShotRequest.described`."""
    return request.described(scene.manifest.name)


def _sound_of(scene: Scene, request: ShotRequest) -> Sound | None:
    """The footage's sound from the take's first frame on, where the scene has it: a backend has no movie of footage."""
    try:
        footage = scene.path("footage")
    except SceneError:
        return None
    return sound_of(footage, request.first_frame / scene.manifest.fps)


def _keeper(request: ShotRequest, done: int, last: Path | None) -> FootageKeeper | None:
    """What lays the footage over a take's generated frames, if it is to be.

    Args:
        done: frames that are finished.
        last: the file of the last generated one of these.
    """
    if request.engine != "wan" or not request.wan.keep_seen:
        return None
    return FootageKeeper(done, None if last is None else gains_of_frame(read_png_metadata(last)))


def _stride(request: ShotRequest) -> int:
    return request.wan.stride if request.engine == "wan" else 1


def _chosen(frames: Iterable[RenderedFrame], hidden: int, places: Sequence[int]) -> Iterator[RenderedFrame]:
    """The frames that are generated, numbered without gaps: all hidden ones, and those at ``places`` after them."""
    wanted = {*range(hidden), *(hidden + place for place in places)}
    number = 0
    for frame in frames:
        if frame.index in wanted:
            yield replace(frame, index=number)
            number += 1


def _continued(
    generate: Callable[..., Iterator[np.ndarray]],
    hidden: int,
    places: Sequence[int],
    done: int,
    before: tuple[int, np.ndarray] | None,
    keeper: FootageKeeper | None = None,
) -> Iterator[np.ndarray]:
    """Yield the images of a shot from frame ``done`` on, those between generated ones filled in.

    Args:
        generate: continues after its argument ``done`` of generated images, of which ``hidden`` are not for people.
        places: of the generated images in the shot.
        before: the last of them that is done: its place, and the image.
        keeper: lays the footage over generated images.
    """
    complete = 0 if before is None else sum(place < done for place in places)
    images = islice(generate(done=0), hidden, None) if before is None else generate(done=hidden + complete)
    if keeper is not None:
        images = keeper.over_generated(images, places[complete:])
    images = fill_between(images, places[complete:], before)
    if before is None:
        return images
    return islice(images, done - before[0] - 1, None)


def _recorded(
    frames: Iterable[RenderedFrame],
    hidden: int,
    movies: Mapping[str, VideoWriter],
    told: Callable[[float], str],
    note: Callable[[str], None],
) -> Iterator[RenderedFrame]:
    """Pass rendered frames on, writing all but ``hidden`` first ones into the movies of colour, mask and memory.

    Args:
        told: what the user should know of the shot's first frame, by how much of it is seen.
        note: called with it.
    """
    for frame in frames:
        if frame.index < hidden:
            yield frame
            continue
        if frame.index == hidden:
            if shows_nothing(frame.visible_fraction):
                note(nothing_seen_note())
            elif text := told(frame.visible_fraction):
                note(text)
        movies["color.mp4"].write(frame.color)
        movies["mask.mp4"].write(frame.soft_mask)
        if frame.remembered is not None:
            movies[REMEMBERED_FILE].write(frame.remembered.astype(np.uint8) * 255)
        yield frame

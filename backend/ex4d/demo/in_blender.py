"""The artist's part of the demo, inside Blender: import, camera, Generate, strip, save. Run by ``ex4d.demo.chain``.

It runs in Blender's own Python, with the add-on and bpy, and without the backend. Its reports on standard output, one
JSON object a line, drive the progress bars of the demo.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from statistics import median

import bpy  # pyright: ignore[reportMissingImports] - in Blender alone

from ex4d_core.pivots import NEAREST, Pivot
from ex4d_core.trajectories import Trajectory

# Around the flower: the middle of the picture is the garden behind it.
PRESET = Trajectory("orbit", amount=24, elevation=6, easing="ease_in_out", pivot=Pivot(NEAREST))
# Manual changes, as an artist makes them: frame of the take, metres sideways and up, degrees to the left, lens factor.
CHANGES = ((12, 0.06, 0.02, 1.5, 1.0), (30, -0.12, 0.10, -3.0, 1.12), (48, -0.25, 0.05, -5.0, 1.3))
_TIMEOUT_SECONDS = 600
_IDLE_TICKS = 1000


def report(stage: str, done: int, total: int | None, **more: object) -> None:
    """Report progress, and more by name, to the demo."""
    print(json.dumps({"stage": stage, "done": done, "total": total, **more}), flush=True)


def main() -> None:
    """Run all steps and save the file."""
    parser = argparse.ArgumentParser()
    for option in ("--scene", "--blend", "--backend"):
        parser.add_argument(option, required=True)
    parser.add_argument("--takes", type=int, default=1, help="takes to generate of the shot, one after the other")
    options = parser.parse_args(sys.argv[sys.argv.index("--") + 1 :])

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.preferences.addon_enable(module="blender_addon")
    bpy.context.preferences.addons["blender_addon"].preferences.address = options.backend
    # Saved before anything is added, so that every path can be relative to the file.
    bpy.ops.wm.save_as_mainfile(filepath=options.blend)

    measured: dict[str, float] = {}
    scene_object = import_scene(options.scene, measured)
    camera = animate_with_few_keys(scene_object)
    ticks, before = Ticks(), memory_mb()
    entry = generate(scene_object, camera, ticks, measured)
    for _ in range(options.takes - 1):
        entry = generate(scene_object, camera, ticks, measured)
    measured.update(ticks.figures())
    measured[f"memory for {options.takes} takes MB"] = memory_mb() - before
    measured.update(ticks.idle())
    play(scene_object, measured)
    bpy.ops.wm.save_mainfile()
    from blender_addon.paths import from_blend

    report("blender", 1, 1, take_folder=str(from_blend(entry.folder)), measured=measured)


def import_scene(folder: str, measured: dict[str, float]) -> bpy.types.Object:
    """Import the sample as an animated, textured object."""
    from blender_addon.scenes.importing import ImportSettings, import_scene

    begun = time.perf_counter()
    scene_object = import_scene(folder, ImportSettings(standard_view=True))
    measured["import ms"] = 1000 * (time.perf_counter() - begun)
    return scene_object


def play(scene_object: bpy.types.Object, measured: dict[str, float]) -> None:
    """Measure all frames as playback shows them, and with Blender's own Mesh Cache alone, which is most of it."""
    from blender_addon.shots.properties import active_shot
    from blender_addon.shots.source_time import set_time_keys

    scene = bpy.context.scene
    frames = range(scene.frame_start, scene.frame_end + 1)
    mesh, bare = scene_object.data.copy(), bpy.data.meshes.new("bare")
    mesh.materials.clear()
    bare.vertices.add(len(mesh.vertices))
    alone = {one: with_positions_alone(one, scene_object) for one in (mesh, bare)}
    ours, same_mesh, vertices = frame_ms([scene, *alone.values()], frames)
    measured["frame_set ms"] = median(ours)
    measured["frame_set with the Mesh Cache alone ms"] = median(same_mesh)
    measured["frame_set of bare vertices ms"] = median(vertices)
    measured["frame_set beyond the Mesh Cache ms"] = beyond(ours, same_mesh)
    set_time_keys(active_shot(scene), [(frames[0], frames[-1]), (frames[-1], frames[0])])
    retimed, same_mesh = frame_ms([scene, alone[mesh]], frames)
    measured["frame_set of a retimed shot beyond the Mesh Cache ms"] = beyond(retimed, same_mesh)
    active_shot(scene).use_source_frame = False
    bpy.data.batch_remove([*alone.values(), mesh, bare])


def with_positions_alone(mesh: bpy.types.Mesh, scene_object: bpy.types.Object) -> bpy.types.Scene:
    """A Blender scene with a mesh that only Blender's Mesh Cache animates, as it does ours."""
    alone = bpy.data.scenes.new("positions alone")
    target = bpy.data.objects.new("positions alone", mesh)
    alone.collection.objects.link(target)
    ours = next(one for one in scene_object.modifiers if one.type == "MESH_CACHE")
    cache = target.modifiers.new(ours.name, ours.type)
    cache.cache_format, cache.filepath, cache.frame_start = ours.cache_format, ours.filepath, ours.frame_start
    return alone


def frame_ms(scenes: Sequence[bpy.types.Scene], frames: range, rounds: int = 3) -> list[list[float]]:
    """Milliseconds of each frame change in each Blender scene; they take turns, so all meet the same load."""
    times: list[list[float]] = [[] for _ in scenes]
    for scene in scenes:
        scene.frame_set(frames[0])
    for frame in [*frames[1:], frames[0]] * rounds:
        for scene, own in zip(scenes, times, strict=True):
            begun = time.perf_counter()
            scene.frame_set(frame)
            own.append(1000 * (time.perf_counter() - begun))
    return times


def beyond(ours: list[float], alone: list[float]) -> float:
    """By how much frames take longer: the median over the frames."""
    return median([one - other for one, other in zip(ours, alone, strict=True)])


def animate_with_few_keys(scene_object: bpy.types.Object) -> bpy.types.Object:
    """Create a camera from a preset, then change position, rotation and focal length by keyframes."""
    from blender_addon.cameras.presets import camera_from_preset

    camera = camera_from_preset(scene_object, PRESET, name="Shot camera")
    start = bpy.context.scene.frame_start
    # An artist edits a few keyframes; the preset's keyframes in between would undo that.
    frames = [0, *(change[0] for change in CHANGES)]
    poses = []
    for frame in frames:
        bpy.context.scene.frame_set(start + frame)
        poses.append((camera.location.copy(), camera.rotation_euler.copy(), camera.data.lens))
    camera.animation_data_clear()
    camera.data.animation_data_clear()
    for frame, (location, rotation, lens), (_, right, up, left, zoom) in zip(
        frames, poses, ((0, 0, 0, 0, 1), *CHANGES), strict=True
    ):
        camera.location = location
        camera.location.x += right
        camera.location.z += up
        camera.rotation_euler = rotation
        camera.rotation_euler.z += left * 3.141592653589793 / 180
        camera.data.lens = lens * zoom
        camera.keyframe_insert("location", frame=start + frame)
        camera.keyframe_insert("rotation_euler", frame=start + frame)
        camera.data.keyframe_insert("lens", frame=start + frame)
    bpy.context.scene.camera = camera
    return camera


class Ticks:
    """Cost of the add-on's timer while takes are generated: milliseconds of wall time and of CPU time.

    Steps that have a tick to themselves are apart: most of their time Blender opens a movie, or decodes its sound.
    """

    def __init__(self) -> None:
        """Without measurements."""
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.alone: list[float] = []

    def tick(self) -> float:
        """Run one tick, as Blender's timer does; returns the seconds until the next."""
        from blender_addon.scheduler import scheduler

        before = time.thread_time()
        pause = scheduler.tick()
        cpu = 1000 * (time.thread_time() - before)
        if scheduler.ran_alone:
            self.alone.append(cpu)
        else:
            self.cpu.append(cpu)
            self.wall.append(1000 * scheduler.last_tick)
        return pause

    def idle(self) -> dict[str, float]:
        """What a tick costs while nothing is under way: the median's CPU time, by name."""
        self.wall, self.cpu = [], []
        for _ in range(_IDLE_TICKS):
            self.tick()
        return {"idle tick's CPU time ms": median(self.cpu)}

    def figures(self) -> dict[str, float]:
        """The 99.9th percentile and the maximum, by name."""
        figures = {}
        for name, times in (("tick", sorted(self.wall)), ("tick's CPU time", sorted(self.cpu))):
            figures[f"{name}, 99.9th percentile ms"] = times[math.ceil(0.999 * len(times)) - 1]
            figures[f"longest {name} ms"] = times[-1]
        figures["CPU time of the longest step with a tick to itself ms"] = max(self.alone)
        return figures


def memory_mb() -> float:
    """Resident memory of this process; 0 where there is no /proc."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024
    except OSError:
        return 0.0


def generate(scene_object: bpy.types.Object, camera: bpy.types.Object, ticks: Ticks, measured: dict[str, float]):
    """Send the shot and follow it until its movie is in the strip; returns the take's entry in the .blend."""
    from blender_addon.jobs.tracker import tracker
    from blender_addon.sequencer.edit_scenes import strip_in_file
    from blender_addon.takes.requests import build_request
    from blender_addon.takes.take_jobs import send_take

    scene = bpy.context.scene
    package, request = build_request(scene_object, camera, scene.frame_start, scene.frame_end, label="Orbit")
    begun = time.monotonic()
    entry = send_take(package, request, scene.frame_start, scene)
    reached: dict[str, float] = {}
    # In a window Blender's own timer does this while the artist continues to work.
    while tracker.is_followed(entry) and time.monotonic() < begun + _TIMEOUT_SECONDS:
        pause = ticks.tick()
        elapsed = time.monotonic() - begun
        if entry.state in ("running", "fetching"):
            reached.setdefault("job started after s", elapsed)
        if "first frame in the strip after s" not in reached and strip_in_file(entry.key) is not None:
            reached["first frame in the strip after s"] = elapsed
        report(entry.stage or entry.state, round(entry.progress * entry.frames), entry.frames)
        time.sleep(min(pause, 0.02))
    measured |= reached  # of several takes the last, with a warm backend
    if entry.state != "done":
        raise SystemExit(f"the take is {entry.state}: {entry.reason}")
    return entry


if __name__ == "__main__":
    main()

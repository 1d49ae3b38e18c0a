"""Versions of a shot in the sequencer, their sound and rates, and the list of takes; without a backend."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from blender_addon.paths import from_blend
from blender_addon.scenes.link import open_scene
from blender_addon.sequencer.edit_scenes import edit_scene_of, strip_in_file
from blender_addon.sequencer.movies import replace_with_movie
from blender_addon.sequencer.otio import timeline
from blender_addon.sequencer.strip_api import container_of, end_of, set_end_of, start_of, strips_in
from blender_addon.sequencer.strips import SOUND_OF, TakeStrip, find_strip, grow_image_strip, strips_of, strips_of_take
from blender_addon.takes import thumbnails
from blender_addon.takes.panel import EX4D_UL_takes, rate_texts
from blender_addon.takes.requests import load_request
from blender_addon.takes.results import show_result
from blender_addon.takes.sound import write_take_sound
from blender_addon.takes.take_jobs import strip_of
from blender_addon.takes.versions import show_version, take_of_strip
from ex4d_core.scene import Scene

from .strip_files import add_title
from .taking import send

SECONDS = 2


@pytest.fixture
def scene() -> bpy.types.Scene:
    return bpy.context.scene


def add_take(scene, number: int, shot: str = "s") -> bpy.types.PropertyGroup:
    entry = scene.ex4d_takes.add()
    entry.key, entry.shot, entry.version, entry.label = f"{shot}{number}", shot, number, "arc"
    entry.name, entry.frames, entry.frame_start, entry.fps, entry.footage_fps = "arc", 9, 11, 24.0, 24.0
    return scene.ex4d_takes[-1]


def strip_for(entry) -> TakeStrip:
    return TakeStrip(entry.key, f"arc v{entry.version}", 11, 9, {}, entry.fps, entry.shot, "arc")


@pytest.fixture
def versions(scene, images) -> bpy.types.Scene:
    """Three versions in the edit scene, of which the last is shown; that scene."""
    scene.render.fps = 24
    edit = edit_scene_of(scene)
    for number in (1, 2, 3):
        add_take(scene, number)
        grow_image_strip(edit, strip_for(scene.ex4d_takes[-1]), images)
        show_version(scene.ex4d_takes[-1])
    return edit


def shown(scene) -> list[int]:
    return [take.version for take in scene.ex4d_takes if not strip_in_file(take.key).mute]


def flip(edit, step: int) -> None:
    """As the buttons in the sequencer do; before Blender 5.0 a sequencer shows the window's scene."""
    with bpy.context.temp_override(**{"sequencer_scene" if bpy.app.version >= (5, 0, 0) else "scene": edit}):
        assert bpy.ops.ex4d.flip_version(step=step) == {"FINISHED"}


@pytest.mark.parametrize("active", ["the meta strip", "a version in it"])
def test_versions_are_flipped_from_the_active_strip(scene, versions, active):
    (meta,) = strips_of(versions)
    versions.sequence_editor.active_strip = meta if active == "the meta strip" else strips_in(meta)[0]
    assert shown(scene) == [3]
    flip(versions, -1)
    assert shown(scene) == [2]
    flip(versions, 1)
    flip(versions, 1)
    assert shown(scene) == [1], "after the newest comes the oldest"


def test_show_result_opens_the_sequencer_at_the_shot(scene, versions):
    window = bpy.context.window_manager.windows[0]
    area = window.screen.areas[0]
    area.type = "SEQUENCE_EDITOR"
    area.spaces.active.view_type = "SEQUENCER"
    if bpy.app.version < (5, 0, 0):
        window.scene = versions
    show_result(bpy.context, scene.ex4d_takes[1])
    assert shown(scene) == [2]
    assert area.spaces.active.view_type == "SEQUENCER_PREVIEW"
    assert versions.sequence_editor.active_strip == strips_of(versions)[0], "so that the header has its versions"
    assert getattr(window.workspace, "sequencer_scene", versions) == versions


def test_flipping_says_what_it_needs(scene, versions):
    with pytest.raises(RuntimeError, match="Select the strip of an EX-4D take"):
        flip(versions, 1)
    other = add_take(scene, 1, "another shot")
    grow_image_strip(versions, strip_for(other), {0: Path("frame_00000.png")})
    versions.sequence_editor.active_strip = find_strip(versions, other.key)
    with pytest.raises(RuntimeError, match="one version only"):
        flip(versions, 1)


def test_the_take_of_a_strip_is_known_where_it_was_grouped_and_retimed(scene, versions, movie):
    versions.render.fps = 48
    entry = scene.ex4d_takes[0]
    strip = replace_with_movie(versions, strip_for(entry), movie)
    speed = next(one for one in strips_of_take(versions, entry.key) if one.type == "SPEED")
    assert {take_of_strip(one).key for one in (strip, speed)} == {entry.key}
    assert take_of_strip(container_of(strip)).version == 3, "the meta strip stands for what it shows"
    assert take_of_strip(add_title(versions, 9, 1, 5)) is None


def test_the_list_can_be_filtered_by_shot(scene):
    for shot in ("one", "two", "one"):
        add_take(scene, 1, shot)
    scene.ex4d_shot.key = "one"
    asked = SimpleNamespace(filter_name="", bitflag_filter_item=1 << 30, use_filter_invert=False)
    assert EX4D_UL_takes.filter_items(asked, bpy.context, scene, "ex4d_takes")[0] == [1 << 30] * 3
    scene.ex4d_takes_of_shot = True
    assert EX4D_UL_takes.filter_items(asked, bpy.context, scene, "ex4d_takes")[0] == [1 << 30, 0, 1 << 30]


def test_thumbnails_show_the_middle_of_the_move(scene, images, tmp_path):
    entry = add_take(scene, 1)
    entry.folder, entry.last_event = str(tmp_path), 1
    middle = images[4].rename(tmp_path / "not here yet.png")
    thumbnails.thumbnail(entry)
    assert list(thumbnails._previews) == [f"{entry.key} 0"]
    middle.rename(images[4])
    thumbnails.thumbnail(entry)
    assert list(thumbnails._previews) == [f"{entry.key} 0", f"{entry.key} 4"]


def test_rates_that_differ_by_rounding_get_no_speed_effect_but_a_note(scene, versions, movie):
    versions.render.fps, versions.render.fps_base = 24, 1.001
    entry = scene.ex4d_takes[0]
    strip = replace_with_movie(versions, strip_for(entry), movie)
    assert [one.type for one in strips_of_take(versions, entry.key)] == ["MOVIE"]
    assert (start_of(strip), end_of(strip)) == (11, 20)
    (note,) = rate_texts(entry)
    assert "23.976" in note and "0.1 %" in note
    entry.footage_fps = 30.0
    assert "80 %" in rate_texts(entry)[0], "24 frames of 30 a second"
    versions.render.fps_base = 1.0
    assert len(rate_texts(entry)) == 1


def test_viewport_and_sequencer_agree_at_every_frame_whatever_the_rates(shot, movie, tmp_path):
    """Footage of 24 frames a second in a scene of 30: both show one frame of it in each frame."""
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = 30, 1.0
    entry = send()
    assert (entry.fps, entry.footage_fps) == (30.0, 24.0)
    edit = scene.ex4d_edit_scene
    replace_with_movie(edit, strip_of(entry, load_request(from_blend(entry.folder))), movie)
    assert (edit.render.fps, [one.type for one in strips_of_take(edit, entry.key)]) == (30, ["MOVIE"])
    edit.render.dither_intensity, edit.render.filepath = 0, str(tmp_path / "frame.png")
    positions = np.fromfile(open_scene(shot).path("positions"), np.float32, offset=32).reshape(9, -1, 3)
    for index in (0, 3, 8):
        scene.frame_set(11 + index)
        mesh = shot.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
        vertices = np.empty(positions[0].size, np.float32)
        mesh.vertices.foreach_get("co", vertices)
        assert np.abs(positions - vertices.reshape(1, -1, 3)).max(axis=(1, 2)).argmin() == index
        edit.frame_set(11 + index)
        bpy.ops.render.render(write_still=True, scene=edit.name)
        image = bpy.data.images.load(edit.render.filepath, check_existing=False)
        assert image.pixels[0] == pytest.approx((40 + 160 * index / 9) / 255, abs=0.03)  # the wall's red tells
        bpy.data.images.remove(image)


@pytest.fixture
def tone(tmp_path) -> Path:
    """Two seconds of a tone that begins after one second."""
    time = np.arange(SECONDS * 48000) / 48000
    samples = np.where(time >= 1.0, 8000 * np.sin(2 * np.pi * 440 * time), 0).astype(np.int16)
    path = tmp_path / "tone.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def heard(path: Path) -> tuple[float, float]:
    """Duration of a sound file, and when its tone begins, in seconds."""
    with wave.open(str(path)) as file:
        channels, rate, frames = file.getnchannels(), file.getframerate(), file.getnframes()
        samples = np.frombuffer(file.readframes(frames), np.int16).reshape(-1, channels)[:, 0]
    return frames / rate, float(np.flatnonzero(np.abs(samples) > 1000)[0]) / rate


@pytest.mark.parametrize(("rate", "speed"), [(24.0, 1.0), (30.0, 1.25)])
def test_a_take_gets_the_sound_under_its_frames_at_their_speed(card_scene, tone, tmp_path, rate, speed):
    pytest.importorskip("aud", reason="this build of Blender has no sound")
    package = Scene((card_scene / "manifest.json").read_bytes(), {"footage": tone})
    request = SimpleNamespace(first_frame=18, camera=range(24))
    path = write_take_sound(package, request, rate, tmp_path)
    duration, begins = heard(path)
    assert duration == pytest.approx(1.0 / speed, abs=0.01)
    assert begins == pytest.approx(0.25 / speed, abs=0.01), "18 frames of 24 a second into the footage"
    assert write_take_sound(package, request, rate, tmp_path) == path


def test_footage_without_sound_gives_takes_without(card_scene, tmp_path):
    request = SimpleNamespace(first_frame=0, camera=range(9))
    assert write_take_sound(Scene.open(card_scene), request, 24.0, tmp_path) is None
    assert not list(tmp_path.glob("*.wav"))


@pytest.fixture
def sounding(scene, versions, movie, tone) -> bpy.types.Strip:
    """The first version's movie, with its sound; skipped where Blender was built without."""
    pytest.importorskip("aud", reason="this build of Blender has no sound")
    return replace_with_movie(versions, replace(strip_for(scene.ex4d_takes[0]), sound=tone), movie)


def test_a_movie_comes_with_its_sound_which_is_muted_with_it(scene, versions, sounding):
    sound = find_strip(versions, "s1", SOUND_OF)
    assert (start_of(sound), end_of(sound), sound.mute) == (11, 20, True)
    assert container_of(sound) == container_of(sounding) and not sound.select
    show_version(scene.ex4d_takes[0])
    assert not sound.mute and not sounding.mute and shown(scene) == [1]


def test_metas_sounds_and_markers_are_exported_and_the_rest_is_named(scene, versions, sounding):
    versions.frame_start = 1
    add_title(versions, 9, 1, 5)
    sounding.blend_alpha = 0.5
    versions.timeline_markers.new("look here", frame=15)
    versions.timeline_markers.new("too early", frame=-5)
    (meta,) = (one for one in strips_of(versions) if one.type == "META")
    set_end_of(meta, 18)

    cut = timeline(versions)

    (track,) = cut.timeline["tracks"]["children"]
    stack = track["children"][1]
    assert (stack["OTIO_SCHEMA"], stack["name"], stack["metadata"]) == ("Stack.1", "arc", {"ex4d": {"shot": "s"}})
    assert stack["source_range"]["duration"]["value"] == 7
    kinds = [(one["kind"], [clip["name"] for clip in one["children"]]) for one in stack["children"]]
    assert sorted(kinds) == [
        ("Audio", ["arc v1 sound"]),
        *(("Video", [f"arc v{number}"]) for number in (1, 2, 3)),
    ]
    (marker,) = cut.timeline["tracks"]["markers"]
    assert (marker["name"], marker["marked_range"]["start_time"]["value"]) == ("look here", 14)
    assert cut.clips == 4
    assert cut.left_out == {"Color": 1, "markers before the first frame": 1, "picture adjustments": 1}
    assert cut.timeline["metadata"]["blender"]["left_out"] == dict(cut.left_out)


def test_opentimelineio_reads_a_cut_with_metas(versions, sounding, tmp_path):
    otio = pytest.importorskip("opentimelineio", reason="OpenTimelineIO is not in this environment")
    cut = otio.adapters.read_from_string(json.dumps(timeline(versions).timeline), "otio_json")
    assert sorted(clip.name for clip in cut.find_clips()) == ["arc v1", "arc v1 sound", "arc v2", "arc v3"]

"""A take in the sequencer: a strip that grows with the frames, then the movie in its place."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import bpy
import pytest

from blender_addon.sequencer.movies import replace_with_movie
from blender_addon.sequencer.otio import timeline
from blender_addon.sequencer.strip_api import end_of, start_of
from blender_addon.sequencer.strips import (
    StripError,
    find_strip,
    free_channel,
    grow_image_strip,
    strips_of,
    strips_of_take,
)
from ex4d_core.scene import Scene
from ex4d_core.take_files import frame_file_name

from .strip_files import TAKE, add_title

# Blender 5.2 has other names for where strips lie; the old ones go in 6.0.
RENAMED = bpy.app.version >= (5, 2, 0)


def first(images: dict[int, Path], count: int) -> dict[int, Path]:
    return {index: images[index] for index in range(count)}


def span(strip) -> tuple[int, int]:
    return start_of(strip), end_of(strip)


@pytest.fixture
def scene() -> bpy.types.Scene:
    return bpy.context.scene


def test_no_frames_no_strip(scene):
    assert grow_image_strip(scene, TAKE, {}) is None
    assert scene.sequence_editor is None or not len(strips_of(scene))


def test_the_strip_starts_at_the_cameras_first_frame_and_grows(scene, images):
    strip = grow_image_strip(scene, TAKE, first(images, 1))
    assert span(strip) == (11, 12)
    grow_image_strip(scene, TAKE, first(images, 4))
    assert span(strip) == (11, 15)
    assert [element.filename for element in strip.elements] == [frame_file_name(index) for index in range(4)]
    grow_image_strip(scene, TAKE, images)
    assert span(strip) == (11, 20)
    assert len(strips_of(scene)) == 1
    assert (strip.name, strip.channel, strip.type) == ("flower arc", 1, "IMAGE")


def test_frames_out_of_order_wait_for_those_before_them(scene, images):
    assert grow_image_strip(scene, TAKE, {1: images[1]}) is None
    strip = grow_image_strip(scene, TAKE, {0: images[0], 1: images[1], 4: images[4]})
    assert span(strip) == (11, 13)
    grow_image_strip(scene, TAKE, images)
    assert span(strip) == (11, 20)


def test_each_frame_shows_its_own_image(scene, images, tmp_path):
    scene.view_settings.view_transform = "AgX"
    grow_image_strip(scene, TAKE, first(images, 2))
    grow_image_strip(scene, TAKE, images)
    scene.render.resolution_x, scene.render.resolution_y, scene.render.dither_intensity = 8, 6, 0
    scene.render.filepath = str(tmp_path / "render.png")
    for index in (0, 1, 4, 8):
        scene.frame_set(11 + index)
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(scene.render.filepath, check_existing=False)
        # sRGB in, sRGB out, although the view transform is AgX; its inverse is a table, good to a few levels.
        assert image.pixels[0] == pytest.approx(index / 8, abs=0.03)
        bpy.data.images.remove(image)


def test_other_strips_are_never_overlapped(scene, images):
    blocker = add_title(scene, 1, 15, 30)
    strip = grow_image_strip(scene, TAKE, first(images, 1))
    assert strip.channel == 2  # although its single frame would still fit on channel 1
    before = add_title(scene, 2, 1, 11)
    assert free_channel(scene.sequence_editor, 11, 20, besides=strip) == 2
    assert {blocker.channel, before.channel} == {1, 2}


def test_a_strip_put_in_the_way_makes_the_take_change_its_channel(scene, images):
    strip = grow_image_strip(scene, TAKE, first(images, 2))
    add_title(scene, 1, 15, 30)
    grow_image_strip(scene, TAKE, images)
    assert (strip.channel, *span(strip)) == (2, 11, 20)


def test_occupied_channels_are_reported(scene, images):
    for channel in range(1, 129):
        add_title(scene, channel, 1, 50)
    with pytest.raises(StripError, match=r"no sequencer channel from 129 .* frames 11 to 20"):
        grow_image_strip(scene, TAKE, images)


def test_the_movie_takes_the_strips_place(scene, images, movie):
    add_title(scene, 1, 15, 30)
    grow_image_strip(scene, TAKE, first(images, 5))

    strip = replace_with_movie(scene, TAKE, movie)

    assert [one.name for one in strips_of(scene)] == ["title", "flower arc"]
    assert (strip.type, strip.channel, *span(strip)) == ("MOVIE", 2, 11, 20)
    assert json.loads(strip["ex4d_request"]) == {"engine": "preview", "label": "flower arc"}
    assert replace_with_movie(scene, TAKE, movie) == strip
    assert grow_image_strip(scene, TAKE, images) == strip and len(strips_of(scene)) == 2


def test_a_renamed_and_moved_strip_is_found_and_keeps_its_place(scene, images, movie):
    strip = grow_image_strip(scene, TAKE, first(images, 5))
    strip.name, strip.channel = "mine", 5
    setattr(strip, "content_start" if RENAMED else "frame_start", 101)
    assert find_strip(scene, "k1") == strip
    moved = replace_with_movie(scene, TAKE, movie)
    assert (moved.channel, *span(moved)) == (5, 101, 110)


def test_a_missing_movie_is_not_put_in(scene, images, tmp_path):
    strip = grow_image_strip(scene, TAKE, images)
    with pytest.raises(StripError, match="is missing"):
        replace_with_movie(scene, TAKE, tmp_path / "gone.mp4")
    assert find_strip(scene, "k1") == strip and strip.type == "IMAGE"


def test_a_movie_that_cannot_be_read_leaves_the_frames(scene, images, tmp_path):
    broken = tmp_path / "take.mp4"
    broken.write_bytes(b"not a movie")
    strip = grow_image_strip(scene, TAKE, images)
    with pytest.raises(StripError, match="Blender reads 1 of 9 frames"):
        replace_with_movie(scene, TAKE, broken)
    assert find_strip(scene, "k1") == strip and len(strips_of(scene)) == 1


def test_paths_are_relative_in_a_saved_file(scene, images, tmp_path, card_scene):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    strip = grow_image_strip(scene, TAKE, images)
    assert strip.directory in ("//", "//./")
    movie = Path(shutil.copy(Scene.open(card_scene).path("footage"), tmp_path / "take.mp4"))
    assert replace_with_movie(scene, TAKE, movie).filepath == "//take.mp4"


@pytest.mark.parametrize(("rate", "length"), [(30, 11), (12, 4), (24, 9)])
def test_a_movie_lasts_as_long_as_it_was_filmed_at_any_scene_rate(scene, movie, rate, length):
    scene.render.fps = rate
    take = replace(TAKE, fps=24.0)
    strip = replace_with_movie(scene, take, movie)
    effects = [one for one in strips_of_take(scene, "k1") if one.type == "SPEED"]
    assert (*span(strip), len(effects)) == (11, 11 + length, int(rate != 24))
    for effect in effects:
        assert span(effect) == span(strip) and effect.channel > strip.channel
        assert effect.speed_factor == pytest.approx(24 / rate)
    assert replace_with_movie(scene, take, movie) == strip and len(strips_of_take(scene, "k1")) == 1 + len(effects)


def test_a_retimed_movie_shows_the_frame_of_the_moment(scene, movie, tmp_path):
    scene.render.fps, scene.view_settings.view_transform = 48, "Standard"
    replace_with_movie(scene, replace(TAKE, fps=24.0), movie)
    scene.render.resolution_x, scene.render.resolution_y, scene.render.dither_intensity = 48, 32, 0
    scene.render.filepath = str(tmp_path / "render.png")
    for frame, index in ((11, 0), (17, 3), (27, 8)):
        scene.frame_set(frame)
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(scene.render.filepath, check_existing=False)
        assert image.pixels[0] == pytest.approx((40 + 160 * index / 9) / 255, abs=0.03)  # the wall's red tells
        bpy.data.images.remove(image)


def test_retimed_takes_lie_over_no_other_strip(scene, movie, images):
    scene.render.fps = 48
    add_title(scene, 1, 22, 40)  # free for the take's nine frames, but not for the eighteen that they last
    add_title(scene, 3, 15, 40)
    take = replace(TAKE, fps=24.0)
    grow_image_strip(scene, take, images)
    replace_with_movie(scene, take, movie)
    assert [one.channel for one in strips_of_take(scene, "k1")] == [4, 5]  # above all that is visible


def test_proxies_are_set_up_where_the_preferences_ask_and_a_sequencer_shows_them(scene, movie):
    # Without a window no sequencer is open, so there is no size to make.
    strip = replace_with_movie(scene, TAKE, movie)
    assert not strip.use_proxy


def otio_cut(scene, movie, images, tmp_path) -> Path:
    """A cut of a muted movie, the movie again later, and a growing take above."""
    scene.frame_start, scene.render.fps = 5, 24
    first = replace_with_movie(scene, TAKE, movie)
    first.mute = True
    second = replace_with_movie(scene, replace(TAKE, key="k2", frame_start=30, label="again"), movie)
    setattr(second, "left_handle" if RENAMED else "frame_final_start", 32)
    grow_image_strip(scene, replace(TAKE, key="k3", label="growing"), images)
    path = tmp_path / "cut.otio"
    assert bpy.ops.ex4d.export_cut(filepath=str(path)) == {"FINISHED"}
    return path


def test_the_cut_is_written_as_opentimelineio(scene, movie, images, tmp_path):
    cut = json.loads(otio_cut(scene, movie, images, tmp_path).read_text())
    assert (cut["OTIO_SCHEMA"], cut["tracks"]["OTIO_SCHEMA"]) == ("Timeline.1", "Stack.1")
    lower, upper = cut["tracks"]["children"]
    kinds = [one["OTIO_SCHEMA"] for one in lower["children"]]
    assert kinds == ["Gap.1", "Clip.2", "Gap.1", "Clip.2"]
    lengths = [one["source_range"]["duration"]["value"] for one in lower["children"]]
    assert lengths == [6, 9, 12, 7]  # from frame 5: empty to 11, the take to 20, empty to 32, and 7 of 9 frames
    clip, again = lower["children"][1], lower["children"][3]
    assert (clip["name"], clip["enabled"], again["enabled"]) == ("flower arc", False, True)
    assert again["source_range"]["start_time"] == {"OTIO_SCHEMA": "RationalTime.1", "rate": 24.0, "value": 2.0}
    assert clip["media_references"]["DEFAULT_MEDIA"]["target_url"] == movie.as_uri()
    assert clip["metadata"]["ex4d"] == {"take": "k1", "request": {"engine": "preview", "label": "flower arc"}}
    growing = upper["children"][1]["media_references"]["DEFAULT_MEDIA"]
    assert (growing["OTIO_SCHEMA"], growing["name_prefix"]) == ("ImageSequenceReference.1", "frame_")
    assert growing["available_range"]["duration"]["value"] == 9


def test_a_path_that_is_relative_to_nothing_is_written_whole(scene, movie, monkeypatch):
    monkeypatch.chdir(movie.parent)
    strips_of(scene).new_movie("mine", movie.name, 1, 1)
    media = timeline(scene).timeline["tracks"]["children"][0]["children"][0]["media_references"]["DEFAULT_MEDIA"]
    assert media["target_url"] == movie.as_uri()


def test_opentimelineio_itself_reads_the_cut(scene, movie, images, tmp_path):
    otio = pytest.importorskip("opentimelineio", reason="OpenTimelineIO is not in this environment")
    cut = otio.adapters.read_from_file(str(otio_cut(scene, movie, images, tmp_path)))
    assert [len(track) for track in cut.tracks] == [4, 2]
    clips = [clip for clip in cut.find_clips() if clip.enabled]
    assert [clip.name for clip in clips] == ["again", "growing"]
    assert cut.tracks[0].range_of_child_at_index(3).start_time.to_frames() == 27
    assert clips[1].media_reference.abstract_target_url("#").endswith("/frame_#.png")


def test_a_movie_at_another_rate_than_the_scene_is_a_time_warp_unless_it_was_retimed(scene, movie):
    scene.render.fps = 48
    replace_with_movie(scene, TAKE, movie)
    replace_with_movie(scene, replace(TAKE, key="k2", fps=24.0), movie)
    as_is, retimed = (track["children"][1] for track in timeline(scene).timeline["tracks"]["children"])
    assert [effect["time_scalar"] for effect in as_is["effects"]] == [2.0]
    assert retimed["effects"] == [] and retimed["source_range"]["duration"]["value"] == 18


def test_there_is_no_cut_without_strips(scene):
    with pytest.raises(RuntimeError, match="The sequencer is empty"):
        bpy.ops.ex4d.export_cut(filepath="cut.otio")
    add_title(scene, 1, 1, 9)
    with pytest.raises(RuntimeError, match="no movie, image or sound strips"):
        bpy.ops.ex4d.export_cut(filepath="cut.otio")
